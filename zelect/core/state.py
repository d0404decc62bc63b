"""Everything a node knows, and the few functions that may change its role or term.

States and roles
----------------
*Status* is the life of the node as people see it: STARTING (asks Redis for a controller),
IDENTIFYING (Redis named one; asks the peers), VOTING (no controller), RUNNING (one is known).
*Stand* is its part in the election:

    FOLLOWER --campaign_at--> PRE_CANDIDATE --quorum would vote--> CANDIDATE --quorum--> ELECTED
        ^                          |                                  |                    |
        +--------------------------+---- refused, timed out ----------+---- lease lapsed --+
        +----------------------------- higher term, PING of the term's controller ---------+

ELECTED is not yet in office (R7): `Reign.entered_us` says since when the office is held, and
`in_office` asks the clock each time (R5).

Values inside the dictionaries are immutable, so that `State.clone` is cheap; the exhaustive
checker and the simulator rely on it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from enum import Enum, StrEnum
from typing import TypeVar

from zelect.core.effects import Saved
from zelect.core.lease import NEVER_US, renewed_us
from zelect.core.messages import Envelope, Refusal, Trigger
from zelect.core.quorum import RecordId, has_quorum

__all__ = ["Answer", "Campaign", "Leader", "Peer", "Promise", "Reign", "Stand", "State", "Status", "clone"]

T = TypeVar("T")


class Status(StrEnum):
    """The life of a node as people see it."""

    STARTING = "starting"
    IDENTIFYING = "identifying"
    VOTING = "voting"
    RUNNING = "running"


class Stand(Enum):
    """A node's part in the election."""

    FOLLOWER = "follower"
    PRE_CANDIDATE = "pre_candidate"
    CANDIDATE = "candidate"
    ELECTED = "elected"


@dataclass(frozen=True, slots=True)
class Leader:
    """The controller this node follows."""

    id: int
    incarnation: int
    term: int


@dataclass(frozen=True, slots=True)
class Promise:
    """Grant nobody but `to` a vote before `until_us` (R3). Bound to that process's incarnation
    and term, so that an old proof or an old handover cannot end a newer promise."""

    to: int
    incarnation: int
    term: int
    until_us: int


@dataclass(frozen=True, slots=True)
class Peer:
    """What is known of another member. Incarnation 0: never heard. `dead`: that incarnation is
    proven dead (R9). `offline`: it said goodbye. `silent`: the controller has not heard it for
    `down_after`; hearing it again ends that."""

    incarnation: int = 0
    heard_us: int = -1
    priority: int = 0
    linked: bool = False
    linked_us: int = -1
    dead: bool = False
    offline: bool = False
    silent: bool = False

    @property
    def gone(self) -> bool:
        """Whether nothing may be expected of this peer now."""
        return self.dead or self.offline or self.silent


@dataclass(frozen=True, slots=True)
class Answer:
    """A voter's answer in a campaign."""

    granted: bool
    reason: Refusal | None
    until_us: int  # when the voter's promise or silence ends, on this node's clock


@dataclass(slots=True)
class Campaign:
    """One round of asking for votes. Answers are kept by voter (R2)."""

    pre: bool
    round: int
    term_sought: int
    trigger: Trigger
    began_us: int
    give_up_us: int
    answers: dict[int, Answer] = field(default_factory=dict)


@dataclass(slots=True)
class Reign:
    """What a winner keeps: its rounds of PINGs, who answered them, and who saved its record.

    `answered_us` maps a member to the send time of the newest PING it answered; `lapses_us` is
    when the lease ends; PINGs sent before `floor_us` keep nobody in office (R6); the office is
    not entered before `barrier_us` (R7b). `entered_us` is 0 until the office is entered.
    """

    term: int
    elected_us: int
    barrier_us: int
    trigger: Trigger
    previous: Leader | None
    previous_heard_us: int
    votes: dict[int, Answer]
    number: int = 0
    next_ping_us: int = 0
    next_publish_us: int = 0
    floor_us: int = 0
    renewed_us: int = 0
    lapses_us: int = 0
    entered_us: int = 0
    suspended: bool = False
    sent_us: dict[int, int] = field(default_factory=dict)
    answered_us: dict[int, int] = field(default_factory=dict)
    saved_by: dict[int, RecordId] = field(default_factory=dict)

    def holds(self, now_us: int) -> bool:
        """Whether the office is held at `now_us`: entered, lease running, no majority lost since
        the PING that renewed it (R5, R6)."""
        return self.entered_us > 0 and now_us < self.lapses_us and self.renewed_us >= self.floor_us


@dataclass(slots=True)
class State:
    """One node. `saved` is what is durable, or will be before anything else happens (R1).

    `leader` is whom this node follows now; `leader_before` the last one it knew, for the history
    and for telling voters. `campaign_at_us` is its turn to campaign. `waiting` holds requests that
    only a promise stood against, with the time they are void; they are answered again when the
    promise ends early. `refused` counts what the gate turned away, by reason.
    """

    saved: Saved
    peers: dict[int, Peer]
    amnesia: bool = False
    status: Status = Status.STARTING
    stand: Stand = Stand.FOLLOWER
    leaving: bool = False
    silent_until_us: int = 0
    identify_until_us: int = NEVER_US
    leader: Leader | None = None
    leader_heard_us: int = -1
    leader_before: Leader | None = None
    leader_before_heard_us: int = -1
    promise: Promise | None = None
    succession: tuple[int, ...] = ()
    campaign_at_us: int = NEVER_US
    trigger: Trigger = Trigger.START
    attempts: int = 0
    round: int = 0
    campaign: Campaign | None = None
    reign: Reign | None = None
    next_idle_us: int = NEVER_US
    waiting: dict[int, tuple[int, Envelope]] = field(default_factory=dict)
    refused: dict[str, int] = field(default_factory=dict)

    @property
    def term(self) -> int:
        return self.saved.term

    @property
    def members(self) -> tuple[int, ...]:
        """The electorate now."""
        return self.saved.record.members

    def in_office(self, now_us: int) -> bool:
        """Whether this node is in office at `now_us`: a look at the deadline, not a flag (R5)."""
        return self.reign is not None and self.reign.holds(now_us)

    def promised(self, now_us: int, candidate: int) -> int:
        """How many microseconds a promise to somebody else than `candidate` still runs (0: none)."""
        if self.promise is None or self.promise.to == candidate:
            return 0
        return max(0, self.promise.until_us - now_us)

    def links_quorum(self, node: int) -> bool:
        """Whether connections to a quorum, `node` (this node) included, are up."""
        return has_quorum(self.members, [node, *(p for p, peer in self.peers.items() if peer.linked)])

    def renew_lease(self, lease_us: int) -> None:
        """Recompute when the lease ends from the PINGs answered so far (R5)."""
        reign = self.reign
        if reign is not None and (renewed := renewed_us(self.members, reign.answered_us)) is not None:
            reign.renewed_us = renewed
            reign.lapses_us = renewed + lease_us


def clone(value: T) -> T:
    """A copy that shares only what is immutable."""
    if isinstance(value, State | Campaign | Reign):
        return replace(value, **{item.name: clone(getattr(value, item.name)) for item in fields(value)})
    if isinstance(value, dict):
        return dict(value)  # type: ignore[return-value]  # the same type, by the line above
    return value
