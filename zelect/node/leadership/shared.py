"""The office of a node, for other threads of its process to ask about.

The poller loop writes `tenure` and `controller`; anybody reads. What is handed over are immutable
values, replaced whole, and the answer to "may I act?" is a look at the clock (R5): it stays right
when the loop hangs, and when the whole process was frozen since.

Whoever lets a job act in the office says so with `occupy` and `vacate`, and the loop hands nothing
over in between (R6). The loop never waits for a lock that is held while anything happens: the one
here guards a few assignments.
"""

from __future__ import annotations

import itertools
import os
import select
import threading
from collections.abc import Callable
from dataclasses import dataclass

from zelect.core.lease import Tenure
from zelect.core.machine import Machine
from zelect.system.clock import now_us

__all__ = ["NOBODY", "Controller", "Office", "controller_now"]


@dataclass(frozen=True, slots=True)
class Controller:
    """Who leads (0: nobody is known to). Hearsay, unless it is this node itself. `previous`: whom
    this node knew before (0: nobody). `reason`: why there was an election, where this node knows."""

    id: int
    term: int
    previous: int
    reason: str


NOBODY = Controller(0, 0, 0, "")


class Office:
    """What a node's own process may know of its office, and what the node must know of its use.

    `asked_to_go` and `healthy` are wishes of the process; `ended`: the node's loop is over.
    """

    def __init__(self) -> None:
        self.tenure: Tenure | None = None
        self.controller = NOBODY
        self.asked_to_go = False
        self.reloads = 0
        """Changes whenever the node is asked to read its files anew."""
        self._asking = itertools.count(1)
        self.healthy = True
        self.ended = False
        self._jobs: dict[int, int] = {}  # term to the number of jobs that act in it
        self.wake_loop: Callable[[], None] = lambda: None
        self.mirror: Callable[[Office], None] = lambda office: None
        """Told by the loop of each change, renewals of the lease included. Must not wait."""
        self._bells: tuple[Callable[[], None], ...] = ()
        self._lock = threading.Lock()
        self._until_us = 0  # how far the newest tenure reached

    # -- for everybody ------------------------------------------------------------------------------

    def held(self) -> Tenure | None:
        """The office, while this node may act as controller at this very moment."""
        tenure = self.tenure
        return tenure if tenure is not None and now_us() < tenure.lapses_us else None

    def subscribe(self, bell: Callable[[], None]) -> None:
        """Have `bell` rung when an office begins or ends and when the controller changes, by the
        loop's thread: it must not wait. A lease that runs out rings nothing: look at the clock."""
        with self._lock:
            self._bells = (*self._bells, bell)

    def unsubscribe(self, bell: Callable[[], None]) -> None:
        """Undo `subscribe`. Harmless when repeated."""
        with self._lock:
            self._bells = tuple(one for one in self._bells if one != bell)

    def occupy(self, term: int) -> bool:
        """Let a job act in the office of `term` from now on; False when it is not held, or is to be
        given up."""
        with self._lock:
            tenure = self.held()
            if tenure is None or tenure.term != term or self.asked_to_go or self.ended:
                return False
            self._jobs[term] = self._jobs.get(term, 0) + 1
            return True

    def vacate(self, term: int) -> None:
        """A job that `occupy` let act in `term` has ended, and nothing of it acts any more."""
        with self._lock:
            if self._jobs[term] > 1:
                self._jobs[term] -= 1
            else:
                del self._jobs[term]
        self.wake_loop()

    @property
    def occupied(self) -> bool:
        """Whether a job may act in any office of this node."""
        with self._lock:
            return bool(self._jobs)

    def occupies(self, term: int) -> bool:
        """Whether a job may still act in the office of `term`."""
        with self._lock:
            return term in self._jobs

    def go(self) -> None:
        """Ask the node to leave in good order, once the job has ended. A signal's handler may call this,
        and interrupt itself: what is told already is not told again, so no lock is asked for twice."""
        if self.asked_to_go:
            return
        self.asked_to_go = True
        self.wake_loop()
        self.ring()

    def reload(self) -> None:
        """Ask the node to read its configuration and keys anew, as SIGHUP does."""
        self.reloads = next(self._asking)  # no lock: a signal's handler may call this
        self.wake_loop()

    def tell_health(self, healthy: bool) -> None:
        """Say whether the job could be done here (R8)."""
        self.healthy = healthy
        self.wake_loop()

    # -- for the loop ---------------------------------------------------------------------------------

    def withdraw(self) -> None:
        """The office is over, or suspended, from now on."""
        if self.tenure is not None:
            with self._lock:
                self.tenure = None
            self.mirror(self)
            self.ring()

    def show(self, tenure: Tenure | None, controller: Controller) -> None:
        """What is the case now."""
        before, known = self.tenure, self.controller
        if tenure == before and controller == known:
            return
        with self._lock:
            self.tenure, self.controller = tenure, controller
        if tenure is not None:
            self._until_us = tenure.lapses_us
        self.mirror(self)
        begun = tenure is not None and (before is None or before.term != tenure.term)
        if begun or controller != known:
            self.ring()

    def close(self) -> None:
        """The loop is over."""
        with self._lock:
            self.tenure, self.ended = None, True
        self.mirror(self)
        self.ring()

    def outlast_job(self, wake_fd: int) -> None:
        """After an end that nobody asked for: wait until the job that acts in the office has ended,
        or the lease has. Until then the node's sockets and lock, whose end would prove
        it dead, must stay."""
        while self.occupied and (left_us := self._until_us - now_us()) > 0:
            poll = select.poll()
            poll.register(wake_fd, select.POLLIN)
            if poll.poll(left_us / 1000 + 1):
                os.read(wake_fd, 4096)

    def ring(self) -> None:
        """Wake the subscribers."""
        for bell in self._bells:
            bell()


def controller_now(machine: Machine, known: Controller) -> Controller:
    """Who leads by what `machine` knows, where `known` was the answer so far."""
    reign, leader, me = machine.state.reign, machine.state.leader, machine.settings.node
    if reign is not None and reign.entered_us:
        if (known.id, known.term) == (me, reign.term):
            return known
        return Controller(me, reign.term, reign.previous.id if reign.previous else 0, reign.trigger.value)
    if leader is None:
        return Controller(0, known.term, known.id, "") if known.id else known
    if (known.id, known.term) == (leader.id, leader.term):
        return known
    return Controller(leader.id, leader.term, known.id or known.previous, "")
