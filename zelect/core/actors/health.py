"""The job that is done in office: whether it can be done here, and when it has ended (R6, R8).

A node whose job can't be done tells so by its priority and goes last in the succession, after one
that was only asked to rest. In office it hands over, but only to somebody who is better off: a
controller whose job fails is still better than none (L1), so where all are unwell the first in line
stays. While elections of choice are paused it stays too.

A *guarded* node has a job that acts in its office: an embedding program, or a command. Such a job
takes some time to end, and nobody else may act meanwhile. Until the shell says that it has ended,
the promises to the office run on: the others' because no HANDOVER tells them otherwise, and this
node's own, which may be the one vote that a rival lacks. They outlast the lease, and the job has to
end within the lease.
"""

from __future__ import annotations

from zelect.core.messages import Handover
from zelect.core.step import Turn
from zelect.core.succession import succession_of
from zelect.core.transitions import hand_over, leave_office

__all__ = ["health_changed", "vacated", "yield_office"]


def health_changed(turn: Turn, healthy: bool) -> None:
    """The job can be done here again, or can't any more."""
    if turn.state.healthy is not healthy:
        turn.state.healthy = healthy
        turn.note("health_changed", healthy=healthy)
        yield_office(turn)


def yield_office(turn: Turn) -> None:
    """Hand the office to the first in line if this node is unwell, or rests, and that one is better
    off. One that comes so into office gives the others an election timeout to show how they are."""
    state = turn.state
    reign = state.reign
    if turn.priority >= 0 or reign is None or not reign.entered_us or state.paused(turn.now_us):
        return
    order = succession_of(turn)
    settled = turn.now_us - reign.entered_us >= turn.timing.promise_us
    if settled and order and turn.peer(order[0]).priority > turn.priority:
        term = reign.term
        leave_office(turn, "resting" if state.healthy else "unwell")
        hand_over(turn, Handover(term, order[0]))


def vacated(turn: Turn) -> None:
    """The job has ended: what promises remain to the office that it acted in may end too."""
    state = turn.state
    owed, promise = state.owed, state.promise
    if owed is None:
        return
    state.owed = None
    if promise is not None and (promise.to, promise.term) == (turn.me, owed.message.of_term):
        state.promise = None
    turn.note("office_vacated", term=owed.message.of_term)
    turn.broadcast(owed.message)
