"""The thread that watches a node's leadership for its program: begins and ends `Leadership`s, calls back,
wakes who waits.

It is not the election's thread: callbacks may take their time. It looks when the node has news and
when a lease would run out, so that an end comes in time although the renewals just stop.
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
from zelect.api.leadership import Leadership, nodes_of_this_job
from zelect.api.node_thread import RunningNode
from zelect.node.leadership.handle import NOBODY, Controller, NodeHandle
from zelect.system.clock import now_us

__all__ = ["Callbacks", "LeadershipWatcher"]


@dataclass(frozen=True, slots=True)
class Callbacks:
    """What a program wants to be told. `on_elected` and `on_lost` frame a job: leadership is handed
    over once both have returned."""

    on_elected: Callable[[Leadership], None] | None = None
    on_lost: Callable[[Leadership], None] | None = None
    on_controller: Callable[[Controller], None] | None = None


class LeadershipWatcher:
    """The watcher of one engine, which has started. `margin_us`: how long before a lease's end an
    leadership ends. `exits`: end the process when a job outlasts its lease."""

    def __init__(self, engine: RunningNode, margin_us: int, calls: Callbacks, health: JobHealth, exits: bool) -> None:
        self.handle: NodeHandle = engine.handle
        self.margin_us = margin_us
        self.leadership: Leadership | None = None
        self.changed = threading.Condition()
        self.controller = NOBODY
        self._running = engine
        self._calls = calls
        self._health = health
        self._exits = exits
        self._bells: tuple[Callable[[], None], ...] = ()
        self._news: SimpleQueue[None] = SimpleQueue()
        """Rung by `put`, which may interrupt itself: a signal's handler may ask the node to stop."""
        self._working: Leadership | None = None  # the newest one, lost or not
        self._going = False
        self._count = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="zelect-watch", daemon=True)
        self.handle.subscribe(self._wake)
        self._thread.start()

    def subscribe(self, wakeup: Callable[[], None]) -> None:
        """Have `bell` rung after each change, by this thread; an exception ends the subscription."""
        with self.changed:
            self._bells = (*self._bells, wakeup)

    def unsubscribe(self, wakeup: Callable[[], None]) -> None:
        with self.changed:
            self._bells = tuple(one for one in self._bells if one is not wakeup)

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
        self._ring()

    def _wake(self) -> None:
        self._news.put(None)

    def _wait_s(self) -> float | None:
        leadership, lease = self.leadership, self.handle.active_lease()
        dues_us = [self._health.due_us] if self._health.due_us else []
        if leadership is not None:
            dues_us.append(leadership.deadline_us)
        elif lease is not None:
            dues_us.append(lease.lapses_us)
        if not dues_us:
            return None
        return max(0.0, (min(dues_us) - now_us()) / 1e6)

    def _look(self) -> None:
        leadership, changed = self.leadership, False
        if leadership is not None and leadership.lost:
            self.leadership, changed = None, True
            self._end(leadership)
        if self.leadership is None and self._begin():
            changed = True
        if self.controller != self.handle.controller:
            self.controller, changed = self.handle.controller, True
            if self._calls.on_controller is not None:
                self._call(self._calls.on_controller, self.controller)
        if self.handle.asked_to_leave is not self._going:
            self._going = changed = True
        healthy = self._health.judge(self._working if self.handle.has_jobs else None)
        if healthy is not self.handle.healthy:
            self.handle.set_healthy(healthy)
        if changed:
            self._ring()

    def _ring(self) -> None:
        with self.changed:
            self.changed.notify_all()
            bells = self._bells
        for wakeup in bells:
            try:
                wakeup()
            except RuntimeError:  # the event loop that it was meant for is closed
                self.unsubscribe(wakeup)

    def _begin(self) -> bool:
        """Make a leadership of a lease that runs and will run for a moment; whether there is one."""
        lease = self.handle.active_lease()
        if lease is None or self.handle.asked_to_leave or lease.lapses_us - self.margin_us <= now_us():
            return False
        leadership = Leadership(self, lease, self.handle.controller)
        if self._exits:
            leadership.when_lost(threading.Thread(target=self._expect_end, args=(leadership,), daemon=True).start)
        if self._calls.on_elected is not None or self._calls.on_lost is not None:
            if not self.handle.register_job(lease.term):
                return False
            leadership.callback_thread = threading.Thread(
                target=self._call, args=(self._calls.on_elected, leadership), name="zelect-elected", daemon=True
            )
            leadership.callback_thread.start()
        self._count += 1
        leadership.number = self._count
        self.leadership = self._working = leadership
        return True

    def _end(self, leadership: Leadership) -> None:
        if leadership.callback_thread is None:
            return
        try:
            self._call(self._calls.on_lost, leadership)
        finally:
            unregister_job = threading.Thread(
                target=self._end_job, args=(leadership,), name="zelect-unregister_job", daemon=True
            )
            unregister_job.start()

    def _end_job(self, leadership: Leadership) -> None:
        assert leadership.callback_thread is not None
        leadership.callback_thread.join()
        self.handle.unregister_job(leadership.term)

    def _call(self, call: Callable[..., None] | None, argument: object) -> None:
        if call is None:
            return
        before = (
            nodes_of_this_job.set((*nodes_of_this_job.get(), self.handle))
            if call != self._calls.on_controller
            else None
        )
        try:
            call(argument)
        except BaseException:  # the program's fault, sys.exit() too, must not stop the watch over its leadership
            with suppress(BaseException):
                sys.excepthook(*sys.exc_info())
        finally:
            if before is not None:
                nodes_of_this_job.reset(before)

    def _expect_end(self, leadership: Leadership) -> None:
        """End the process unless the job ends within its lease, which may be renewed meanwhile."""
        while self.handle.has_jobs_in(leadership.term):
            lease = self.handle.active_lease()
            if lease is not None and lease.term == leadership.term:
                leadership.lapses_us = lease.lapses_us
            left_us = leadership.lapses_us - self.margin_us // 10 - now_us()
            if left_us <= 0:
                print(
                    f"zelect: the job of term {leadership.term} outlasts its lease; this process ends", file=sys.stderr
                )
                os._exit(70)
            self._ended.wait(min(left_us / 1e6, 0.02))
