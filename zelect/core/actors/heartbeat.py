"""PING and PONG: heartbeats, promises and the lease (R3, R5, R6).

To answer a controller's numbered PING is to promise it one election timeout without a vote for anybody
else. The controller counts that answer from the *send* time of the PING: the promise began later, so it
outlasts the lease that a quorum of such answers gives (thesis, 6.4.1).
"""

from __future__ import annotations

from zelect.core.actors.links import introduce, remember_disk
from zelect.core.messages import Envelope, Ping, Pong
from zelect.core.quorum import NO_RECORD
from zelect.core.state import KnownController, LeaderState, Role, State
from zelect.core.step import Step
from zelect.core.transitions import acknowledge, adopt_record, follow


def ping(step: Step, envelope: Envelope, message: Ping) -> None:
    """Follow the controller of the current term and promise to it; answer in any case.

    A PING of an old term gets an answer that carries the newer term: its receiver adopts that
    term and steps down (R6) before the answer could be counted.
    """
    state = step.state
    sender = state.peers[envelope.sender]
    if message.number and (sender.dead or sender.offline):
        return  # sent before its death or leave: to follow it now would bind this node for nothing
    if message.number and envelope.term == state.term:
        if _rival(state, envelope):
            step.note("conflicting_controller_seen", sender=envelope.sender, term=envelope.term)
            return  # two winners of one term: S1 is broken; a promise would make it worse
        if not message.active and state.promise_left_us(step.now_us, envelope.sender):
            step.note("waiting_controller_seen", sender=envelope.sender, term=envelope.term)
            return  # it may be waiting for this very promise to end (R7b), which must not be replaced
        record = message.record
        assert record is not None  # a numbered PING carries one, by construction
        adopt_record(step, record)
        controller = KnownController(envelope.sender, envelope.incarnation, envelope.term)
        follow(step, controller, message.succession)
        if state.record.id == record.id:
            acknowledge(step, controller)
    answer = Pong(message.number, envelope.term, state.record.id, step.priority, state.saved.epoch, state.saves)
    step.send(envelope.sender, answer)


def _rival(state: State, envelope: Envelope) -> bool:
    """Whether another node is, or was, controller of the sender's term, as far as this one knows."""
    leader, promise = state.controller, state.promise
    if state.role is Role.ELECTED or (leader is not None and leader.id != envelope.sender):
        return True
    return promise is not None and promise.term == envelope.term and promise.to != envelope.sender


def pong(step: Step, envelope: Envelope, message: Pong) -> None:
    """Learn what the peer reports of itself; count the answer if it answers a PING of this leadership."""
    state, sender = step.state, envelope.sender
    known = state.peers[sender]
    news = known.priority != message.priority or known.epoch != message.epoch
    if news or known.saves < message.saves:
        step.know(sender, priority=message.priority)
        remember_disk(step, sender, message.epoch, message.saves)
    leader_state = state.leader_state
    if leader_state is None:
        if message.record_id > state.record.id:
            # A controller may have died before its last record reached a quorum. Without that record
            # this node may be asking for votes that no voter can give it any more (R10, L1).
            introduce(step, sender)
        return
    if message.number:
        _count(step, leader_state, envelope, message, news)


def _count(step: Step, leader_state: LeaderState, envelope: Envelope, message: Pong, news: bool) -> None:
    """Count the answer to a numbered PING by its *send* time (R5).

    A stale answer renews nothing: its PING is forgotten, or older than one that this member answered
    already; or it answers a PING of an earlier leadership, whose numbers were the same: the sender made
    no promise then, though its answer carries its current term.
    """
    state, sender = step.state, envelope.sender
    sent_us = leader_state.sent_us.get(message.number)
    if sent_us is None or (message.of_term, envelope.term) != (leader_state.term, leader_state.term):
        step.note("stale_pong_ignored", sender=sender, number=message.number)
        return
    if sender in state.members and not state.record.counts(sender, message.epoch):
        return  # this epoch of the member has no voting right: its earlier votes are lost (R1)
    before_us = leader_state.answered_us.get(sender, 0)
    steady = sender in leader_state.steady_us and sent_us - before_us <= 3 * step.timing.heartbeat_us
    if not steady:
        leader_state.steady_us[sender] = step.now_us
    leader_state.answered_us[sender] = max(before_us, sent_us)
    saved = leader_state.saved_by.get(sender, (0, 0, 0))
    step.routine = steady and not news and saved == message.record_id
    # One without a record has lost what it had saved; else a later answer may overtake an earlier one.
    has_none = message.record_id == NO_RECORD.id
    leader_state.saved_by[sender] = NO_RECORD.id if has_none else max(saved, message.record_id)
