"""Everything a node knows, and what follows from it at a given moment: is it active, when is it due?

States and roles
----------------
*Status* is the life of a node as people see it: STARTING (asks Redis for a controller),
IDENTIFYING (Redis named one; asks the peers), VOTING (no controller), RUNNING (one is known).
*Role* is its part in the election, as in Raft (paper, figure 4) with a pre-vote (thesis, 9.6):

    FOLLOWER --campaign_at--> PRE_CANDIDATE --quorum would vote--> CANDIDATE --quorum--> ELECTED
        ^                          |                                  |                    |
        +--------------------------+---- refused, timed out ----------+---- lease lapsed --+
        +----------------------------- higher term, PING of the term's controller ---------+

ELECTED is not yet active (R7): `LeaderState.active_since_us` is when the node became active, and
`active` asks the clock each time (R5): active is a deadline that has not passed, never a flag.

Only `core/transitions.py` changes role, term, controller and leader state. Values inside the
dictionaries are immutable, so that `clone` is cheap; the exhaustive checker and the simulator rely
on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from enum import Enum, StrEnum
from typing import TypeVar

from zelect.core.effects import Saved
from zelect.core.election_trace import Round
from zelect.core.lease import NEVER_US, Lease, renewed_us
from zelect.core.messages import COOLING_DOWN, UNHEALTHY, Envelope, Handover, Reason, Refusal
from zelect.core.quorum import (
    NO_RECORD,
    WITNESS,
    Outcome,
    Record,
    RecordId,
    Witness,
    follows,
    has_quorum,
    quorum_size,
    tally,
)
from zelect.core.timing import MAX_TERM, Timing

T = TypeVar("T")

MOST_DOUBLINGS = 6
"""How often failed attempts double the length of a round of votes: from 100 ms to 6.4 s."""


class Status(StrEnum):
    """The life of a node as people see it; see above."""

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
    """A controller that this node follows, or followed."""

    id: int
    incarnation: int
    term: int


@dataclass(frozen=True, slots=True)
class Promise:
    """No vote for anybody but `to` before `until_us` (R3). Bound to that process's incarnation
    and term, so that an old proof of death or an old handover cannot end a newer promise."""

    to: int
    incarnation: int
    term: int
    until_us: int


@dataclass(frozen=True, slots=True)
class PendingHandover:
    """The handover that a guarded node sends once the job in its former leadership has ended: by the
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
    """What is known of another member. Incarnation 0: never heard. `linked`: the connection that this node made
    to it is up, since `linked_us`. `inbound`: one that this incarnation made to this node is open. `dead`: that
    incarnation is proven dead (R9). `epoch`: the storage epoch that it reports, saved `saves` times;
    `saves_before` of them were heard of by earlier incarnations (R16). `offline`: it left; with `cluster_stop`
    because all nodes are being stopped. `unresponsive`: the controller has not heard it for `down_after`; hearing
    it again ends that. `cluster_id`: the cluster that it belongs to (0: to none yet, -1: not known), as this node
    heard while it was new itself (R15). `foreign`: it last spoke as a node of another cluster than this node's.
    `complaint`: what it last refused of this node's messages, and why; for
    people. `address`: where it says that others reach it."""

    incarnation: int = 0
    heard_us: int = -1
    priority: int = 0
    linked: bool = False
    linked_us: int = -1
    inbound: bool = False
    dead: bool = False
    epoch: int = 0
    saves: int = 0
    saves_before: int = 0
    offline: bool = False
    cluster_stop: bool = False
    unresponsive: bool = False
    cluster_id: int = -1
    foreign: bool = False
    complaint: str = ""
    address: str = ""

    @property
    def gone(self) -> bool:
        """Whether no answer can be expected of this peer now."""
        return self.dead or self.offline or self.unresponsive

    @property
    def lost(self) -> bool:
        """Whether the controller may take its vote away (R11): it is proven dead or was not heard for too long. One
        that left is expected back for `down_after`; in a stop of the whole cluster, until it has come back once."""
        return self.unresponsive or (self.dead and not self.offline)

    @property
    def connected(self) -> bool:
        """Whether a connection is open, in either direction: then its process is not proven dead (R9)."""
        return self.linked or self.inbound

    def heard(self, now_us: int) -> Peer:
        """This peer, heard at `now_us` in the incarnation that is known. A wrong proof of its death is revoked once the
        same process sends over a new connection. Written out because it happens with every message, and `replace` takes
        three times as long."""
        return Peer(
            incarnation=self.incarnation,
            heard_us=now_us,
            priority=self.priority,
            linked=self.linked,
            linked_us=self.linked_us,
            inbound=self.inbound,
            dead=self.dead and not self.linked,
            epoch=self.epoch,
            saves=self.saves,
            saves_before=self.saves_before,
            offline=self.offline,
            cluster_stop=self.cluster_stop,
            unresponsive=False,
            cluster_id=self.cluster_id,
            foreign=False,
            complaint=self.complaint,
            address=self.address,
        )


@dataclass(frozen=True, slots=True)
class VoteAnswer:
    """A voter's answer in a campaign."""

    granted: bool
    reason: Refusal | None
    until_us: int  # when the voter's promise or grace period ends, on this node's clock
    epoch: int = 0


@dataclass(slots=True)
class Campaign:
    """One round of vote requests (`pre`: of pre-vote requests) in a campaign that began at `began_us`, for the
    voters of `record`.

    `round_began_us`: when these requests were sent. `give_up_us`: when the round is over without
    enough answers. `answers` are kept by voter, so that none counts twice (R2). `witness_asked`: the
    nodes alone could not decide it, and the witness has been asked (R12)."""

    pre: bool
    round: int
    term_sought: int
    reason: Reason
    began_us: int
    round_began_us: int
    give_up_us: int
    record: Record = NO_RECORD
    witness_asked: bool = False
    answers: dict[int, VoteAnswer] = field(default_factory=dict)

    def outcome(self, answers: Mapping[int, bool]) -> Outcome:
        """What `answers` (voter to granted) decide: a quorum elects (R2), but to found a cluster takes the vote
        of every member (R15)."""
        if not self.record.proposed:
            return tally(self.record.voters, answers)
        if not all(answers.values()):
            return Outcome.LOST
        return Outcome.WON if answers.keys() >= set(self.record.members) else Outcome.PENDING


@dataclass(slots=True)
class LeaderState:
    """What a winner keeps of its leadership: its PINGs, who answered them, and who saved its record.

    `number` is that of the newest PING, `sent_us` maps the numbers of PINGs to their send times,
    `answered_us` a voter to the send time of the newest PING that it answered. `renewed_us` is the
    send time that the lease depends on, `lease_lapses_us` its deadline (0: no lease yet). PINGs sent
    before `quorum_lost_us`, when too few connections were left, don't keep the node active (R6).
    Promises to earlier controllers end at `promises_end_us`; until then the winner does not become
    active (R7b), and `waiting` is true. `disks_us` is what the voters may need to save its record (R8).
    `active_since_us` is 0 until it is active; `suspended`: the lease runs, but the connections to a quorum were
    lost.
    `saved_by` maps a voter to the newest record that it has saved. `steady_us` maps a node to the
    beginning of its unbroken run of answers; `removed_for_lost_state` holds nodes that stopped being
    voters only because they lost their state. `pending_witness_key` names the new witness that was
    asked for (again from `create_witness_again_us` on), `created_witness` is the one that is ready to
    become a voter. `previous` is the previous controller; it, `lost_us` (when its loss was noticed),
    `rounds` and `asked` are for people (core/election_trace.py).
    """

    term: int
    elected_us: int
    promises_end_us: int
    waiting: bool
    reason: Reason
    previous: KnownController | None
    previous_heard_us: int
    lost_us: int
    rounds: tuple[Round, ...]
    disks_us: int = 0
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
        """Whether this node is active at `now_us`: it became so, the lease runs, and the connections to
        a quorum were not lost since the PING that renewed it (R5, R6)."""
        return self.active_since_us > 0 and now_us < self.lease_lapses_us and self.renewed_us >= self.quorum_lost_us

    @property
    def lease(self) -> Lease | None:
        """The lease by what is known now; None when this node is not active, whatever the time."""
        if self.active_since_us == 0 or self.renewed_us < self.quorum_lost_us:
            return None
        return Lease(self.term, self.active_since_us, self.lease_lapses_us)

    def over_us(self, promise_us: int) -> int:
        """When this leadership is over unless another PING is answered by a quorum: at the lease's end, or
        one election timeout (`promise_us`) after an election that never earned a lease, not counting the
        time that it had to wait for promises, nor what the voters' disks need (R6, R7b, R8)."""
        return self.lease_lapses_us or max(self.elected_us, self.promises_end_us) + promise_us + self.disks_us

    def committed(self, record: Record) -> bool:
        """Whether a quorum of the voters of `record` has saved it, in this term (R7a, R10)."""
        return has_quorum(record.voters, [voter for voter, saved in self.saved_by.items() if saved == record.id])


@dataclass(slots=True)
class State:
    """One node. `saved` is what is durable, or will be before anything else happens (R1).

    `node` is its id. `addresses` are the nodes that belong to the cluster: by its record, and as long as it has
    none, by its configuration or the operator (R15). `peers` is what it knows of each of them but itself.
    `founding_members` are to found the cluster: all that are configured, or those that an operator named (R15).
    `saves` counts how often its storage epoch was saved, `saves_at_start` is that number when this process began (R16);
    `save_us` is how long a save takes (R8). `grace_until_us`: it neither votes nor campaigns before (R4).
    `controller` is the node that it follows now; `last_controller` the last one it knew, for the history and for vote
    requests. `succession` is the order that the controller
    announced, `campaign_at_us` this node's turn in it, `attempts` how often it has failed since (R8).
    `campaign` is its open round of vote requests, `leader_state` its leadership once it is elected.
    `waiting_requests` holds vote requests that were refused only because of a promise, each with the time when
    it is void; they are answered again when the promise ends early.
    `handed_over` maps a node to the newest term that it has handed over. `pending_handover`: this node
    left a leadership in which a job may still act (R6). `healthy`: that job could be done here (R8).
    `witness_ready` and `witness_same` are what the last look at Redis found.
    `refused` counts messages that the gate refused, by reason. `lost_us`: when the last controller
    was noticed to be gone; `rounds`: those that this node held since; `asked`: who asked that
    controller to hand over, and why (core/election_trace.py). `cooling_until_us`: this node was asked
    not to become active before (R8). `pause`: no planned transfers meanwhile. `cluster_told_us`: when this new
    node last heard of a cluster from a node that it doesn't list, or from Redis; -1: not lately (R15).
    `redis_term` is the term in Redis: a cluster that is founded goes on from it (S3). Until `redis_told_until_us` what
    Redis says of another cluster is believed: a controller that lives on would be heard by then.
    """

    saved: Saved
    addresses: dict[int, str]
    peers: dict[int, Peer]
    node: int
    founding_members: tuple[int, ...] = ()
    saves: int = 0
    saves_at_start: int = 0
    save_us: int = 0
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
    cluster_told_us: int = -1
    redis_term: int = 0
    redis_told_until_us: int = 0

    @property
    def term(self) -> int:
        return self.saved.term

    @property
    def is_new(self) -> bool:
        """Whether this node belongs to no cluster yet: it has no voter record (R15)."""
        return self.saved.record.cluster_id == 0

    @property
    def removed(self) -> bool:
        """Whether an operator removed this node from its cluster (R10)."""
        return not self.is_new and self.node not in self.saved.record.nodes

    def may_vote(self, record: Record) -> bool:
        """Whether this node has a voting right under `record`: it names this node's present epoch (R16)."""
        return record.counts(self.node, self.saved.epoch)

    @property
    def record(self) -> Record:
        return self.saved.record

    @property
    def voters(self) -> tuple[int, ...]:
        """Whose votes count now: the voting nodes, and the witness where the record names one."""
        return self.saved.record.voters

    @property
    def members(self) -> tuple[int, ...]:
        """The nodes among the voters now; those that belong to the cluster are in `addresses`."""
        return self.saved.record.members

    def active(self, now_us: int) -> bool:
        """Whether this node is active at `now_us`: a look at the deadline, not a flag (R5)."""
        return self.leader_state is not None and self.leader_state.holds(now_us)

    def promise_left_us(self, now_us: int, candidate: int) -> int:
        """For how many microseconds a promise to a node other than `candidate` still runs (0: none)."""
        if self.promise is None or self.promise.to == candidate:
            return 0
        return max(0, self.promise.until_us - now_us)

    def priority(self, configured: int, now_us: int) -> int:
        """This node's priority in the succession now: `configured`, unless it is unhealthy or cooling down."""
        if not self.healthy:
            return UNHEALTHY
        return COOLING_DOWN if now_us < self.cooling_until_us else configured

    def paused(self, now_us: int) -> bool:
        """Whether planned transfers are paused; a pause ends by itself."""
        return self.pause is not None and now_us < self.pause.until_us

    def votes(self, now_us: int) -> bool:
        """Whether an election now could count on this node's vote: it is active or follows a controller, whose record
        names it with its present epoch (R16), its grace period is over (R4), and a quorum is connected."""
        settled = self.active(now_us) or self.controller is not None
        return settled and self.may_vote(self.record) and now_us >= self.grace_until_us and self.linked_to_quorum()

    def linked_to_quorum(self) -> bool:
        """Whether connections to a quorum, this node included, are up. Asked after every
        step, so it stops counting as soon as there are enough."""
        voters, peers = self.voters, self.peers
        missing = quorum_size(voters)
        for voter in voters:
            if voter == self.node or (peers[voter].linked if voter != WITNESS else self._witness_up()):
                missing -= 1
                if missing == 0:
                    return True
        return False

    def connected(self) -> set[int]:
        """The voters that an answer may come from: this node, nodes with a connection, and
        the witness while it is the one that the record names."""
        up = {self.node, *(p for p, peer in self.peers.items() if peer.linked)}
        if self._witness_up():
            up.add(WITNESS)
        return up

    def _witness_up(self) -> bool:
        return self.record.witness is not None and self.witness_ready and self.witness_same

    def hears_of_cluster(self) -> bool:
        """Whether a peer of this new node belongs to a cluster, or another source told of one: there is one to join, so
        none is founded (R15)."""
        return self.cluster_told_us >= 0 or any(peer.cluster_id > 0 for peer in self.peers.values())

    def at_address(self, address: str, asking: int) -> int:
        """Which node other than `asking` is at `address`, by its own words, or else as far as this one knows; 0: none.
        Two nodes that change places may both say so."""
        for node, known in self.addresses.items():
            said = self.peers[node].address if node in self.peers else ""
            if node != asking and address == (said or known):
                return node
        return 0

    def founders(self) -> dict[int, int]:
        """The epoch of each node that is to found a cluster with this one; empty while one of them was not heard,
        or belongs to a cluster already (R15)."""
        wanted = self.founding_members
        if not self.is_new or self.node not in wanted:
            return {}
        peers = {node: self.peers.get(node, Peer()) for node in wanted if node != self.node}
        ready = all(peer.linked and peer.epoch and peer.cluster_id == 0 for peer in peers.values())
        if self.hears_of_cluster() or not ready:
            return {}
        epochs = {self.node: self.saved.epoch, **{node: peer.epoch for node, peer in peers.items()}}
        return epochs if follows(self.saved.founding, epochs) else {}

    def campaign_due_us(self) -> int:
        """When this node may campaign: its turn has come, its grace period and promises are over, and connections to a
        quorum are up; NEVER_US while anything else forbids it (R3, R4, R8). Only a node that its own record names with
        its own epoch may campaign (R10), or one that founds a cluster (R15)."""
        if self.role is not Role.FOLLOWER or self.leaving or self.campaign_at_us == NEVER_US or self.term >= MAX_TERM:
            return NEVER_US
        if not (self.founders() if self.is_new else self.may_vote(self.record) and self.linked_to_quorum()):
            return NEVER_US
        promise_us = 0 if self.promise is None or self.promise.to == self.node else self.promise.until_us
        return max(self.campaign_at_us, self.grace_until_us, promise_us)

    def round_us(self, timing: Timing, pre: bool) -> int:
        """How long a round of vote requests waits for its answers (R8): a heartbeat, which must be longer than
        the network's round-trip anyway, and what the disks need: the candidate saves its vote, then the
        voters theirs. Each failed attempt doubles it, because the disks and links of others may be slower."""
        backoff = min(self.attempts, 2 if pre else MOST_DOUBLINGS)
        return (timing.vote_wait_us + (0 if pre else 3 * self.save_us)) << backoff

    def deadline_us(self, timing: Timing) -> int:
        """The earliest moment at which a `Tick` would do something. Chores wait up to a heartbeat for a
        step that happens anyway, so that an idle node wakes no more often than its heartbeats."""
        if self.leaving:
            return NEVER_US
        chores_us = min(self.next_idle_us, self.next_witness_look_us, self.next_publish_us)
        due_us = min(chores_us + timing.heartbeat_us, self.campaign_due_us())
        if self.status is Status.STARTING or self.status is Status.IDENTIFYING:
            due_us = min(due_us, self.identify_until_us)
        if self.campaign is not None:
            due_us = min(due_us, self.campaign.give_up_us)
        leader_state = self.leader_state
        if leader_state is not None:
            due_us = min(due_us, leader_state.next_ping_us, leader_state.over_us(timing.promise_us))
            if leader_state.waiting and not leader_state.active_since_us:
                due_us = min(due_us, leader_state.promises_end_us)
        return due_us

    def renew_lease(self, lease_us: int) -> None:
        """Extend the lease by the PINGs answered so far (R5).

        The lease is never shortened: what a quorum of the previous record promised still binds. A quorum
        of the next record shares a voter with it, and the one after that is written only when a quorum
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
