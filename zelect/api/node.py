"""`zelect.Node`: a node inside a program.

    with zelect.Node("conf/n1.toml") as node:
        for leadership in node.campaign():
            leadership.run(work, leadership)

    async with zelect.Node("conf/n1.toml") as node:
        async for leadership in node.campaign():
            await leadership.run(work(leadership))

When a leadership is lost, the loop waits for the node's next one; it ends when the node is stopped.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import select
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from zelect.api.health import JobHealth
from zelect.api.leadership import REST_S, Leadership, nodes_of_this_job
from zelect.api.node_process import NodeProcess
from zelect.api.node_thread import NodeThread, RunningNode
from zelect.api.watch import Callbacks, LeadershipWatcher
from zelect.config.loading import Config, chosen, load
from zelect.errors import ZelectError
from zelect.node.leadership.handle import NOBODY, Controller, NodeHandle


class NodeFailed(ZelectError):
    """The node ended without being asked to; the cause is in `__cause__`, and in its log."""


class Node:
    """The node that `config` describes: a path, or a `zelect.config.loading.Config`; None: what counts where nothing is
    named (ZELECT_CONFIG, zelect.toml, /etc/zelect/zelect.toml, or the environment alone).

    `node_id`: this node's id, whatever the file says; None: what the file or ZELECT_NODE_ID says.
    `process`: run the node in a process of its own, so that a busy interpreter, or a library that holds the
    interpreter's lock, does not cost the leadership.
    `margin_ms`: how many milliseconds before the end of its lease a leadership ends; default a quarter of
    `lease_ms`.
    `on_elected(leadership)`, `on_lost(leadership)`: called in threads of their own; `on_lost` before the
    lease ends. Leadership is handed over once both have returned.
    `on_controller(controller)`: called when another node becomes controller, or nobody is (id 0).
    `health()`: called every `health_every_s` seconds; when it returns something false, raises or does not
    return, this node goes last in the succession, and hands its leadership over to a healthy node (R8).
    `hung_after_s`: the same happens when a job has not called `Leadership.check` for so many seconds (a
    coroutine: when its event loop stood still for so long); 0 turns that off.
    `exits`: end this process (exit code 70; with `process`, by SIGKILL) when a job outlasts its lease, as
    nothing else would stop the job.
    `rest_s`: how many seconds this node goes last in the succession after `resign`, or after a job or `on_elected`
    failed; and after how many a leadership is given up that nobody uses.

    Raises `ConfigError`, ValueError and TypeError for wrong arguments. `start` and `with` raise
    `VoteStoreError` and `DataDirError` (durable state) and `CannotBind` (the address); with `process` they
    raise `ChildFailed` instead. Where eventlet has replaced the standard library, only `process` works: else they raise
    `NodeFailed`.
    """

    def __init__(
        self,
        config: str | Path | Config | None = None,
        *,
        node_id: int | None = None,
        process: bool = False,
        margin_ms: int | None = None,
        on_elected: Callable[[Leadership], None] | None = None,
        on_lost: Callable[[Leadership], None] | None = None,
        on_controller: Callable[[Controller], None] | None = None,
        health: Callable[[], object] | None = None,
        health_every_s: float = 1.0,
        hung_after_s: float = 0.0,
        exits: bool = False,
        rest_s: float = REST_S,
    ) -> None:
        if not isinstance(config, Config):
            config = load(chosen(config), node_id=node_id or 0)
        self.config = config
        lease_ms = self.config.timing.lease_ms
        self._margin_us = 1000 * (lease_ms // 4 if margin_ms is None else margin_ms)
        if not 0 < self._margin_us <= 500 * lease_ms:
            raise ValueError(f"margin_ms is {margin_ms}; must lie between 1 and half of lease_ms = {lease_ms}")
        for name, call in (("on_elected", on_elected), ("on_lost", on_lost), ("on_controller", on_controller)):
            if inspect.iscoroutinefunction(call):
                raise TypeError(f"{name} is an async function, which nobody would await; use node.campaign()")
        self._callbacks = Callbacks(on_elected, on_lost, on_controller)
        self._health = (health, health_every_s, hung_after_s)
        self._exits, self._rest_s = exits, rest_s
        self._process = process
        self._running: RunningNode | None = None
        self._watcher: LeadershipWatcher | None = None

    # -- start and stop ---------------------------------------------------------------------------

    def start(self) -> None:
        """Start the node; returns once it listens. A node may be started again after `stop`. Raises
        RuntimeError when it runs already, and what the class says."""
        self._forget_what_the_parent_has()
        if self._running is not None:
            raise RuntimeError("the node is already running")
        running = self._new_running_node()
        running.start()
        try:
            health = JobHealth(*self._health)
            watcher = LeadershipWatcher(
                running.handle, self._margin_us, self._callbacks, health, self._exits, self._rest_s
            )
            self._running, self._watcher = running, watcher
        except BaseException:  # Ctrl-C: no node may be left that nobody can stop
            running.handle.ask_to_leave()
            running.join()
            raise

    def _forget_what_the_parent_has(self) -> None:
        """In a forked child: the node is that of the parent, and was never started here."""
        if self._running is not None and self._running.handle.forked:
            self._running = self._watcher = None

    def _new_running_node(self) -> RunningNode:
        if not self._process:
            if not hasattr(select, "poll"):
                raise NodeFailed("a node can't run as a green thread of eventlet: use Node(..., process=True)")
            return NodeThread(self.config)
        return NodeProcess(self.config, self._margin_us // 10 if self._exits else 0)

    def ask_to_stop(self) -> None:
        """Have the node leave: jobs lose their leadership now, and it is handed over once they have ended.
        May be called from a signal handler and from any thread."""
        if self._running is not None:
            self._running.handle.ask_to_leave()

    def resign(self, rest_s: float | None = None) -> None:
        """Give the leadership up that lasts now, if one does; see `Leadership.resign`."""
        leadership = self.leadership
        if leadership is not None:
            leadership.resign(rest_s)

    def reload(self) -> None:
        """Have the node read its keys, priority and log level again, as SIGHUP does for `zelect node`; its
        log and `zelect status` say how that went. Raises RuntimeError unless the node was started."""
        self.handle.reload()

    def stop(self, timeout_s: float | None = None) -> None:
        """Leave gracefully, and wait until the node has ended. That takes until its jobs have ended; raises
        TimeoutError after `timeout_s` seconds (None: never). Raises RuntimeError in a job of this node, and
        `NodeFailed` when the node had ended without being asked to."""
        self._forget_what_the_parent_has()
        running, watcher = self._running, self._watcher
        if running is None or watcher is None:
            return
        if running.handle in nodes_of_this_job.get():
            raise RuntimeError("stop() in a job of this node waits for itself; use ask_to_stop(), and return")
        running.handle.ask_to_leave()
        if not running.join(timeout_s):
            raise TimeoutError(f"a job in the leadership of node {self.config.node.id} has not ended")
        watcher.join()
        self._running = self._watcher = None
        if running.error is not None:
            raise _failed(running.error)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.stop()
        except NodeFailed:
            if error is None:
                raise

    async def __aenter__(self) -> Self:
        starting = asyncio.ensure_future(asyncio.to_thread(self.start))
        try:
            await asyncio.shield(starting)
        except asyncio.CancelledError:
            # A thread can't be cancelled, so it is waited for: no node may be left that nobody can stop.
            if await _outcome(starting) is None:
                await _outcome(asyncio.ensure_future(asyncio.to_thread(self.stop)))
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.ask_to_stop()
        try:
            await asyncio.to_thread(self.stop)
        except NodeFailed:
            if error is None:
                raise

    # -- what is true now ---------------------------------------------------------------------------

    @property
    def leadership(self) -> Leadership | None:
        """The leadership of this node that lasts now; None when it is not active."""
        leadership = self._watcher.leadership if self._watcher is not None else None
        return None if leadership is None or leadership.lost else leadership

    @property
    def controller(self) -> Controller:
        """Who is controller, as far as this node knows (id 0: nobody). Second-hand, unless it is this node
        itself; `leadership` says more then. `Observer` knows without a node."""
        self._forget_what_the_parent_has()
        return self._watcher.controller if self._watcher is not None else NOBODY

    @property
    def ended(self) -> bool:
        """Whether the node has ended, or was never started."""
        return self._watcher is None or self._watcher.handle.ended

    @property
    def watcher(self) -> LeadershipWatcher:
        """What watches the node's leadership. Raises RuntimeError unless the node was started, by this process."""
        self._forget_what_the_parent_has()
        if self._watcher is None:
            raise RuntimeError("the node is not running: use it in a with block, or call start()")
        return self._watcher

    @property
    def handle(self) -> NodeHandle:
        """What this process holds of the node. Raises RuntimeError unless the node was started."""
        return self.watcher.handle

    def campaign(self) -> LeadershipIterator:
        """This node's leaderships, one after the other, for `for` and for `async for`: it waits for the next
        one, and ends when the node is stopped. Raises RuntimeError unless the node was started, and
        `NodeFailed` when the node ends without being asked to."""
        watcher = self.watcher
        assert self._running is not None
        return LeadershipIterator(watcher, self._running)


class LeadershipIterator:
    """The leaderships of a node, each once: after a job has returned the next leadership comes."""

    def __init__(self, watcher: LeadershipWatcher, running: RunningNode) -> None:
        self._watcher = watcher
        self._running = running
        self._seen = 0

    def _ready(self) -> Leadership | None:
        """The leadership that lasts now, if it has not been given out yet."""
        leadership = self._watcher.leadership
        return None if leadership is None or leadership.number == self._seen or leadership.lost else leadership

    def _next(self) -> Leadership | None:
        leadership = self._ready()
        if leadership is not None:
            self._seen = leadership.number
        return leadership

    def _over(self) -> bool:
        handle = self._running.handle
        if not handle.ended:
            return handle.asked_to_leave
        if not handle.asked_to_leave:
            self._running.join()
            raise _failed(self._running.error)
        return True

    def __iter__(self) -> Iterator[Leadership]:
        self._watcher.loop_began()
        try:
            while not self._over():
                leadership = self._next()
                if leadership is not None:
                    yield leadership
                    continue
                with self._watcher.changed:
                    if self._ready() is None and not self._over():
                        self._watcher.changed.wait(1.0)
        finally:
            self._watcher.loop_ended()

    async def __aiter__(self) -> AsyncIterator[Leadership]:
        loop, news = asyncio.get_running_loop(), asyncio.Event()

        def wake() -> None:
            loop.call_soon_threadsafe(news.set)

        self._watcher.subscribe(wake)
        self._watcher.loop_began()
        try:
            while not self._over():
                leadership = self._next()
                if leadership is not None:
                    yield leadership
                    continue
                news.clear()
                if self._ready() is None and not self._over():
                    await news.wait()
        finally:
            self._watcher.unsubscribe(wake)
            self._watcher.loop_ended()


async def _outcome(task: asyncio.Future[None]) -> BaseException | None:
    """Wait for the end of `task`, whatever is cancelled meanwhile; what it raised."""
    while not task.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait({task})
    return asyncio.CancelledError() if task.cancelled() else task.exception()


def _failed(cause: BaseException | None) -> NodeFailed:
    why = str(cause) if isinstance(cause, ZelectError) else f"{type(cause).__name__}: {cause}"
    error = NodeFailed(f"the node ended without being asked to: {why}")
    error.__cause__ = cause
    return error
