"""The job that is done active: whether it can be done here, and when it has ended (R6, R8).

A node whose job can't be done tells so by its priority and goes last in the succession, after one
that was only asked to rest. Active it hands over, but only to somebody who is better off: a
controller whose job fails is still better than none (L1), so where all are unhealthy the first in line
stays. While planned transfers are paused it stays too.

A *guarded* node has a job that acts in its leadership: an embedding program, or a command. Such a job
takes some time to end, and nobody else may act meanwhile. Until the shell says that it has ended,
the promises to leadership run on: the others' because no HANDOVER tells them otherwise, and this
node's own, which may be the one vote that a rival lacks. They outlast the lease, and the job has to
end within the lease.
"""

from __future__ import annotations

from zelect.core.messages import Handover
from zelect.core.step import Step
from zelect.core.succession import succession_of
from zelect.core.transitions import hand_over, step_down

__all__ = ["health_changed", "job_ended", "yield_leadership"]


def health_changed(step: Step, healthy: bool) -> None:
    """The job can be done here again, or can't any more."""
    if step.state.healthy is not healthy:
        step.state.healthy = healthy
        step.note("health_changed", healthy=healthy)
        yield_leadership(step)


def yield_leadership(step: Step) -> None:
    """Hand leadership to the first in line if this node is unhealthy, or rests, and that one is better
    off. One that comes so into leadership gives the others an election timeout to show how they are."""
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


def job_ended(step: Step) -> None:
    """The job has ended: what promises remain to leadership that it acted in may end too."""
    state = step.state
    pending_handover, promise = state.pending_handover, state.promise
    if pending_handover is None:
        return
    state.pending_handover = None
    if promise is not None and (promise.to, promise.term) == (step.me, pending_handover.message.of_term):
        state.promise = None
    step.note("leadership_vacated", term=pending_handover.message.of_term)
    step.broadcast(pending_handover.message)
