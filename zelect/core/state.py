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

ELECTED is not yet active (R7): `LeaderState.active_since_us` says since when leadership is held, and
`active` asks the clock each time (R5).

Values inside the dictionaries are immutable, so that `State.clone` is cheap; the exhaustive
checker and the simulator rely on it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from enum import Enum, StrEnum
from typing import TypeVar

from zelect.core.effects import Saved
from zelect.core.election_trace import Round
from zelect.core.lease import NEVER_US, Lease, renewed_us
from zelect.core.messages import COOLING_DOWN, UNHEALTHY, Envelope, Handover, Reason, Refusal
from zelect.core.quorum import WITNESS, Record, RecordId, Witness, quorum_size

__all__ = [
    "Campaign",
    "KnownController",
    "LeaderState",
    "Pause",
    "Peer",
    "PendingHandover",
    "Promise",
    "Role",
    "State",
    "Status",
    "VoteAnswer",
    "clone",
]

T = TypeVar("T")


class Status(StrEnum):
    """The life of a node as people see it."""

    STARTING = "starting"
    IDENTIFYING = "identifying"
    VOTING = "voting"
    RUNNING = "running"


class Role(Enum):
    """A node's part in the election."""

    FOLLOWER = "follower"
    PRE_CANDIDATE = "pre_candidate"
    CANDIDATE = "candidate"
    ELECTED = "elected"


@dataclass(frozen=True, slots=True)
class KnownController:
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
class PendingHandover:
    """What a guarded node will say of leadership that it left once the job in it has ended: by the
    end of the lease, `until_us`, at the latest (R6)."""

    message: Handover
    until_us: int


@dataclass(frozen=True, slots=True)
class Pause:
    """No planned transfers before `until_us`. `asked`: who asked for it and why."""

    until_us: int
    asked: str


@dataclass(frozen=True, slots=True)
class Peer:
    """What is known of another member. Incarnation 0: never heard. `dead`: that incarnation is
    proven dead (R9). `life`: the one it says it lives (R1). `offline`: it left.
    `silent`: the controller has not heard it for `down_after`; hearing it again ends that."""

    incarnation: int = 0
    heard_us: int = -1
    priority: int = 0
    linked: bool = False
    linked_us: int = -1
    dead: bool = False
    epoch: int = 0
    offline: bool = False
    unresponsive: bool = False

    @property
    def gone(self) -> bool:
        """Whether nothing may be expected of this peer now."""
        return self.dead or self.offline or self.unresponsive

    def heard(self, now_us: int) -> Peer:
        """This peer, heard at `now_us` in the incarnation that is known. A proof of its death that
        was wrong is taken back once the same process speaks over a new connection. Written out: it
        happens with every message, and `replace` takes three times as long."""
        return Peer(
            incarnation=self.incarnation,
            heard_us=now_us,
            priority=self.priority,
            linked=self.linked,
            linked_us=self.linked_us,
            dead=self.dead and not self.linked,
            epoch=self.epoch,
            offline=self.offline,
            unresponsive=False,
        )


@dataclass(frozen=True, slots=True)
class VoteAnswer:
    """A voter's answer in a campaign."""

    granted: bool
    reason: Refusal | None
    until_us: int  # when the voter's promise or silence ends, on this node's clock
    epoch: int = 0


@dataclass(slots=True)
class Campaign:
    """One round of asking for votes, of a campaign that `began_us`. Answers are kept by voter (R2).
    `asked_us`: when this round was asked. `witness_asked`: the nodes
    alone fell short, and the witness has been asked (R12)."""

    pre: bool
    round: int
    term_sought: int
    reason: Reason
    began_us: int
    round_began_us: int
    give_up_us: int
    witness_asked: bool = False
    answers: dict[int, VoteAnswer] = field(default_factory=dict)


@dataclass(slots=True)
class LeaderState:
    """What a winner keeps: its rounds of PINGs, who answered them, and who saved its record.

    `answered_us` maps a voter to the send time of the newest PING it answered; `lapses_us` is when
    the lease ends; PINGs sent before `floor_us` keep nobody active (R6). Leadership is not
    entered before `barrier_us` (R7b), which is 0 once it has passed; `waits_until_us` keeps it.
    `active_since_us` is 0 until leadership is entered. `steady_us` maps a node to the beginning of its
    unbroken run of answers, `taken_out` holds nodes that were taken out only because they forgot.
    `founding` names the witness memory that was asked for, `founded` the one that stands ready to
    become a voter. `lost_us`, `rounds` and `asked` are for people, see
    core/story.py.
    """

    term: int
    elected_us: int
    promises_end_us: int
    waits_until_us: int
    reason: Reason
    previous: KnownController | None
    previous_heard_us: int
    lost_us: int
    rounds: tuple[Round, ...]
    asked: str = ""
    number: int = 0
    next_ping_us: int = 0
    quorum_lost_us: int = 0
    renewed_us: int = 0
    lease_lapses_us: int = 0
    active_since_us: int = 0
    suspended: bool = False
    pending_witness_key: str = ""
    created_witness: Witness | None = None
    create_witness_again_us: int = 0
    sent_us: dict[int, int] = field(default_factory=dict)
    steady_us: dict[int, int] = field(default_factory=dict)
    removed_for_lost_state: set[int] = field(default_factory=set)
    answered_us: dict[int, int] = field(default_factory=dict)
    saved_by: dict[int, RecordId] = field(default_factory=dict)

    def holds(self, now_us: int) -> bool:
        """Whether leadership is held at `now_us`: entered, lease running, no majority lost since
        the PING that renewed it (R5, R6)."""
        return self.active_since_us > 0 and now_us < self.lease_lapses_us and self.renewed_us >= self.quorum_lost_us

    @property
    def lease(self) -> Lease | None:
        """Leadership as far as it reaches by what is known now; None when it is not held at all."""
        if not self.holds(0):
            return None
        return Lease(self.term, self.active_since_us, self.lease_lapses_us)


@dataclass(slots=True)
class State:
    """One node. `saved` is what is durable, or will be before anything else happens (R1).

    `leader` is whom this node follows now; `leader_before` the last one it knew, for the history
    and for telling voters. `campaign_at_us` is its turn to campaign. `waiting` holds requests that
    only a promise stood against, with the time they are void; they are answered again when the
    promise ends early. `witness_ready` and `witness_same` are what the last look at Redis said.
    `handed` maps a node to the newest term that it has handed over. `pending_handover` is what this node will say
    of leadership that it left once the job in it has ended (R6). `healthy`: that job could be done
    here (R8). `refused` counts what the gate turned away, by reason. `lost_us`: when the controller
    before was noticed to be gone; `rounds`: those asked since; `asked`: who asked the one before to hand
    over, and why (core/story.py). `cooling_until_us`: this node was asked to stay not active until
    then (R8). `pause`: no planned transfers meanwhile.
    """

    saved: Saved
    peers: dict[int, Peer]
    node: int
    status: Status = Status.STARTING
    role: Role = Role.FOLLOWER
    leaving: bool = False
    grace_until_us: int = 0
    identify_until_us: int = NEVER_US
    controller: KnownController | None = None
    controller_heard_us: int = -1
    last_controller: KnownController | None = None
    last_controller_heard_us: int = -1
    promise: Promise | None = None
    succession: tuple[int, ...] = ()
    campaign_at_us: int = NEVER_US
    reason: Reason = Reason.START
    attempts: int = 0
    round: int = 0
    campaign: Campaign | None = None
    leader_state: LeaderState | None = None
    next_idle_us: int = NEVER_US
    witness_ready: bool = False
    witness_same: bool = False
    next_witness_look_us: int = NEVER_US
    next_publish_us: int = NEVER_US
    handed_over: dict[int, int] = field(default_factory=dict)
    pending_handover: PendingHandover | None = None
    healthy: bool = True
    waiting_requests: dict[int, tuple[int, Envelope]] = field(default_factory=dict)
    refused: dict[str, int] = field(default_factory=dict)
    lost_us: int = -1
    rounds: tuple[Round, ...] = ()
    asked: str = ""
    cooling_until_us: int = 0
    pause: Pause | None = None

    @property
    def term(self) -> int:
        return self.saved.term

    @property
    def lost_state(self) -> bool:
        """Whether this node may have voted in a life that it doesn't remember, and so doesn't vote:
        the record names another life of it (R1)."""
        return not self.may_vote(self.record)

    def may_vote(self, record: Record) -> bool:
        """Whether this node, in its present life, votes under `record`. Where no life of it is
        named yet, one that knows that it forgot doesn't; nor does one that is no member."""
        node, epoch = self.node, self.saved.epoch
        return record.counts(node, epoch) and not (self.saved.lost_state and record.epoch_of(node) != epoch)

    @property
    def record(self) -> Record:
        return self.saved.record

    @property
    def voters(self) -> tuple[int, ...]:
        """The members, and the witness where it is a voter."""
        return self.saved.record.voters

    @property
    def members(self) -> tuple[int, ...]:
        """The voters now."""
        return self.saved.record.members

    def active(self, now_us: int) -> bool:
        """Whether this node is active at `now_us`: a look at the deadline, not a flag (R5)."""
        return self.leader_state is not None and self.leader_state.holds(now_us)

    def promised(self, now_us: int, candidate: int) -> int:
        """How many microseconds a promise to somebody else than `candidate` still runs (0: none)."""
        if self.promise is None or self.promise.to == candidate:
            return 0
        return max(0, self.promise.until_us - now_us)

    def priority(self, configured: int, now_us: int) -> int:
        """This node's priority in the succession as it is now; `configured` where nothing stands against it."""
        if not self.healthy:
            return UNHEALTHY
        return COOLING_DOWN if now_us < self.cooling_until_us else configured

    def paused(self, now_us: int) -> bool:
        """Whether planned transfers are to wait; it ends by itself."""
        return self.pause is not None and now_us < self.pause.until_us

    def links_quorum(self, node: int) -> bool:
        """Whether connections to a quorum, `node` (this node) included, are up. Asked after every
        step, so it stops counting as soon as there are enough."""
        voters, peers = self.voters, self.peers
        missing = quorum_size(voters)
        for voter in voters:
            if voter == node or (peers[voter].linked if voter != WITNESS else self._witness_stands()):
                missing -= 1
                if missing == 0:
                    return True
        return False

    def connected(self, node: int) -> set[int]:
        """The voters that an answer may come from: `node` (this node), nodes with a connection, and
        the witness while it is what the record says."""
        up = {node, *(p for p, peer in self.peers.items() if peer.linked)}
        if self._witness_stands():
            up.add(WITNESS)
        return up

    def _witness_stands(self) -> bool:
        return self.record.witness is not None and self.witness_ready and self.witness_same

    def renew_lease(self, lease_us: int) -> None:
        """Extend the lease by the PINGs answered so far (R5).

        Never shorten it: what a quorum of the record before promised still binds. A quorum of the
        next record shares a voter with it, and the one after that is written only when a quorum
        has answered a later PING (R10).
        """
        leader_state = self.leader_state
        if leader_state is not None and (renewed := renewed_us(self.voters, leader_state.answered_us)) is not None:
            leader_state.renewed_us = max(leader_state.renewed_us, renewed)
            leader_state.lease_lapses_us = leader_state.renewed_us + lease_us


def clone(value: T) -> T:
    """A copy that shares only what is immutable."""
    if isinstance(value, State | Campaign | LeaderState):
        return replace(value, **{item.name: clone(getattr(value, item.name)) for item in fields(value)})
    if isinstance(value, set):
        return set(value)  # type: ignore[return-value]  # the same type, by the line above
    if isinstance(value, dict):
        return dict(value)  # type: ignore[return-value]  # the same type, by the line above
    return value
