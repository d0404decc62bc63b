"""What a node says of itself when asked: a picture of the machine at one moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from zelect.core.election_trace import Round, Story
from zelect.core.quorum import Record

__all__ = ["PeerView", "View"]


@dataclass(frozen=True, slots=True)
class PeerView:
    """A peer as this node sees it. `heard_ago_us` is -1 when it was never heard. `unfit`: why this
    node, in office, would not hand over to it; empty when it would."""

    id: int
    incarnation: int
    linked: bool
    dead: bool
    offline: bool
    heard_ago_us: int
    priority: int
    unfit: str = ""


@dataclass(frozen=True, slots=True)
class View:
    """The answer to a QUERY, before the shell adds what only it knows.

    `in_office` holds at the moment of asking, by the lease's deadline (R5); `lease_left_us` is how
    long it still runs, `office_us` since when the office is held, both 0 out of office.
    `witness` is member, ready, stranger, unreachable or unused; `survives` how many more members
    may fail one after the other, as far as this node knows (-1: no quorum now).
    `story`, `previous` (the controller before, 0: unknown) and `trigger`: how this node came into
    office, in office only; `rounds`: those that it asked since the
    last controller was lost; their times are on the clock of `now_us`.
    `voices`: members whose votes could be counted now, as far as this node knows. `pause_left_us` and
    `pause_asked`: for how long no elections of choice are held yet, and who asked for it and why;
    `rest_left_us`: how long this node stays out of office yet; 0 where that is not so.
    `controller` is whom this node follows (0: nobody); it is hearsay and serves humans only.
    """

    id: int
    incarnation: int
    term: int
    role: str
    status: str
    in_office: bool
    lease_left_us: int
    office_us: int
    controller: int
    controller_heard_ago_us: int
    record: Record
    quorate: bool
    amnesia: bool
    witness: str
    survives: int
    succession: tuple[int, ...]
    peers: tuple[PeerView, ...]
    refused_by_gate: Mapping[str, int]
    now_us: int
    story: Story | None
    previous: int
    trigger: str
    rounds: tuple[Round, ...]
    voices: tuple[int, ...] = ()
    priority: int = 0
    pause_left_us: int = 0
    pause_asked: str = ""
    rest_left_us: int = 0
