"""One leadership in the hands of a program: its token, how long it lasts, and how to work in it.

A `Leadership` ends once and for good, a margin before its lease does, and says so in three ways: `check`
raises, a coroutine is cancelled, `on_lost` is called. When the lease is renewed after that, or the
node is elected again, that is another `Leadership`.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import ContextVar
from typing import Any, TypeVar, overload

from zelect.api.steps import Steps
from zelect.core.lease import Lease
from zelect.errors import ZelectError
from zelect.node.leadership.handle import Controller, NodeHandle
from zelect.system.clock import now_us

T = TypeVar("T")

REST_S = 10.0
"""How long a node stays behind the others in the succession after it resigned, or after a job of it failed."""
_LOOK_S = 0.05

nodes_of_this_job: ContextVar[tuple[NodeHandle, ...]] = ContextVar("nodes_of_this_job", default=())
"""The nodes in whose leadership the running code is a job."""


class LeadershipLost(ZelectError):
    """The node is not active any more, or will not be within the margin: nothing more may be done in the
    name of its term."""


class Leadership:
    """One period in which this node is active. May be used from any thread.

    `term`: the fencing token, larger than that of every earlier leadership of any node. `node`: id of this
    node. `previous`: id of the previous controller (0: none is known). `reason`: why the election was held:
    "start", "timeout", "death", "leave" or "handover". `number`: which of the node's leaderships this
    is, from 1 up. `lapses_us`: the end of the lease when it was last looked at, in microseconds of the
    election's clock (`zelect.system.clock`).
    """

    def __init__(
        self,
        handle: NodeHandle,
        margin_us: int,
        lease: Lease,
        controller: Controller,
        number: int,
        rest_s: float = REST_S,
    ) -> None:
        self.term = lease.term
        self.node = controller.id
        self.previous = controller.previous
        self.reason = controller.reason
        self.number = number
        self.lapses_us = lease.lapses_us
        self.last_alive_us = now_us()
        """When its job was last seen alive, on the election's clock."""
        self.loop_delay_us = 0
        """How late the event loop of its job runs."""
        self.rest_us = 0
        """How long the node rests when this leadership has ended; 0: it does not."""
        self._rest_s = rest_s
        self._handle = handle
        self._margin_us = margin_us
        self._active_since_us = lease.active_since_us
        self._lost = threading.Event()
        self._lock = threading.Lock()
        self._calls: list[Callable[[], object]] = []

    # -- how long ---------------------------------------------------------------------------------

    @property
    def deadline_us(self) -> int:
        """Until when work may go on unless the lease is renewed: a margin before the lease's end, in
        microseconds of the election's clock. 0 when leadership is lost."""
        lease = self._handle.active_lease()
        if self._lost.is_set() or self._handle.asked_to_leave or lease is None:
            return 0
        if (lease.term, lease.active_since_us) != (self.term, self._active_since_us):
            return 0
        self.lapses_us = lease.lapses_us
        return lease.lapses_us - self._margin_us - min(self.loop_delay_us, self._margin_us)

    @property
    def remaining_ms(self) -> float:
        """How long work may go on unless the lease is renewed, in milliseconds; 0 when it may not."""
        return max(0.0, (self.deadline_us - now_us()) / 1000)

    @property
    def lost(self) -> bool:
        """Whether leadership is lost for good, and always in a forked child: it is its parent's."""
        if self._handle.forked:
            return True
        if not self._lost.is_set() and now_us() >= self.deadline_us:
            self.lose()
        return self._lost.is_set()

    def check(self) -> None:
        """Raise `LeadershipLost` when leadership is lost. To be called before each step that matters, and
        often: it also shows that the job is alive, see `Node(hung_after_s=...)`."""
        self.last_alive_us = now_us()
        if self._handle.forked:
            raise LeadershipLost(f"the leadership of term {self.term} is that of another process: this one was forked")
        if self.lost:
            raise LeadershipLost(f"node {self.node} has lost its leadership of term {self.term}")

    def sleep(self, seconds: float) -> None:
        """Wait for `seconds`, but no longer than leadership lasts. Raises `LeadershipLost`."""
        end_us = now_us() + int(seconds * 1e6)
        self.check()
        while (left_us := end_us - now_us()) > 0:
            self._lost.wait(min(left_us / 1e6, _LOOK_S))
            self.check()

    def resign(self, rest_s: float | None = None) -> None:
        """End this leadership, and have the node hand over to another healthy member, once its jobs have ended.

        For `rest_s` seconds (None: as the node says) this node goes last in the succession. If no other member can take
        over, it stays controller, and its next leadership begins after that time. Harmless when repeated, and when
        leadership is lost. Raises ValueError unless `rest_s` is positive.
        """
        rest_s = self._rest_s if rest_s is None else rest_s
        if rest_s <= 0:
            raise ValueError(f"rest_s is {rest_s!r}; the others need some time to take over, so give a positive number")
        if not self.lost:
            self.rest_us = int(rest_s * 1e6)
            self.lose()
            self._handle.notify()

    # -- work -------------------------------------------------------------------------------------

    @overload
    def run(self, job: Coroutine[Any, Any, T]) -> Awaitable[T | None]: ...

    @overload
    def run(self, job: Callable[..., Coroutine[Any, Any, T]], *args: Any) -> Awaitable[T | None]: ...

    @overload
    def run(self, job: Callable[..., T], *args: Any) -> T | None: ...

    def run(self, job: Any, *args: Any) -> Any:
        """Do a job in this leadership, which is handed over to nobody before the job has ended.

        A coroutine, or an `async def` with its `args`, must be awaited; it is cancelled when leadership is
        lost. A function is called here and now with `args`; it must call `check`, whose `LeadershipLost`
        ends it. Returns what the job returned, None when leadership was lost first. Any other exception of the job
        passes through, and ends the leadership as `resign` does: the job may do better elsewhere. So does the
        cancellation of who awaits it. Raises TypeError for a function that only makes a coroutine: that would do its
        work after the function has returned.
        """
        if inspect.iscoroutine(job):
            return self._run_coroutine(job)
        if inspect.iscoroutinefunction(job):
            return self._run_coroutine(job(*args))
        if not self._handle.register_job(self.term):
            return None
        self.last_alive_us = now_us()
        before = nodes_of_this_job.set((*nodes_of_this_job.get(), self._handle))
        try:
            done = job(*args)
        except LeadershipLost:
            return None
        except BaseException:
            self.resign()
            raise
        finally:
            nodes_of_this_job.reset(before)
            self._end_job()
        if inspect.iscoroutine(done):
            done.close()
            raise TypeError("the job returned a coroutine: give run the coroutine itself, and await what it returns")
        return done

    async def _run_coroutine(self, job: Coroutine[Any, Any, T]) -> T | None:
        if self.lost or not self._handle.register_job(self.term):
            job.close()
            return None
        loop = asyncio.get_running_loop()
        steps = Steps(job, lambda: self.lost)
        before = nodes_of_this_job.set((*nodes_of_this_job.get(), self._handle))
        task = loop.create_task(steps)
        nodes_of_this_job.reset(before)
        self.when_lost(lambda: loop.call_soon_threadsafe(lambda: steps.cancelled or task.cancel()))
        measuring = loop.create_task(self._measure_loop_delay())
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:  # who awaits this is cancelled, and the job with it
            task.cancel()
            while not task.done():  # a second cancellation goes on to the job: it acts until it has ended
                try:
                    await asyncio.wait({task})
                except asyncio.CancelledError:
                    task.cancel()
            if not task.cancelled():
                task.exception()
            self.resign()
            raise
        else:
            error = None if task.cancelled() else task.exception()
            if task.cancelled() or not isinstance(error, LeadershipLost | None):
                self.resign()
        finally:
            measuring.cancel()
            self.loop_delay_us = 0
            self._end_job()
        if task.cancelled() and self._lost.is_set():
            return None
        try:
            return task.result()
        except LeadershipLost:
            return None

    async def _measure_loop_delay(self) -> None:
        """Show that the event loop runs, and how late: a late one is cancelled that much earlier."""
        while True:
            due_us = now_us() + int(_LOOK_S * 1e6)
            await asyncio.sleep(_LOOK_S)
            self.last_alive_us = now_us()
            self.loop_delay_us = max(self.last_alive_us - due_us, self.loop_delay_us * 9 // 10)

    def _end_job(self) -> None:
        self.last_alive_us = now_us()
        self._handle.unregister_job(self.term)

    # -- for the node -----------------------------------------------------------------------------

    def when_lost(self, call: Callable[[], object]) -> None:
        """Have `call` called once when leadership is lost, by the thread that notices; at once if it is."""
        with self._lock:
            if not self._lost.is_set():
                self._calls.append(call)
                return
        call()

    def lose(self) -> None:
        """Leadership is lost. Harmless when repeated."""
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
