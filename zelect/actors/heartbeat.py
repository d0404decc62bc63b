"""PING and PONG (R3, R5, R6)."""

from __future__ import annotations

from zelect.core.become import follow
from zelect.core.messages import Envelope, Ping, Pong
from zelect.core.state import Leader, Stand, State
from zelect.core.turn import Turn

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
        record = message.record
        assert record is not None  # a numbered PING carries one, by construction
        if record.id > state.saved.record.id:
            turn.save(record=record)
        follow(turn, Leader(envelope.sender, envelope.incarnation, envelope.term), message.succession)
    turn.send(envelope.sender, Pong(message.number, envelope.term, state.saved.record.id, turn.settings.priority))


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
    if state.peers[sender].priority != message.priority:
        turn.know(sender, priority=message.priority)
    reign = state.reign
    if reign is None or not message.number:
        return
    sent_us = reign.sent_us.get(message.number)
    if sent_us is None or (message.of_term, envelope.term) != (reign.term, reign.term):
        turn.note("stale_echo_ignored", sender=sender, number=message.number)
        return
    reign.answered_us[sender] = max(reign.answered_us.get(sender, 0), sent_us)
    reign.saved_by[sender] = max(reign.saved_by.get(sender, (0, 0)), message.record_id)
