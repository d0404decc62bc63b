"""From elected to active, and staying there: rounds of numbered PINGs (R5, R6, R7)."""

from __future__ import annotations

from zelect.core.effects import MarkOffline, PublishController, WitnessPing
from zelect.core.election_trace import ElectionTrace
from zelect.core.invariants import require
from zelect.core.messages import NodeOffline, Ping
from zelect.core.quorum import WITNESS, has_quorum
from zelect.core.state import LeaderState, Promise, Status
from zelect.core.step import Step
from zelect.core.succession import succession_of
from zelect.core.transitions import become_follower, set_status

__all__ = [
    "begin_leadership",
    "committed",
    "keep_leadership",
    "lapse_due_us",
    "ping_one",
    "ping_round",
    "publish_controller",
    "settle_leadership",
    "trace_of",
]


def begin_leadership(step: Step) -> None:
    """Send the first round: it carries the new voter record and asks for the lease."""
    ping_round(step)


def ping_round(step: Step) -> None:
    """Ask everybody for another lease, and to save the record; the witness only when the nodes
    fall short (R12)."""
    state, now_us = step.state, step.now_us
    leader_state = state.leader_state
    assert leader_state is not None
    leader_state.number += 1
    leader_state.sent_us[leader_state.number] = now_us
    for number in [n for n, sent_us in leader_state.sent_us.items() if sent_us + step.timing.lease_us <= now_us]:
        del leader_state.sent_us[number]  # an answer to it could renew nothing any more
    leader_state.next_ping_us = now_us + step.timing.heartbeat_us
    # The controller answers its own PING: the same promise, the same lease (R3, R5).
    leader_state.answered_us[step.me] = now_us
    leader_state.saved_by[step.me] = state.saved.record.id
    state.promise = Promise(step.me, state.saved.incarnation, state.term, now_us + step.timing.promise_us)
    step.broadcast(_ping(step, leader_state))
    record = state.record
    # Before the barrier the witness must go on naming the controller that is waited for (R7b).
    if record.witness is not None and now_us >= leader_state.promises_end_us and not _nodes_do(step, leader_state):
        step.ask_witness(WitnessPing(record.witness, leader_state.term, leader_state.number, record.id))


def _nodes_do(step: Step, leader_state: LeaderState) -> bool:
    """Whether nodes alone keep the lease: those that answered of late, or in the first round those
    that are connected."""
    state = step.state
    since_us = step.now_us - 2 * step.timing.heartbeat_us
    if leader_state.number == 1:
        nodes = state.connected(step.me) - {WITNESS}
    else:
        nodes = {n for n, sent_us in leader_state.answered_us.items() if sent_us >= since_us and n != WITNESS}
        nodes -= {n for n, peer in state.peers.items() if peer.dead or peer.offline}
    return has_quorum(state.voters, nodes)


def committed(step: Step, leader_state: LeaderState) -> bool:
    """Whether a quorum of the record's voters has saved it, in this term (R7a, R10)."""
    record = step.state.record
    return has_quorum(record.voters, [voter for voter, saved in leader_state.saved_by.items() if saved == record.id])


def _ping(step: Step, leader_state: LeaderState) -> Ping:
    return Ping(leader_state.number, leader_state.holds(step.now_us), step.state.saved.record, succession_of(step))


def ping_one(step: Step, peer: int) -> None:
    """Repeat the newest PING to a peer that has just (re)appeared. It keeps its number and so its
    send time: the lease it can earn is the older, shorter one."""
    leader_state = step.state.leader_state
    if leader_state is not None and step.now_us < lapse_due_us(step.timing.promise_us, leader_state):
        step.send(peer, _ping(step, leader_state))


def lapse_due_us(turn_promise_us: int, leader_state: LeaderState) -> int:
    """When this leadership is over unless another PING is answered by a quorum: at the lease's end, or
    one election timeout after an election that never earned a lease, not counting the time that it
    had to wait for promises (R7b)."""
    return leader_state.lease_lapses_us or max(leader_state.elected_us, leader_state.waits_until_us) + turn_promise_us


def keep_leadership(step: Step) -> None:
    """What time asks of an elected node. The lease is judged before anything is sent: a lapsed
    controller's heartbeats would keep the others from electing (R6)."""
    state, now_us = step.state, step.now_us
    leader_state = state.leader_state
    if leader_state is None:
        return
    if now_us >= lapse_due_us(step.timing.promise_us, leader_state):
        become_follower(step, why="lease_lapsed" if leader_state.lease_lapses_us else "no_quorum_answered")
        return
    if 0 < leader_state.promises_end_us <= now_us:
        leader_state.promises_end_us, leader_state.next_ping_us = 0, now_us
    _note_unresponsive(step, leader_state)
    if now_us >= leader_state.next_ping_us:
        ping_round(step)


def _note_unresponsive(step: Step, leader_state: LeaderState) -> None:
    """Tell the others, and Redis, who has not been heard for `down_after`."""
    for peer, known in step.state.peers.items():
        # One that was never heard counts from the election: it may have died with the last controller.
        since_us = max(known.heard_us, leader_state.elected_us)
        if not known.gone and step.now_us - since_us >= step.timing.down_after_us:
            step.know(peer, unresponsive=True)
            step.note("peer_unresponsive", peer=peer)
            step.broadcast(NodeOffline(peer, known.incarnation, "unresponsive"))
            step.publish(MarkOffline(peer, step.state.term))


def settle_leadership(step: Step) -> None:
    """After every step: enter leadership when its conditions hold, note a loss of the majority's
    connections and its end."""
    state, now_us = step.state, step.now_us
    leader_state = state.leader_state
    if leader_state is None:
        return
    state.renew_lease(step.timing.lease_us)
    if leader_state.active_since_us:
        held = leader_state.holds(now_us)
        if held == leader_state.suspended:
            leader_state.suspended = not held
            step.note("leadership_suspended" if not held else "leadership_resumed", term=leader_state.term)
        return
    lease_runs = now_us < leader_state.lease_lapses_us and leader_state.renewed_us >= leader_state.quorum_lost_us
    if lease_runs and now_us >= leader_state.promises_end_us and committed(step, leader_state):
        _become_active(step, leader_state)


def _become_active(step: Step, leader_state: LeaderState) -> None:
    state, now_us = step.state, step.now_us
    require(
        state.saved.record.config_term == leader_state.term == state.term, "R7", "the record was rewritten in this term"
    )
    require(now_us >= leader_state.promises_end_us, "R7", "promises to earlier controllers have run out")
    require(committed(step, leader_state), "R7", "a quorum has saved the record")
    require(not state.leaving and state.may_vote(state.record), "R7", "who leaves or forgot holds no leadership")
    leader_state.active_since_us = now_us
    require(leader_state.holds(now_us), "R5", "leadership is held only while the lease runs")
    state.attempts = 0
    gap_us = now_us - leader_state.previous_heard_us if leader_state.previous is not None else -1
    step.note(
        "became_active",
        term=leader_state.term,
        reason=leader_state.reason.value,
        previous=leader_state.previous.id if leader_state.previous else 0,
        gap_ms=gap_us / 1000 if gap_us >= 0 else None,
        elected_to_active_ms=(now_us - leader_state.elected_us) / 1000,
        **({"asked": leader_state.asked} if leader_state.asked else {}),
    )
    publish_controller(step)
    for peer, known in state.peers.items():
        if known.dead or known.unresponsive:  # lost before there was anybody to say so
            step.publish(MarkOffline(peer, state.term))
    set_status(step, Status.RUNNING)


def publish_controller(step: Step) -> None:
    """Publish, or refresh, this node as controller, if it is active at this moment (R13)."""
    leader_state = step.state.leader_state
    if leader_state is None or not leader_state.holds(step.now_us):
        return
    step.publish(
        PublishController(
            term=leader_state.term,
            active_since_us=leader_state.active_since_us,
            valid_until_us=leader_state.lease_lapses_us,
            previous=leader_state.previous.id if leader_state.previous else 0,
            reason=leader_state.reason,
            gap_us=leader_state.active_since_us - leader_state.previous_heard_us
            if leader_state.previous is not None
            else -1,
            trace=trace_of(leader_state),
        )
    )


def trace_of(leader_state: LeaderState) -> ElectionTrace:
    """How this leadership came about, for people who ask why."""
    heard_us = leader_state.previous_heard_us if leader_state.previous is not None else -1
    return ElectionTrace(
        heard_us,
        leader_state.lost_us,
        leader_state.elected_us,
        leader_state.active_since_us,
        leader_state.rounds,
        leader_state.asked,
    )
