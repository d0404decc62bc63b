"""Which node is active, for a program that runs no node.

Redis is asked first: one read. Its answer is at most as old as the record may be there: `redis.ttl_ms`. Where
Redis is away or names no controller, the nodes are asked: what an active node says of itself counts until its lease
ends. Where that node can't be asked, as from another host in plain text, its followers say whom they follow; that
counts for one lease from when they heard it. An `Observer` keeps no answer longer than that.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from zelect.client.published import Seen, read_published
from zelect.client.query import ask_cluster
from zelect.config.loading import Config, chosen, load
from zelect.errors import ZelectError
from zelect.redis.credentials import Credentials, credentials_of
from zelect.security.keys import keyring_to_ask
from zelect.status.cluster import ClusterStatus, controller_of
from zelect.status.cluster_text import controller_text, unasked_text

if TYPE_CHECKING:
    import redis


class ControllerUnknown(ZelectError):
    """Which node is active could not be found out: too few nodes could be asked. The message says why."""


class Observer:
    """Observes the cluster of `config`, a configuration that names the members (a path, or what `load` made of it;
    None: what counts where nothing is named, as for `zelect.Node`).

    `believe_redis` False asks the nodes only: slower (a round trip to each), and never older than a
    lease. May be used from several threads. Raises `ConfigError`.
    """

    def __init__(self, config: str | Path | Config | None = None, *, believe_redis: bool = True) -> None:
        if not isinstance(config, Config):
            config = load(chosen(config), member=False)
        self.config = config
        self._believe_redis = believe_redis and bool(self.config.redis.url)
        self._credentials = credentials_of(self.config) if self._believe_redis else Credentials()
        self._keyring = keyring_to_ask(self.config, "")
        self._addresses = self.config.settings().addresses
        self._lease_us = self.config.settings().timing.lease_us
        self._client: redis.Redis | None = None
        self._closed = threading.Event()

    def controller(self, within_s: float = 1.0) -> Seen | None:
        """The active node; None when none is. Waits up to `within_s` seconds for the nodes, and `redis.timeout_ms` for
        Redis. Raises `ControllerUnknown` when too few nodes could be asked, and RuntimeError after `close`."""
        if self._closed.is_set():
            raise RuntimeError("this Observer is closed")
        seen = self._from_redis() if self._believe_redis else None
        return seen or self._from_nodes(within_s)

    async def controller_async(self, within_s: float = 1.0) -> Seen | None:
        """The same for coroutines: asks in another thread."""
        return await asyncio.to_thread(self.controller, within_s)

    def changes(self, every_s: float = 0.2) -> Changes:
        """Each change of controller, for `for` and `async for`: a `Seen`, or None for none; the first is
        what is found now. Checks every `every_s` seconds. While too few nodes can be asked nothing is told: the last
        answer holds for as long as it is `fresh`."""
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
        from zelect.redis.connection import connect

        try:
            if self._client is None:
                self._client = connect(self.config.redis.url, self.config.redis.timeout_ms / 1000, self._credentials)
            return read_published(self._client, self.config)
        except Exception:  # away, or whatever it answers: the nodes know better
            if self._client is not None:
                self._client.connection_pool.disconnect()
            return None

    def _from_nodes(self, within_s: float) -> Seen | None:
        found = self._ask(within_s)
        if found.controller is None and self._follow(found):
            found = self._ask(within_s)
        if (active := found.controller) is not None:
            # From when the answer came: later than the node's own deadline by the way of the answer.
            return Seen(active.id, active.term, active.address, "nodes", active.at_us + active.lease_left_us)
        seen = self._followed(found)
        if seen is None and not (found.is_known or not found.unasked):
            raise ControllerUnknown(f"{controller_text(found)}: {unasked_text(found)}")
        return seen

    def _ask(self, within_s: float) -> ClusterStatus:
        name = self.config.cluster.name
        return ask_cluster(
            name, self._addresses, within_s, lambda reports: controller_of(reports) is not None, self._keyring
        )

    def _follow(self, found: ClusterStatus) -> bool:
        """Ask those whom the voter record names from now on, where it says that they are, and who answered where they
        did; whether that is news."""
        answered = {node: at for node, at in self._addresses.items() if node in found.reports}
        keyed = None if self._keyring is None else self._keyring.directory.nodes
        recorded = {node: at for node, at in found.recorded.items() if keyed is None or node in keyed}
        before = self._addresses
        if recorded:
            self._addresses = {**recorded, **answered}
        return self._addresses != before

    def _followed(self, found: ClusterStatus) -> Seen | None:
        """The controller that its followers name. Raises `ControllerUnknown` when none of them has heard it within a
        lease."""
        if (named := found.named) is None:
            return None
        heard = [report for node, report in found.reports.items() if node in named.followers]
        heard_us = max(report.at_us - (report.controller_heard_ago_us or 0) for report in heard)
        seen = Seen(named.id, named.term, named.address, "followers", heard_us + self._lease_us)
        if not seen.fresh:
            raise ControllerUnknown(f"node {seen.id} was followed in term {seen.term}, but not heard for a lease")
        return seen


class Changes:
    """The changes that an `Observer` sees."""

    def __init__(self, observer: Observer, every_s: float, closed: threading.Event) -> None:
        self._observer, self._every_s, self._closed = observer, every_s, closed
        self._last: tuple[int, int] | None = None

    def __iter__(self) -> Iterator[Seen | None]:
        while not self._closed.is_set():
            try:
                seen = self._observer.controller()
            except ControllerUnknown:
                self._closed.wait(self._every_s)
                continue
            except RuntimeError:  # closed meanwhile
                return
            if self._is_new(seen):
                yield seen
            self._closed.wait(self._every_s)

    async def __aiter__(self) -> AsyncIterator[Seen | None]:
        while not self._closed.is_set():
            try:
                seen = await self._observer.controller_async()
            except ControllerUnknown:
                await asyncio.sleep(self._every_s)
                continue
            except RuntimeError:  # closed meanwhile
                return
            if self._is_new(seen):
                yield seen
            await asyncio.sleep(self._every_s)

    def _is_new(self, seen: Seen | None) -> bool:
        now = (seen.id, seen.term) if seen is not None else (0, 0)
        before, self._last = self._last, now
        return now != before
