"""The thread that watches a node's office for its program: begins and ends `Office`s, calls back,
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

from zelect.api.health import Health
from zelect.api.leadership import Office, working_for
from zelect.api.node_thread import Engine
from zelect.node.leadership.shared import NOBODY, Controller
from zelect.node.leadership.shared import Office as Post
from zelect.system.clock import now_us

__all__ = ["Calls", "Watch"]


@dataclass(frozen=True, slots=True)
class Calls:
    """What a program wants to be told. `on_elected` and `on_lost` frame a job: the office is handed
    over once both have returned."""

    on_elected: Callable[[Office], None] | None = None
    on_lost: Callable[[Office], None] | None = None
    on_controller: Callable[[Controller], None] | None = None


class Watch:
    """The watcher of one engine, which has started. `margin_us`: how long before a lease's end an
    office ends. `exits`: end the process when a job outlasts its lease."""

    def __init__(self, engine: Engine, margin_us: int, calls: Calls, health: Health, exits: bool) -> None:
        self.post: Post = engine.office
        self.margin_us = margin_us
        self.office: Office | None = None
        self.changed = threading.Condition()
        self.controller = NOBODY
        self._engine = engine
        self._calls = calls
        self._health = health
        self._exits = exits
        self._bells: tuple[Callable[[], None], ...] = ()
        self._news: SimpleQueue[None] = SimpleQueue()
        """Rung by `put`, which may interrupt itself: a signal's handler may ask the node to stop."""
        self._working: Office | None = None  # the newest one, lost or not
        self._going = False
        self._count = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="zelect-watch", daemon=True)
        self.post.subscribe(self._wake)
        self._thread.start()

    def subscribe(self, bell: Callable[[], None]) -> None:
        """Have `bell` rung after each change, by this thread; an exception ends the subscription."""
        with self.changed:
            self._bells = (*self._bells, bell)

    def unsubscribe(self, bell: Callable[[], None]) -> None:
        with self.changed:
            self._bells = tuple(one for one in self._bells if one is not bell)

    def join(self) -> None:
        """Wait for the thread, which ends after the node."""
        if threading.current_thread() is not self._thread:
            self._thread.join()

    # -- the thread -------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self.post.ended:
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
        office, tenure = self.office, self.post.held()
        dues_us = [self._health.due_us] if self._health.due_us else []
        if office is not None:
            dues_us.append(office.deadline_us)
        elif tenure is not None:
            dues_us.append(tenure.lapses_us)
        if not dues_us:
            return None
        return max(0.0, (min(dues_us) - now_us()) / 1e6)

    def _look(self) -> None:
        office, changed = self.office, False
        if office is not None and office.lost:
            self.office, changed = None, True
            self._end(office)
        if self.office is None and self._begin():
            changed = True
        if self.controller != self.post.controller:
            self.controller, changed = self.post.controller, True
            if self._calls.on_controller is not None:
                self._call(self._calls.on_controller, self.controller)
        if self.post.asked_to_go is not self._going:
            self._going = changed = True
        healthy = self._health.judge(self._working if self.post.occupied else None)
        if healthy is not self.post.healthy:
            self.post.tell_health(healthy)
        if changed:
            self._ring()

    def _ring(self) -> None:
        with self.changed:
            self.changed.notify_all()
            bells = self._bells
        for bell in bells:
            try:
                bell()
            except RuntimeError:  # the event loop that it was meant for is closed
                self.unsubscribe(bell)

    def _begin(self) -> bool:
        """Make an office of a lease that runs and will run for a moment; whether there is one."""
        tenure = self.post.held()
        if tenure is None or self.post.asked_to_go or tenure.lapses_us - self.margin_us <= now_us():
            return False
        office = Office(self, tenure, self.post.controller)
        if self._exits:
            office.when_lost(threading.Thread(target=self._expect_end, args=(office,), daemon=True).start)
        if self._calls.on_elected is not None or self._calls.on_lost is not None:
            if not self.post.occupy(tenure.term):
                return False
            office.occupant = threading.Thread(
                target=self._call, args=(self._calls.on_elected, office), name="zelect-elected", daemon=True
            )
            office.occupant.start()
        self._count += 1
        office.number = self._count
        self.office = self._working = office
        return True

    def _end(self, office: Office) -> None:
        if office.occupant is None:
            return
        try:
            self._call(self._calls.on_lost, office)
        finally:
            vacate = threading.Thread(target=self._vacate, args=(office,), name="zelect-vacate", daemon=True)
            vacate.start()

    def _vacate(self, office: Office) -> None:
        assert office.occupant is not None
        office.occupant.join()
        self.post.vacate(office.term)

    def _call(self, call: Callable[..., None] | None, argument: object) -> None:
        if call is None:
            return
        before = working_for.set((*working_for.get(), self.post)) if call != self._calls.on_controller else None
        try:
            call(argument)
        except BaseException:  # the program's fault, sys.exit() too, must not stop the watch over its office
            with suppress(BaseException):
                sys.excepthook(*sys.exc_info())
        finally:
            if before is not None:
                working_for.reset(before)

    def _expect_end(self, office: Office) -> None:
        """End the process unless the job ends within its lease, which may be renewed meanwhile."""
        while self.post.occupies(office.term):
            tenure = self.post.held()
            if tenure is not None and tenure.term == office.term:
                office.lapses_us = tenure.lapses_us
            left_us = office.lapses_us - self.margin_us // 10 - now_us()
            if left_us <= 0:
                print(f"zelect: the job of term {office.term} outlasts its lease; this process ends", file=sys.stderr)
                os._exit(70)
            self._ended.wait(min(left_us / 1e6, 0.02))
