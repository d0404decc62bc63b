"""Time, and the start of a node (R4, R8, R14).

A node that ran before is in its grace period for one election timeout: promises are not saved, so it
may have made one that still runs (R4). A node doesn't know which node is controller when it starts; it asks Redis for
a hint and gives the node that is named there time to be heard, because a returning node never preempts (R8).

After a late iteration of its loop a node starts no campaign: heartbeats may have arrived that it has not read yet
(R14).
"""

from __future__ import annotations

from zelect.core.actors.health import yield_leadership
from zelect.core.actors.leadership import keep, publish_controller
from zelect.core.actors.links import introduce
from zelect.core.actors.query import told_of_cluster
from zelect.core.actors.vote_response import round_over, start_campaign
from zelect.core.actors.voters import look
from zelect.core.effects import AskController
from zelect.core.events import ControllerHint, Started, Tick
from zelect.core.lease import NEVER_US
from zelect.core.messages import Ping, Reason
from zelect.core.state import Role, Status
from zelect.core.step import Step
from zelect.core.succession import rank
from zelect.core.timing import MAX_TERM_JUMP
from zelect.core.transitions import publish_self, schedule_campaign, set_status

_IDLE = Ping(0, False, None, ())
_REDIS_TOLD = 10
"""For so many refreshes of Redis a new node believes it that another cluster lives (L2)."""


def begin(step: Step, event: Started) -> None:
    """STARTING: begin the grace period if a promise may still run (R4), and ask Redis for the controller."""
    state = step.state
    if step.ran_before:
        state.grace_until_us = step.now_us + max(step.timing.promise_us, state.saved.promise_ms * 1000)
    state.identify_until_us = step.now_us + step.timing.promise_us
    state.next_idle_us = step.now_us + step.timing.idle_ping_us
    state.next_publish_us = step.now_us + step.timing.refresh_us
    state.redis_told_until_us = step.now_us + _REDIS_TOLD * step.timing.refresh_us
    step.note(
        "machine_started", term=state.term, incarnation=state.saved.incarnation, may_vote=state.may_vote(state.record)
    )
    step.publish(AskController())
    look(step)
    publish_self(step)


def hint(step: Step, event: ControllerHint) -> None:
    """What Redis said: wait for the PING of the controller that it named (IDENTIFYING), or vote when it named none.

    New nodes that found a cluster go on from the term in Redis, so that fencing tokens keep growing when a cluster is
    set up a second time under its old name (S3). Until they found it nothing is done with that term: a member that
    lost its data must not depose a controller by what Redis says (L2).
    """
    state, controller = step.state, event.controller
    if state.term == 0 or state.is_new:
        state.redis_term = event.term if event.term <= MAX_TERM_JUMP else 0  # further ahead it can't be genuine (R14)
    unknown = controller not in (0, step.me, *state.peers)
    if state.is_new and unknown and step.now_us < state.redis_told_until_us:
        told_of_cluster(step, controller, "")
    if state.status is not Status.STARTING:
        return
    if controller in state.peers:
        state.identify_until_us = step.now_us + step.timing.promise_us
        set_status(step, Status.IDENTIFYING)
    else:
        _start_voting(step)


def _start_voting(step: Step) -> None:
    """No controller is known. The first in line campaigns as soon as a quorum is connected; the
    others give it two election timeouts to appear. A new node that would found a cluster alone waits for one, so that
    nodes of an existing one have time to connect to it (R15)."""
    set_status(step, Status.VOTING)
    step.state.identify_until_us = NEVER_US
    schedule_campaign(step, Reason.START)
    if rank(step) > 0:
        step.state.campaign_at_us += 2 * step.timing.promise_us
    elif step.state.is_new and step.state.founding_members == (step.me,):
        step.state.campaign_at_us += step.timing.promise_us


def tick(step: Step, event: Tick) -> None:
    """Judge every deadline. A late iteration of the loop starts no campaign (R14)."""
    state, now_us = step.state, step.now_us
    keep(step)
    yield_leadership(step)
    if state.leaving:
        return
    if now_us >= state.identify_until_us and state.status in (Status.STARTING, Status.IDENTIFYING):
        _start_voting(step)
    if state.campaign is not None and now_us >= state.campaign.give_up_us:
        round_over(step)
    if not event.late and now_us >= state.campaign_due_us():
        start_campaign(step)


def chores(step: Step) -> None:
    """What is due but not urgent: PINGs to idle peers, publishing, a look at the witness, and to save the length of
    promises where that was changed (R4)."""
    state, now_us = step.state, step.now_us
    if now_us >= state.grace_until_us and state.saved.promise_ms != step.timing.promise_us // 1000:
        step.save(promise_ms=step.timing.promise_us // 1000)  # no longer promise from an earlier start can still run
    if now_us >= state.next_idle_us:
        _ping_idle_peers(step)
    if state.cluster_told_us >= 0 and now_us >= state.cluster_told_us + 3 * step.timing.refresh_us:
        state.cluster_told_us = -1  # a live member would have been heard again, or still be in Redis
    soon_us = now_us
    if now_us >= state.next_publish_us:
        state.next_publish_us = now_us + step.timing.refresh_us
        publish_controller(step)
        publish_self(step)
        if state.cluster_told_us >= 0:
            step.publish(AskController())
        # What is due soon is asked in the same go: waking the Redis threads costs more than the question.
        soon_us += step.timing.refresh_us // 2
    if soon_us >= state.next_witness_look_us:
        look(step)


def _ping_idle_peers(step: Step) -> None:
    """PING the peers that were not heard lately: this is how a follower learns of the others' health, and
    how an isolated node of a newer term is found. One that was not heard since this node connected to it may have
    missed the introduction: repeat it, because the peer can't connect to this node before it knows the address."""
    state = step.state
    interval_us = step.timing.idle_ping_us
    state.next_idle_us = step.now_us + interval_us
    # In large clusters each pair exchanges PINGs less often, so that each node's traffic stays constant, as
    # far as `down_after` allows: a process heard longer ago could be replaced unnoticed.
    quiet_us = min(interval_us * max(1, len(state.peers) // 8), step.timing.down_after_us // 2)
    for peer, known in state.peers.items():
        if not known.linked or step.now_us - known.heard_us < quiet_us:
            continue
        if known.heard_us < known.linked_us:
            introduce(step, peer)
        elif state.role is not Role.ELECTED:
            step.send(peer, _IDLE)
