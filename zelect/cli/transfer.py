"""`zelect transfer`, `stepdown`, `pause`, `resume`: leadership is left by choice, or kept from it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from zelect.cli.admin import DURATION, TELL_S, hear, listed, order_options, tell
from zelect.cli.targets import Members

if TYPE_CHECKING:
    from collections.abc import Mapping

    from zelect.client.query import NodeReport
    from zelect.core.messages import AdminCommand

__all__ = ["pause", "resume", "stepdown", "transfer"]

_AWAY = {"dead", "offline", "unresponsive", "not_connected"}


_reason = click.option("--reason", default="", metavar="TEXT", help="Why; kept in the history with who asks.")


@click.command()
@click.option("--to", type=click.IntRange(min=1), metavar="N", help="Who shall lead.  [default: the first in line]")
@click.option("--dry-run", is_flag=True, help="Show who may lead and what would happen; change nothing.")
@_reason
@order_options
@click.pass_context
def transfer(
    context: click.Context, /, to: int | None, dry_run: bool, reason: str, as_json: bool, **where: Any
) -> None:
    """Hand leadership to another node.

    The controller leaves its leadership, once the job in it has ended, and the node campaigns at once. A
    node that could not win, or whose job can't be done there, is refused.

    Exit code 0: the node is active (or would be); 1: not so, with the reason; 5: nobody answered.
    """
    from zelect.core.messages import AdminAction

    members = Members.of(**where)
    if to is not None and to not in members.addresses:
        raise click.UsageError(f"node {to} is not in the configuration; the members are {listed(members.addresses)}")
    order = _order(AdminAction.TRANSFER, reason, to=to or 0)
    head = _head(members)
    context.exit(_rehearse(members, head, to, as_json) if dry_run else _change(members, head, order, as_json))


@click.command()
@click.option("--for", "for_ms", type=DURATION, default="60s", show_default=True, metavar="TIME", help="How long.")
@_reason
@order_options
@click.pass_context
def stepdown(context: click.Context, /, for_ms: int, reason: str, as_json: bool, **where: Any) -> None:
    """Have the controller stop being active and rest for some time.

    The first in line takes over. Meanwhile the node that stepped down leads only where nobody else was
    elected within an election timeout.

    Exit code 0: another node is active; 1: not so, with the reason; 5: nobody answered.
    """
    from zelect.core.messages import AdminAction

    members = Members.of(**where)
    order = _order(AdminAction.STEPDOWN, reason, for_ms=for_ms)
    context.exit(_change(members, _head(members), order, as_json))


@click.command()
@click.option("--for", "for_ms", type=DURATION, default="30m", show_default=True, metavar="TIME", help="How long.")
@click.option("--reason", required=True, metavar="TEXT", help="Why; shown by `zelect status` with who asks.")
@order_options
@click.pass_context
def pause(context: click.Context, /, for_ms: int, reason: str, as_json: bool, **where: Any) -> None:
    """Hold no planned transfers for some time.

    No transfer, no stepping down, no handover because a job is unhealthy. Failovers still happen, and a
    node that is stopped still hands over. It ends by itself. Told to all nodes that answer; one that
    starts later knows nothing of it.

    Exit code 0: all nodes that run agreed; 1: one refused; 5: nobody answered.
    """
    from zelect.core.messages import AdminAction

    context.exit(_tell_all(Members.of(**where), _order(AdminAction.PAUSE, reason, for_ms=for_ms), as_json))


@click.command()
@_reason
@order_options
@click.pass_context
def resume(context: click.Context, /, reason: str, as_json: bool, **where: Any) -> None:
    """End a pause.

    Exit code 0: all nodes that run agreed; 1: one refused; 5: nobody answered.
    """
    from zelect.core.messages import AdminAction

    context.exit(_tell_all(Members.of(**where), _order(AdminAction.RESUME, reason), as_json))


def _order(what: Any, reason: str, to: int = 0, for_ms: int = 0) -> AdminCommand:
    import getpass
    import socket

    from zelect.core.messages import AdminCommand, MalformedMessage

    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a user without a name
        user = "somebody"
    asker = "".join(packet for packet in f"{user}@{socket.gethostname()}" if packet.isprintable())[:64]
    try:
        return AdminCommand(what, to, for_ms, reason, asker)
    except MalformedMessage as error:
        raise click.UsageError(f"--reason: {str(error).removeprefix('bad_field: ')}") from error


def _head(members: Members) -> NodeReport:
    from zelect.cli.errors import CommandError
    from zelect.client.query import controller_of

    head = controller_of(hear(members))
    if head is None:
        why = f"nobody is active now, so there is nothing to hand over; see 'zelect status{members.place}'"
        raise CommandError(why, 1)
    return head


# -- one controller after the other ---------------------------------------------------------------


def _candidates(head: NodeReport) -> list[dict[str, Any]]:
    """All nodes but the controller: whether it would hand over to them, or why not."""
    from zelect.core.eligibility import Ineligible

    return [
        {
            "id": peer.id,
            "priority": peer.priority,
            "may_lead": not peer.ineligible,
            "reason": peer.ineligible or None,
            "detail": Ineligible(peer.ineligible).words if peer.ineligible in set(Ineligible) else peer.ineligible,
        }
        for peer in head.others
    ]


def _first(head: NodeReport) -> int:
    """Who is first in line; 0: nobody may lead."""
    fit = [(-peer.priority, peer.id) for peer in head.others if not peer.ineligible]
    return min(fit)[1] if fit else 0


def _rehearse(members: Members, head: NodeReport, to: int | None, as_json: bool) -> int:
    """Show what a transfer would do; the exit code."""
    successor = to or _first(head)
    ineligible = {peer.id: peer.ineligible for peer in head.others}.get(successor, "")
    problem = ""
    if not successor:
        problem = "no other member may lead now"
    elif ineligible:
        problem = f"node {successor} may not lead now"
    elif head.pause is not None and successor != head.id:
        problem = f"paused by {head.pause.asked}; 'zelect resume{members.place}' ends it"
    lead = head.id if problem else successor
    table = _table(members, head, lead) | {"dry_run": True, "problem": problem or None}
    if as_json:
        click.echo(json.dumps(table, indent=2))
    else:
        click.echo(_text(table))
        would = f"would hand over to node {lead}" if lead != head.id else "would change nothing"
        click.echo(f"\n{would}{': ' + problem if problem else ''}; dry run: nothing was changed")
    return 1 if problem else 0


def _change(members: Members, head: NodeReport, order: AdminCommand, as_json: bool) -> int:
    """Have `head` stop being active, see who comes into it, and show that; the exit code."""
    from zelect.cli.errors import CommandError
    from zelect.core.messages import Result

    answer = tell(members, [head.id], order).get(head.id)
    if answer is not None and answer.result is Result.NOT_CONTROLLER:  # there was an election just now
        head = _head(members)
        answer = tell(members, [head.id], order).get(head.id)
    if answer is None:
        raise CommandError(f"node {head.id} is active, but did not answer within {TELL_S:g} s", 5)
    if answer.result is not Result.OK:
        hint = {
            Result.PAUSED: f"; 'zelect resume{members.place}' ends it",
            Result.INELIGIBLE: f"; 'zelect transfer --dry-run{members.place}' shows all members",
        }.get(answer.result, "")
        raise CommandError(f"refused ({answer.result}): {answer.detail}{hint}", 1)
    after = head if order.to == head.id else _successor(members, head)
    now = after.id if after else 0
    table = _table(members, head, now) | {"term_after": after.term if after else None, "answer": answer.detail}
    click.echo(json.dumps(table, indent=2) if as_json else _text(table))
    if after is None:
        raise CommandError(f"{answer.detail}, but nobody is active yet; see 'zelect status{members.place}'", 1)
    if not as_json:
        new = "" if after is head else f"; node {now} is active, term {after.term}"
        click.echo(f"\n{answer.detail}{new}")
    if order.to and now != order.to:
        raise CommandError(f"node {now} leads, and not node {order.to}, which could not win: see its log", 1)
    return 0


def _successor(members: Members, before: NodeReport) -> NodeReport | None:
    """Who becomes active after `before`; None when nobody does within some seconds."""
    from zelect.client.query import controller_of
    from zelect.system.clock import now_us

    def found(reports: Mapping[int, NodeReport]) -> bool:
        head = controller_of(reports)
        return head is not None and head.term > before.term

    end_us = now_us() + 10_000_000
    while now_us() < end_us:
        reports = hear(members, found)
        if found(reports):
            return controller_of(reports)
    return None


def _table(members: Members, head: NodeReport, after: int) -> dict[str, Any]:
    return {
        "cluster": members.cluster,
        "controller_before": head.id,
        "term_before": head.term,
        "controller_after": after or None,
        "priority_before": head.priority,
        "candidates": _candidates(head),
    }


def _text(table: Mapping[str, Any]) -> str:
    from zelect.cli.table import columns

    before, after = table["controller_before"], table["controller_after"]

    away = {one["id"] for one in table["candidates"] if one["reason"] in _AWAY}

    def role(node: int, leader: int | None) -> str:
        return "controller" if node == leader else "" if node in away else "follower"

    rows = [(before, _rank(table["priority_before"]), "leads now")]
    for one in table["candidates"]:
        why = "yes" if one["may_lead"] else f"no: it {one['detail']}"
        rows.append((one["id"], _rank(one["priority"]), why))
    lines = [(str(node), rank, role(node, before), role(node, after), why) for node, rank, why in sorted(rows)]
    return "\n".join(columns(("node", "priority", "before", "after", "may lead"), lines, {"node", "priority"}))


def _rank(priority: int) -> str:
    return str(priority) if priority >= 0 else "last"


# -- all nodes ------------------------------------------------------------------------------------


def _tell_all(members: Members, order: AdminCommand, as_json: bool) -> int:
    """Give `order` to all nodes, and tell what they answered; the exit code."""
    from zelect.cli.errors import CommandError
    from zelect.core.messages import Result

    reports = hear(members)
    answers = tell(members, reports, order)
    if not answers:
        raise CommandError(members.explain_no_answer(), 5)
    unresponsive = sorted(set(members.addresses) - set(answers))
    refused = {node: answer for node, answer in sorted(answers.items()) if answer.result is not Result.OK}
    if as_json:
        rows = [
            {
                "id": node,
                "result": answers[node].result if node in answers else None,
                "detail": answers[node].detail if node in answers else None,
            }
            for node in sorted(members.addresses)
        ]
        click.echo(
            json.dumps({"cluster": members.cluster, "what": order.what, "asked": order.asked, "nodes": rows}, indent=2)
        )
    else:
        for node, answer in sorted(answers.items()):
            click.echo(f"node {node}: {'refused: ' if node in refused else ''}{answer.detail}")
    if unresponsive:
        click.echo(f"node {listed(unresponsive)} did not answer: what was told reached the others alone", err=True)
    return 1 if refused else 0
