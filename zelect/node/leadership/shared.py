"""Leadership of a node, for other threads of its process to ask about.

The poller loop writes `lease` and `controller`; anybody reads. What is handed over are immutable
values, replaced whole, and the answer to "may I act?" is a look at the clock (R5): it stays right
when the loop hangs, and when the whole process was frozen since.

Whoever lets a job act in leadership says so with `begin_job` and `end_job`, and the loop hands nothing
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

from zelect.core.lease import Lease
from zelect.core.machine import Machine
from zelect.system.clock import now_us

__all__ = ["NOBODY", "Controller", "SharedLeadership", "controller_now"]


@dataclass(frozen=True, slots=True)
class Controller:
    """Who leads (0: nobody is known to). Hearsay, unless it is this node itself. `previous`: whom
    this node knew before (0: nobody). `reason`: why there was an election, where this node knows."""

    id: int
    term: int
    previous: int
    reason: str


NOBODY = Controller(0, 0, 0, "")


class SharedLeadership:
    """What a node's own process may know of its leadership, and what the node must know of its use.

    `asked_to_go` and `healthy` are wishes of the process; `ended`: the node's loop is over.
    """

    def __init__(self) -> None:
        self.lease: Lease | None = None
        self.controller = NOBODY
        self.asked_to_go = False
        self.reloads = 0
        """Changes whenever the node is asked to read its files again."""
        self._asking = itertools.count(1)
        self.healthy = True
        self.ended = False
        self._jobs: dict[int, int] = {}  # term to the number of jobs that act in it
        self.wake_loop: Callable[[], None] = lambda: None
        self.mirror: Callable[[SharedLeadership], None] = lambda leadership: None
        """Told by the loop of each change, renewals of the lease included. Must not wait."""
        self._bells: tuple[Callable[[], None], ...] = ()
        self._lock = threading.Lock()
        self._until_us = 0  # how far the newest lease reached

    # -- for everybody ------------------------------------------------------------------------------

    def held(self) -> Lease | None:
        """Leadership, while this node may act as controller at this very moment."""
        lease = self.lease
        return lease if lease is not None and now_us() < lease.lapses_us else None

    def subscribe(self, wakeup: Callable[[], None]) -> None:
        """Have `bell` rung when a leadership begins or ends and when the controller changes, by the
        loop's thread: it must not wait. A lease that runs out rings nothing: look at the clock."""
        with self._lock:
            self._bells = (*self._bells, wakeup)

    def unsubscribe(self, wakeup: Callable[[], None]) -> None:
        """Undo `subscribe`. Harmless when repeated."""
        with self._lock:
            self._bells = tuple(one for one in self._bells if one != wakeup)

    def begin_job(self, term: int) -> bool:
        """Let a job act in leadership of `term` from now on; False when it is not held, or is to be
        given up."""
        with self._lock:
            lease = self.held()
            if lease is None or lease.term != term or self.asked_to_go or self.ended:
                return False
            self._jobs[term] = self._jobs.get(term, 0) + 1
            return True

    def end_job(self, term: int) -> None:
        """A job that `begin_job` let act in `term` has ended, and nothing of it acts any more."""
        with self._lock:
            if self._jobs[term] > 1:
                self._jobs[term] -= 1
            else:
                del self._jobs[term]
        self.wake_loop()

    @property
    def has_job(self) -> bool:
        """Whether a job may act in any leadership of this node."""
        with self._lock:
            return bool(self._jobs)

    def has_job_in(self, term: int) -> bool:
        """Whether a job may still act in leadership of `term`."""
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
        """Ask the node to read its configuration and keys again, as SIGHUP does."""
        self.reloads = next(self._asking)  # no lock: a signal's handler may call this
        self.wake_loop()

    def tell_health(self, healthy: bool) -> None:
        """Say whether the job could be done here (R8)."""
        self.healthy = healthy
        self.wake_loop()

    # -- for the loop ---------------------------------------------------------------------------------

    def withdraw(self) -> None:
        """Leadership is over, or suspended, from now on."""
        if self.lease is not None:
            with self._lock:
                self.lease = None
            self.mirror(self)
            self.ring()

    def show(self, lease: Lease | None, controller: Controller) -> None:
        """What is the case now."""
        before, known = self.lease, self.controller
        if lease == before and controller == known:
            return
        with self._lock:
            self.lease, self.controller = lease, controller
        if lease is not None:
            self._until_us = lease.lapses_us
        self.mirror(self)
        begun = lease is not None and (before is None or before.term != lease.term)
        if begun or controller != known:
            self.ring()

    def close(self) -> None:
        """The loop is over."""
        with self._lock:
            self.lease, self.ended = None, True
        self.mirror(self)
        self.ring()

    def outlast_job(self, wake_fd: int) -> None:
        """After an end that nobody asked for: wait until the job that acts in leadership has ended,
        or the lease has. Until then the node's sockets and lock, whose end would prove
        it dead, must stay."""
        while self.has_job and (left_us := self._until_us - now_us()) > 0:
            poll = select.poll()
            poll.register(wake_fd, select.POLLIN)
            if poll.poll(left_us / 1000 + 1):
                os.read(wake_fd, 4096)

    def ring(self) -> None:
        """Wake the subscribers."""
        for wakeup in self._bells:
            wakeup()


def controller_now(machine: Machine, known: Controller) -> Controller:
    """Who leads by what `machine` knows, where `known` was the answer so far."""
    leading, leader, me = machine.state.leading, machine.state.leader, machine.settings.node
    if leading is not None and leading.active_since_us:
        if (known.id, known.term) == (me, leading.term):
            return known
        return Controller(me, leading.term, leading.previous.id if leading.previous else 0, leading.reason.value)
    if leader is None:
        return Controller(0, known.term, known.id, "") if known.id else known
    if (known.id, known.term) == (leader.id, leader.term):
        return known
    return Controller(leader.id, leader.term, known.id or known.previous, "")
