"""The job that the active node does: whether it can be done here, and when it has ended (R6, R8).

A node whose job can't be done reports that by its priority and goes last in the succession, after one that was only
asked to step down for a while. If it is active it hands over, but only to a node that is better off: a controller whose
job fails is still better than none (L1), so if all are unhealthy the controller stays. While planned transfers are
paused it stays too.

A *guarded* node has a job that acts in its leadership: an embedding program, or a command. Such a job
takes some time to end, and nobody else may act meanwhile. Until the node says that it has ended,
the promises to that leadership run on: the others' because no HANDOVER ends them, and this
node's own, which may be the one vote that a rival lacks. They outlast the lease, and the job has to
end within the lease.
"""

from __future__ import annotations

from dataclasses import replace

from zelect.core.events import HealthChanged, JobEnded, PriorityChanged
from zelect.core.messages import Handover
from zelect.core.step import Step
from zelect.core.succession import succession_of
from zelect.core.transitions import hand_over, step_down


def priority_changed(step: Step, event: PriorityChanged) -> None:
    """The operator changed this node's priority; its next PONG tells the controller."""
    step.settings = replace(step.settings, priority=event.priority)
    step.note("priority_changed", priority=event.priority)


def health_changed(step: Step, event: HealthChanged) -> None:
    """The job can be done here again, or can't any more."""
    if step.state.healthy is not event.healthy:
        step.state.healthy = event.healthy
        step.note("health_changed", healthy=event.healthy)
        yield_leadership(step)


def yield_leadership(step: Step) -> None:
    """Hand leadership to the first in line if this node is unhealthy or cooling down, and that one is better
    off. A node that becomes active in such a state gives the others one election timeout to report theirs."""
    state = step.state
    leader_state = state.leader_state
    if step.priority >= 0 or leader_state is None or not leader_state.active_since_us or state.paused(step.now_us):
        return
    order = succession_of(step)
    settled = step.now_us - leader_state.active_since_us >= step.timing.promise_us
    if settled and order and step.peer(order[0]).priority > step.priority:
        term = leader_state.term
        step_down(step, "cooling_down" if state.healthy else "unhealthy")
        hand_over(step, Handover(term, order[0]))


def job_ended(step: Step, event: JobEnded) -> None:
    """The job has ended: what promises remain to the leadership that it acted in may end too."""
    vacate(step)


def vacate(step: Step) -> None:
    """The job in this node's former leadership has ended: send the handover that waited for that."""
    state = step.state
    pending_handover, promise = state.pending_handover, state.promise
    if pending_handover is None:
        return
    state.pending_handover = None
    if promise is not None and (promise.to, promise.term) == (step.me, pending_handover.message.of_term):
        state.promise = None
    step.note("leadership_vacated", term=pending_handover.message.of_term)
    step.broadcast(pending_handover.message)
