"""One lease of leadership in the hands of a program: the token, the time that is left, and how to work
within it.

A `Leadership` ends once and for ever, a margin before its lease does, and says so three ways: `check`
raises, a coroutine is cancelled, `on_lost` is called. When the lease is renewed after that, or the
node is elected again, that is another `Leadership`.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import ContextVar
from typing import Any, Protocol, TypeVar, overload

from zelect.api.steps import Steps
from zelect.core.lease import Lease
from zelect.node.leadership.handle import Controller, NodeHandle
from zelect.system.clock import now_us

__all__ = ["Leadership", "LeadershipLost", "nodes_of_this_job"]

T = TypeVar("T")

_BEAT_S = 0.05

nodes_of_this_job: ContextVar[tuple[NodeHandle, ...]] = ContextVar("nodes_of_this_job", default=())
"""The nodes in whose leadership the code that asks is a job."""


class LeadershipLost(Exception):
    """The node is not active, or will be within the margin: nothing more may be done in the name
    of its term."""


class LeadershipOwner(Protocol):
    """What a leadership needs of its node."""

    handle: NodeHandle
    margin_us: int


class Leadership:
    """A leadership of this node. `term` is the fencing token: larger than that of any earlier leadership.
    `previous`: the id of the controller before (0: nobody known); `reason`: why there was an
    election. May be used from any thread."""

    def __init__(self, owner: LeadershipOwner, lease: Lease, controller: Controller) -> None:
        self.term = lease.term
        self.node = controller.id
        self.previous = controller.previous
        self.reason = controller.reason
        self.last_alive_us = now_us()
        """When the job in it was last seen alive, on the election's clock."""
        self.loop_delay_us = 0
        """How late the event loop of the job in it has been of late."""
        self.number = 0
        """Which of the node's leaderships this is, from 1 on."""
        self.callback_thread: threading.Thread | None = None
        """What `on_elected` runs in."""
        self.lapses_us = lease.lapses_us
        """The end of the lease as far as it was known when last looked at, on the election's clock."""
        self._owner = owner
        self._entered_us = lease.active_since_us
        self._lost = threading.Event()
        self._lock = threading.Lock()
        self._calls: list[Callable[[], object]] = []

    # -- how long ---------------------------------------------------------------------------------

    @property
    def deadline_us(self) -> int:
        """Until when work may go on, by what is known now, on the election's clock: a margin before
        the lease's end. 0 when leadership is lost."""
        lease = self._owner.handle.active_lease()
        if self._lost.is_set() or lease is None or (lease.term, lease.active_since_us) != (self.term, self._entered_us):
            return 0
        if self._owner.handle.asked_to_leave:
            return 0
        self.lapses_us = lease.lapses_us
        margin_us = self._owner.margin_us
        return lease.lapses_us - margin_us - min(self.loop_delay_us, margin_us)

    @property
    def remaining_ms(self) -> float:
        """How long work may go on unless the lease is renewed, in milliseconds; 0 when it may not."""
        return max(0.0, (self.deadline_us - now_us()) / 1000)

    @property
    def lost(self) -> bool:
        """Whether leadership is over for good."""
        if not self._lost.is_set() and now_us() >= self.deadline_us:
            self.lose()
        return self._lost.is_set()

    def check(self) -> None:
        """Raise `LeadershipLost` when leadership is lost: to be called before each step that matters, and
        often. It also shows that the job is alive, see `Node(hung_after_s=...)`."""
        self.last_alive_us = now_us()
        if self.lost:
            raise LeadershipLost(f"node {self.node} is not in leadership of term {self.term} any more")

    def sleep(self, seconds: float) -> None:
        """Wait, but no longer than leadership lasts. Raises `LeadershipLost`."""
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
        """Do a job in this leadership, and hand leadership to nobody before it has ended.

        A coroutine, or an `async def` with its `args`, to be awaited, is cancelled when leadership is
        lost. A function is called here and now with `args`; it must call `check`, whose `LeadershipLost` ends
        it. Returns what the job returned, None when leadership was lost first. Exceptions of the job pass.
        Raises TypeError for a function that only makes a coroutine, which would work after its return.
        """
        if inspect.iscoroutine(job):
            return self._attend(job)
        if inspect.iscoroutinefunction(job):
            return self._attend(job(*args))
        if not self._owner.handle.register_job(self.term):
            return None
        self.last_alive_us = now_us()
        before = nodes_of_this_job.set((*nodes_of_this_job.get(), self._owner.handle))
        try:
            done = job(*args)
        except LeadershipLost:
            return None
        finally:
            nodes_of_this_job.reset(before)
            self._owner.handle.unregister_job(self.term)
        if inspect.iscoroutine(done):
            done.close()
            raise TypeError("the job returned a coroutine: give run the coroutine itself, and await what it returns")
        return done

    async def _attend(self, job: Coroutine[Any, Any, T]) -> T | None:
        if self.lost or not self._owner.handle.register_job(self.term):
            job.close()
            return None
        loop = asyncio.get_running_loop()
        steps = Steps(job, lambda: self.lost)
        before = nodes_of_this_job.set((*nodes_of_this_job.get(), self._owner.handle))
        task = loop.create_task(steps)
        nodes_of_this_job.reset(before)
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
            self.loop_delay_us = 0
            self._owner.handle.unregister_job(self.term)
        if task.cancelled() and self._lost.is_set():
            return None
        try:
            return task.result()
        except LeadershipLost:
            return None

    async def _beat(self) -> None:
        """Show that the event loop runs, and how late: what is late is cancelled that much earlier."""
        while True:
            due_us = now_us() + int(_BEAT_S * 1e6)
            await asyncio.sleep(_BEAT_S)
            self.last_alive_us = now_us()
            self.loop_delay_us = max(self.last_alive_us - due_us, self.loop_delay_us * 9 // 10)

    # -- for the node -----------------------------------------------------------------------------

    def when_lost(self, call: Callable[[], object]) -> None:
        """Have `call` called once when leadership is lost, by whoever notices; at once if it is."""
        with self._lock:
            if not self._lost.is_set():
                self._calls.append(call)
                return
        call()

    def lose(self) -> None:
        """Leadership is over. Harmless when repeated."""
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
