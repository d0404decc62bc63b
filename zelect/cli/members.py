"""`zelect members`: who votes, how much more may fail, and the operator's last resort (R11)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from zelect.cli.status import key_option

if TYPE_CHECKING:
    from collections.abc import Mapping

    from zelect.client.query import NodeReport
    from zelect.security.keys import Keyring

__all__ = ["members"]

_ASK_S = 1.0
_TELL_S = 3.0

_WITNESS = {
    "member": "votes too (in Redis)",
    "ready": "ready in Redis, has no vote now",
    "unrecognized": "in the record, but Redis has forgotten it; a controller puts in a new one",
    "unreachable": "Redis does not answer",
    "unused": 'not used (quorum = "static")',
}


@click.group(invoke_without_command=True)
@click.option("-c", "--config", "path", metavar="FILE", help="Configuration of any node: it names all members.")
@click.option("--dir", "directory", metavar="DIR", help="Directory of a local cluster.  [default: .zelect]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@key_option
@click.pass_context
def members(
    context: click.Context, path: str | None, directory: str | None, as_json: bool, key_file: str | None
) -> None:
    """Show whose votes count, and how many more members may fail.

    Exit code 0: a controller is active; 1: nodes answered, but none is; 5: nobody answered.
    """
    from zelect.cli.errors import say
    from zelect.cli.status import exit_code_of, print_denials, silence
    from zelect.client.query import ask_all

    if path is not None and directory is not None:
        raise click.UsageError("give -c or --dir, not both")
    context.obj = (path, directory, key_file)
    if context.invoked_subcommand is not None:
        return  # which may only be asked for its --help
    cluster, addresses, keyring = _named(context)
    denials: dict[int, str] = {}
    reports = ask_all(cluster, addresses, _ASK_S, keyring=keyring, denials=denials)
    table = _table(cluster, addresses, reports)
    click.echo(json.dumps(table, indent=2) if as_json else _text(table))
    print_denials(denials)
    if not reports and not denials and not as_json:
        say(silence(cluster, addresses))
    context.exit(exit_code_of(reports))


def _named(context: click.Context) -> tuple[str, Mapping[int, str], Keyring | None]:
    """The cluster that -c or --dir names: its name, its members' addresses, what to speak with."""
    from zelect.cli.errors import explained
    from zelect.cli.status import DIRECTORY, members_of

    path, directory, key_file = context.obj
    with explained():
        return members_of(path, directory or DIRECTORY, key_file)


def _table(cluster: str, addresses: Mapping[int, str], reports: Mapping[int, NodeReport]) -> dict[str, Any]:
    from zelect.client.query import controller_of

    newest = max(reports.values(), key=lambda r: (r.generation, r.config_term, r.version), default=None)
    head = controller_of(reports)
    teller = head or newest
    return {
        "cluster": cluster,
        "controller": head.id if head else None,
        "configured": sorted(addresses),
        "generation": newest.generation if newest else None,
        "config_term": newest.config_term if newest else None,
        "version": newest.version if newest else None,
        "members": list(newest.members) if newest else None,
        "witness": teller.witness if teller else None,
        "survives": teller.survives if teller else None,
        "answered": sorted(reports),
    }


def _text(table: Mapping[str, Any]) -> str:
    if table["members"] is None:
        return f"{table['cluster']}: nobody answered"
    members, absent = table["members"], sorted(set(table["configured"]) - set(table["members"]))
    lines = [
        f"{table['cluster']}: voters {table['config_term']}.{table['version']}"
        + (f", generation {table['generation']}" if table["generation"] else ""),
        f"  members   {', '.join(map(str, members))}"
        + (f"   (not now: {', '.join(map(str, absent))})" if absent else ""),
        f"  witness   {table['witness']}: {_WITNESS.get(table['witness'], '')}",
    ]
    survives = table["survives"]
    if survives < 0:
        lines.append("  survives  no quorum now: nobody can be elected until members return")
        lines.append("            (lost for good? 'zelect members reset --help')")
    elif survives == 0:
        lines.append("  survives  no further failure: the next one leaves no quorum")
    else:
        more = "1 more failure" if survives == 1 else f"{survives} more failures, one after the other"
        lines.append(f"  survives  {more}")
    return "\n".join(lines)


@members.command()
@click.argument("nodes", nargs=-1, type=click.IntRange(min=1), metavar="NODE...")
@click.option("--join", type=click.IntRange(min=1), metavar="FOUNDATION", help="Join this generation instead.")
@click.option("--yes-i-know", "sure", is_flag=True, help="Don't ask.")
@click.pass_context
def reset(context: click.Context, nodes: tuple[int, ...], join: int | None, sure: bool) -> None:
    """Found a lost voters again with NODE... as its members.

    For when so many members are lost for good that no quorum can ever vote again. Nodes of the old
    voters that come back are refused until told: `reset --join FOUNDATION NODE`.

    With --join, NODE... give up what they know of the old voters and follow the new one; a
    controller lets them vote again. Both must be run on the host of the nodes they concern. To name
    another cluster than .zelect: zelect members -c FILE reset NODE..., or --dir DIR before `reset`.
    """
    import time

    from zelect.cli.errors import CommandError
    from zelect.client.query import ask_all

    cluster, addresses, keyring = _named(context)
    unknown = sorted(set(nodes) - set(addresses))
    if not nodes or unknown:
        what = f"node {unknown[0]} is not in the configuration" if unknown else "name the nodes"
        raise click.UsageError(f"{what}; the members are {', '.join(map(str, sorted(addresses)))}")
    denials: dict[int, str] = {}
    reports = ask_all(cluster, addresses, _ASK_S, keyring=keyring, denials=denials)
    unresponsive = sorted(set(nodes) - set(reports))
    if unresponsive and unresponsive[0] in denials:
        raise CommandError(f"node {unresponsive[0]}: {denials[unresponsive[0]]}; nothing was changed", 5)
    if unresponsive:
        raise CommandError(f"node {unresponsive[0]} does not answer: start it first, it must hear of this itself", 5)
    if join is None:
        _warn(cluster, sorted(nodes), set(addresses), reports)
    else:
        names = ", ".join(map(str, sorted(nodes)))
        click.echo(f"Node {names} gives up the old voters and joins generation {join}.", err=True)
    if not sure:
        _confirm(cluster)
    newest = max(report.generation for report in reports.values())
    generation = join or max(newest + 1, int(time.time()))
    members = _members_of(reports, join) if join else tuple(sorted(set(nodes)))
    _tell(cluster, {node: addresses[node] for node in nodes}, generation, members, keyring)
    names = ", ".join(map(str, sorted(nodes)))
    if join is None:
        click.echo(f"founded again: generation {generation} with {names}. Tell the others when they are back:")
        click.echo(f"  zelect members reset --join {generation} NODE...")
    else:
        click.echo(f"node {names} joined generation {generation}; the controller takes it into the voters")


def _warn(cluster: str, nodes: list[int], members: set[int], reports: Mapping[int, NodeReport]) -> None:
    from zelect.cli.errors import CommandError
    from zelect.client.query import controller_of

    head = controller_of(reports)
    if head is not None:
        raise CommandError(f"node {head.id} is active (term {head.term}): nothing is lost, nothing was changed", 1)
    others = ", ".join(map(str, sorted(members - set(nodes)))) or "none"
    click.echo(
        f"This founds the voters of {cluster} again with {', '.join(map(str, nodes))}.\n"
        f"If a member that you leave out ({others}) still runs somewhere and sees others of\n"
        "the old voters, two controllers may be active at once, even in one\n"
        "term. Make sure that it is down.",
        err=True,
    )


def _confirm(cluster: str) -> None:
    from zelect.cli.errors import CommandError

    try:
        typed = click.prompt(f"Type the cluster's name ({cluster}) to go on", default="", show_default=False, err=True)
    except click.Abort:  # Ctrl-C, or no terminal and nothing to read
        click.echo(err=True)
        raise CommandError("no name was typed; nothing was changed (without a terminal: --yes-i-know)", 2) from None
    if typed != cluster:
        raise CommandError("that is not the cluster's name; nothing was changed", 2)


def _members_of(reports: Mapping[int, NodeReport], generation: int) -> tuple[int, ...]:
    from zelect.cli.errors import CommandError

    known = [report for report in reports.values() if report.generation == generation]
    if not known:
        raise CommandError(f"no node that answers is in generation {generation}; see 'zelect members'", 1)
    return max(known, key=lambda report: (report.config_term, report.version)).members


def _tell(
    cluster: str, addresses: Mapping[int, str], generation: int, members: tuple[int, ...], keyring: Keyring | None
) -> None:
    from zelect.cli.errors import CommandError
    from zelect.client.query import tell_all
    from zelect.core.messages import Reset, Result

    answers = tell_all(cluster, addresses, Reset(generation, members), _TELL_S, keyring)
    for node in sorted(addresses):
        answer = answers.get(node)
        if answer is None:
            raise CommandError(f"node {node} did not answer; run the same command again with --join {generation}", 5)
        if answer.result is not Result.OK:
            raise CommandError(f"node {node} refused: {answer.detail}", 1)
