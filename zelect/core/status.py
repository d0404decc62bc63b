"""What a node reports of itself when asked: the machine at one moment."""

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
    """The answer to a QUERY, before the node adds what only it knows.

    `active` is true at the moment of asking, by the lease's deadline (R5); `lease_left_us` is how long
    that lease still runs, `active_for_us` how long the node has been active, both 0 when it is not.
    `controller` is the node that this one follows, or is (0: none); it is hearsay, for people only.
    `witness` is member, ready, unrecognized, unreachable or unused; `survives` how many more members
    may fail one after the other, as far as this node knows (-1: there is no quorum now).
    `trace`, `previous` (the controller before, 0: unknown) and `reason` say how this node became active,
    and only while it is. `rounds` are those that it held since the last controller was lost; their
    times are on the clock of `now_us`.
    `may_vote`: nodes whose votes could be counted now, as far as this node knows. `pause_left_us` and
    `pause_asked`: how long planned transfers are still paused, and who asked for it and why;
    `cooling_left_us`: how long this node still stays out of leadership; 0 where that is not so.
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
