"""Who is controller, for a program that runs no node.

Redis is asked first: one read. What it says is at most as old as the record may stand there,
`redis.ttl_ms` after the last refresh. Where Redis is away, or names nobody, the nodes are asked, and
only what one active says of itself counts: that holds until its lease ends. An `Observer` keeps no
answer beyond that.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from zelect.client.query import ask_all, controller_of
from zelect.config.loading import Config, load
from zelect.core.timing import MAX_NODE_ID, MAX_TERM
from zelect.redis.credentials import Credentials, CredentialsError, credentials_of
from zelect.redis.registry_scripts import Keys
from zelect.security.keys import keyring_to_ask
from zelect.system.clock import now_us

if TYPE_CHECKING:
    import redis

__all__ = ["Changes", "Observer", "Seen"]


@dataclass(frozen=True, slots=True)
class Seen:
    """A controller. `source`: "redis" or "nodes". `until_us`: how long the answer may be believed, on
    the election's clock (CLOCK_BOOTTIME); `fresh` asks that clock."""

    id: int
    term: int
    address: str
    source: str
    until_us: int

    @property
    def fresh(self) -> bool:
        return now_us() < self.until_us


class Observer:
    """Looks at the cluster of `config`, the configuration of any node (a path, or what `load` made of it).

    `believe_redis` False asks the nodes alone: slower (a round trip to each), and never older than a
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
        """Who is active; None when nobody is found within `within_s` seconds for the nodes and
        `redis.timeout_ms` for Redis. Raises RuntimeError after `close`."""
        if self._closed.is_set():
            raise RuntimeError("this Observer is closed")
        seen = self._from_redis() if self._believe_redis else None
        return seen or self._from_nodes(within_s)

    async def controller_async(self, within_s: float = 1.0) -> Seen | None:
        """The same for a coroutine: it asks in another thread."""
        return await asyncio.to_thread(self.controller, within_s)

    def changes(self, every_s: float = 0.2) -> Changes:
        """Each change of controller, for `for` and `async for`: a `Seen`, or None for nobody; the first
        is who is found now. Looks every `every_s` seconds."""
        return Changes(self, every_s, self._closed)

    def close(self) -> None:
        """End all iterations, and drop the connection."""
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
            return None  # away, or what stands there is no record: the nodes know better
        if not (0 < node <= MAX_NODE_ID and 0 < term <= MAX_TERM and 0 < left_ms <= self.config.redis.ttl_ms):
            return None
        return Seen(node, term, address, "redis", asked_us + left_ms * 1000)

    def _from_nodes(self, within_s: float) -> Seen | None:
        name = self.config.cluster.name
        found = ask_all(name, self._addresses, within_s, lambda said: controller_of(said) is not None, self._keyring)
        head = controller_of(found)
        if head is None:
            return None
        # Counted from when the answer came, less the way it had; a lease is never believed longer.
        return Seen(head.id, head.term, head.address, "nodes", head.at_us + int(head.lease_left_ms * 1000))


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
            if self._news(seen):
                yield seen
            self._closed.wait(self._every_s)

    async def __aiter__(self) -> AsyncIterator[Seen | None]:
        while not self._closed.is_set():
            try:
                seen = await self._observer.controller_async()
            except RuntimeError:  # closed meanwhile
                return
            if self._news(seen):
                yield seen
            await asyncio.sleep(self._every_s)

    def _news(self, seen: Seen | None) -> bool:
        now = (seen.id, seen.term) if seen is not None else (0, 0)
        before, self._last = self._last, now
        return now != before
