"""`zelect transfer`, `zelect stepdown`: the controller hands over because an operator asks for it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from zelect.cli.support.admin import admin_command, reason_option
from zelect.cli.support.options import Duration, Target, cluster_options, json_option

if TYPE_CHECKING:
    from collections.abc import Mapping

    from zelect.core.messages import AdminCommand, CommonResp
    from zelect.core.status import PeerStatus
    from zelect.status.cluster import ClusterStatus
    from zelect.status.report import NodeReport

_AWAY = {"dead", "offline", "unresponsive", "not_connected"}
_SUCCESSOR_WITHIN_US = 10_000_000


@click.command()
@click.option("--to", type=click.IntRange(min=1), metavar="N", help="Who takes over.  [default: the first in line]")
@click.option("--dry-run", is_flag=True, help="Show who may take over and what would happen; change nothing.")
@reason_option
@cluster_options
@json_option
@click.pass_context
def transfer(
    context: click.Context, /, to: int | None, dry_run: bool, reason: str, as_json: bool, **where: Any
) -> None:
    """Transfer leadership to another node.

    The controller stops being active, once its job has ended, and the other node campaigns at once. A node that
    could not win, or where the job can't run, is refused.

    Exit code 0: the node is active (or would be); 1: it is not, with the reason; 5: the controller
    could not be asked.
    """
    from zelect.core.messages import AdminAction

    target = Target.of(**where)
    target.known([to] if to is not None else [])
    command = admin_command(AdminAction.TRANSFER, reason, to=to or 0)
    context.exit(_rehearse(target, to, as_json) if dry_run else _change(target, _active(target), command, as_json))


@click.command()
@click.option("--for", "for_ms", type=Duration(), default="60s", show_default=True, metavar="TIME", help="How long.")
@reason_option
@cluster_options
@json_option
@click.pass_context
def stepdown(context: click.Context, /, for_ms: int, reason: str, as_json: bool, **where: Any) -> None:
    """Have the controller step down for some time.

    The first in line takes over. Until that time has passed, the node that stepped down becomes active again only
    if no other node is elected within an election timeout.

    Exit code 0: another node is active; 1: none is, with the reason; 5: the controller
    could not be asked.
    """
    from zelect.core.messages import AdminAction

    target = Target.of(**where)
    command = admin_command(AdminAction.STEPDOWN, reason, for_ms=for_ms)
    context.exit(_change(target, _active(target), command, as_json))


def _active(target: Target) -> NodeReport:
    return target.controller(target.answered(), "so nothing can be handed over")


def _rehearse(target: Target, to: int | None, as_json: bool) -> int:
    """Show what a transfer would do; returns the exit code."""
    import textwrap

    from zelect.status.table import WIDTH

    state = target.answered()
    active = target.controller(state, "so nothing can be handed over")
    in_line = [(-peer.priority, peer.id) for peer in active.peers if not peer.ineligible]
    successor = to or (min(in_line)[1] if in_line else 0)
    problem = ""
    if not successor:
        problem = "no other member may take over now"
    elif any(peer.ineligible for peer in active.peers if peer.id == successor):
        problem = f"node {successor} may not take over now"
    elif active.pause is not None and successor != active.id:
        problem = f"paused by {active.pause.asked}; 'zelect resume{target.place}' ends it"
    after = active.id if problem else successor
    table = _table(target, active, after, state) | {"dry_run": True, "problem": problem or None}
    if as_json:
        click.echo(json.dumps(table, indent=2))
    else:
        click.echo(_text(table))
        for row in table["candidates"]:
            if row["detail"].startswith("runs, but"):
                click.echo(textwrap.fill(f"node {row['id']} {row['detail']}", WIDTH, subsequent_indent="  "))
        would = f"would hand over to node {after}" if after != active.id else "would change nothing"
        click.echo(f"\n{would}{': ' + problem if problem else ''}; dry run: nothing was changed")
    return 1 if problem else 0


def _change(target: Target, active: NodeReport, command: AdminCommand, as_json: bool) -> int:
    """Have `active` hand over, wait for its successor, and show that; returns the exit code."""
    from zelect.cli.support.errors import CommandError
    from zelect.core.messages import Result

    answer = _answer(target, active, command)
    if answer.result is Result.NOT_CONTROLLER:  # there was an election just now
        active = _active(target)
        answer = _answer(target, active, command)
    if answer.result is not Result.OK:
        hint = {
            Result.PAUSED: f"; 'zelect resume{target.place}' ends it",
            Result.INELIGIBLE: f"; 'zelect transfer --dry-run{target.place}' shows all members",
        }.get(answer.result, "")
        raise CommandError(f"refused ({answer.result}): {answer.detail}{hint}", 1)
    after = active if command.to == active.id else _successor(target, active)
    now = after.id if after else 0
    table = _table(target, active, now) | {"term_after": after.term if after else None, "answer": answer.detail}
    click.echo(json.dumps(table, indent=2) if as_json else _text(table))
    if after is None:
        raise CommandError(f"{answer.detail}, but no node is active yet; see 'zelect status{target.place}'", 1)
    if not as_json:
        new = "" if after is active else f"; node {now} is active, term {after.term}"
        click.echo(f"\n{answer.detail}{new}")
    if command.to and now != command.to:
        raise CommandError(f"node {now} is active, not node {command.to}, which could not win: see its log", 1)
    return 0


def _answer(target: Target, active: NodeReport, command: AdminCommand) -> CommonResp:
    from zelect.cli.support.errors import CommandError

    answer = target.tell([active.id], command).get(active.id)
    if answer is None:
        raise CommandError(f"node {active.id} is active, but did not answer", 5)
    return answer


def _successor(target: Target, before: NodeReport) -> NodeReport | None:
    """The node that becomes active after `before`; None when none does within some seconds."""
    from zelect.status.cluster import controller_of
    from zelect.system.clock import now_us

    def found(reports: Mapping[int, NodeReport]) -> bool:
        active = controller_of(reports)
        return active is not None and active.term > before.term

    end_us = now_us() + _SUCCESSOR_WITHIN_US
    while now_us() < end_us:
        state = target.answered(found)
        if found(state.reports):
            return state.controller
    return None


def _table(target: Target, active: NodeReport, after: int, state: ClusterStatus | None = None) -> dict[str, Any]:
    """The nodes before and after, and who may take over. `state`: what the nodes said of themselves; one that answers
    runs, though the controller refuses its messages, because of its settings for instance, and takes it for gone."""
    from zelect.core.eligibility import Ineligible
    from zelect.status.problems import problems

    own = problems(state.reports, target.place) if state is not None else {}

    def detail(peer: PeerStatus) -> str:
        if peer.ineligible in _AWAY and peer.id in own:
            return f"runs, but: {own[peer.id]}"
        return Ineligible(peer.ineligible).words if peer.ineligible in set(Ineligible) else peer.ineligible

    return {
        "cluster": target.cluster,
        "controller_before": active.id,
        "term_before": active.term,
        "controller_after": after or None,
        "priority_before": active.priority,
        "candidates": [
            {
                "id": peer.id,
                "priority": peer.priority,
                "eligible": not peer.ineligible,
                "reason": peer.ineligible or None,
                "detail": detail(peer),
            }
            for peer in active.peers
        ],
    }


def _text(table: Mapping[str, Any]) -> str:
    from zelect.status.table import Column
    from zelect.status.table import table as drawn

    before, after = table["controller_before"], table["controller_after"]
    rows = [{"id": before, "priority": table["priority_before"], "reason": None}, *table["candidates"]]

    def role(row: dict[str, Any], controller: int | None) -> str:
        return "controller" if row["id"] == controller else "" if row["reason"] in _AWAY else "follower"

    def eligible(row: dict[str, Any]) -> str:
        if row["id"] == before:
            return "active before"
        if row["eligible"]:
            return "yes"
        return "no: see below" if row["detail"].startswith("runs, but") else f"no: it {row['detail']}"

    columns = (
        Column[dict[str, Any]]("node", lambda row: row["id"], right=True),
        Column[dict[str, Any]]("priority", lambda row: row["priority"] if row["priority"] >= 0 else "last", True),
        Column[dict[str, Any]]("before", lambda row: role(row, before)),
        Column[dict[str, Any]]("after", lambda row: role(row, after)),
        Column[dict[str, Any]]("may take over", eligible),
    )
    return "\n".join(drawn(columns, sorted(rows, key=lambda row: row["id"])))
