"""Time and the start of a node's life (R4, R14)."""

from __future__ import annotations

from zelect.core.actors.health import yield_leadership
from zelect.core.actors.leadership import keep_leadership, lapse_due_us, publish_controller
from zelect.core.actors.vote_response import campaign_due_us, round_over, start_campaign
from zelect.core.actors.voters import look
from zelect.core.effects import AskController
from zelect.core.lease import NEVER_US
from zelect.core.messages import Ping, Reason
from zelect.core.settings import Settings
from zelect.core.state import Role, State, Status
from zelect.core.step import Step
from zelect.core.succession import rank
from zelect.core.timing import MAX_TERM_JUMP
from zelect.core.transitions import become_follower, publish_self, schedule_campaign, set_status

__all__ = ["begin", "chores", "deadline_us", "hint", "tick"]

_IDLE = Ping(0, False, None, ())


def begin(step: Step, ran_before: bool) -> None:
    """STARTING: ask Redis who leads. A node that ran before keeps silent for one election timeout,
    because its promises were not saved (R4)."""
    state = step.state
    if ran_before:
        state.grace_until_us = step.now_us + step.timing.promise_us
    state.identify_until_us = step.now_us + step.timing.promise_us
    state.next_idle_us = step.now_us + step.timing.idle_ping_us
    state.next_publish_us = step.now_us + step.timing.refresh_us
    step.note("node_began", term=state.term, incarnation=state.saved.incarnation, voting_right=not state.lost_state)
    step.publish(AskController())
    look(step)
    publish_self(step)


def hint(step: Step, controller: int, term: int) -> None:
    """What Redis said: with a controller's name wait for its PING (IDENTIFYING), without one vote.

    A node that never had a term takes the one in Redis as its own, so that tokens go on growing
    when a cluster is founded again under an old name (S3); raising one's term is always safe.
    """
    state = step.state
    if state.status is not Status.STARTING:
        return
    if state.term == 0 < term <= MAX_TERM_JUMP:  # further ahead it is a lie or a fault (R14)
        become_follower(step, term)
    if controller and controller != step.me and controller in state.peers:
        state.identify_until_us = step.now_us + step.timing.promise_us
        set_status(step, Status.IDENTIFYING)
    else:
        _start_voting(step)


def _start_voting(step: Step) -> None:
    """Nobody is known to lead. The first in line campaigns as soon as a quorum is connected; the
    others give it two election timeouts to appear."""
    set_status(step, Status.VOTING)
    step.state.identify_until_us = NEVER_US
    schedule_campaign(step, Reason.START)
    if rank(step) > 0:
        step.state.campaign_at_us += 2 * step.timing.promise_us


def tick(step: Step, late: bool) -> None:
    """Judge every deadline. A late turn of the loop doesn't campaign (R14): what it takes for the
    controller's silence may be its own."""
    state, now_us = step.state, step.now_us
    keep_leadership(step)
    yield_leadership(step)
    if state.leaving:
        return
    if now_us >= state.identify_until_us and state.status in (Status.STARTING, Status.IDENTIFYING):
        _start_voting(step)
    if state.campaign is not None and now_us >= state.campaign.give_up_us:
        round_over(step)
    if not late and now_us >= campaign_due_us(step.me, state):
        start_campaign(step)


def chores(step: Step) -> None:
    """After every step: what is due but not urgent. It waits up to a heartbeat for a step that
    happens anyway, so that an idle node wakes no more often than its heartbeats."""
    state, now_us = step.state, step.now_us
    if state.leaving:
        return
    if now_us >= state.next_idle_us:
        _idle(step)
    soon_us = now_us
    if now_us >= state.next_publish_us:
        state.next_publish_us = now_us + step.timing.refresh_us
        publish_controller(step)
        publish_self(step)
        # What is due soon is asked along: waking Redis' threads costs more than the question.
        soon_us += step.timing.refresh_us // 2
    if soon_us >= state.next_witness_look_us:
        look(step)


def _idle(step: Step) -> None:
    """PING the peers that were not heard lately: a follower learns so of other followers' health,
    and a lost node of a newer term."""
    state = step.state
    interval_us = step.timing.idle_ping_us
    state.next_idle_us = step.now_us + interval_us
    if state.role is Role.ELECTED:
        return
    # In large clusters each pair speaks less often, so that a node's share of traffic stays level, as
    # far as `down_after` allows: who was heard longer ago might be replaced unnoticed.
    quiet_us = min(interval_us * max(1, len(state.peers) // 8), step.timing.down_after_us // 2)
    for peer, known in state.peers.items():
        if known.linked and step.now_us - known.heard_us >= quiet_us:
            step.send(peer, _IDLE)


def deadline_us(settings: Settings, state: State) -> int:
    """The earliest moment at which `tick` would do something."""
    if state.leaving:
        return NEVER_US
    chores_us = min(state.next_idle_us, state.next_witness_look_us, state.next_publish_us)
    due_us = min(chores_us + settings.timing.heartbeat_us, campaign_due_us(settings.node, state))
    if state.status in (Status.STARTING, Status.IDENTIFYING):
        due_us = min(due_us, state.identify_until_us)
    if state.campaign is not None:
        due_us = min(due_us, state.campaign.give_up_us)
    leader_state = state.leader_state
    if leader_state is not None:
        due_us = min(due_us, leader_state.next_ping_us, lapse_due_us(settings.timing.promise_us, leader_state))
        if leader_state.promises_end_us and not leader_state.active_since_us:
            due_us = min(due_us, leader_state.promises_end_us)
    return due_us
