"""`zelect check`: would the cluster survive the loss of some nodes, and who would lead then."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from zelect.cli.admin import hear, listed, order_options
from zelect.cli.targets import Members

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from zelect.client.query import NodeReport

__all__ = ["check", "foretell"]


class _Ids(click.ParamType[tuple[int, ...]]):
    """Node ids such as 2,4."""

    name = "nodes"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        try:
            ids = tuple(int(part) for part in value.split(","))
        except ValueError:
            self.fail(f"{value!r} names no nodes; write them like 2,4")
        if len(set(ids)) < len(ids):
            self.fail(f"{value!r} names a node twice")
        return ids


@click.command()
@click.option("--down", type=_Ids(), default=(), metavar="N,N...", help="The nodes to lose, in that order.")
@order_options
@click.pass_context
def check(context: click.Context, /, down: tuple[int, ...], as_json: bool, **where: Any) -> None:
    """Would it survive the loss of nodes, and who would lead?

    Asks the nodes how they are, and changes nothing. Without --down: how things stand.

    Exit code 0: it survives the loss of all of them at once; 1: it does not; 5: nobody answered.
    """
    members = Members.of(**where)
    unknown = sorted(set(down) - set(members.addresses))
    if unknown:
        known = listed(members.addresses)
        raise click.UsageError(f"node {unknown[0]} is not in the configuration; the members are {known}")
    told = {"cluster": members.cluster, **foretell(hear(members), down)}
    click.echo(json.dumps(told, indent=2) if as_json else "\n".join(_lines(told)))
    context.exit(0 if told["survives"] else 1)


def foretell(reports: Mapping[int, NodeReport], down: Collection[int]) -> dict[str, Any]:
    """What `reports`, of which there is at least one, say of a cluster that loses `down`: at once, and
    one after the other in their order. `more`: how many further failures it would survive, -1 none
    and not even this."""
    from zelect.client.query import controller_of
    from zelect.core.quorum import Record, Witness
    from zelect.core.voters import outlook

    head = controller_of(reports)
    # The controller knows best; without one, who has the newest voters.
    teller = head or max(reports.values(), key=lambda one: (one.generation, one.config_term, one.version))
    witness = Witness("present", "", "") if teller.witness_votes else None
    record = Record(teller.config_term, teller.version, teller.members, witness, teller.generation)
    at_once, in_turn = outlook(
        record,
        teller.may_vote,
        tuple(down),
        teller.witness in ("member", "ready", "unrecognized"),
        teller.witness != "unused",
        teller.witness == "unrecognized",
    )
    left = sorted(set(teller.may_vote) & set(teller.members) - set(down))
    return {
        "down": list(down),
        "controller": head.id if head else None,
        "members": list(teller.members),
        "witness": teller.witness,
        "left": left,
        "survives": at_once >= 0,
        "more": at_once,
        "would_lead": _leads(teller, head, left) if at_once >= 0 else None,
        "one_after_the_other": {"survives": in_turn >= 0, "more": in_turn},
    }


def _leads(teller: NodeReport, head: NodeReport | None, left: Collection[int]) -> int:
    """Who would be active with only `left` alive: the controller, else the first in line (R8)."""
    if head is not None and head.id in left:
        return head.id
    priorities = {teller.id: teller.priority} | {peer.id: peer.priority for peer in teller.others}
    return min(left, key=lambda node: (-priorities[node], node))


def _lines(told: Mapping[str, Any]) -> list[str]:
    down, head, lead = told["down"], told["controller"], told["would_lead"]
    leadership = f"node {head} is active" if head else "nobody is active now"
    votes = f"members {listed(told['members'])}; witness {told['witness']}"
    lines = [f"{told['cluster']}: {leadership}; {votes}"]
    if not down:
        lines.append(f"  now       {_more(told['more'])}")
        return lines
    names = f"node {listed(down)}" if len(down) == 1 else f"nodes {listed(down)}"
    lines.append(f"If {names} went down{' at once' if len(down) > 1 else ''}:")
    if not told["survives"]:
        lines.append("  nobody could be elected: too few votes are left" if told["left"] else "  nobody would be left")
    else:
        lines.append(f"  leads     node {lead} {'stays active' if lead == head else 'would be elected'}")
        lines.append(f"  then      {_more(told['more'])}")
    if len(down) > 1:
        order = ", then ".join(map(str, down))
        lines.append(f"One after the other ({order}), with some seconds between:")
        lines.append(f"  then      {_more(told['one_after_the_other']['more'])}")
    return lines


def _more(more: int) -> str:
    if more < 0:
        return "no quorum: nobody can be elected"
    if more == 0:
        return "survives, but no further failure"
    return f"survives {more} more failure" + ("s, one after the other" if more > 1 else "")
