"""The thread that watches a node's leadership for its program: it begins and ends each `Leadership`, makes
the callbacks, and wakes who waits.

It is not the election's thread: callbacks may take their time. It looks when the node has news and when
the lease would run out, so a leadership ends in time even when the renewals simply stop.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue

from zelect.api.health import JobHealth
from zelect.api.leadership import REST_S, Leadership, nodes_of_this_job
from zelect.api.log import LOGGER
from zelect.core.lease import NEVER_US
from zelect.node.leadership.handle import NOBODY, Controller, NodeHandle
from zelect.system.clock import now_us

_OUTLASTED_CODE = 70


@dataclass(frozen=True, slots=True)
class Callbacks:
    """What the program has called. `on_elected` and `on_lost` enclose a job: leadership is handed over
    once both have returned."""

    on_elected: Callable[[Leadership], None] | None = None
    on_lost: Callable[[Leadership], None] | None = None
    on_controller: Callable[[Controller], None] | None = None


class LeadershipWatcher:
    """Watches the node of `handle`, which has started. `margin_us`: how long before the end of its lease a
    leadership ends. `exits`: end the process when a job outlasts its lease. `rest_s`: how long this node goes last in
    the succession after it gave a leadership up, and after how long one is given up that nobody uses.

    `leadership`: the one that lasts, or has just been lost. `changed`: notified after each change.
    """

    def __init__(
        self,
        handle: NodeHandle,
        margin_us: int,
        callbacks: Callbacks,
        health: JobHealth,
        exits: bool,
        rest_s: float = REST_S,
    ) -> None:
        self.handle = handle
        self.leadership: Leadership | None = None
        self.changed = threading.Condition()
        self.controller = NOBODY
        self._margin_us = margin_us
        self._callbacks = callbacks
        self._health = health
        self._exits = exits
        self._rest_s = rest_s
        self._subscribers: tuple[Callable[[], None], ...] = ()
        self._news: SimpleQueue[None] = SimpleQueue()
        """A queue, since its `put` may interrupt itself: a signal handler may ask the node to stop."""
        self._newest: Leadership | None = None  # lost or not
        self._callback: threading.Thread | None = None  # in which `on_elected` runs
        self._leaving = False
        self._count = 0
        self._rest_until_us = 0
        self._loops = 0  # over `campaign()`, that go on
        self._loop_ended_us = 0  # when the last of them ended; 0: one goes on, or there was none
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="zelect-watch", daemon=True)
        handle.subscribe(self._wake)
        self._thread.start()

    def subscribe(self, call: Callable[[], None]) -> None:
        """Have this thread call `call` after each change; a RuntimeError ends the subscription."""
        with self.changed:
            self._subscribers = (*self._subscribers, call)

    def unsubscribe(self, call: Callable[[], None]) -> None:
        """Undo `subscribe`. Harmless when repeated."""
        with self.changed:
            self._subscribers = tuple(one for one in self._subscribers if one is not call)

    def loop_began(self) -> None:
        """A loop over `campaign()` asks for leaderships from now on."""
        with self.changed:
            self._loops += 1
            self._loop_ended_us = 0
        self._wake()

    def loop_ended(self) -> None:
        """One of them asks for no more."""
        if self.handle.forked:  # it is over in the parent alone, and so is the lock
            return
        with self.changed:
            self._loops -= 1
            if not self._loops:
                self._loop_ended_us = now_us()
        self._wake()

    def join(self) -> None:
        """Wait for the thread, which ends after the node."""
        if threading.current_thread() is not self._thread:
            self._thread.join()

    # -- the thread -------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self.handle.ended:
            with suppress(Empty):
                self._news.get(timeout=self._wait_s())
                while True:
                    self._news.get_nowait()
            self._look()
        self._look()
        self._health.close()
        self._ended.set()
        self._notify()

    def _wake(self) -> None:
        self._news.put(None)

    def _wait_s(self) -> float | None:
        leadership, lease = self.leadership, self.handle.active_lease()
        dues_us = [due_us for due_us in (self._health.due_us, self._rest_until_us) if due_us]
        if now_us() < (idle_us := self._idle_us) < NEVER_US:
            dues_us.append(idle_us)
        if leadership is not None:
            dues_us.append(leadership.deadline_us)
        elif lease is not None:
            dues_us.append(lease.lapses_us)
        return max(0.0, (min(dues_us) - now_us()) / 1e6) if dues_us else None

    def _look(self) -> None:
        """Take note of what has changed, and do what is due."""
        leadership, changed = self.leadership, False
        if leadership is not None and self._is_idle:
            leadership.resign()
            LOGGER.warning("leadership_given_up term=%s why=%r", leadership.term, "no loop over campaign() goes on")
        if leadership is not None and leadership.lost:
            self.leadership, changed = None, True
            if leadership.rest_us:
                self._rest_until_us = now_us() + leadership.rest_us
            self._end(leadership)
        if now_us() >= self._rest_until_us:
            self._rest_until_us = 0
        if self.leadership is None and self._begin():
            changed = True
        if self.controller != self.handle.controller:
            self.controller, changed = self.handle.controller, True
            if self._callbacks.on_controller is not None:
                self._call(self._callbacks.on_controller, self.controller)
        if self.handle.asked_to_leave is not self._leaving:
            self._leaving = changed = True
        healthy = self._health.judge(self._newest if self.handle.has_jobs else None) and not self._rests
        if healthy is not self.handle.healthy:
            self.handle.set_healthy(healthy)
        if changed:
            self._notify()

    @property
    def _rests(self) -> bool:
        """Whether the others are to lead first: this node gave its leadership up, or nobody here asks for one."""
        return self._rest_until_us > 0 or self._is_idle

    @property
    def _is_idle(self) -> bool:
        return now_us() >= self._idle_us

    @property
    def _idle_us(self) -> int:
        """From when on a leadership here is one that nobody uses."""
        if not self._loop_ended_us or self.handle.has_jobs:
            return NEVER_US
        newest = self._newest
        return max(self._loop_ended_us, newest.last_alive_us if newest is not None else 0) + int(self._rest_s * 1e6)

    def _notify(self) -> None:
        with self.changed:
            self.changed.notify_all()
            subscribers = self._subscribers
        for call in subscribers:
            try:
                call()
            except RuntimeError:  # the event loop that it was meant for is closed
                self.unsubscribe(call)

    def _begin(self) -> bool:
        """Begin a leadership when there is a lease that lasts longer than the margin; whether it has begun."""
        lease = self.handle.active_lease()
        if self._rests or lease is None or self.handle.asked_to_leave or lease.lapses_us - self._margin_us <= now_us():
            return False
        number = self._count + 1
        leadership = Leadership(self.handle, self._margin_us, lease, self.handle.controller, number, self._rest_s)
        if self._exits:
            expect = threading.Thread(target=self._exit_unless_ended, args=(leadership,), daemon=True)
            leadership.when_lost(expect.start)
        if self._callbacks.on_elected is not None or self._callbacks.on_lost is not None:
            if not self.handle.register_job(lease.term):
                return False
            call = (self._callbacks.on_elected, leadership)
            self._callback = threading.Thread(target=self._call_in_job, args=call, name="zelect-elected", daemon=True)
            self._callback.start()
        self._count += 1
        self.leadership = self._newest = leadership
        return True

    def _end(self, leadership: Leadership) -> None:
        thread, self._callback = self._callback, None
        if thread is None:
            return
        try:
            self._call_in_job(self._callbacks.on_lost, leadership)
        finally:
            ending = (thread, leadership.term)
            threading.Thread(target=self._end_job, args=ending, name="zelect-job-end", daemon=True).start()

    def _end_job(self, thread: threading.Thread, term: int) -> None:
        thread.join()
        self.handle.unregister_job(term)

    def _call_in_job(self, call: Callable[[Leadership], None] | None, leadership: Leadership) -> None:
        before = nodes_of_this_job.set((*nodes_of_this_job.get(), self.handle))
        try:
            if not self._call(call, leadership):
                leadership.resign()
        finally:
            nodes_of_this_job.reset(before)

    def _call(self, call: Callable[..., None] | None, argument: object) -> bool:
        """Whether it returned, and did not raise."""
        try:
            if call is not None:
                call(argument)
            return True
        except BaseException:  # a mistake of the program, or its sys.exit(), must not end this thread
            with suppress(BaseException):
                sys.excepthook(*sys.exc_info())
            return False

    def _exit_unless_ended(self, leadership: Leadership) -> None:
        """End the process unless the job ends within its lease, which may be renewed in the meantime."""
        while self.handle.has_jobs_in(leadership.term):
            lease = self.handle.active_lease()
            if lease is not None and lease.term == leadership.term:
                leadership.lapses_us = lease.lapses_us
            left_us = leadership.lapses_us - self._margin_us // 10 - now_us()
            if left_us <= 0:
                text = f"zelect: the job of term {leadership.term} outlasts its lease; this process ends"
                print(text, file=sys.stderr)
                os._exit(_OUTLASTED_CODE)
            self._ended.wait(min(left_us / 1e6, 0.02))
