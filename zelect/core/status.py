"""What a node says of itself when asked: a picture of the machine at one moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from zelect.core.election_trace import ElectionTrace, Round
from zelect.core.quorum import Record

__all__ = ["NodeStatus", "PeerStatus"]


@dataclass(frozen=True, slots=True)
class PeerStatus:
    """A peer as this node sees it. `heard_ago_us` is -1 when it was never heard. `ineligible`: why this
    node, active, would not hand over to it; empty when it would."""

    id: int
    incarnation: int
    linked: bool
    dead: bool
    offline: bool
    heard_ago_us: int
    priority: int
    ineligible: str = ""


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """The answer to a QUERY, before the shell adds what only it knows.

    `active` holds at the moment of asking, by the lease's deadline (R5); `lease_left_us` is how
    long it still runs, `active_for_us` since when leadership is held, both 0 not active.
    `witness` is member, ready, unrecognized, unreachable or unused; `survives` how many more members
    may fail one after the other, as far as this node knows (-1: no quorum now).
    `story`, `previous` (the controller before, 0: unknown) and `reason`: how this node came into
    leadership, active only; `rounds`: those that it asked since the
    last controller was lost; their times are on the clock of `now_us`.
    `voting right`: members whose votes could be counted now, as far as this node knows. `pause_left_us` and
    `pause_asked`: for how long no planned transfers are held yet, and who asked for it and why;
    `cooling_left_us`: how long this node stays not active yet; 0 where that is not so.
    `controller` is whom this node follows (0: nobody); it is hearsay and serves humans only.
    """

    id: int
    incarnation: int
    term: int
    role: str
    status: str
    active: bool
    lease_left_us: int
    active_for_us: int
    controller: int
    controller_heard_ago_us: int
    record: Record
    quorate: bool
    lost_state: bool
    witness: str
    survives: int
    succession: tuple[int, ...]
    peers: tuple[PeerStatus, ...]
    refused_by_gate: Mapping[str, int]
    now_us: int
    trace: ElectionTrace | None
    previous: int
    reason: str
    rounds: tuple[Round, ...]
    may_vote: tuple[int, ...] = ()
    priority: int = 0
    pause_left_us: int = 0
    pause_asked: str = ""
    cooling_left_us: int = 0
