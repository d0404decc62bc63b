"""One tenure of office in the hands of a program: the token, the time that is left, and how to work
within it.

An `Office` ends once and for ever, a margin before its lease does, and says so three ways: `check`
raises, a coroutine is cancelled, `on_lost` is called. When the lease is renewed after that, or the
node is elected again, that is another `Office`.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import ContextVar
from typing import Any, Protocol, TypeVar, overload

from zelect.api.steps import Steps
from zelect.core.lease import Tenure
from zelect.node.leadership.shared import Controller
from zelect.node.leadership.shared import Office as Post
from zelect.system.clock import now_us

__all__ = ["Office", "OfficeLost", "working_for"]

T = TypeVar("T")

_BEAT_S = 0.05

working_for: ContextVar[tuple[Post, ...]] = ContextVar("working_for", default=())
"""The nodes in whose office the code that asks is a job."""


class OfficeLost(Exception):
    """The node is out of office, or will be within the margin: nothing more may be done in the name
    of its term."""


class Keeper(Protocol):
    """What an office needs of its node."""

    post: Post
    margin_us: int


class Office:
    """An office of this node. `term` is the fencing token: larger than that of any earlier office.
    `previous`: the id of the controller before (0: nobody known); `reason`: why there was an
    election. May be used from any thread."""

    def __init__(self, keeper: Keeper, tenure: Tenure, controller: Controller) -> None:
        self.term = tenure.term
        self.node = controller.id
        self.previous = controller.previous
        self.reason = controller.reason
        self.beat_us = now_us()
        """When the job in it was last seen alive, on the election's clock."""
        self.lag_us = 0
        """How late the event loop of the job in it has been of late."""
        self.number = 0
        """Which of the node's offices this is, from 1 on."""
        self.occupant: threading.Thread | None = None
        """What `on_elected` runs in."""
        self.lapses_us = tenure.lapses_us
        """The end of the lease as far as it was known when last looked at, on the election's clock."""
        self._keeper = keeper
        self._entered_us = tenure.entered_us
        self._lost = threading.Event()
        self._lock = threading.Lock()
        self._calls: list[Callable[[], object]] = []

    # -- how long ---------------------------------------------------------------------------------

    @property
    def deadline_us(self) -> int:
        """Until when work may go on, by what is known now, on the election's clock: a margin before
        the lease's end. 0 when the office is lost."""
        tenure = self._keeper.post.held()
        if self._lost.is_set() or tenure is None or (tenure.term, tenure.entered_us) != (self.term, self._entered_us):
            return 0
        if self._keeper.post.asked_to_go:
            return 0
        self.lapses_us = tenure.lapses_us
        margin_us = self._keeper.margin_us
        return tenure.lapses_us - margin_us - min(self.lag_us, margin_us)

    @property
    def remaining_ms(self) -> float:
        """How long work may go on unless the lease is renewed, in milliseconds; 0 when it may not."""
        return max(0.0, (self.deadline_us - now_us()) / 1000)

    @property
    def lost(self) -> bool:
        """Whether the office is over for good."""
        if not self._lost.is_set() and now_us() >= self.deadline_us:
            self.lose()
        return self._lost.is_set()

    def check(self) -> None:
        """Raise `OfficeLost` when the office is lost: to be called before each step that matters, and
        often. It also shows that the job is alive, see `Node(hung_after_s=...)`."""
        self.beat_us = now_us()
        if self.lost:
            raise OfficeLost(f"node {self.node} is not in the office of term {self.term} any more")

    def sleep(self, seconds: float) -> None:
        """Wait, but no longer than the office lasts. Raises `OfficeLost`."""
        end_us = now_us() + int(seconds * 1e6)
        self.check()
        while (left_us := end_us - now_us()) > 0:
            self._lost.wait(min(left_us / 1e6, _BEAT_S))
            self.check()

    # -- work -------------------------------------------------------------------------------------

    @overload
    def run(self, job: Coroutine[Any, Any, T]) -> Awaitable[T | None]: ...

    @overload
    def run(self, job: Callable[..., Coroutine[Any, Any, T]], *args: Any) -> Awaitable[T | None]: ...

    @overload
    def run(self, job: Callable[..., T], *args: Any) -> T | None: ...

    def run(self, job: Any, *args: Any) -> Any:
        """Do a job in this office, and hand the office to nobody before it has ended.

        A coroutine, or an `async def` with its `args`, to be awaited, is cancelled when the office is
        lost. A function is called here and now with `args`; it must call `check`, whose `OfficeLost` ends
        it. Returns what the job returned, None when the office was lost first. Exceptions of the job pass.
        Raises TypeError for a function that only makes a coroutine, which would work after its return.
        """
        if inspect.iscoroutine(job):
            return self._attend(job)
        if inspect.iscoroutinefunction(job):
            return self._attend(job(*args))
        if not self._keeper.post.occupy(self.term):
            return None
        self.beat_us = now_us()
        before = working_for.set((*working_for.get(), self._keeper.post))
        try:
            done = job(*args)
        except OfficeLost:
            return None
        finally:
            working_for.reset(before)
            self._keeper.post.vacate(self.term)
        if inspect.iscoroutine(done):
            done.close()
            raise TypeError("the job returned a coroutine: give run the coroutine itself, and await what it returns")
        return done

    async def _attend(self, job: Coroutine[Any, Any, T]) -> T | None:
        if self.lost or not self._keeper.post.occupy(self.term):
            job.close()
            return None
        loop = asyncio.get_running_loop()
        steps = Steps(job, lambda: self.lost)
        before = working_for.set((*working_for.get(), self._keeper.post))
        task = loop.create_task(steps)
        working_for.reset(before)
        self.when_lost(lambda: loop.call_soon_threadsafe(lambda: steps.cancelled or task.cancel()))
        beat = loop.create_task(self._beat())
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:  # of whoever awaits this: the job goes with it
            task.cancel()
            while not task.done():  # cancelled again, it goes on to the job: it acts until it has ended
                try:
                    await asyncio.wait({task})
                except asyncio.CancelledError:
                    task.cancel()
            if not task.cancelled():
                task.exception()
            raise
        finally:
            beat.cancel()
            self.lag_us = 0
            self._keeper.post.vacate(self.term)
        if task.cancelled() and self._lost.is_set():
            return None
        try:
            return task.result()
        except OfficeLost:
            return None

    async def _beat(self) -> None:
        """Show that the event loop runs, and how late: what is late is cancelled that much earlier."""
        while True:
            due_us = now_us() + int(_BEAT_S * 1e6)
            await asyncio.sleep(_BEAT_S)
            self.beat_us = now_us()
            self.lag_us = max(self.beat_us - due_us, self.lag_us * 9 // 10)

    # -- for the node -----------------------------------------------------------------------------

    def when_lost(self, call: Callable[[], object]) -> None:
        """Have `call` called once when the office is lost, by whoever notices; at once if it is."""
        with self._lock:
            if not self._lost.is_set():
                self._calls.append(call)
                return
        call()

    def lose(self) -> None:
        """The office is over. Harmless when repeated."""
        with self._lock:
            if self._lost.is_set():
                return
            self._lost.set()
            calls, self._calls = self._calls, []
        for call in calls:
            try:
                call()
            except RuntimeError:  # an event loop that is closed has no task left to cancel
                continue
