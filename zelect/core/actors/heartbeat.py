"""PING and PONG (R3, R5, R6)."""

from __future__ import annotations

from zelect.core.actors.links import introduce
from zelect.core.messages import Envelope, Ping, Pong
from zelect.core.state import Leader, Stand, State
from zelect.core.step import Turn
from zelect.core.transitions import adopt_record, follow

__all__ = ["ping", "pong"]


def ping(turn: Turn, envelope: Envelope, message: Ping) -> None:
    """Follow the controller of the current term and promise to; answer in any case.

    A PING of an old term gets an answer that carries the newer term: the gate of the receiver
    makes it step down (R6) before the answer could be counted.
    """
    state = turn.state
    sender = state.peers[envelope.sender]
    if message.number and (sender.dead or sender.offline):
        return  # its last words, read after its death or goodbye: following it would bind for nothing
    if message.number and envelope.term == state.term:
        if _rival(state, envelope):
            turn.note("rival_controller_heard", sender=envelope.sender, term=envelope.term)
            return  # two winners of one term: S1 is broken; promising would make it worse
        if not message.in_office and state.promised(turn.now_us, envelope.sender):
            turn.note("waiting_controller_heard", sender=envelope.sender, term=envelope.term)
            return  # it may wait for this very promise to end (R7b), which must not be replaced by one to it
        record = message.record
        assert record is not None  # a numbered PING carries one, by construction
        adopt_record(turn, record)
        follow(turn, Leader(envelope.sender, envelope.incarnation, envelope.term), message.succession)
    answer = Pong(message.number, envelope.term, state.record.id, turn.priority, state.saved.life)
    turn.send(envelope.sender, answer)


def _rival(state: State, envelope: Envelope) -> bool:
    leader = state.leader
    return state.stand is Stand.ELECTED or (leader is not None and leader.id != envelope.sender)


def pong(turn: Turn, envelope: Envelope, message: Pong) -> None:
    """Count the answer to a numbered PING by its *send* time (R5).

    A stale echo renews nothing: its number is forgotten, or older than what this member answered
    already, or it answers a PING of an earlier reign, whose numbers were the same; the sender made
    no promise then, though its answer carries its term of now.
    """
    state, sender = turn.state, envelope.sender
    known = state.peers[sender]
    news = (known.priority, known.life) != (message.priority, message.life)
    if news:
        turn.know(sender, priority=message.priority, life=message.life)
    reign = state.reign
    if reign is None and message.record_id > state.record.id:
        # A controller may have died before its last record reached a voter; without that record
        # the voter may be asking for votes that nobody has any more (R10, L1).
        introduce(turn, sender)
    if reign is None or not message.number:
        return
    sent_us = reign.sent_us.get(message.number)
    if sent_us is None or (message.of_term, envelope.term) != (reign.term, reign.term):
        turn.note("stale_echo_ignored", sender=sender, number=message.number)
        return
    if sender in state.members and not state.record.counts(sender, message.life):
        return  # this life of the member has no voice: its earlier one may have voted elsewhere (R1)
    before_us = reign.answered_us.get(sender, 0)
    steady = sender in reign.steady_us and sent_us - before_us <= 3 * turn.timing.heartbeat_us
    if not steady:
        reign.steady_us[sender] = turn.now_us
    reign.answered_us[sender] = max(before_us, sent_us)
    turn.routine = steady and not news and reign.saved_by.get(sender) == message.record_id
    reign.saved_by[sender] = max(reign.saved_by.get(sender, (0, 0, 0)), message.record_id)
