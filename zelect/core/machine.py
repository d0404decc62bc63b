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
    Began,
    Event,
    Evidence,
    HealthChanged,
    Heard,
    Leave,
    LinkDown,
    LinkUp,
    PriorityChanged,
    Proven,
    StoreHint,
    Tick,
    Vacated,
    WitnessAnswered,
    WitnessFounded,
    WitnessSeen,
    WitnessVoted,
)
from zelect.core.invariants import require
from zelect.core.lease import Tenure
from zelect.core.messages import CommonResp, Envelope, Found, Ping, Pong, Query, Result, Steer, Type, Voting, type_of
from zelect.core.quorum import Record
from zelect.core.settings import Settings
from zelect.core.state import Peer, State
from zelect.core.step import Turn
from zelect.core.timing import MAX_TERM_HEARD, MAX_TERM_JUMP
from zelect.core.transitions import become_follower
from zelect.core.validation import MAX_VERSION_HEARD, MAX_VERSION_JUMP

__all__ = ["ACTORS", "Actor", "Machine", "founding"]


@dataclass(frozen=True, slots=True)
class Actor:
    """Who handles a message type. `old_term`: also when the sender's term is behind this node's.
    `adopts`: a higher term of the sender is adopted before the handler runs."""

    handle: Callable[[Turn, Envelope, Any], None]
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
    Type.FOUND: Actor(voters.found, old_term=True, adopts=False),
    Type.STEER: Actor(admin.steer, old_term=True, adopts=False),
}


def founding(settings: Settings, incarnation: int) -> Saved:
    """What a node without memory starts from: term 0, the roster as electorate, a new life."""
    record = Record(0, 0, settings.roster)
    return Saved(term=0, voted_for=0, incarnation=incarnation, record=record, life=incarnation)


class Machine:
    """One node's election, pure: the same events at the same times give the same effects.

    `saved` is what the disk holds (with this start's incarnation), `ran_before` whether this node
    has voted or promised in an earlier life (R4).
    """

    def __init__(self, settings: Settings, saved: Saved, *, ran_before: bool) -> None:
        require(settings.node in settings.addresses, "R10", "a node stands in its own roster")
        self.settings = settings
        self.ran_before = ran_before
        self._digest = settings.digest()
        require(set(saved.record.members) <= set(settings.roster), "R10", "the electorate is part of the roster")
        self.state = State(saved=saved, peers=dict.fromkeys(settings.peers, Peer()), node=settings.node)

    def step(self, event: Event, now_us: int) -> Effects:
        """Let `event` happen at `now_us`; the caller carries out the effects in their order.

        Raises `RuleBroken` when a rule of the election does not hold: a bug, and the node's end.
        """
        state = self.state
        if isinstance(event, PriorityChanged):  # the next PONG tells the controller
            self.settings = replace(self.settings, priority=event.priority)
        turn = Turn(self.settings, state, now_us, state.saved, self._digest)
        match event:
            case Heard(envelope):
                self._hear(turn, envelope)
            case Tick(late):
                timers.tick(turn, late)
            case LinkUp(peer):
                links.link_up(turn, peer)
            case LinkDown(peer):
                links.link_down(turn, peer)
            case Proven(peer, incarnation, evidence):
                membership.died(turn, peer, incarnation, evidence)
            case StoreHint(controller, term):
                timers.hint(turn, controller, term)
            case Began():
                timers.begin(turn, self.ran_before)
            case Leave():
                membership.leave(turn)
            case HealthChanged(healthy):
                health.health_changed(turn, healthy)
            case Vacated():
                health.vacated(turn)
            case PriorityChanged(priority):
                turn.note("priority_changed", priority=priority)
            case WitnessVoted():
                vote_response.witness_voted(turn, event)
            case WitnessAnswered():
                voters.witness_answered(turn, event)
            case WitnessFounded():
                voters.witness_founded(turn, event)
            case WitnessSeen():
                voters.witness_seen(turn, event)
        vote.answer_waiting(turn)
        leadership.settle_office(turn)
        if not turn.routine:
            voters.manage(turn)
        timers.chores(turn)
        return turn.finish()

    def deadline_us(self) -> int:
        """When a `Tick` is due unless something else happens first."""
        return timers.deadline_us(self.settings, self.state)

    def in_office(self, now_us: int) -> bool:
        """Whether this node may act as controller at `now_us` (R5)."""
        return self.state.in_office(now_us)

    @property
    def tenure(self) -> Tenure | None:
        """The office that this node holds, to be judged by its deadline; None out of office."""
        reign = self.state.reign
        return None if reign is None else reign.tenure

    @property
    def owes(self) -> int:
        """Term of the office that this guarded node left, and whose job may not have ended; 0: none."""
        owed = self.state.owed
        return 0 if owed is None else owed.message.of_term

    def _hear(self, turn: Turn, envelope: Envelope) -> None:
        reason = _gate(turn, envelope)
        if reason:
            refused = turn.state.refused
            refused[reason] = refused.get(reason, 0) + 1
            turn.note("message_refused", sender=envelope.sender, reason=reason)
            return
        message = envelope.message
        actor = ACTORS[type_of(message)]
        state = turn.state
        if actor.adopts and envelope.term > state.term:
            become_follower(turn, envelope.term, why="higher_term")
        if envelope.term < state.term and not actor.old_term:
            state.refused["old_term"] = state.refused.get("old_term", 0) + 1
            return
        actor.handle(turn, envelope, message)


_FROM_PEOPLE = (Query, Found, Steer)


def _gate(turn: Turn, envelope: Envelope) -> str:
    """Why a message is refused whatever its type; "" when it may pass."""
    state, settings, sender = turn.state, turn.settings, envelope.sender
    if envelope.cluster != settings.cluster:
        return "wrong_cluster"
    if isinstance(envelope.message, _FROM_PEOPLE):
        return ""  # the command line is no member; who may steer is the shell's to judge
    if sender == settings.node:
        return "own_id"
    known = state.peers.get(sender)
    if known is None:
        return "unknown_sender"
    about = int(type_of(envelope.message))
    if about == Type.COMMON_RESP:
        return ""  # a complaint is for people to read, above all one about other settings
    if envelope.settings != turn.digest:
        detail = "roster, addresses, quorum, election_timeout_ms, lease_ms and drift_ppm must be equal on all nodes"
        turn.send(sender, CommonResp(about, Result.SETTINGS_MISMATCH, detail))
        return "settings_mismatch"
    if envelope.foundation != state.record.foundation:
        if envelope.foundation < state.record.foundation:
            now = state.record.foundation
            detail = f"founded anew: tell this node with 'zelect electorate reset --join {now} {sender}'"
            turn.send(sender, CommonResp(about, Result.OTHER_FOUNDATION, detail))
        return "other_foundation"
    if _jumps(state, envelope):
        turn.send(sender, CommonResp(about, Result.TERM_JUMP, f"this node's term is {state.term}"))
        return "term_jump"
    if _foreign(turn, envelope):
        return "foreign_electorate"
    if envelope.incarnation < known.incarnation:
        detail = f"heard as {known.incarnation} before: set the clock right, or stop the other process of this id"
        turn.send(sender, CommonResp(about, Result.OLD_INCARNATION, detail))
        return "old_incarnation"
    if envelope.incarnation > known.incarnation and known.incarnation:
        if _lives(turn, known):
            turn.send(sender, CommonResp(about, Result.ID_IN_USE, f"two processes say they are node {sender}"))
            return "id_in_use"
        membership.died(turn, sender, known.incarnation, Evidence.REBORN)
    _hear_of(turn, sender, envelope.incarnation, known)
    return ""


def _lives(turn: Turn, known: Peer) -> bool:
    """Whether the process known so far still lives, so that a newer incarnation must be another
    process with its id: its connection stands since before it was last heard, and that was not
    long ago. The bound in time mends a wrong suspicion: after a freeze of this node the last words
    of the old process are read only after the new connection was noticed."""
    if known.offline or not known.linked or known.linked_us >= known.heard_us:
        return False
    return turn.now_us - known.heard_us < turn.timing.down_after_us


def _hear_of(turn: Turn, sender: int, incarnation: int, known: Peer) -> None:
    if incarnation == known.incarnation:
        turn.state.peers[sender] = known.heard(turn.now_us)
        return
    turn.note("peer_online", peer=sender, incarnation=incarnation)
    turn.know(sender, incarnation=incarnation, heard_us=turn.now_us, dead=False, offline=False, silent=False)


def _jumps(state: State, envelope: Envelope) -> bool:
    """Whether the message claims a term too far ahead to be true (R14). A node that never had a
    term may join a cluster of any age."""
    message = envelope.message
    claimed = max(envelope.term, message.term_sought) if isinstance(message, Voting) else envelope.term
    return claimed > MAX_TERM_HEARD or 0 < state.term < claimed - MAX_TERM_JUMP


def _foreign(turn: Turn, envelope: Envelope) -> bool:
    """Whether the message speaks of an electorate or a succession that can't be this cluster's:
    nobody in it, nodes outside the roster, written in a term that its sender has not reached, or of a
    version too far ahead to be true."""
    message, roster = envelope.message, turn.settings.addresses.keys()
    if isinstance(message, Pong):
        return False  # it names a record, and carries none
    record = getattr(message, "record", None)
    if record is not None and not (record.members and roster >= set(record.members)):
        return True
    if record is not None and (record.config_term > envelope.term or record.foundation != envelope.foundation):
        return True
    if record is not None and record.version > MAX_VERSION_HEARD:
        return True
    if record is not None and 0 < turn.state.record.version < record.version - MAX_VERSION_JUMP:
        return True
    return isinstance(message, Ping) and not roster >= set(message.succession)
