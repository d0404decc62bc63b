"""Redis killed, hung, full, read-only, flushed, locked, absent: elections go on, the nodes report what
is wrong, and the record is correct again afterwards and never goes back (R13)."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.clusters import CALM, Cluster, Fleet, holds_for, zelect
from tests.support.marks import long_but
from tests.support.ports import free_port
from tests.support.redis_server import running_server
from tests.support.waiting import wait_until
from tests.support.watches import Registry, TermWatch
from zelect.devcluster.bundled_server import RedisServer
from zelect.status.report import NodeReport


@pytest.fixture
def server(own_server: RedisServer) -> RedisServer:
    """Every test here may damage it."""
    return own_server


def start_again(server: RedisServer) -> None:
    server.start()
    server.wait_ready(30)


@dataclass(frozen=True, slots=True)
class Trouble:
    """What happens to Redis, how it ends, and a word that the nodes must report about it."""

    begin: Callable[[RedisServer, Registry], object]
    end: Callable[[RedisServer, Registry], object]
    word: str


TROUBLES = {
    "killed": Trouble(lambda server, registry: server.kill(), lambda server, registry: start_again(server), "refused"),
    "hung": Trouble(lambda server, registry: server.freeze(), lambda server, registry: server.thaw(), "timeout"),
    "full": Trouble(
        lambda server, registry: registry.client.config_set("maxmemory", 1),
        lambda server, registry: registry.client.config_set("maxmemory", 0),
        "OOM",
    ),
    "read-only": Trouble(
        lambda server, registry: registry.client.replicaof("127.0.0.1", free_port()),
        lambda server, registry: registry.client.replicaof("no", "one"),
        "READONLY",
    ),
}


def says_down(cluster: Cluster, node: int, word: str) -> None:
    """Wait until `node` reports that Redis is down, and why."""

    def said() -> bool:
        store = cluster.ask(node).get("redis", {})
        return store.get("state") == "down" and word in store.get("problem", "")

    wait_until(said, 20, what=f"node {node} reports that Redis is down: {word}")
    assert any(word in fact["problem"] for fact in cluster.events(node, "redis_failed"))


def status(cluster: Cluster) -> dict[str, Any]:
    """What `zelect status --json` prints while a node is active."""
    done = zelect("status", "-c", cluster.conf(cluster.ids[0]), "--json", "--timeout", "5")
    assert done.returncode == 0, done.stdout + done.stderr
    state: dict[str, Any] = json.loads(done.stdout)
    return state


def right_again(cluster: Cluster, registry: Registry, head: NodeReport) -> None:
    registry.published(head)
    wait_until(
        lambda: {node for node, entry in registry.nodes().items() if entry["status"] == "running"} >= cluster.running(),
        20,
        what="every node's entry",
    )
    wait_until(
        lambda: all(cluster.ask(node)["redis"]["state"] == "up" for node in cluster.running()), 20, what="Redis up"
    )
    assert cluster.ask(head.id)["redis"]["published_term"] == head.term


@pytest.mark.parametrize("kind", long_but(TROUBLES, "killed"))
def test_elections_go_on_without_redis(fleet: Fleet, server: RedisServer, kind: str) -> None:
    trouble = TROUBLES[kind]
    cluster = fleet.cluster(redis_url=server.url, timing=CALM)
    registry = Registry(server.url, cluster.name)
    cluster.start()
    first = cluster.settled()
    right_again(cluster, registry, first)
    watch = TermWatch(registry)
    trouble.begin(server, registry)
    says_down(cluster, first.id, trouble.word)
    state = status(cluster)
    store = state["redis"]
    assert (store["url"], store["state"], store["published_term"]) == (server.url, "down", first.term)
    assert trouble.word in store["problem"]

    cluster.kill(first.id)
    second = cluster.settled(*set(cluster.ids) - {first.id}, term_above=first.term)
    says_down(cluster, second.id, trouble.word)
    cluster.start(first.id)
    assert cluster.settled().term == second.term, "a node starts without Redis too"
    cluster.term(second.id)
    assert cluster.exit_code(second.id) == 0, "a graceful leave does not wait for Redis"
    third = cluster.settled(*set(cluster.ids) - {second.id}, term_above=second.term)

    trouble.end(server, registry)
    right_again(cluster, registry, third)
    assert cluster.settled(*cluster.running()).term == third.term, "the return of Redis does not change who is active"
    terms = [int(election["term"]) for election in registry.elections()]
    assert terms == sorted(set(terms))
    assert terms[-1] == third.term
    watch.stop()


@pytest.mark.long
def test_flushed_again_and_again_during_elections(fleet: Fleet, server: RedisServer) -> None:
    # Faster than calm: a node that was just restarted votes only after an election timeout (R4).
    # Only members vote: a witness that is flushed all the time would be unrecognized all the time.
    timing = {**CALM, "lease_ms": 1200, "election_timeout_ms": 1500}
    cluster = fleet.cluster(redis_url=server.url, timing=timing, quorum="static")
    registry = Registry(server.url, cluster.name)
    watch, over = TermWatch(registry), threading.Event()

    def flush() -> None:
        client = Registry(server.url, cluster.name).client
        while not over.wait(0.03):
            client.flushall()

    thread = threading.Thread(target=flush)
    thread.start()
    try:
        cluster.start()
        head = cluster.settled()
        for _ in range(3):
            cluster.kill(head.id)
            after = cluster.settled(*set(cluster.ids) - {head.id}, term_above=head.term)
            cluster.start(head.id)
            head = cluster.settled(term_above=after.term - 1)
    finally:
        over.set()
        thread.join()
    right_again(cluster, registry, head)
    registry.client.flushall()
    right_again(cluster, registry, head)
    assert cluster.active() is not None
    watch.stop()


@pytest.mark.long
def test_a_restored_old_dump_is_overwritten(fleet: Fleet, server: RedisServer) -> None:
    cluster = fleet.cluster(redis_url=server.url, timing=CALM)
    registry = Registry(server.url, cluster.name)
    cluster.start()
    first = cluster.settled()
    right_again(cluster, registry, first)
    parts = ("controller", "nodes", "elections")
    dumps = {part: registry.client_bytes.dump(registry.key(part)) for part in parts}
    cluster.kill(first.id)
    second = cluster.settled(*set(cluster.ids) - {first.id}, term_above=first.term)
    right_again(cluster, registry, second)
    for part in parts:
        registry.client_bytes.restore(registry.key(part), 0, dumps[part], replace=True)
    right_again(cluster, registry, second)
    left = registry.client.pttl(registry.key("controller"))
    assert left > 0, "it expires again"


@pytest.mark.long
def test_wrong_password(fleet: Fleet, tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir()
    with running_server(tmp_path / "locked", "--requirepass", "rightOne") as server:
        cluster = fleet.cluster(redis_url=f"redis://:wrongOne@127.0.0.1:{server.port}/0", timing=CALM)
        cluster.start()
        head = cluster.settled()
        for node in cluster.ids:
            says_down(cluster, node, "WRONGPASS")
            assert "redis.url" in cluster.ask(node)["redis"]["problem"], "names the fix"
            assert "wrongOne" not in json.dumps(cluster.ask(node))
            assert "wrongOne" not in cluster.log_of(node).read_text()
        assert "wrongOne" not in json.dumps(status(cluster))
        cluster.kill(head.id)
        cluster.settled(*set(cluster.ids) - {head.id}, term_above=head.term)


@pytest.mark.long
def test_unreachable_at_the_start_and_there_later(fleet: Fleet, tmp_path: Path) -> None:
    (tmp_path / "late").mkdir()
    server = RedisServer(tmp_path / "late", free_port())
    cluster = fleet.cluster(redis_url=server.url, timing=CALM)
    cluster.start()
    head = cluster.settled()
    for node in cluster.ids:
        says_down(cluster, node, "refused")
    try:
        start_again(server)
        right_again(cluster, Registry(server.url, cluster.name), head)
    finally:
        server.stop()


@pytest.mark.long
def test_no_redis_configured(fleet: Fleet) -> None:
    cluster = fleet.cluster(redis_url="", timing=CALM)
    cluster.start()
    head = cluster.settled()
    assert status(cluster)["redis"] == {"url": "", "state": "unused", "published_term": None, "problem": ""}
    assert status(cluster)["voters"]["witness"] == "unused"
    told = zelect("status", "-c", cluster.conf(head.id)).stdout
    assert "; no Redis\n" in told
    assert "not configured" not in told
    cluster.kill(head.id)
    second = cluster.settled(*set(cluster.ids) - {head.id}, term_above=head.term)
    cluster.term(second.id)
    assert cluster.exit_code(second.id) == 0


@pytest.mark.long
def test_two_clusters_share_a_redis_without_meeting(fleet: Fleet, server: RedisServer) -> None:
    one = fleet.cluster(redis_url=server.url, timing=CALM)
    other = fleet.cluster(redis_url=server.url, timing=CALM)
    one.start()
    first = one.settled()
    right_again(one, Registry(server.url, one.name), first)
    other.start()
    second = other.settled()
    right_again(other, Registry(server.url, other.name), second)
    one.term(*one.ids)
    assert [one.exit_code(node) for node in one.ids] == [0, 0, 0]
    holds_for(lambda: Registry(server.url, other.name).names(second), 0.5, "the other cluster's record")
    assert not Registry(server.url, one.name).nodes()
