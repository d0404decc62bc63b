"""From elected to active, and staying so: rounds of numbered PINGs (R5, R6, R7, R12).

A winner first sends its record, rewritten in its own term, with a PING to everybody. It becomes active when a quorum
has saved that record, a quorum has answered a PING, and no promise that the voters reported can bind anybody to an
earlier controller any more. From then on each round that a quorum answers extends the lease, counted from the round's
*send* time (thesis, 6.4.1): each voter's promise begins later, so it outlasts the lease. The lease is judged before
anything is sent, because heartbeats sent after the lease has ended would keep the others from electing.

The witness is asked to acknowledge only when the nodes fall short, and never while the winner waits:
until then it must go on naming the controller that is waited for.
"""

from __future__ import annotations

from zelect.core.effects import MarkOffline, PublishController, WitnessPing
from zelect.core.election_trace import ElectionTrace
from zelect.core.messages import NodeOffline, Ping
from zelect.core.quorum import WITNESS, has_quorum
from zelect.core.state import LeaderState, Promise, Status
from zelect.core.step import Step
from zelect.core.succession import succession_of
from zelect.core.transitions import become_active, become_follower, set_status


def ping_round(step: Step) -> None:
    """Ask everybody to extend the lease and to save the record; the witness only when the nodes fall
    short (R12). The first round, right after the election, carries the new record."""
    state, now_us = step.state, step.now_us
    leader_state = state.leader_state
    assert leader_state is not None
    leader_state.number += 1
    leader_state.sent_us[leader_state.number] = now_us
    for number in [n for n, sent_us in leader_state.sent_us.items() if sent_us + step.timing.lease_us <= now_us]:
        del leader_state.sent_us[number]  # an answer to it could renew nothing any more
    leader_state.next_ping_us = now_us + step.timing.heartbeat_us
    # The controller answers its own PING: the same promise, the same lease (R3, R5).
    if len(state.voters) > 1 or state.saved is step.saved_before:
        leader_state.answered_us[step.me] = now_us
    else:
        # Its own disk alone decides, and may take longer than the lease: PING again as soon as it has saved.
        leader_state.next_ping_us = now_us
    leader_state.saved_by[step.me] = state.saved.record.id
    state.promise = Promise(step.me, state.saved.incarnation, state.term, now_us + step.timing.promise_us)
    step.broadcast(_ping(step, leader_state))
    record = state.record
    if record.witness is not None and now_us >= leader_state.promises_end_us and not _nodes_suffice(step, leader_state):
        step.ask_witness(WitnessPing(record.witness, leader_state.term, leader_state.number, record))


def _nodes_suffice(step: Step, leader_state: LeaderState) -> bool:
    """Whether nodes alone keep the lease: those that answered within two heartbeats, or in the first round
    those that are connected."""
    state = step.state
    since_us = step.now_us - 2 * step.timing.heartbeat_us
    if leader_state.number == 1:
        nodes = state.connected() - {WITNESS}
    else:
        nodes = {n for n, sent_us in leader_state.answered_us.items() if sent_us >= since_us and n != WITNESS}
        nodes -= {n for n, peer in state.peers.items() if peer.dead or peer.offline}
    return has_quorum(state.voters, nodes)


def _ping(step: Step, leader_state: LeaderState) -> Ping:
    return Ping(leader_state.number, leader_state.holds(step.now_us), step.state.saved.record, succession_of(step))


def ping_one(step: Step, peer: int) -> None:
    """Repeat the newest PING to a peer that has just (re)appeared. It keeps its number and so its
    send time: the lease that it can earn is the older, shorter one."""
    leader_state = step.state.leader_state
    if leader_state is not None and step.now_us < leader_state.over_us(step.timing.promise_us):
        step.send(peer, _ping(step, leader_state))


def keep(step: Step) -> None:
    """What an elected node does as time passes: step down when its lease has ended, else send PINGs (R6)."""
    state, now_us = step.state, step.now_us
    leader_state = state.leader_state
    if leader_state is None:
        return
    if now_us >= leader_state.over_us(step.timing.promise_us):
        become_follower(step, why="lease_lapsed" if leader_state.lease_lapses_us else "no_quorum_answered")
        return
    if leader_state.waiting and now_us >= leader_state.promises_end_us:
        leader_state.waiting, leader_state.next_ping_us = False, now_us
    _note_unresponsive(step, leader_state)
    if now_us >= leader_state.next_ping_us:
        ping_round(step)


def _note_unresponsive(step: Step, leader_state: LeaderState) -> None:
    """Report, to the others and to Redis, each member that was not heard for `down_after`."""
    for peer, known in step.state.peers.items():
        # One that was never heard counts from the election: it may have died with the last controller.
        since_us = max(known.heard_us, leader_state.elected_us)
        if known.lost or known.cluster_stop:
            continue  # reported already, or expected back (R11)
        if step.now_us - since_us >= step.timing.down_after_us:
            step.know(peer, unresponsive=True)
            step.note("peer_unresponsive", peer=peer)
            step.broadcast(NodeOffline(peer, known.incarnation, "unresponsive"))
            step.publish(MarkOffline(peer, step.state.term))


def settle(step: Step) -> None:
    """Renew the lease by the answers so far; become active when nothing is missing any more; once active, note when
    the connections to a quorum are lost and when they are back."""
    state, now_us = step.state, step.now_us
    leader_state = state.leader_state
    assert leader_state is not None
    state.renew_lease(step.timing.lease_us)
    if leader_state.active_since_us:
        active = leader_state.holds(now_us)
        if active is leader_state.suspended:
            leader_state.suspended = not active
            step.note("leadership_resumed" if active else "leadership_suspended", term=leader_state.term)
        return
    lease_runs = now_us < leader_state.lease_lapses_us and leader_state.renewed_us >= leader_state.quorum_lost_us
    if lease_runs and now_us >= leader_state.promises_end_us and leader_state.committed(state.record):
        become_active(step, leader_state)
        _announce(step, leader_state)


def _announce(step: Step, leader_state: LeaderState) -> None:
    """Report that this node is active now."""
    state = step.state
    gap_us = _gap_us(leader_state)
    step.note(
        "became_active",
        term=leader_state.term,
        reason=leader_state.reason.value,
        previous=leader_state.previous.id if leader_state.previous else 0,
        gap_ms=gap_us / 1000 if gap_us >= 0 else None,
        elected_to_active_ms=(leader_state.active_since_us - leader_state.elected_us) / 1000,
        **({"asked": leader_state.asked} if leader_state.asked else {}),
    )
    publish_controller(step)
    for peer, known in state.peers.items():
        if known.dead or known.unresponsive:  # lost before there was a controller to report it
            step.publish(MarkOffline(peer, state.term))
    set_status(step, Status.RUNNING)


def _gap_us(leader_state: LeaderState) -> int:
    """For how long no controller was heard before this node became active; -1: unknown."""
    return leader_state.active_since_us - leader_state.previous_heard_us if leader_state.previous is not None else -1


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
            gap_us=_gap_us(leader_state),
            trace=trace_of(leader_state),
            cluster_id=step.state.record.cluster_id,
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
