"""The machine: `step(event, now) -> effects`, one gate, one table of actors.

    ROUTER -> wire -> machine -> actor -> effects -> save, send, publish

The gate judges once what is common to all messages: cluster, sender, settings, incarnation, term.
`ACTORS` says who handles which type, and what the gate does about a term that differs. The same
`step` runs under the node's poller loop, the simulator and the checker.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from zelect.core.actors import (
    admin,
    health,
    heartbeat,
    leadership,
    links,
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
    PriorityChanged,
    Started,
    Tick,
    WitnessAnswered,
    WitnessCreated,
    WitnessSeen,
    WitnessVoted,
)
from zelect.core.invariants import require
from zelect.core.lease import Lease
from zelect.core.messages import (
    AdminCommand,
    CommonResp,
    Envelope,
    Ping,
    Pong,
    Query,
    Reset,
    Result,
    Type,
    Voting,
    type_of,
)
from zelect.core.quorum import Record
from zelect.core.settings import Settings
from zelect.core.state import Peer, State
from zelect.core.step import Step
from zelect.core.timing import MAX_TERM_HEARD, MAX_TERM_JUMP
from zelect.core.transitions import become_follower
from zelect.core.validation import MAX_VERSION_HEARD, MAX_VERSION_JUMP

__all__ = ["ACTORS", "Actor", "Machine", "first_state"]


@dataclass(frozen=True, slots=True)
class Actor:
    """Who handles a message type. `old_term`: also when the sender's term is behind this node's.
    `adopts`: a higher term of the sender is adopted before the handler runs."""

    handle: Callable[[Step, Envelope, Any], None]
    old_term: bool
    adopts: bool


ACTORS: dict[Type, Actor] = {
    Type.COMMON_RESP: Actor(query.common_resp, old_term=True, adopts=False),
    Type.PING: Actor(heartbeat.ping, old_term=True, adopts=True),  # an old PING is told the newer term
    Type.PONG: Actor(heartbeat.pong, old_term=False, adopts=True),
    Type.VOTING: Actor(vote.voting, old_term=True, adopts=False),  # a promise may forbid it (R3)
    Type.VOT_RESP: Actor(vote_response.vot_resp, old_term=True, adopts=True),  # a refusal may be behind
    Type.NODE_OFFLINE: Actor(membership.node_offline, old_term=True, adopts=True),
    Type.NODE_ONLINE: Actor(membership.node_online, old_term=True, adopts=True),
    Type.NODE_ONLINE_RESP: Actor(membership.node_online_resp, old_term=True, adopts=True),
    Type.QUERY: Actor(query.query, old_term=True, adopts=False),
    Type.REPORT: Actor(query.unhandled, old_term=True, adopts=False),
    Type.HANDOVER: Actor(membership.handover, old_term=True, adopts=True),
    Type.RESET: Actor(voters.reset, old_term=True, adopts=False),
    Type.ADMIN: Actor(admin.admin, old_term=True, adopts=False),
}


def first_state(settings: Settings, incarnation: int) -> Saved:
    """What a node without memory starts from: term 0, the members as voters, a new life."""
    record = Record(0, 0, settings.members)
    return Saved(term=0, voted_for=0, incarnation=incarnation, record=record, epoch=incarnation)


class Machine:
    """One node's election, pure: the same events at the same times give the same effects.

    `saved` is what the disk holds (with this start's incarnation), `ran_before` whether this node
    has voted or promised in an earlier life (R4).
    """

    def __init__(self, settings: Settings, saved: Saved, *, ran_before: bool) -> None:
        require(settings.node in settings.addresses, "R10", "a node stands in its own members")
        self.settings = settings
        self.ran_before = ran_before
        self._digest = settings.digest()
        require(set(saved.record.members) <= set(settings.members), "R10", "the voters are part of the members")
        self.state = State(saved=saved, peers=dict.fromkeys(settings.peers, Peer()), node=settings.node)

    def step(self, event: Event, now_us: int) -> Effects:
        """Let `event` happen at `now_us`; the caller carries out the effects in their order.

        Raises `RuleBroken` when a rule of the election does not hold: a bug, and the node's end.
        """
        state = self.state
        if isinstance(event, PriorityChanged):  # the next PONG tells the controller
            self.settings = replace(self.settings, priority=event.priority)
        step = Step(self.settings, state, now_us, state.saved, self._digest)
        match event:
            case MessageReceived(envelope):
                self._hear(step, envelope)
            case Tick(late):
                timers.tick(step, late)
            case LinkUp(peer):
                links.link_up(step, peer)
            case LinkDown(peer):
                links.link_down(step, peer)
            case DeathProven(peer, incarnation, evidence):
                membership.died(step, peer, incarnation, evidence)
            case ControllerHint(controller, term):
                timers.hint(step, controller, term)
            case Started():
                timers.begin(step, self.ran_before)
            case Leave():
                membership.leave(step)
            case HealthChanged(healthy):
                health.health_changed(step, healthy)
            case JobEnded():
                health.job_ended(step)
            case PriorityChanged(priority):
                step.note("priority_changed", priority=priority)
            case WitnessVoted():
                vote_response.witness_voted(step, event)
            case WitnessAnswered():
                voters.witness_answered(step, event)
            case WitnessCreated():
                voters.witness_created(step, event)
            case WitnessSeen():
                voters.witness_seen(step, event)
        vote.answer_waiting(step)
        leadership.settle_leadership(step)
        if not step.routine:
            voters.manage(step)
        timers.chores(step)
        return step.finish()

    def deadline_us(self) -> int:
        """When a `Tick` is due unless something else happens first."""
        return timers.deadline_us(self.settings, self.state)

    def active(self, now_us: int) -> bool:
        """Whether this node may act as controller at `now_us` (R5)."""
        return self.state.active(now_us)

    @property
    def lease(self) -> Lease | None:
        """Leadership that this node holds, to be judged by its deadline; None not active."""
        leader_state = self.state.leader_state
        return None if leader_state is None else leader_state.lease

    @property
    def pending_handover_term(self) -> int:
        """Term of leadership that this guarded node left, and whose job may not have ended; 0: none."""
        pending_handover = self.state.pending_handover
        return 0 if pending_handover is None else pending_handover.message.of_term

    def _hear(self, step: Step, envelope: Envelope) -> None:
        reason = _gate(step, envelope)
        if reason:
            refused = step.state.refused
            refused[reason] = refused.get(reason, 0) + 1
            step.note("message_refused", sender=envelope.sender, reason=reason)
            return
        message = envelope.message
        actor = ACTORS[type_of(message)]
        state = step.state
        if actor.adopts and envelope.term > state.term:
            become_follower(step, envelope.term, why="higher_term")
        if envelope.term < state.term and not actor.old_term:
            state.refused["old_term"] = state.refused.get("old_term", 0) + 1
            return
        actor.handle(step, envelope, message)


_FROM_PEOPLE = (Query, Reset, AdminCommand)


def _gate(step: Step, envelope: Envelope) -> str:
    """Why a message is refused whatever its type; "" when it may pass."""
    state, settings, sender = step.state, step.settings, envelope.sender
    if envelope.cluster != settings.cluster:
        return "wrong_cluster"
    if isinstance(envelope.message, _FROM_PEOPLE):
        return ""  # the command line is no member; who may send admin commands is the shell's to judge
    if sender == settings.node:
        return "own_id"
    known = state.peers.get(sender)
    if known is None:
        return "unknown_sender"
    about = int(type_of(envelope.message))
    if about == Type.COMMON_RESP:
        return ""  # a complaint is for people to read, above all one about other settings
    if envelope.settings != step.digest:
        detail = "members, addresses, quorum, election_timeout_ms, lease_ms and drift_ppm must be equal on all nodes"
        step.send(sender, CommonResp(about, Result.SETTINGS_MISMATCH, detail))
        return "settings_mismatch"
    if envelope.generation != state.record.generation:
        if envelope.generation < state.record.generation:
            now = state.record.generation
            detail = f"founded again: tell this node with 'zelect members reset --join {now} {sender}'"
            step.send(sender, CommonResp(about, Result.OTHER_GENERATION, detail))
        return "other_generation"
    if _jumps(state, envelope):
        step.send(sender, CommonResp(about, Result.TERM_JUMP, f"this node's term is {state.term}"))
        return "term_jump"
    if _foreign(step, envelope):
        return "impossible_voters"
    if envelope.incarnation < known.incarnation:
        detail = f"heard as {known.incarnation} before: set the clock right, or stop the other process of this id"
        step.send(sender, CommonResp(about, Result.OLD_INCARNATION, detail))
        return "old_incarnation"
    if envelope.incarnation > known.incarnation and known.incarnation:
        if _lives(step, known):
            step.send(sender, CommonResp(about, Result.ID_IN_USE, f"two processes say they are node {sender}"))
            return "id_in_use"
        membership.died(step, sender, known.incarnation, Evidence.RESTARTED)
    _hear_of(step, sender, envelope.incarnation, known)
    return ""


def _lives(step: Step, known: Peer) -> bool:
    """Whether the process known so far still lives, so that a newer incarnation must be another
    process with its id: its connection stands since before it was last heard, and that was not
    long ago. The bound in time repairs a wrong suspicion: after a freeze of this node the last words
    of the old process are read only after the new connection was noticed."""
    if known.offline or not known.linked or known.linked_us >= known.heard_us:
        return False
    return step.now_us - known.heard_us < step.timing.down_after_us


def _hear_of(step: Step, sender: int, incarnation: int, known: Peer) -> None:
    if incarnation == known.incarnation:
        step.state.peers[sender] = known.heard(step.now_us)
        return
    step.note("peer_online", peer=sender, incarnation=incarnation)
    step.know(sender, incarnation=incarnation, heard_us=step.now_us, dead=False, offline=False, unresponsive=False)


def _jumps(state: State, envelope: Envelope) -> bool:
    """Whether the message claims a term too far ahead to be true (R14). A node that never had a
    term may join a cluster of any age."""
    message = envelope.message
    claimed = max(envelope.term, message.term_sought) if isinstance(message, Voting) else envelope.term
    return claimed > MAX_TERM_HEARD or 0 < state.term < claimed - MAX_TERM_JUMP


def _foreign(step: Step, envelope: Envelope) -> bool:
    """Whether the message speaks of a set of voters or a succession that can't be this cluster's:
    nobody in it, nodes outside the members, written in a term that its sender has not reached, or of a
    version too far ahead to be true."""
    message, members = envelope.message, step.settings.addresses.keys()
    if isinstance(message, Pong):
        return False  # it names a record, and carries none
    record = getattr(message, "record", None)
    if record is not None and not (record.members and members >= set(record.members)):
        return True
    if record is not None and (record.config_term > envelope.term or record.generation != envelope.generation):
        return True
    if record is not None and record.version > MAX_VERSION_HEARD:
        return True
    if record is not None and 0 < step.state.record.version < record.version - MAX_VERSION_JUMP:
        return True
    return isinstance(message, Ping) and not members >= set(message.succession)
