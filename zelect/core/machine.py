"""The machine: `step(event, now) -> effects`, from the gate to the invariants in one straight line.

    ROUTER -> wire -> machine -> actor -> effects -> save, send, publish

    event         EVENTS says which function it goes to
    message       the gate (`judge`) says whether it is let in; `_receive` carries that out
    type          ACTORS says which actor handles it, and what a term that differs from this node's means
    afterwards    AFTER_EVERY_EVENT says what is looked at whatever the event was, and why
    in the end    the invariants are checked, and the effects put in order

The same `step` runs under the node's loop, the simulator and the checker. No actor calls back into it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, cast

from zelect.core.actors import (
    admin,
    health,
    heartbeat,
    leadership,
    links,
    members,
    membership,
    query,
    timers,
    vote,
    vote_response,
    voters,
)
from zelect.core.effects import Effects, Saved
from zelect.core.events import (
    ControllerHint,
    DeathProven,
    Event,
    Evidence,
    HealthChanged,
    JobEnded,
    Leave,
    LinkDown,
    LinkUp,
    MessageReceived,
    PeerConnected,
    PeerDisconnected,
    PriorityChanged,
    Started,
    Tick,
    WitnessAnswered,
    WitnessCreated,
    WitnessSeen,
    WitnessVoted,
)
from zelect.core.invariants import check, require
from zelect.core.lease import Lease
from zelect.core.messages import (
    MAX_VERSION_HEARD,
    MAX_VERSION_JUMP,
    AdminCommand,
    Bootstrap,
    CommonResp,
    Envelope,
    MemberChange,
    Ping,
    Pong,
    Query,
    Reset,
    Result,
    Type,
    Voting,
    type_of,
)
from zelect.core.quorum import NO_RECORD, Record
from zelect.core.settings import Settings
from zelect.core.state import Peer, State
from zelect.core.status import NodeStatus
from zelect.core.step import Step
from zelect.core.timing import jumps
from zelect.core.transitions import adopt_record, become_follower


@dataclass(frozen=True, slots=True)
class Actor:
    """Who handles a message type. `old_term`: also when the sender's term is behind this node's.
    `adopts`: a higher term of the sender is adopted before the handler runs."""

    handle: Callable[[Step, Envelope, Any], None]
    old_term: bool
    adopts: bool


ACTORS: dict[Type, Actor] = {
    Type.COMMON_RESP: Actor(query.common_resp, old_term=True, adopts=False),
    Type.PING: Actor(heartbeat.ping, old_term=True, adopts=True),  # the answer to an old PING has the newer term
    Type.PONG: Actor(heartbeat.pong, old_term=False, adopts=True),
    Type.VOTING: Actor(vote.voting, old_term=True, adopts=False),  # a promise may forbid it (R3)
    Type.VOT_RESP: Actor(vote_response.vot_resp, old_term=True, adopts=True),  # a refusal may be behind
    Type.NODE_OFFLINE: Actor(membership.node_offline, old_term=True, adopts=True),
    Type.NODE_ONLINE: Actor(membership.node_online, old_term=True, adopts=True),
    Type.NODE_ONLINE_RESP: Actor(membership.node_online_resp, old_term=True, adopts=True),
    Type.QUERY: Actor(query.query, old_term=True, adopts=False),
    Type.REPORT: Actor(query.unhandled, old_term=True, adopts=False),
    Type.HANDOVER: Actor(membership.handover, old_term=True, adopts=True),
    Type.RESET: Actor(members.reset, old_term=True, adopts=False),
    Type.ADMIN: Actor(admin.admin, old_term=True, adopts=False),
    Type.MEMBERS: Actor(members.change, old_term=True, adopts=False),
    Type.BOOTSTRAP: Actor(members.bootstrap, old_term=True, adopts=False),
}
"""Which actor handles which message type."""


@dataclass(frozen=True, slots=True)
class After:
    """What is done after every event as long as `when` holds, and `why`."""

    run: Callable[[Step], None]
    when: Callable[[Step], bool]
    why: str


def _chores_due(step: Step) -> bool:
    state, now_us = step.state, step.now_us
    due = now_us >= state.next_publish_us or now_us >= state.next_idle_us or now_us >= state.next_witness_look_us
    return due and not state.leaving


AFTER_EVERY_EVENT: tuple[After, ...] = (
    After(
        vote.answer_waiting,
        when=lambda step: bool(step.state.waiting_requests),
        why="a promise may have ended early: vote requests that waited for that get their vote now (R3)",
    ),
    After(
        leadership.settle,
        when=lambda step: step.state.leader_state is not None,
        why="an answer may have renewed the lease, or was the last one missing to become active (R5, R7)",
    ),
    After(
        voters.manage,
        when=lambda step: step.state.leader_state is not None and not step.routine,
        why="a quorum may have saved the record, so that the next change of the voters can begin (R10, R11)",
    ),
    After(
        timers.chores,
        when=_chores_due,
        why="idle PINGs, publishing and the look at the witness wait for a step that happens anyway (R12, R13)",
    ),
)
"""In this order: votes first, then what they lead to. The effects of a step are carried out after all of it."""


def first_state(settings: Settings, incarnation: int) -> Saved:
    """What a node without data starts from: it belongs to no cluster (R15), and begins a new storage epoch (R16)."""
    return Saved(
        term=0,
        voted_for=0,
        incarnation=incarnation,
        record=NO_RECORD,
        epoch=incarnation,
        promise_ms=settings.timing.promise_us // 1000,
    )


class Machine:
    """One node's election, pure: the same events at the same times give the same effects.

    `saved` is what the disk holds, with the incarnation of this start; `ran_before`: this node voted or
    promised before this start (R4). `saves`: how often its storage epoch was saved (R16).
    """

    def __init__(self, settings: Settings, saved: Saved, *, ran_before: bool, saves: int = 0) -> None:
        require(settings.node in settings.addresses, "R10", "a node is one of its configured members")
        self.settings = settings
        self.ran_before = ran_before
        self._digest = settings.digest()
        # The record says where its nodes are; this one knows best where itself is. The configuration may be older, or
        # newer where the whole cluster has moved: the transport tries both addresses.
        recorded = dict(saved.record.addresses)
        own = {settings.node: settings.address} if settings.node in recorded else {}
        addresses = {**recorded, **own} if recorded else dict(settings.addresses)
        peers = {node: Peer() for node in sorted(addresses) if node != settings.node}
        founders = tuple(sorted(settings.addresses))
        self.state = State(
            saved, addresses, peers, settings.node, founding_members=founders, saves=saves, saves_at_start=saves
        )

    def saved_in(self, took_us: int) -> None:
        """A save took `took_us`: voting rounds adapt to the disk (R8). One slow save counts for the next few."""
        state = self.state
        state.save_us = max(took_us, state.save_us * 7 // 8)

    def list_members(self, addresses: Mapping[int, str]) -> None:
        """The configuration lists these nodes now. That counts once this node is new again; now it is not (R15)."""
        require(not self.state.is_new, "R15", "who founds a cluster is settled when a new node starts")
        self.settings = replace(self.settings, addresses=addresses)
        self.state.founding_members = tuple(sorted(addresses))

    def step(self, event: Event, now_us: int) -> Effects:
        """Let `event` happen at `now_us`; the caller carries out the effects in their order.

        Raises `RuleBroken` when a rule of the election does not hold: that is a bug, and the node must exit.
        """
        step = Step(self.settings, self.state, now_us, self._digest, self.ran_before)
        EVENTS[type(event)](step, event)
        for after in AFTER_EVERY_EVENT:
            if after.when(step):
                after.run(step)
        check(step)
        self.settings = step.settings  # the operator may have changed the priority
        return step.finish()

    def status(self, now_us: int) -> NodeStatus:
        """What this node would answer to a QUERY now."""
        return query.status_of(self.settings, self.state, now_us)

    def deadline_us(self) -> int:
        """When a `Tick` is due unless something else happens first."""
        return self.state.deadline_us(self.settings.timing)

    def active(self, now_us: int) -> bool:
        """Whether this node may act as controller at `now_us` (R5)."""
        return self.state.active(now_us)

    @property
    def lease(self) -> Lease | None:
        """This node's lease, to be judged by its deadline; None when it is not active."""
        leader_state = self.state.leader_state
        return None if leader_state is None else leader_state.lease

    @property
    def pending_handover_term(self) -> int:
        """Term of the leadership that this guarded node left, and in which its job may still act; 0: none."""
        pending_handover = self.state.pending_handover
        return 0 if pending_handover is None else pending_handover.message.of_term


def _receive(step: Step, event: MessageReceived) -> None:
    """Carry out what the gate says of a message; if it is let in, its actor handles it."""
    envelope = event.envelope
    state, sender, message = step.state, envelope.sender, envelope.message
    verdict = judge(step, envelope)
    if isinstance(verdict, GateRefusal):
        _refuse(step, envelope, verdict)
        return
    if verdict is Admission.RECORD:
        if state.is_new:
            query.told_of_cluster(step, sender, f"{envelope.cluster_id:x}")
        adopt_record(step, cast(Record, getattr(message, "record", None)))  # as the gate has found
        return
    if verdict is Admission.RESTARTED:
        membership.died(step, sender, state.peers[sender].incarnation, Evidence.RESTARTED)
    if verdict is not Admission.UNTRACKED:
        _mark_heard(step, envelope)
        if state.is_new:
            query.learn_of_cluster(step, envelope)
    actor = ACTORS[type_of(message)]
    if actor.adopts and envelope.term > state.term:
        become_follower(step, envelope.term, why="higher_term")
    if envelope.term < state.term and not actor.old_term:
        state.refused["old_term"] = state.refused.get("old_term", 0) + 1
        return
    actor.handle(step, envelope, message)


EVENTS: dict[type[Event], Callable[[Step, Any], None]] = {
    MessageReceived: _receive,
    Tick: timers.tick,
    LinkUp: links.link_up,
    LinkDown: links.link_down,
    PeerConnected: links.peer_connected,
    PeerDisconnected: links.peer_disconnected,
    DeathProven: membership.death_proven,
    ControllerHint: timers.hint,
    Started: timers.begin,
    Leave: membership.leave,
    HealthChanged: health.health_changed,
    JobEnded: health.job_ended,
    PriorityChanged: health.priority_changed,
    WitnessVoted: vote_response.witness_voted,
    WitnessAnswered: voters.witness_answered,
    WitnessCreated: voters.witness_created,
    WitnessSeen: voters.witness_seen,
}
"""Which function handles which event."""


# -- the gate


class GateRefusal(StrEnum):
    """Why a message is refused whatever its type; counted by this name."""

    WRONG_CLUSTER = "wrong_cluster"
    WRONG_NODE = "wrong_node"
    OTHER_CLUSTER = "other_cluster"
    OWN_ID = "own_id"
    REMOVED = "removed"
    UNKNOWN_SENDER = "unknown_sender"
    SETTINGS_MISMATCH = "settings_mismatch"
    OTHER_GENERATION = "other_generation"
    TERM_JUMP = "term_jump"
    IMPOSSIBLE_VOTERS = "impossible_voters"
    OLD_INCARNATION = "old_incarnation"
    ID_IN_USE = "id_in_use"


class Admission(StrEnum):
    """How a message is let in. MEMBER: from the known process of a member, or the first one of it.
    RESTARTED: from a new process of a member; the earlier one is dead. UNTRACKED: a command of the
    command line, or an error for people to read; it says nothing about a peer."""

    MEMBER = "member"
    RESTARTED = "restarted"
    UNTRACKED = "untracked"
    RECORD = "record"


_FROM_COMMAND_LINE = (Query, Reset, AdminCommand, MemberChange, Bootstrap)


def judge(step: Step, envelope: Envelope) -> Admission | GateRefusal:
    """Whether a message is let in, by what all types have in common. It only judges: nothing changes."""
    state, settings, sender = step.state, step.settings, envelope.sender
    if envelope.cluster != settings.cluster:
        return GateRefusal.WRONG_CLUSTER
    if envelope.to not in (0, step.me):
        return GateRefusal.WRONG_NODE
    if isinstance(envelope.message, _FROM_COMMAND_LINE):
        return Admission.UNTRACKED  # who may send commands is decided before a message comes here
    if state.removed and not envelope.cluster_id and not isinstance(envelope.message, CommonResp):
        return GateRefusal.REMOVED
    known = state.peers.get(sender)
    if known is None:
        return _judge_unknown(step, envelope)
    if isinstance(envelope.message, CommonResp):
        return Admission.UNTRACKED  # even with other settings: those may be the error that it reports
    if envelope.settings != step.digest:
        return GateRefusal.SETTINGS_MISMATCH
    other = _judge_cluster(state, envelope)
    if other is not None:
        return other
    if _jumps(state, envelope):
        return GateRefusal.TERM_JUMP
    if _impossible_voters(step, envelope):
        return GateRefusal.IMPOSSIBLE_VOTERS
    return Admission.MEMBER if envelope.incarnation == known.incarnation else _judge_process(step, known, envelope)


def _judge_cluster(state: State, envelope: Envelope) -> GateRefusal | None:
    """A sender of another cluster, or of another generation of this node's."""
    if not envelope.cluster_id or state.is_new:
        return None
    if envelope.cluster_id != state.record.cluster_id:
        return GateRefusal.OTHER_CLUSTER
    return GateRefusal.OTHER_GENERATION if envelope.generation != state.record.generation else None


def _judge_unknown(step: Step, envelope: Envelope) -> Admission | GateRefusal:
    """A message of a node that this one doesn't know. Nothing is taken from it but a voter record, which this node may
    have missed because it was away or lists other nodes: that may be taken from anybody (R12)."""
    state, record = step.state, getattr(envelope.message, "record", None)
    if envelope.sender == step.me:
        return GateRefusal.OWN_ID
    told = envelope.cluster_id, envelope.generation
    mine = state.is_new or told == (state.record.cluster_id, state.record.generation)
    if not isinstance(record, Record) or not envelope.cluster_id or not mine or envelope.settings != step.digest:
        return GateRefusal.UNKNOWN_SENDER
    new = record.id > state.record.id and (step.me in record.nodes or not state.is_new)
    if not new or _jumps(state, envelope) or _impossible_voters(step, envelope):
        return GateRefusal.UNKNOWN_SENDER
    return Admission.RECORD


def _judge_process(step: Step, known: Peer, envelope: Envelope) -> Admission | GateRefusal:
    """A message of another process than the one that was heard last: an earlier one, or a newer one."""
    if envelope.incarnation < known.incarnation:
        return GateRefusal.OLD_INCARNATION
    if not known.incarnation:
        return Admission.MEMBER
    return GateRefusal.ID_IN_USE if _lives(step, known) else Admission.RESTARTED


def _lives(step: Step, known: Peer) -> bool:
    """Whether the process known so far is still alive, so that a newer incarnation must be a second
    process with its id: the connection that it made is open, or that to it has been up since before it was
    last heard, and that was not long ago. The bound in time repairs a wrong suspicion: after a freeze of this
    node the last messages of the old process are read only after the new connection was noticed."""
    stands = known.inbound or (known.linked and known.linked_us < known.heard_us)
    if known.offline or not stands:
        return False
    return step.now_us - known.heard_us < step.timing.down_after_us


def _jumps(state: State, envelope: Envelope) -> bool:
    """Whether the message claims a term too far ahead to be true (R14)."""
    message = envelope.message
    return jumps(state.term, max(envelope.term, message.term_sought) if isinstance(message, Voting) else envelope.term)


def _impossible_voters(step: Step, envelope: Envelope) -> bool:
    """Whether the message carries a voter record or a succession that can't be this cluster's."""
    message = envelope.message
    if isinstance(message, Pong):
        return False  # it names a record, and carries none
    record: Record | None = getattr(message, "record", None)
    if record is None:
        return False
    if _impossible_record(step.state, envelope, record):
        return True
    return isinstance(message, Ping) and not set(record.nodes) >= set(message.succession)


def _impossible_record(state: State, envelope: Envelope, record: Record) -> bool:
    """Whether a record has no members, is of another cluster, generation or of a later term than its sender, or has
    a version too far ahead to be true (R14). Only a new node proposes one (R15)."""
    if not record.members or not record.cluster_id:
        return True
    if record.proposed:
        return envelope.cluster_id != 0 or record.witness is not None or not isinstance(envelope.message, Voting)
    if (record.cluster_id, record.generation) != (envelope.cluster_id, envelope.generation):
        return True
    if record.config_term > envelope.term:
        return True
    return record.version > MAX_VERSION_HEARD or 0 < state.record.version < record.version - MAX_VERSION_JUMP


def _mark_heard(step: Step, envelope: Envelope) -> None:
    sender, incarnation = envelope.sender, envelope.incarnation
    known = step.state.peers[sender]
    if incarnation == known.incarnation:
        step.state.peers[sender] = known.heard(step.now_us)
        return
    step.note("peer_online", peer=sender, incarnation=incarnation)
    # `inbound` was the earlier process's; the connection that brought this message is reported after it.
    step.know(sender, incarnation=incarnation, heard_us=step.now_us, inbound=False, saves_before=known.saves)
    step.know(sender, dead=False, offline=False, cluster_stop=False, unresponsive=False)


def _refuse(step: Step, envelope: Envelope, refusal: GateRefusal) -> None:
    """Count and note it, and answer the sender where that helps the people who run it."""
    state = step.state
    complaint = _complaint(state, step.settings, envelope, refusal)
    if complaint is not None and not isinstance(envelope.message, CommonResp):
        result, detail = complaint
        answer = CommonResp(int(type_of(envelope.message)), result, detail)
        if envelope.sender in state.peers and refusal not in _BY_ADDRESS:
            step.send(envelope.sender, answer)
        else:
            step.answer = answer  # there is no connection to it but its own
    cluster_told = envelope.cluster_id and envelope.settings == step.digest
    if refusal is GateRefusal.UNKNOWN_SENDER and state.is_new and cluster_told:
        query.told_of_cluster(step, envelope.sender, f"{envelope.cluster_id:x}")
    state.refused[refusal.value] = state.refused.get(refusal.value, 0) + 1
    step.note("message_refused", sender=envelope.sender, reason=refusal.value)


_BY_ADDRESS = frozenset({GateRefusal.WRONG_CLUSTER, GateRefusal.WRONG_NODE, GateRefusal.OTHER_CLUSTER})
"""The sender may not be the node that this one knows by that id: it was led here by a wrong address."""


def _complaint(state: State, settings: Settings, envelope: Envelope, refusal: GateRefusal) -> tuple[Result, str] | None:
    sender = envelope.sender
    match refusal:
        case GateRefusal.WRONG_CLUSTER:
            return Result.WRONG_CLUSTER, f"this is node {state.node} of cluster {settings.cluster}"
        case GateRefusal.WRONG_NODE:
            return Result.WRONG_NODE, f"this is node {state.node}"
        case GateRefusal.REMOVED:
            return Result.REMOVED, f"node {state.node} was removed from cluster {state.record.cluster_id:x}"
        case GateRefusal.SETTINGS_MISMATCH:
            return Result.SETTINGS_MISMATCH, " ".join(f"{key}={value}" for key, value in settings.shared().items())
        case GateRefusal.OTHER_CLUSTER:
            return Result.OTHER_CLUSTER, f"this node belongs to cluster {state.record.cluster_id:x}"
        case GateRefusal.OTHER_GENERATION if envelope.generation < state.record.generation:
            return Result.OTHER_GENERATION, f"the cluster was reset to generation {state.record.generation}"
        case GateRefusal.UNKNOWN_SENDER if not state.is_new:
            members = ", ".join(map(str, state.record.nodes))
            return Result.NOT_MEMBER, f"node {sender} does not belong to cluster {state.record.cluster_id:x}: {members}"
        case GateRefusal.TERM_JUMP:
            return Result.TERM_JUMP, f"this node's term is {state.term}"
        case GateRefusal.OLD_INCARNATION:
            heard = state.peers[sender].incarnation
            return (
                Result.OLD_INCARNATION,
                f"seen earlier with incarnation {heard}: a clock is slow, or the id is used twice",
            )
        case GateRefusal.ID_IN_USE:
            return Result.ID_IN_USE, f"two processes claim to be node {sender}"
    return None
