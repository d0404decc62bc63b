"""Would a cluster survive the loss of some nodes, and which node would be active then."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from zelect.core.quorum import Record, Witness
from zelect.core.voters import outlook
from zelect.status.cluster import ClusterStatus, ControllerStatus
from zelect.status.report import NodeReport
from zelect.status.shortage import Shortage


@dataclass(frozen=True, slots=True)
class Outlook:
    """`more`: how many further failures the cluster survives; -1: none, and not even this."""

    survives: bool
    more: int

    @classmethod
    def of(cls, more: int) -> Outlook:
        return cls(more >= 0, more)


@dataclass(frozen=True, slots=True)
class Forecast:
    """A cluster that loses the nodes `down` all at once (`survives`, `more`), or in their order.

    `members` and `witness` are those of now; `left`: members that could still vote; `would_lead`: the node
    that stays or becomes active, None where none can; `needs`: which node or what must return then."""

    cluster: str
    down: tuple[int, ...]
    controller: int | None
    members: tuple[int, ...]
    witness: str
    left: tuple[int, ...]
    survives: bool
    more: int
    would_lead: int | None
    needs: Shortage | None
    one_after_the_other: Outlook


def forecast(state: ClusterStatus, down: Collection[int]) -> Forecast:
    """What the reports of `state`, at least one, say of a cluster that loses `down`."""
    active, best = state.named, state.best
    assert best is not None
    voters = best.voters
    witness = Witness("present", "", "") if voters.witness_votes else None
    record = Record(
        config_term=voters.config_term,
        version=voters.version,
        members=voters.members,
        witness=witness,
        generation=voters.generation,
        epochs=voters.epochs,
        cluster_id=voters.cluster_id,
        addresses=voters.places,
    )
    at_once, in_turn = outlook(
        record,
        voters.may_vote,
        tuple(down),
        voters.witness in ("member", "ready", "unrecognized"),
        voters.witness != "unused",
        voters.witness == "unrecognized",
    )
    left = tuple(sorted(set(voters.may_vote) & set(voters.members) - set(down)))
    return Forecast(
        cluster=state.cluster,
        down=tuple(down),
        controller=active.id if active else None,
        members=voters.members,
        witness=voters.witness,
        left=left,
        survives=at_once >= 0,
        more=at_once,
        would_lead=_would_lead(best, active, left) if at_once >= 0 else None,
        needs=None if at_once >= 0 else state.shortage_after(down),
        one_after_the_other=Outlook.of(in_turn),
    )


def _would_lead(best: NodeReport, active: ControllerStatus | None, left: Collection[int]) -> int:
    """The node that is active when only `left` are alive: the controller, else the first in line (R8)."""
    if active is not None and active.id in left:
        return active.id
    priorities = {best.id: best.priority} | {peer.id: peer.priority for peer in best.peers}
    return min(left, key=lambda node: (-priorities[node], node))
