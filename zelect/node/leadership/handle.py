"""What a process holds of its node: whether the node is active, and how to ask it for something.

The node's loop writes `lease` and `controller`; any thread reads. What is handed over are immutable
values, replaced as a whole, and the answer to "may I act?" is a comparison with the clock (R5): it
is right even when the loop hangs, and when the whole process was frozen in between.

Code that runs a job in a leadership registers it with `register_job` and `unregister_job`; between
the two the loop does not hand the leadership over (R6). The loop never waits for a lock that is
held while something happens: the lock here guards a few assignments.
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
from zelect.system.forks import in_child


@dataclass(frozen=True, slots=True)
class Controller:
    """Who is controller (id 0: nobody is known), as this node knows it: second-hand unless it is this
    node itself. `previous`: id of the controller that this node knew before (0: none). `reason`: why the
    election was held, "" where this node does not know."""

    id: int
    term: int
    previous: int
    reason: str


NOBODY = Controller(0, 0, 0, "")


class NodeHandle:
    """What the process around a node knows of it, and what it asks of it.

    `lease`, `controller`, `votes` (its vote counts now) and `ended` (the loop is over) are the node's;
    `asked_to_leave`, `reload_requests` (how many so far) and `healthy` are requests of the process. `forked`: this
    process is a forked child of the one that has the node, and has nothing of it: here the node has ended.
    """

    def __init__(self) -> None:
        self.lease: Lease | None = None
        self.controller = NOBODY
        self.votes = False
        self.asked_to_leave = False
        self.reload_requests = 0
        self.healthy = True
        self.ended = False
        self.forked = False
        self.wake_loop: Callable[[], None] = lambda: None
        self.on_change: Callable[[NodeHandle], None] = lambda handle: None
        """Called by the loop after each change, renewals of the lease included. Must not wait."""
        self._reload_numbers = itertools.count(1)
        self._jobs: dict[int, int] = {}  # term: how many jobs run in it
        self._subscribers: tuple[Callable[[], None], ...] = ()
        self._lock = threading.Lock()
        self._last_lapse_us = 0  # end of the newest lease
        in_child(self._leave_to_parent)

    # -- for every thread ---------------------------------------------------------------------------

    def active_lease(self) -> Lease | None:
        """The lease, while this node may act as controller at this very moment, else None."""
        lease = self.lease
        return lease if lease is not None and now_us() < lease.lapses_us else None

    def subscribe(self, call: Callable[[], None]) -> None:
        """Have `call` called when a leadership begins or ends, when a job ends, when the controller changes, and when
        the node is asked to leave, by the thread that brings it about. It must not wait. A lease that runs out calls
        nobody: look at the clock."""
        with self._lock:
            self._subscribers = (*self._subscribers, call)

    def unsubscribe(self, call: Callable[[], None]) -> None:
        """Undo `subscribe`. Harmless when repeated."""
        with self._lock:
            self._subscribers = tuple(one for one in self._subscribers if one != call)

    def register_job(self, term: int) -> bool:
        """Let a job act in the leadership of `term` from now on. False when the node is not active in that
        term, or was asked to leave."""
        with self._lock:
            lease = self.active_lease()
            if lease is None or lease.term != term or self.asked_to_leave or self.ended:
                return False
            self._jobs[term] = self._jobs.get(term, 0) + 1
            return True

    def unregister_job(self, term: int) -> None:
        """A job that was registered for `term` has ended, and nothing of it acts any more."""
        with self._lock:
            left = self._jobs.pop(term, 1) - 1  # none is known in a forked child
            if left:
                self._jobs[term] = left
        self.wake_loop()
        self.notify()

    @property
    def has_jobs(self) -> bool:
        """Whether a job may still act in any leadership of this node."""
        with self._lock:
            return bool(self._jobs)

    def has_jobs_in(self, term: int) -> bool:
        """Whether a job may still act in the leadership of `term`."""
        with self._lock:
            return term in self._jobs

    def ask_to_leave(self) -> None:
        """Ask the node to leave gracefully once its jobs have ended. A signal handler may call this and
        interrupt itself: a second call does nothing, so no lock is taken twice by one thread."""
        if self.asked_to_leave:
            return
        self.asked_to_leave = True
        self.wake_loop()
        self.notify()

    def reload(self) -> None:
        """Ask the node to read its configuration and keys again, as SIGHUP does."""
        self.reload_requests = next(self._reload_numbers)  # no lock: a signal handler may call this
        self.wake_loop()

    def set_healthy(self, healthy: bool) -> None:
        """Say whether a job could be done here (R8)."""
        self.healthy = healthy
        self.wake_loop()

    def _leave_to_parent(self) -> None:
        self.forked = self.ended = self.asked_to_leave = True
        self.lease, self.controller = None, NOBODY
        self.wake_loop = lambda: None
        self._jobs, self._subscribers, self._lock = {}, (), threading.Lock()

    # -- for the loop ---------------------------------------------------------------------------------

    def withdraw(self) -> None:
        """The node is not active any more, or not for now."""
        if self.lease is not None:
            with self._lock:
                self.lease = None
            self.on_change(self)
            self.notify()

    def update(self, lease: Lease | None, controller: Controller) -> None:
        """Take over this node's lease and who is controller; tell all who wait when either has changed."""
        before, known = self.lease, self.controller
        if lease == before and controller == known:
            return
        with self._lock:
            self.lease, self.controller = lease, controller
        if lease is not None:
            self._last_lapse_us = lease.lapses_us
        self.on_change(self)
        begun = lease is not None and (before is None or before.term != lease.term)
        if begun or controller != known:
            self.notify()

    def close(self) -> None:
        """The loop is over."""
        with self._lock:
            self.lease, self.ended = None, True
        self.on_change(self)
        self.notify()

    def wait_for_jobs(self, wake_fd: int) -> None:
        """After the node ended without being asked to: wait until the jobs have ended, or the lease has.
        Until then its sockets and its lock must stay, as their end would prove the node dead."""
        while self.has_jobs and (left_us := self._last_lapse_us - now_us()) > 0:
            poll = select.poll()
            poll.register(wake_fd, select.POLLIN)
            if poll.poll(left_us / 1000 + 1):
                os.read(wake_fd, 4096)

    def notify(self) -> None:
        """Call the subscribers."""
        for call in self._subscribers:
            call()


def controller_now(machine: Machine, known: Controller) -> Controller:
    """Who is controller by what `machine` knows now, where `known` was the answer before."""
    leader_state, leader, me = machine.state.leader_state, machine.state.controller, machine.settings.node
    if leader_state is not None and leader_state.active_since_us:
        if (known.id, known.term) == (me, leader_state.term):
            return known
        previous = leader_state.previous.id if leader_state.previous else 0
        return Controller(me, leader_state.term, previous, leader_state.reason.value)
    if leader is None:
        return Controller(0, known.term, known.id, "") if known.id else known
    if (known.id, known.term) == (leader.id, leader.term):
        return known
    return Controller(leader.id, leader.term, known.id or known.previous, "")
