"""Time and the start of a node's life (R4, R14)."""

from __future__ import annotations

from zelect.core.actors.health import yield_office
from zelect.core.actors.leadership import keep_reign, lapse_due_us, publish_office
from zelect.core.actors.vote_response import campaign_due_us, round_over, start_campaign
from zelect.core.actors.voters import look
from zelect.core.effects import AskController
from zelect.core.lease import NEVER_US
from zelect.core.messages import Ping, Trigger
from zelect.core.settings import Settings
from zelect.core.state import Stand, State, Status
from zelect.core.step import Turn
from zelect.core.succession import rank
from zelect.core.timing import MAX_TERM_JUMP
from zelect.core.transitions import become_follower, publish_self, schedule_campaign, set_status

__all__ = ["begin", "chores", "deadline_us", "hint", "tick"]

_IDLE = Ping(0, False, None, ())


def begin(turn: Turn, ran_before: bool) -> None:
    """STARTING: ask Redis who leads. A node that ran before keeps silent for one election timeout,
    because its promises were not saved (R4)."""
    state = turn.state
    if ran_before:
        state.silent_until_us = turn.now_us + turn.timing.promise_us
    state.identify_until_us = turn.now_us + turn.timing.promise_us
    state.next_idle_us = turn.now_us + turn.timing.idle_ping_us
    state.next_publish_us = turn.now_us + turn.timing.refresh_us
    turn.note("node_began", term=state.term, incarnation=state.saved.incarnation, voice=not state.amnesia)
    turn.publish(AskController())
    look(turn)
    publish_self(turn)


def hint(turn: Turn, controller: int, term: int) -> None:
    """What Redis said: with a controller's name wait for its PING (IDENTIFYING), without one vote.

    A node that never had a term takes the one in Redis as its own, so that tokens go on growing
    when a cluster is founded again under an old name (S3); raising one's term is always safe.
    """
    state = turn.state
    if state.status is not Status.STARTING:
        return
    if state.term == 0 < term <= MAX_TERM_JUMP:  # further ahead it is a lie or a fault (R14)
        become_follower(turn, term)
    if controller and controller != turn.me and controller in state.peers:
        state.identify_until_us = turn.now_us + turn.timing.promise_us
        set_status(turn, Status.IDENTIFYING)
    else:
        _start_voting(turn)


def _start_voting(turn: Turn) -> None:
    """Nobody is known to lead. The first in line campaigns as soon as a quorum is connected; the
    others give it two election timeouts to appear."""
    set_status(turn, Status.VOTING)
    turn.state.identify_until_us = NEVER_US
    schedule_campaign(turn, Trigger.START)
    if rank(turn) > 0:
        turn.state.campaign_at_us += 2 * turn.timing.promise_us


def tick(turn: Turn, late: bool) -> None:
    """Judge every deadline. A late turn of the loop doesn't campaign (R14): what it takes for the
    controller's silence may be its own."""
    state, now_us = turn.state, turn.now_us
    keep_reign(turn)
    yield_office(turn)
    if state.leaving:
        return
    if now_us >= state.identify_until_us and state.status in (Status.STARTING, Status.IDENTIFYING):
        _start_voting(turn)
    if state.campaign is not None and now_us >= state.campaign.give_up_us:
        round_over(turn)
    if not late and now_us >= campaign_due_us(turn.me, state):
        start_campaign(turn)


def chores(turn: Turn) -> None:
    """After every step: what is due but not urgent. It waits up to a heartbeat for a step that
    happens anyway, so that an idle node wakes no more often than its heartbeats."""
    state, now_us = turn.state, turn.now_us
    if state.leaving:
        return
    if now_us >= state.next_idle_us:
        _idle(turn)
    soon_us = now_us
    if now_us >= state.next_publish_us:
        state.next_publish_us = now_us + turn.timing.refresh_us
        publish_office(turn)
        publish_self(turn)
        # What is due soon is asked along: waking Redis' threads costs more than the question.
        soon_us += turn.timing.refresh_us // 2
    if soon_us >= state.next_look_us:
        look(turn)


def _idle(turn: Turn) -> None:
    """PING the peers that were not heard lately: a follower learns so of other followers' health,
    and a lost node of a newer term."""
    state = turn.state
    interval_us = turn.timing.idle_ping_us
    state.next_idle_us = turn.now_us + interval_us
    if state.stand is Stand.ELECTED:
        return
    # In large clusters each pair speaks less often, so that a node's share of traffic stays level, as
    # far as `down_after` allows: who was heard longer ago might be replaced unnoticed.
    quiet_us = min(interval_us * max(1, len(state.peers) // 8), turn.timing.down_after_us // 2)
    for peer, known in state.peers.items():
        if known.linked and turn.now_us - known.heard_us >= quiet_us:
            turn.send(peer, _IDLE)


def deadline_us(settings: Settings, state: State) -> int:
    """The earliest moment at which `tick` would do something."""
    if state.leaving:
        return NEVER_US
    chores_us = min(state.next_idle_us, state.next_look_us, state.next_publish_us)
    due_us = min(chores_us + settings.timing.heartbeat_us, campaign_due_us(settings.node, state))
    if state.status in (Status.STARTING, Status.IDENTIFYING):
        due_us = min(due_us, state.identify_until_us)
    if state.campaign is not None:
        due_us = min(due_us, state.campaign.give_up_us)
    reign = state.reign
    if reign is not None:
        due_us = min(due_us, reign.next_ping_us, lapse_due_us(settings.timing.promise_us, reign))
        if reign.barrier_us and not reign.entered_us:
            due_us = min(due_us, reign.barrier_us)
    return due_us
