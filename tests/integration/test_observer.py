"""Who is controller, seen from outside: by Redis, and by the nodes where Redis is away."""

from __future__ import annotations

import asyncio
import threading
from itertools import pairwise
from pathlib import Path

import pytest
import redis

import zelect
from tests.support.clusters import CALM, Fleet
from tests.support.redis_server import running_server
from tests.support.waiting import wait_until
from zelect.system.clock import now_us


def test_an_observer_asks_redis_and_without_it_the_nodes(fleet: Fleet, tmp_path: Path) -> None:
    (tmp_path / "redis").mkdir()
    with running_server(tmp_path / "redis") as server:
        cluster = fleet.cluster(redis_url=server.url, timing=CALM)
        with (
            zelect.Observer(cluster.conf(2)) as observer,
            zelect.Observer(cluster.conf(3), believe_redis=False) as other,
        ):
            assert observer.controller(0.1) is None
            cluster.start()
            head = cluster.settled()
            seen = wait_until(lambda: (found := observer.controller()) and found.source == "redis" and found)
            assert isinstance(seen, zelect.Seen)
            assert (seen.id, seen.term, seen.address) == (head.id, head.term, head.address)
            assert now_us() < seen.until_us <= now_us() + cluster.config(1).redis.ttl_ms * 1000
            told = other.controller()
            assert told is not None
            assert (told.id, told.term, told.source) == (head.id, head.term, "nodes")
            assert told.fresh
            assert told.until_us <= now_us() + int(CALM["lease_ms"]) * 1000

            client = redis.Redis.from_url(server.url)
            key = f"zelect:{{{cluster.name}}}:controller"
            client.hset(key, "term", "word")  # garbage is no answer
            garbled = observer.controller()
            assert garbled is None or garbled.source == "nodes" or garbled.term == head.term
            client.close()
            server.stop()
            away = wait_until(lambda: observer.controller())
            assert away is not None
            assert (away.id, away.term, away.source) == (head.id, head.term, "nodes")
            cluster.kill(*cluster.ids)
            assert observer.controller(0.2) is None


def test_an_observer_is_an_asynchronous_context_too_and_says_when_it_is_closed(fleet: Fleet) -> None:
    async def main() -> zelect.Observer:
        async with zelect.Observer(fleet.cluster((1,)).conf(1)) as observer:
            assert await observer.controller_async(0.05) is None
        return observer

    observer = asyncio.run(main())
    with pytest.raises(RuntimeError, match="closed"):
        observer.controller()
    assert list(observer.changes()) == []


@pytest.mark.long
def test_changes_are_told_once_to_threads_and_coroutines(fleet: Fleet) -> None:
    cluster = fleet.cluster(timing=CALM)
    told: list[tuple[int, int]] = []
    told_async: list[tuple[int, int]] = []
    observer = zelect.Observer(cluster.conf(1))

    def follow() -> None:
        for seen in observer.changes(0.02):
            told.append((seen.id, seen.term) if seen else (0, 0))

    async def follow_async() -> None:
        async for seen in observer.changes(0.02):
            told_async.append((seen.id, seen.term) if seen else (0, 0))

    threads = [threading.Thread(target=follow), threading.Thread(target=asyncio.run, args=(follow_async(),))]
    cluster.start()
    first = cluster.settled()
    for thread in threads:
        thread.start()
    for list_of in (told, told_async):
        wait_until(lambda seen=list_of: (first.id, first.term) in seen)  # type: ignore[misc]
    cluster.term(first.id)
    cluster.exit_code(first.id)
    second = cluster.controller(term_above=first.term)
    for list_of in (told, told_async):
        wait_until(lambda seen=list_of: (second.id, second.term) in seen)  # type: ignore[misc]
    observer.close()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    for list_of in (told, told_async):
        assert all(one != other for one, other in pairwise(list_of)), "changes only"
