"""`zelect.Node`: a node inside a program.

    with zelect.Node("conf/n1.toml") as node:
        for leadership in node.campaign():
            leadership.run(work, leadership)

    async with zelect.Node("conf/n1.toml") as node:
        async for leadership in node.campaign():
            await leadership.run(work(leadership))

Whoever loses a leadership waits for the next one; the loop ends when the node is stopped.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from zelect.api.health import JobHealth
from zelect.api.leadership import Leadership, nodes_of_this_job
from zelect.api.node_process import NodeProcess
from zelect.api.node_thread import NodeThread, RunningNode
from zelect.api.watch import Callbacks, LeadershipWatcher
from zelect.config.loading import Config, load
from zelect.node.leadership.handle import NOBODY, Controller, NodeHandle

__all__ = ["LeadershipIterator", "Node", "NodeFailed"]


class NodeFailed(Exception):
    """The node ended although nobody asked it to; the cause is in `__cause__`, and in its log."""


class Node:
    """A node of the cluster that `config` (a path, or what `zelect.config.loading.load` made of it) is for.

    `process`: the node runs in a process of its own, so that an interpreter that is busy, or a
    library that holds its lock, cannot cost leadership.
    `margin_ms`: how long before the end of a lease work has to end; default a quarter of `lease_ms`.
    `on_elected(leadership)`, `on_lost(leadership)`: called in threads of their own; `on_lost` in time, before
    the lease ends. Leadership is handed over once both have returned.
    `on_controller(controller)`: somebody else, or nobody (id 0), leads now.
    `health()`: asked every `health_every_s` seconds; false, an exception or no answer make this node
    go last in the succession, and hand its leadership to one that is well.
    `hung_after_s`: so does a job that did not call `Leadership.check` for so long (a coroutine: whose event
    loop stood still); 0 turns that off.
    `exits`: end the process (code 70; with `process`, by SIGKILL) when a job outlasts its lease, since
    nothing else would stop it.

    Raises `ConfigError`. `start` and `with` raise `VoteStoreError`, `DataDirError` (durable state) and
    `CannotBind` (the address), with `process` `ChildFailed`.
    """

    def __init__(
        self,
        config: str | Path | Config,
        *,
        process: bool = False,
        margin_ms: int | None = None,
        on_elected: Callable[[Leadership], None] | None = None,
        on_lost: Callable[[Leadership], None] | None = None,
        on_controller: Callable[[Controller], None] | None = None,
        health: Callable[[], object] | None = None,
        health_every_s: float = 1.0,
        hung_after_s: float = 0.0,
        exits: bool = False,
    ) -> None:
        self.config = config if isinstance(config, Config) else load(Path(config))
        lease_ms = self.config.timing.lease_ms
        self._margin_us = 1000 * (lease_ms // 4 if margin_ms is None else margin_ms)
        if not 0 < self._margin_us <= 500 * lease_ms:
            raise ValueError(f"margin_ms is {margin_ms}; must lie between 1 and half of lease_ms = {lease_ms}")
        for name, call in (("on_elected", on_elected), ("on_lost", on_lost), ("on_controller", on_controller)):
            if inspect.iscoroutinefunction(call):
                raise TypeError(f"{name} is an async function, and nobody would await it; use node.campaign()")
        self._calls = Callbacks(on_elected, on_lost, on_controller)
        self._health = (health, health_every_s, hung_after_s)
        self._exits = exits
        self._process = process
        self._running: RunningNode | None = None
        self._watch: LeadershipWatcher | None = None

    # -- life -------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the node; returns once it listens. A node may be started again after `stop`."""
        if self._running is not None:
            raise RuntimeError("the node runs already")
        engine = self._new_running_node()
        engine.start()
        self._running = engine
        self._watch = LeadershipWatcher(engine, self._margin_us, self._calls, JobHealth(*self._health), self._exits)

    def _new_running_node(self) -> RunningNode:
        if not self._process:
            return NodeThread(self.config)
        return NodeProcess(self.config, self._margin_us // 10 if self._exits else 0)

    def ask_to_stop(self) -> None:
        """Have the node leave: jobs lose their leadership now, it is handed over once they have ended."""
        if self._running is not None:
            self._running.handle.ask_to_leave()

    def reload(self) -> None:
        """Have the node read keys, priority and log level again, as SIGHUP does for `zelect node`; its log
        and `zelect status` say how it went. Raises RuntimeError unless the node was started."""
        if self._running is None:
            raise RuntimeError("the node does not run: use it in a with block, or call start()")
        self._running.handle.reload()

    def stop(self, timeout_s: float | None = None) -> None:
        """Leave in good order and wait for it: until a job in this node's leadership has ended, however
        long that takes, or raises TimeoutError after `timeout_s` seconds. Raises RuntimeError in that job
        itself, and `NodeFailed` when the node had ended by itself."""
        engine, watch = self._running, self._watch
        if engine is None or watch is None:
            return
        if watch.handle in nodes_of_this_job.get():
            raise RuntimeError(
                "stop() in a job of this node's leadership waits for itself; use ask_to_stop(), and return"
            )
        engine.handle.ask_to_leave()
        if not engine.join(timeout_s):
            raise TimeoutError(f"a job in leadership of node {self.config.node.id} has not ended")
        watch.join()
        self._running = self._watch = None
        if engine.error is not None:
            raise _failed(engine.error)

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
        await asyncio.to_thread(self.start)
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

    @property
    def watcher(self) -> LeadershipWatcher:
        """What watches the node's leadership. Raises RuntimeError unless the node was started."""
        if self._watch is None:
            raise RuntimeError("the node does not run: use it in a with block, or call start()")
        return self._watch

    @property
    def handle(self) -> NodeHandle:
        """Leadership as the node itself sees it. Raises RuntimeError unless the node was started."""
        return self.watcher.handle

    @property
    def ended(self) -> bool:
        """Whether the node's loop is over."""
        return self._watch is None or self._watch.handle.ended

    # -- questions ----------------------------------------------------------------------------------

    @property
    def leadership(self) -> Leadership | None:
        """Leadership that this node holds now."""
        leadership = self._watch.leadership if self._watch is not None else None
        return None if leadership is None or leadership.lost else leadership

    @property
    def controller(self) -> Controller:
        """Who leads, as far as this node knows: hearsay, unless it is this node (then `leadership` says
        more). `Observer` knows without a node."""
        return self._watch.controller if self._watch is not None else NOBODY

    def campaign(self) -> LeadershipIterator:
        """This node's leaderships, one after the other, for `for` and for `async for`: waits for the next
        one, and ends when the node is stopped. Raises `NodeFailed` when it ends by itself."""
        return LeadershipIterator(self.watcher, self._running)


class LeadershipIterator:
    """The leaderships of a node. A leadership whose job returned is not given again: the next one is."""

    def __init__(self, watch: LeadershipWatcher, engine: RunningNode | None) -> None:
        assert engine is not None
        self._watch = watch
        self._running = engine
        self._seen = 0

    def _ready(self) -> Leadership | None:
        """Leadership that has not been given out yet, if it can be worked in."""
        leadership = self._watch.leadership
        return None if leadership is None or leadership.number == self._seen or leadership.lost else leadership

    def _next(self) -> Leadership | None:
        leadership = self._ready()
        if leadership is not None:
            self._seen = leadership.number
        return leadership

    def _over(self) -> bool:
        if not self._running.handle.ended:
            return self._running.handle.asked_to_leave
        if not self._running.handle.asked_to_leave:
            self._running.join()
            raise _failed(self._running.error)
        return True

    def __iter__(self) -> Iterator[Leadership]:
        while not self._over():
            leadership = self._next()
            if leadership is not None:
                yield leadership
                continue
            with self._watch.changed:
                if self._ready() is None and not self._over():
                    self._watch.changed.wait(1.0)

    async def __aiter__(self) -> AsyncIterator[Leadership]:
        loop, news = asyncio.get_running_loop(), asyncio.Event()

        def wakeup() -> None:
            loop.call_soon_threadsafe(news.set)

        self._watch.subscribe(wakeup)
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
            self._watch.unsubscribe(wakeup)


def _failed(cause: BaseException | None) -> NodeFailed:
    error = NodeFailed(f"the node ended by itself: {cause or 'its process died'}")
    error.__cause__ = cause
    return error
