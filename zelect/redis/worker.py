"""A connection to Redis in a thread that may hang, beside a node that never waits for it (R13).

- The node's thread calls `submit`, `receive` and `close`. None of them waits for Redis.
- The *worker* thread alone uses the connection. It may hang there for as long as it likes: a name
  lookup, and a server that sends single bytes, know no timeout.
- The *watch* thread answers in its place when a deadline passes. It never touches Redis.
- One lock guards what the three share. Nobody holds it while waiting for Redis.

The registry and the witness have a worker each, with threads, a lock and a connection of its own: a vote
must not queue behind a publication, nor behind a registry that hangs.
"""

from __future__ import annotations

import contextlib
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Generic, TypeVar

import zmq

from zelect.redis.connection import RedisConnection
from zelect.redis.credentials import Credentials
from zelect.redis.errors import UnusableUrl
from zelect.system.clock import now_us

_READY_WITHIN_MS = 5000
_RETRY_S = 0.25
_LAST_RETRY_S = 0.05
_numbers = count(1)

_Intent = TypeVar("_Intent")
_Event = TypeVar("_Event")


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisSettings:
    """Where Redis is (`url`; "": nowhere), how long one exchange may take, and who asks and publishes. `ttl_ms`:
    life of the controller's record unless refreshed. `members`: ids and addresses of all members; where none
    are given, processes of another cluster are not looked for. `promise_ms`: this process's election timeout;
    `secret`: what the nodes share and Redis does not have, `trusting`: whether a voter record from Redis is taken
    without it (R12)."""

    url: str
    timeout_ms: int
    ttl_ms: int
    cluster: str
    node: int
    address: str
    incarnation: int
    members: Mapping[int, str] = field(default_factory=dict)
    promise_ms: int = 0
    secret: bytes = field(default=b"", repr=False)
    trusting: bool = True
    credentials: Credentials = field(default_factory=Credentials)


@dataclass(frozen=True, slots=True)
class Known:
    """What this process knows of its cluster: the ids and addresses of the nodes that belong to it, by its record, or
    by its configuration as long as it has none; and the cluster's id (0: a new node)."""

    members: Mapping[int, str]
    cluster_id: int


class RedisWorker(ABC, Generic[_Intent, _Event]):
    """`pipe` becomes readable when `receive` has something to give. `counters` may be read at any time.
    Not thread-safe: one thread makes, uses and closes it.

    A subclass says what is queued and what is done with it. Unless they say otherwise, methods with an
    underscore are called with the lock held.
    """

    def __init__(
        self, context: zmq.Context[zmq.Socket[bytes]], settings: RedisSettings, name: str, counters: Sequence[str]
    ) -> None:
        self.settings = settings
        self.counters: dict[str, int] = dict.fromkeys(counters, 0)
        self._name = name
        self._connection = RedisConnection(settings.url, settings.timeout_ms, settings.credentials)
        self._lock = threading.Lock()
        self._queued, self._deadline_set = threading.Condition(self._lock), threading.Condition(self._lock)
        self._fresh = False
        self._deadlines: dict[object, tuple[int, Callable[[], None], object]] = {}
        self._watched_us: int | None = None
        self._events: deque[_Event] = deque(maxlen=256)
        self._closed = self._ended = False
        self._close_by_us: int | None = None
        self._threads: tuple[threading.Thread, ...] = ()
        self.pipe, self._far_end = context.socket(zmq.PAIR), context.socket(zmq.PAIR)
        address = f"inproc://zelect-{name}-{next(_numbers)}"
        self.pipe.bind(address)
        self._far_end.connect(address)

    # -- for the node's thread: no lock is held -----------------------------------------------

    def start(self) -> None:
        """Start the threads and wait, for some seconds at most, until they are ready; whether
        Redis answers does not matter."""
        if not self.settings.url:
            return
        self._threads = tuple(
            threading.Thread(target=target, name=f"{self._name}-{role}", daemon=True)
            for target, role in ((self._work, "worker"), (self._watch, "watch"))
        )
        for thread in self._threads:
            thread.start()
        self.pipe.poll(_READY_WITHIN_MS)

    def submit(self, intents: Sequence[_Intent]) -> None:
        """Have `intents` carried out. Never blocks and never raises, whatever Redis does."""
        if self._closed or not intents:
            return
        with self._lock:
            if not self.settings.url:
                self._answer_without_redis(intents)
                return
            self.counters["submitted"] += len(intents)
            self._add(intents)
            self._fresh = True
            self._queued.notify()

    def receive(self) -> list[_Event]:
        """What has come from Redis since the last call; never blocks."""
        with contextlib.suppress(zmq.Again):
            while True:
                self.pipe.recv(zmq.NOBLOCK)
        events: list[_Event] = []
        while self._events:
            events.append(self._events.popleft())
        return events

    def close(self, within_s: float = 1.0) -> None:
        """Do what is still to be done if Redis allows it within `within_s` seconds, then end. A worker that
        hangs in Redis is left to end with the process."""
        if self._closed:
            return
        self._closed = True
        with self._lock:
            self._close_by_us = now_us() + int(within_s * 1_000_000)
            self._queued.notify()
        for worker in self._threads[:1]:
            worker.join(within_s)
        with self._lock:  # no thread is in the middle of an answer, and none begins another
            self._ended = True
            self._deadline_set.notify()
            self._far_end.close(linger=0)
        for watch in self._threads[1:]:
            watch.join()
        self.pipe.close(linger=0)

    # -- what a subclass defines --------------------------------------------------------------

    @abstractmethod
    def _add(self, intents: Sequence[_Intent]) -> None:
        """Queue `intents`, and set the deadlines of their answers."""

    @abstractmethod
    def _has_work(self) -> bool:
        """Whether something is queued that is still worth sending."""

    @abstractmethod
    def _answer_without_redis(self, intents: Sequence[_Intent]) -> None:
        """Answer those that need an answer where no Redis is configured."""

    @abstractmethod
    def _take_problem(self, problem: str) -> None:
        """The URL can't be used."""

    @abstractmethod
    def _carry_out(self) -> None:
        """Carry out what is queued. Called by the worker without the lock, and may hang in Redis."""

    # -- answers and deadlines ----------------------------------------------------------------

    def _emit(self, event: _Event | None) -> None:
        """Hand `event` to the node; None only wakes it."""
        if self._ended:
            return
        if event is not None:
            self._events.append(event)
        with contextlib.suppress(zmq.Again):  # a full pipe is readable, and that is all it is for
            self._far_end.send(b"", zmq.NOBLOCK)

    def _expect(self, key: object, until_us: int, missed: Callable[[], None], about: object = None) -> None:
        """Have `missed` called at `until_us`, unless `key` is met or set again before."""
        self._deadlines[key] = (until_us, missed, about)
        # A wake-up a write would be dear: while an earlier deadline is watched, this one is seen in time.
        if self._watched_us is None or until_us < self._watched_us:
            self._deadline_set.notify()

    def _met(self, key: object, about: object = None) -> bool:
        """Whether the deadline `key` with this `about` was still open. It is met now."""
        is_open = key in self._deadlines and self._deadlines[key][2] is about
        if is_open:
            del self._deadlines[key]
        return is_open

    # -- the threads: without the lock --------------------------------------------------------

    def _watch(self) -> None:
        with self._lock:
            while not self._ended:
                due_us = self._watched_us = min((until_us for until_us, *_ in self._deadlines.values()), default=None)
                self._deadline_set.wait(None if due_us is None else max(0, due_us - now_us()) / 1_000_000)
                for key, (until_us, missed, _) in list(self._deadlines.items()):
                    if now_us() >= until_us:
                        del self._deadlines[key]
                        missed()

    def _work(self) -> None:
        problem = ""
        try:
            self._connection.client()
        except UnusableUrl as error:
            problem = str(error)
        with self._lock:
            if problem:
                self._take_problem(problem)
            self._emit(None)
        while self._wait():
            self._carry_out()
        self._connection.drop()

    def _wait(self) -> bool:
        """Wait for new work, or until what failed may be tried again. False: it is over."""
        with self._lock:
            if self._close_by_us is None:
                retry_s = _RETRY_S if self._has_work() else None
                self._queued.wait_for(lambda: self._fresh or self._close_by_us is not None, timeout=retry_s)
                self._fresh = False
                return True
            left_s = (self._close_by_us - now_us()) / 1_000_000
            if left_s <= 0 or not self._has_work():
                return False
            self._queued.wait(min(_LAST_RETRY_S, left_s))
            return True
