"""`zelect members`: the voters, how many more may fail, and the operator's last resort (R11)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from zelect.cli.support.options import Target, cluster_options, json_option, timeout_option

if TYPE_CHECKING:
    from zelect.core.messages import MemberAction, Reset
    from zelect.core.quorum import Record
    from zelect.core.status import VotersStatus
    from zelect.status.cluster import ClusterStatus
    from zelect.status.report import NodeReport

_THERE_WITHIN_S = 0.3
_ANSWERS_AS = "its address "

_WITNESS = {
    "member": "is a voter (in Redis)",
    "ready": "ready in Redis, not a voter now",
    "unrecognized": "named in the record, but Redis has lost it; a controller will create a new one",
    "unreachable": "Redis does not answer",
    "unused": 'not used (quorum = "static", or no Redis)',
}


@click.group(invoke_without_command=True)
@cluster_options
@json_option
@click.pass_context
def members(context: click.Context, /, as_json: bool, **where: Any) -> None:
    """Show who belongs and votes, and how many more may fail.

    Exit code 0: a controller is active; 1: none is; 5: too few nodes could be asked to know.
    """
    from zelect.cli.support.errors import print_error

    context.obj = where
    if context.invoked_subcommand is not None:
        return  # which may only be asked for its --help
    target = Target.of(**where)
    state = target.ask()
    click.echo(json.dumps(_table(state), indent=2) if as_json else _text(state, target.place))
    for line in target.denial_lines() if state.reports or as_json else ():
        print_error(line)
    if not state.reports and not as_json:
        print_error(target.no_answer())
    context.exit(state.exit_code)


def _table(state: ClusterStatus) -> dict[str, Any]:
    newest, best, active = state.newest, state.best, state.named
    voters = newest.voters if newest else None
    return {
        "cluster": state.cluster,
        "cluster_id": voters and voters.cluster_id,
        "controller": active.id if active else None,
        "configured": sorted(state.addresses),
        "generation": voters and voters.generation,
        "config_term": voters and voters.config_term,
        "version": voters and voters.version,
        "members": voters and [node for node, _ in voters.places],
        "voters": voters and list(voters.members),
        "witness": best and best.witness,
        "survives": best and best.voters.survives,
        "answered": sorted(state.reports),
        "nodes": [_node(state, node) for node in sorted(state.addresses)],
    }


def _node(state: ClusterStatus, node: int) -> dict[str, Any]:
    """What is known of `node`: whether it belongs to the cluster, and votes, by the newest record, and its present
    storage epoch, null where it did not answer."""
    from zelect.status.problems import problems

    newest, report = state.newest, state.reports.get(node)
    voters = newest.voters if newest else None
    return {
        "id": node,
        "address": state.addresses[node],
        "belongs": voters is not None and str(node) in voters.addresses,
        "votes": voters is not None and node in voters.members,
        "epoch": report and report.epoch,
        "problem": problems(state.reports).get(node, ""),
    }


def _rows(state: ClusterStatus) -> list[str]:
    """A table of the nodes."""
    from zelect.status.table import Column, table

    columns = (
        Column[dict[str, Any]]("  ", lambda node: ""),
        Column[dict[str, Any]]("id", lambda node: node["id"], right=True),
        Column[dict[str, Any]]("address", lambda node: node["address"].removeprefix("tcp://")),
        Column[dict[str, Any]]("belongs", lambda node: "yes" if node["belongs"] else "no"),
        Column[dict[str, Any]]("votes", lambda node: "yes" if node["votes"] else "no"),
        Column[dict[str, Any]]("epoch", lambda node: "no answer" if node["epoch"] is None else node["epoch"]),
    )
    return table(columns, [_node(state, node) for node in sorted(state.addresses)])


def _text(state: ClusterStatus, place: str = "") -> str:
    import textwrap

    from zelect.status.cluster_text import controller_text, ids_text, problem_lines
    from zelect.status.table import WIDTH

    newest, best = state.newest, state.best
    if newest is None or best is None:
        return f"{state.cluster}: no node answered"
    voters, witness, survives = newest.voters, best.witness, best.voters.survives
    if not voters.cluster_id:
        return "\n".join([f"{state.cluster}: no cluster is founded yet", *_rows(state), *problem_lines(state, place)])
    members = {node for node, _ in voters.places}
    absent = members - set(voters.members)
    lines = [
        f"{state.cluster}, cluster id {voters.cluster_id:x}: voter record {voters.config_term}.{voters.version}"
        + (f", generation {voters.generation}" if voters.generation else ""),
        f"  members   {ids_text(members)}",
        f"  voters    {ids_text(voters.members)}" + (f"   (not voting now: {ids_text(absent)})" if absent else ""),
        f"  witness   {witness}: {_WITNESS.get(witness, '')}",
    ]
    if state.controller is None:
        lines += textwrap.wrap(f"  active    {controller_text(state)}", WIDTH, subsequent_indent=" " * 12)
    if not state.is_known:
        lines.append("  survives  not known: too few nodes could be asked")
    elif survives < 0:
        lines.append("  survives  no quorum now: no node can be elected until members return")
        lines.append("            (lost for good? 'zelect members reset --help')")
    elif survives == 0:
        lines.append("  survives  no more failures: the next one leaves no quorum")
    else:
        more = "1 more failure" if survives == 1 else f"{survives} more failures, one after the other"
        lines.append(f"  survives  {more}")
    return "\n".join([*lines, *_rows(state), *problem_lines(state, place)])


@members.command()
@click.argument("node", type=click.IntRange(1, 65_535), metavar="NODE")
@click.argument("address")
@timeout_option(10.0, help="How long to wait for the node's vote.")
@click.pass_context
def add(context: click.Context, node: int, address: str, timeout_s: float) -> None:
    """Add NODE, which others reach at ADDRESS (tcp://host:port).

    The cluster must be running. Start the node with a configuration that lists itself and the members; it gets its vote
    once it has answered for an election timeout. Configurations of the other members need not change: the voter record
    has the address.

    Exit code 0: it belongs to the cluster, whether or not it has its vote yet; 1: refused; 5: no node could be asked.
    """
    from zelect.core.messages import MemberAction

    target = Target.of(**context.obj)
    _check_there(target, node, _address(address))
    active = _changed(target, MemberAction.ADD, node, address, timeout_s)
    _wait_for_vote(target, active, node, address, timeout_s)


@members.command()
@click.argument("node", type=click.IntRange(1, 65_535), metavar="NODE")
@timeout_option(10.0, help="How long to wait.")
@click.pass_context
def remove(context: click.Context, node: int, timeout_s: float) -> None:
    """Remove NODE from the cluster, with its vote.

    If it is the controller, it hands over first. Waits until a quorum of the remaining members has saved the change.
    Stop the removed node yourself; its data_dir is no longer needed.

    Exit code 0: it does not belong to the cluster; 1: refused, or not saved by a quorum in time; 5: no node could be
    asked.
    """
    from zelect.core.messages import MemberAction

    target = Target.of(**context.obj)
    before = target.answered()
    active = _changed(target, MemberAction.REMOVE, node, "", timeout_s)
    _wait_until_removed(target, active, node, timeout_s)
    click.echo(_removed(before, node))


@members.command()
@click.argument("node", type=click.IntRange(1, 65_535), metavar="NODE")
@click.argument("address")
@timeout_option(10.0, help="How long to wait for the node's vote.")
@click.pass_context
def replace(context: click.Context, node: int, address: str, timeout_s: float) -> None:
    """Change NODE's address: a new host takes its place, or it moved.

    Stop the old process first: while it answers, the command is refused. A new host starts without data: the
    controller takes the vote away from the old storage epoch and gives one to the new epoch. A node that is started at
    another address, with its own configuration changed, tells the others itself, without this command.

    Exit code 0: the address has changed, whether or not the node has its vote yet; 1: refused; 5: no node could be
    asked.
    """
    from zelect.core.messages import MemberAction

    target = Target.of(**context.obj)
    _check_there(target, node, _address(address))
    active = _changed(target, MemberAction.REPLACE, node, address, timeout_s)
    _wait_for_vote(target, active, node, address, timeout_s)


def _address(text: str) -> str:
    from zelect.config.validators import address

    problem = address(wildcard=False)(text)
    if problem:
        raise click.UsageError(f"ADDRESS: {problem}")
    return text


def _check_there(target: Target, node: int, address: str) -> None:
    """Ask who is at the address before it is written down: nobody yet, or `node`. Raises CommandError."""
    from zelect.cli.support.errors import CommandError
    from zelect.client.query import ask_cluster

    if not target.can_ask(node):
        return
    why = ask_cluster(target.cluster, {node: address}, _THERE_WITHIN_S, bool, target.keyring).denials.get(node, "")
    if why.startswith(_ANSWERS_AS):
        raise CommandError(f"{address}: {why.removeprefix(_ANSWERS_AS)}; nothing was changed", 1)


def _changed(target: Target, what: MemberAction, node: int, address: str, within_s: float) -> NodeReport:
    """Have the controller make this change; the controller that made it. Raises CommandError."""
    import time

    from zelect.cli.support.errors import CommandError
    from zelect.core.messages import MemberAction, MemberChange, Result

    end = time.monotonic() + within_s
    detail = f"no node is active; see 'zelect status{target.place}'"
    told = False
    while True:
        state = target.answered()
        active = state.controller
        if active is None and (state.named is not None or not state.is_known) and time.monotonic() >= end:
            target.controller(state, "so nothing was changed")  # which raises what is so
        if active is not None:
            if what is MemberAction.REMOVE and list(active.voters.addresses) == [str(node)]:
                raise CommandError(f"node {node} is the only member; to end the cluster, stop it for good", 1)
            if what is not MemberAction.ADD and active.id == node:
                if not told:
                    click.echo(f"node {active.id} is the controller; it hands over first", err=True)
                told, detail = True, _handed_over(target, active)
            else:
                answer = target.tell([active.id], MemberChange(what, node, address)).get(active.id)
                if answer is not None and answer.result is Result.OK:
                    return active
                if answer is not None and answer.result not in (Result.BUSY, Result.NOT_CONTROLLER):
                    raise CommandError(f"node {active.id} refused: {answer.detail}", 1)
                detail = answer.detail if answer is not None else f"node {active.id} did not answer"
        if time.monotonic() >= end:
            raise CommandError(f"not done within {within_s:g} s: {detail}", 1)
        time.sleep(0.05)


def _wait_until_removed(target: Target, active: NodeReport, node: int, within_s: float) -> None:
    """Wait until a quorum has saved a record without `node`: the controller that took the change may have been cut off,
    and another one may be elected with the record before it. Raises CommandError."""
    import time

    from zelect.cli.support.errors import CommandError
    from zelect.status.cluster import saved_without

    end = time.monotonic() + within_s
    while not saved_without(target.ask(1.0, lambda reports: saved_without(reports, node)).reports, node):
        if time.monotonic() >= end:
            raise CommandError(
                f"node {active.id} removed node {node}, but no quorum is known to have saved that after "
                f"{within_s:g} s; see 'zelect members{target.place}', and remove it again if it still belongs",
                1,
            )
        time.sleep(0.05)


def _removed(before: ClusterStatus, node: int) -> str:
    if any(str(node) in report.voters.addresses for report in before.reports.values()):
        return f"node {node} does not belong to the cluster; stop it if it still runs"
    return f"node {node} was no member; nothing changed"


def _handed_over(target: Target, active: NodeReport) -> str:
    """Have the controller hand over, since it can't change its own place; what it says."""
    from zelect.cli.support.admin import admin_command
    from zelect.core.messages import AdminAction

    answer = target.tell([active.id], admin_command(AdminAction.TRANSFER, "its place changes")).get(active.id)
    return answer.detail if answer is not None else f"node {active.id} did not answer"


def _wait_for_vote(target: Target, active: NodeReport, node: int, address: str, within_s: float) -> None:
    """Wait until `node` votes, and say so; or say what it waits for."""
    import time

    from zelect.status.cluster import controller_of

    end = time.monotonic() + within_s
    told = False
    while time.monotonic() < end:
        head = target.ask(1.0, lambda reports: controller_of(reports) is not None).controller
        voters = head.voters if head is not None else active.voters
        linked = head is not None and any(peer.id == node and peer.linked for peer in head.peers)
        if node in voters.members and (linked or (head is not None and head.id == node)):
            click.echo(f"node {node} belongs to the cluster, and votes; voters {voters.config_term}.{voters.version}")
            return
        if not told:
            click.echo(f"node {node} belongs to the cluster; waiting for its answers ...", err=True)
            told = True
        time.sleep(0.1)
    click.echo(f"node {node} belongs to the cluster; it gets its vote when it answers at {address}: start it there")


@members.command()
@click.argument("nodes", nargs=-1, type=click.IntRange(min=1), metavar="NODE...")
@click.option("--join", type=click.IntRange(min=1), metavar="GENERATION", help="Join this generation instead.")
@click.option("--yes-i-know", "sure", is_flag=True, help="Don't ask.")
@click.pass_context
def reset(context: click.Context, nodes: tuple[int, ...], join: int | None, sure: bool) -> None:
    """Force new voters: NODE..., in a new generation.

    Use this when so many members are lost that a quorum can never be reached again. Nodes of the old generation
    that come back are refused until they join the new one: `reset --join GENERATION NODE`.

    With --join, NODE... discard the old voter record and follow the new generation; its controller makes them
    voters again. Run both commands on the host of the nodes that they name. For a cluster other than .zelect: zelect
    members -c FILE reset NODE..., or --dir DIR before `reset`.
    """
    from zelect.cli.support.errors import CommandError
    from zelect.core.messages import Reset
    from zelect.status.cluster_text import ids_text, nodes_text
    from zelect.system.clock import unix_ms

    target = Target.of(**context.obj)
    if not nodes:
        raise click.UsageError(f"name the nodes; the members are {ids_text(target.addresses)}")
    target.known(nodes)
    state = target.ask()
    for node in sorted(set(nodes) - set(state.reports)):
        if node in target.denials:
            raise CommandError(f"node {node}: {target.denials[node]}; nothing was changed", 5)
        raise CommandError(f"node {node} does not answer: start it first, because it must take part in the reset", 5)
    names = ids_text(set(nodes))
    there = {node for node in nodes if join and state.reports[node].voters.generation == join}
    if there:
        are = "is" if len(there) == 1 else "are"
        click.echo(f"{nodes_text(there)} {are} in generation {join} already; nothing to do", err=True)
    nodes = tuple(node for node in nodes if node not in there)
    if not nodes:
        return
    if join is None:
        _warn(state, set(nodes))
    else:
        discards, joins = ("discards", "joins") if len(set(nodes)) == 1 else ("discard", "join")
        text = nodes_text(set(nodes)).capitalize()
        click.echo(f"{text} {discards} the old voter record and {joins} generation {join}.", err=True)
    if not sure:
        _confirm(target.cluster)
    generation = join or max(unix_ms(), *(report.voters.generation + 1 for report in state.reports.values()))
    record = _record_of(state, join, target.place) if join else _forced(state, set(nodes), generation)
    _reset(target, set(nodes), Reset(record, join is not None))
    if join is None:
        click.echo(f"reset: generation {generation} with {names}. Have the others join when they are back:")
        click.echo(f"  zelect members{target.place} reset --join {generation} NODE...")
    else:
        makes = "makes it a voter" if len(set(nodes)) == 1 else "makes them voters"
        click.echo(f"{nodes_text(set(nodes))} joined generation {generation}; the controller {makes}")


def _warn(state: ClusterStatus, nodes: set[int]) -> None:
    from zelect.cli.support.errors import CommandError
    from zelect.status.cluster_text import ids_text

    active = state.named
    if active is not None:
        raise CommandError(f"node {active.id} is active (term {active.term}): nothing is lost, nothing was changed", 1)
    others = ids_text(set(state.addresses) - nodes) or "none"
    click.echo(
        f"This forces new voters on {state.cluster}: {ids_text(nodes)}.\n"
        f"If a member that you leave out ({others}) still runs somewhere and reaches\n"
        "other old voters, two controllers may be active at once, even in one term.\n"
        "Make sure that it is down.",
        err=True,
    )


def _confirm(cluster: str) -> None:
    from zelect.cli.support.errors import CommandError

    try:
        typed = click.prompt(f"Type the cluster's name ({cluster}) to go on", default="", show_default=False, err=True)
    except click.Abort:  # Ctrl-C, or no terminal and nothing to read
        click.echo(err=True)
        raise CommandError("no name was typed; nothing was changed (without a terminal: --yes-i-know)", 2) from None
    if typed != cluster:
        raise CommandError("that is not the cluster's name; nothing was changed", 2)


def _forced(state: ClusterStatus, nodes: set[int], generation: int) -> Record:
    """The record that makes `nodes` the voters, in a new generation of their cluster."""
    from dataclasses import replace

    from zelect.cli.support.errors import CommandError

    newest = state.newest
    if newest is None or not newest.voters.cluster_id:
        raise CommandError("these nodes are new: there is no cluster to reset; see 'zelect bootstrap --help'", 1)
    members = tuple(sorted(nodes))
    epochs = tuple(state.reports[node].epoch for node in members)
    before = _told(newest.voters)
    version = before.version + 1
    return replace(before, config_term=0, version=version, generation=generation, members=members, epochs=epochs)


def _record_of(state: ClusterStatus, generation: int, place: str) -> Record:
    """The newest record of `generation` that a node which answers has."""
    from zelect.cli.support.errors import CommandError

    voters = [report.voters for report in state.reports.values() if report.voters.generation == generation]
    if not voters:
        raise CommandError(f"no node that answers is in generation {generation}; see 'zelect members{place}'", 1)
    return _told(max(voters, key=lambda some: some.age))


def _told(voters: VotersStatus) -> Record:
    """The record that a node tells of itself; which witness it names is not told."""
    from zelect.core.quorum import Record

    return Record(
        config_term=voters.config_term,
        version=voters.version,
        members=voters.members,
        generation=voters.generation,
        epochs=voters.epochs,
        cluster_id=voters.cluster_id,
        addresses=voters.places,
    )


def _reset(target: Target, nodes: set[int], reset: Reset) -> None:
    from zelect.cli.support.errors import CommandError
    from zelect.core.messages import Result

    answers = target.tell(nodes, reset)
    for node in sorted(nodes):
        answer = answers.get(node)
        if answer is None:
            again = f"run the same command again with --join {reset.record.generation}"
            raise CommandError(f"node {node} did not answer; {again}", 5)
        if answer.result is not Result.OK:
            raise CommandError(f"node {node} refused: {answer.detail}", 1)
