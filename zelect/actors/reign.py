"""From elected to in office, and staying there: rounds of numbered PINGs (R5, R6, R7)."""

from __future__ import annotations

from zelect.core.become import become_follower, publish_self, set_status
from zelect.core.effects import MarkOffline, PublishOffice, Vote
from zelect.core.messages import NodeOffline, Ping
from zelect.core.quorum import has_quorum
from zelect.core.rules import require
from zelect.core.state import Promise, Reign, Status
from zelect.core.succession import succession_of
from zelect.core.turn import Turn

__all__ = ["begin_reign", "keep_reign", "lapse_due_us", "ping_one", "settle_office"]


def begin_reign(turn: Turn) -> None:
    """Send the first round: it carries the new electorate record and asks for the lease."""
    _ping_round(turn)


def _ping_round(turn: Turn) -> None:
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
    one election timeout after an election that never earned a lease."""
    return reign.lapses_us or reign.elected_us + turn_promise_us


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
    if now_us >= reign.barrier_us:
        reign.barrier_us = 0
    _miss_the_silent(turn)
    if now_us >= reign.next_ping_us:
        _ping_round(turn)
    if reign.entered_us and now_us >= reign.next_publish_us:
        reign.next_publish_us = now_us + turn.timing.refresh_us
        if reign.holds(now_us):
            _publish(turn, reign)


def _miss_the_silent(turn: Turn) -> None:
    """Tell the others, and Redis, who has not been heard for `down_after`."""
    for peer, known in turn.state.peers.items():
        if known.incarnation and not known.gone and turn.now_us - known.heard_us >= turn.timing.down_after_us:
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
    saved_by = [member for member, record in reign.saved_by.items() if record == state.saved.record.id]
    lease_runs = now_us < reign.lapses_us and reign.renewed_us >= reign.floor_us
    if lease_runs and now_us >= reign.barrier_us and has_quorum(state.members, saved_by):
        _enter_office(turn, reign)


def _enter_office(turn: Turn, reign: Reign) -> None:
    state, now_us = turn.state, turn.now_us
    require(state.saved.record.config_term == reign.term == state.term, "R7", "the record was rewritten in this term")
    require(now_us >= reign.barrier_us, "R7", "promises to earlier controllers have run out")
    require(not state.leaving and not state.amnesia, "R7", "a node that leaves or forgot holds no office")
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
    )
    _publish(turn, reign)
    if state.status is Status.RUNNING:
        publish_self(turn)
    else:
        set_status(turn, Status.RUNNING)


def _publish(turn: Turn, reign: Reign) -> None:
    require(reign.holds(turn.now_us), "R13", "only a controller in office publishes itself")
    reign.next_publish_us = turn.now_us + turn.timing.refresh_us
    votes = tuple(
        Vote(voter, answer.granted, "" if answer.reason is None else answer.reason.value)
        for voter, answer in sorted(reign.votes.items())
    )
    turn.publish(
        PublishOffice(
            term=reign.term,
            entered_us=reign.entered_us,
            valid_until_us=reign.lapses_us,
            previous=reign.previous.id if reign.previous else 0,
            trigger=reign.trigger,
            gap_us=reign.entered_us - reign.previous_heard_us if reign.previous is not None else -1,
            votes=votes,
        )
    )
