"""PING and PONG (R3, R5, R6)."""

from __future__ import annotations

from zelect.core.actors.links import introduce
from zelect.core.messages import Envelope, Ping, Pong
from zelect.core.state import KnownController, Role, State
from zelect.core.step import Step
from zelect.core.transitions import adopt_record, follow

__all__ = ["ping", "pong"]


def ping(step: Step, envelope: Envelope, message: Ping) -> None:
    """Follow the controller of the current term and promise to; answer in any case.

    A PING of an old term gets an answer that carries the newer term: the gate of the receiver
    makes it step down (R6) before the answer could be counted.
    """
    state = step.state
    sender = state.peers[envelope.sender]
    if message.number and (sender.dead or sender.offline):
        return  # its last words, read after its death or leave: following it would bind for nothing
    if message.number and envelope.term == state.term:
        if _rival(state, envelope):
            step.note("conflicting_controller_seen", sender=envelope.sender, term=envelope.term)
            return  # two winners of one term: S1 is broken; promising would make it worse
        if not message.active and state.promised(step.now_us, envelope.sender):
            step.note("waiting_controller_seen", sender=envelope.sender, term=envelope.term)
            return  # it may wait for this very promise to end (R7b), which must not be replaced by one to it
        record = message.record
        assert record is not None  # a numbered PING carries one, by construction
        adopt_record(step, record)
        follow(step, KnownController(envelope.sender, envelope.incarnation, envelope.term), message.succession)
    answer = Pong(message.number, envelope.term, state.record.id, step.priority, state.saved.epoch)
    step.send(envelope.sender, answer)


def _rival(state: State, envelope: Envelope) -> bool:
    leader = state.controller
    return state.role is Role.ELECTED or (leader is not None and leader.id != envelope.sender)


def pong(step: Step, envelope: Envelope, message: Pong) -> None:
    """Count the answer to a numbered PING by its *send* time (R5).

    A stale echo renews nothing: its number is forgotten, or older than what this member answered
    already, or it answers a PING of an earlier leadership, whose numbers were the same; the sender made
    no promise then, though its answer carries its term of now.
    """
    state, sender = step.state, envelope.sender
    known = state.peers[sender]
    news = (known.priority, known.epoch) != (message.priority, message.epoch)
    if news:
        step.know(sender, priority=message.priority, epoch=message.epoch)
    leader_state = state.leader_state
    if leader_state is None and message.record_id > state.record.id:
        # A controller may have died before its last record reached a voter; without that record
        # the voter may be asking for votes that nobody has any more (R10, L1).
        introduce(step, sender)
    if leader_state is None or not message.number:
        return
    sent_us = leader_state.sent_us.get(message.number)
    if sent_us is None or (message.of_term, envelope.term) != (leader_state.term, leader_state.term):
        step.note("stale_pong_ignored", sender=sender, number=message.number)
        return
    if sender in state.members and not state.record.counts(sender, message.epoch):
        return  # this life of the member has no voting right: its earlier one may have voted elsewhere (R1)
    before_us = leader_state.answered_us.get(sender, 0)
    steady = sender in leader_state.steady_us and sent_us - before_us <= 3 * step.timing.heartbeat_us
    if not steady:
        leader_state.steady_us[sender] = step.now_us
    leader_state.answered_us[sender] = max(before_us, sent_us)
    step.routine = steady and not news and leader_state.saved_by.get(sender) == message.record_id
    leader_state.saved_by[sender] = max(leader_state.saved_by.get(sender, (0, 0, 0)), message.record_id)
