"""Which node is active, for a program that runs no node.

Redis is asked first: one read. Its answer is at most as old as the record may be there: `redis.ttl_ms`. Where
Redis is away or names no controller, the nodes are asked; only what an active node says of itself counts, and
only until its lease ends. An `Observer` keeps no answer longer than that.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from zelect.client.query import ask_all
from zelect.config.loading import Config, load
from zelect.core.timing import MAX_NODE_ID, MAX_TERM
from zelect.redis.credentials import Credentials, CredentialsError, credentials_of
from zelect.redis.registry_scripts import Keys
from zelect.security.keys import keyring_to_ask
from zelect.status.cluster import controller_of
from zelect.system.clock import now_us

if TYPE_CHECKING:
    import redis


@dataclass(frozen=True, slots=True)
class Seen:
    """A controller. `source`: "redis" or "nodes". `until_us`: how long the answer holds, on
    the election's clock (CLOCK_BOOTTIME); `fresh` reads that clock."""

    id: int
    term: int
    address: str
    source: str
    until_us: int

    @property
    def fresh(self) -> bool:
        return now_us() < self.until_us


class Observer:
    """Observes the cluster of `config`, the configuration of any node (a path, or what `load` made of it).

    `believe_redis` False asks the nodes only: slower (a round trip to each), and never older than a
    lease. May be used from several threads. Raises `ConfigError`.
    """

    def __init__(self, config: str | Path | Config, *, believe_redis: bool = True) -> None:
        self.config = config if isinstance(config, Config) else load(Path(config))
        self._believe_redis = believe_redis and bool(self.config.redis.url)
        self._credentials = credentials_of(self.config) if self._believe_redis else Credentials()
        self._keyring = keyring_to_ask(self.config, "")
        self._addresses = self.config.settings().addresses
        self._key = Keys.of(self.config.cluster.name).controller
        self._client: redis.Redis | None = None
        self._closed = threading.Event()

    def controller(self, within_s: float = 1.0) -> Seen | None:
        """The active node; None when none is found within `within_s` seconds for the nodes and
        `redis.timeout_ms` for Redis. Raises RuntimeError after `close`."""
        if self._closed.is_set():
            raise RuntimeError("this Observer is closed")
        seen = self._from_redis() if self._believe_redis else None
        return seen or self._from_nodes(within_s)

    async def controller_async(self, within_s: float = 1.0) -> Seen | None:
        """The same for coroutines: asks in another thread."""
        return await asyncio.to_thread(self.controller, within_s)

    def changes(self, every_s: float = 0.2) -> Changes:
        """Each change of controller, for `for` and `async for`: a `Seen`, or None for none; the first is
        what is found now. Checks every `every_s` seconds."""
        return Changes(self, every_s, self._closed)

    def close(self) -> None:
        """End all iterations and drop the connection."""
        self._closed.set()
        if self._client is not None:
            self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _from_redis(self) -> Seen | None:
        from redis.exceptions import RedisError

        from zelect.redis.connection import connect

        try:
            if self._client is None:
                self._client = connect(self.config.redis.url, self.config.redis.timeout_ms / 1000, self._credentials)
            asked_us = now_us()
            with self._client.pipeline(transaction=True) as pipe:
                pipe.hgetall(self._key)
                pipe.pttl(self._key)
                record, left_ms = pipe.execute()
            node, term = int(record[b"id"]), int(record[b"term"])
            address = record[b"address"].decode()
        except (RedisError, CredentialsError, OSError, KeyError, ValueError, AttributeError):
            return None  # away, or no record there: the nodes know better
        if not (0 < node <= MAX_NODE_ID and 0 < term <= MAX_TERM and 0 < left_ms <= self.config.redis.ttl_ms):
            return None
        return Seen(node, term, address, "redis", asked_us + left_ms * 1000)

    def _from_nodes(self, within_s: float) -> Seen | None:
        name = self.config.cluster.name
        found = ask_all(
            name, self._addresses, within_s, lambda reports: controller_of(reports) is not None, self._keyring
        )
        active = controller_of(found)
        if active is None:
            return None
        # From when the answer came: later than the node's own deadline by the way of the answer.
        return Seen(active.id, active.term, active.address, "nodes", active.at_us + active.lease_left_us)


class Changes:
    """The changes that an `Observer` sees."""

    def __init__(self, observer: Observer, every_s: float, closed: threading.Event) -> None:
        self._observer, self._every_s, self._closed = observer, every_s, closed
        self._last: tuple[int, int] | None = None

    def __iter__(self) -> Iterator[Seen | None]:
        while not self._closed.is_set():
            try:
                seen = self._observer.controller()
            except RuntimeError:  # closed meanwhile
                return
            if self._is_new(seen):
                yield seen
            self._closed.wait(self._every_s)

    async def __aiter__(self) -> AsyncIterator[Seen | None]:
        while not self._closed.is_set():
            try:
                seen = await self._observer.controller_async()
            except RuntimeError:  # closed meanwhile
                return
            if self._is_new(seen):
                yield seen
            await asyncio.sleep(self._every_s)

    def _is_new(self, seen: Seen | None) -> bool:
        now = (seen.id, seen.term) if seen is not None else (0, 0)
        before, self._last = self._last, now
        return now != before
