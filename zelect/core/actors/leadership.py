"""From elected to in office, and staying there: rounds of numbered PINGs (R5, R6, R7)."""

from __future__ import annotations

from zelect.core.effects import MarkOffline, PublishOffice, WitnessPing
from zelect.core.election_trace import Story
from zelect.core.invariants import require
from zelect.core.messages import NodeOffline, Ping
from zelect.core.quorum import WITNESS, has_quorum
from zelect.core.state import Promise, Reign, Status
from zelect.core.step import Turn
from zelect.core.succession import succession_of
from zelect.core.transitions import become_follower, set_status

__all__ = [
    "begin_reign",
    "committed",
    "keep_reign",
    "lapse_due_us",
    "ping_one",
    "ping_round",
    "publish_office",
    "settle_office",
    "story_of",
]


def begin_reign(turn: Turn) -> None:
    """Send the first round: it carries the new electorate record and asks for the lease."""
    ping_round(turn)


def ping_round(turn: Turn) -> None:
    """Ask everybody for another lease, and to save the record; the witness only when the nodes
    fall short (R12)."""
    state, now_us = turn.state, turn.now_us
    reign = state.reign
    assert reign is not None
    reign.number += 1
    reign.sent_us[reign.number] = now_us
    for number in [n for n, sent_us in reign.sent_us.items() if sent_us + turn.timing.lease_us <= now_us]:
        del reign.sent_us[number]  # an answer to it could renew nothing any more
    reign.next_ping_us = now_us + turn.timing.heartbeat_us
    # The controller answers its own PING: the same promise, the same lease (R3, R5).
    reign.answered_us[turn.me] = now_us
    reign.saved_by[turn.me] = state.saved.record.id
    state.promise = Promise(turn.me, state.saved.incarnation, state.term, now_us + turn.timing.promise_us)
    turn.broadcast(_ping(turn, reign))
    record = state.record
    # Before the barrier the witness must go on naming the controller that is waited for (R7b).
    if record.witness is not None and now_us >= reign.barrier_us and not _nodes_do(turn, reign):
        turn.ask_witness(WitnessPing(record.witness, reign.term, reign.number, record.id))


def _nodes_do(turn: Turn, reign: Reign) -> bool:
    """Whether nodes alone keep the lease: those that answered of late, or in the first round those
    that are connected."""
    state = turn.state
    since_us = turn.now_us - 2 * turn.timing.heartbeat_us
    if reign.number == 1:
        nodes = state.connected(turn.me) - {WITNESS}
    else:
        nodes = {n for n, sent_us in reign.answered_us.items() if sent_us >= since_us and n != WITNESS}
        nodes -= {n for n, peer in state.peers.items() if peer.dead or peer.offline}
    return has_quorum(state.voters, nodes)


def committed(turn: Turn, reign: Reign) -> bool:
    """Whether a quorum of the record's voters has saved it, in this term (R7a, R10)."""
    record = turn.state.record
    return has_quorum(record.voters, [voter for voter, saved in reign.saved_by.items() if saved == record.id])


def _ping(turn: Turn, reign: Reign) -> Ping:
    return Ping(reign.number, reign.holds(turn.now_us), turn.state.saved.record, succession_of(turn))


def ping_one(turn: Turn, peer: int) -> None:
    """Repeat the newest PING to a peer that has just (re)appeared. It keeps its number and so its
    send time: the lease it can earn is the older, shorter one."""
    reign = turn.state.reign
    if reign is not None and turn.now_us < lapse_due_us(turn.timing.promise_us, reign):
        turn.send(peer, _ping(turn, reign))


def lapse_due_us(turn_promise_us: int, reign: Reign) -> int:
    """When this reign is over unless another PING is answered by a quorum: at the lease's end, or
    one election timeout after an election that never earned a lease, not counting the time that it
    had to wait for promises (R7b)."""
    return reign.lapses_us or max(reign.elected_us, reign.waits_until_us) + turn_promise_us


def keep_reign(turn: Turn) -> None:
    """What time asks of an elected node. The lease is judged before anything is sent: a lapsed
    controller's heartbeats would keep the others from electing (R6)."""
    state, now_us = turn.state, turn.now_us
    reign = state.reign
    if reign is None:
        return
    if now_us >= lapse_due_us(turn.timing.promise_us, reign):
        become_follower(turn, why="lease_lapsed" if reign.lapses_us else "no_quorum_answered")
        return
    if 0 < reign.barrier_us <= now_us:
        reign.barrier_us, reign.next_ping_us = 0, now_us
    _miss_the_silent(turn, reign)
    if now_us >= reign.next_ping_us:
        ping_round(turn)


def _miss_the_silent(turn: Turn, reign: Reign) -> None:
    """Tell the others, and Redis, who has not been heard for `down_after`."""
    for peer, known in turn.state.peers.items():
        # One that was never heard counts from the election: it may have died with the last controller.
        since_us = max(known.heard_us, reign.elected_us)
        if not known.gone and turn.now_us - since_us >= turn.timing.down_after_us:
            turn.know(peer, silent=True)
            turn.note("peer_silent", peer=peer)
            turn.broadcast(NodeOffline(peer, known.incarnation, "silent"))
            turn.publish(MarkOffline(peer, turn.state.term))


def settle_office(turn: Turn) -> None:
    """After every step: enter the office when its conditions hold, note a loss of the majority's
    connections and its end."""
    state, now_us = turn.state, turn.now_us
    reign = state.reign
    if reign is None:
        return
    state.renew_lease(turn.timing.lease_us)
    if reign.entered_us:
        held = reign.holds(now_us)
        if held == reign.suspended:
            reign.suspended = not held
            turn.note("office_suspended" if not held else "office_resumed", term=reign.term)
        return
    lease_runs = now_us < reign.lapses_us and reign.renewed_us >= reign.floor_us
    if lease_runs and now_us >= reign.barrier_us and committed(turn, reign):
        _enter_office(turn, reign)


def _enter_office(turn: Turn, reign: Reign) -> None:
    state, now_us = turn.state, turn.now_us
    require(state.saved.record.config_term == reign.term == state.term, "R7", "the record was rewritten in this term")
    require(now_us >= reign.barrier_us, "R7", "promises to earlier controllers have run out")
    require(committed(turn, reign), "R7", "a quorum has saved the record")
    require(not state.leaving and state.has_voice(state.record), "R7", "who leaves or forgot holds no office")
    reign.entered_us = now_us
    require(reign.holds(now_us), "R5", "the office is held only while the lease runs")
    state.attempts = 0
    gap_us = now_us - reign.previous_heard_us if reign.previous is not None else -1
    turn.note(
        "office_entered",
        term=reign.term,
        trigger=reign.trigger.value,
        previous=reign.previous.id if reign.previous else 0,
        gap_ms=gap_us / 1000 if gap_us >= 0 else None,
        elected_to_office_ms=(now_us - reign.elected_us) / 1000,
        **({"asked": reign.asked} if reign.asked else {}),
    )
    publish_office(turn)
    for peer, known in state.peers.items():
        if known.dead or known.silent:  # lost before there was anybody to say so
            turn.publish(MarkOffline(peer, state.term))
    set_status(turn, Status.RUNNING)


def publish_office(turn: Turn) -> None:
    """Publish, or refresh, this node as controller, if it is in office at this moment (R13)."""
    reign = turn.state.reign
    if reign is None or not reign.holds(turn.now_us):
        return
    turn.publish(
        PublishOffice(
            term=reign.term,
            entered_us=reign.entered_us,
            valid_until_us=reign.lapses_us,
            previous=reign.previous.id if reign.previous else 0,
            trigger=reign.trigger,
            gap_us=reign.entered_us - reign.previous_heard_us if reign.previous is not None else -1,
            story=story_of(reign),
        )
    )


def story_of(reign: Reign) -> Story:
    """How this reign came about, for people who ask why."""
    heard_us = reign.previous_heard_us if reign.previous is not None else -1
    return Story(heard_us, reign.lost_us, reign.elected_us, reign.entered_us, reign.rounds, reign.asked)
