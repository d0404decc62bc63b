"""Real nodes and a real Redis: who is active, what Redis says of it, and what each death,
departure and freeze changes."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import threading
import time
from typing import Any

import pytest

from tests.support.clusters import CALM, Cluster, Fleet, holds_for
from tests.support.waiting import wait_until
from tests.support.watches import Registry, TermWatch, VoteWatch
from zelect.devcluster.bundled_server import RedisServer
from zelect.redis import registry_scripts
from zelect.status.report import NodeReport


def hear(pubsub: Any, within_s: float = 10.0) -> dict[str, Any]:
    """The next change of controller that Redis announces."""
    message = wait_until(lambda: pubsub.get_message(ignore_subscribe_messages=True), within_s, what="a change")
    change: dict[str, Any] = json.loads(message["data"])
    return change


def entry(registry: Registry, node: int, **expected: object) -> None:
    """Wait until the entry of `node` in Redis holds what is expected."""
    wait_until(
        lambda: expected.items() <= registry.nodes().get(node, {}).items(), 10, what=f"node {node} in Redis: {expected}"
    )


# -- first start, kill, return ------------------------------------------------------------------


def test_kill_of_the_controller_and_its_return(fleet: Fleet, server: RedisServer) -> None:
    cluster = fleet.cluster(redis_url=server.url, timing=CALM)
    registry = Registry(server.url, cluster.name)
    pubsub = registry.client.pubsub()
    pubsub.subscribe(registry.changes)
    watch, votes_seen = TermWatch(registry), VoteWatch(cluster)
    cluster.start()

    first = cluster.settled()
    assert first.id == 1, "first start: the first in line"
    _record_is_right(cluster, registry, first)
    for node in cluster.ids:
        entry(registry, node, role="controller" if node == 1 else "follower", status="running", term=first.term)
    wait_until(lambda: registry.nodes().keys() >= set(cluster.ids), what="every node that belongs has an entry")
    assert all(registry.nodes()[node]["address"] == cluster.addresses[node] for node in cluster.ids)
    assert all(abs(registry.nodes()[node]["seen_ms"] / 1000 - time.time()) < 60 for node in cluster.ids)
    assert hear(pubsub) == {"id": 1, "term": first.term, "reason": "start"}
    (election,) = registry.elections()
    assert (election["id"], election["term"], election["previous"]) == ("1", str(first.term), "0")
    assert election["reason"] == "start"
    assert {vote["voter"] for vote in json.loads(election["votes"]) if vote["granted"]} >= {1}

    wait_until(lambda: all(cluster.ask(node)["succession"] == [2, 3] for node in (2, 3)), what="the order is known")
    cluster.kill(1)
    second = cluster.settled(2, 3, term_above=first.term)
    assert second.id == 2, "the next in succession"
    _record_is_right(cluster, registry, second)
    assert hear(pubsub) == {"id": 2, "term": second.term, "reason": "death"}
    last = registry.elections()[-1]
    assert (last["id"], last["term"], last["previous"], last["reason"]) == ("2", str(second.term), "1", "death")
    assert float(last["gap_ms"]) > 0

    cluster.start(1)
    again = cluster.settled()
    assert (again.id, again.term) == (2, second.term), "one that returns follows (R8)"
    entry(registry, 1, role="follower", status="running", term=second.term)
    holds_for(lambda: registry.names(second), 1.0, "no preemption")
    assert cluster.active() is not None
    assert len(registry.elections()) == 2
    watch.stop()
    votes_seen.stop()


def _record_is_right(cluster: Cluster, registry: Registry, head: NodeReport) -> None:
    record = registry.published(head)
    said = cluster.ask(head.id)
    assert record.pop("since_ms").isdigit()
    assert record == {
        "id": str(head.id),
        "term": str(head.term),
        "address": cluster.addresses[head.id],
        "incarnation": str(said["incarnation"]),
    }
    assert abs(int(registry.record()["since_ms"]) - said["since_ms"]) < 1000
    left = registry.client.pttl(registry.key("controller"))
    assert 0 < left <= cluster.config(head.id).redis.ttl_ms
    assert said["redis"]["state"] == "up"


@pytest.mark.long
def test_who_dies_with_the_controller_is_offline_in_redis(fleet: Fleet, server: RedisServer) -> None:
    """Nobody is active when these deaths are proven; the successor must tell of them later."""
    cluster = fleet.cluster(range(1, 6), redis_url=server.url, timing=CALM)
    registry = Registry(server.url, cluster.name)
    cluster.start()
    first = cluster.settled()
    for node in cluster.ids:
        entry(registry, node, status="running")
    dead = {first.id, max(set(cluster.ids) - {first.id})}
    cluster.kill(*dead)
    second = cluster.settled(*set(cluster.ids) - dead, term_above=first.term)
    entry(registry, second.id, role="controller")
    for node in dead:
        entry(registry, node, status="offline")


@pytest.mark.long
def test_a_killed_follower_is_offline_everywhere(fleet: Fleet, server: RedisServer) -> None:
    cluster = fleet.cluster(redis_url=server.url, timing=CALM)
    registry = Registry(server.url, cluster.name)
    cluster.start()
    head = cluster.settled()
    entry(registry, 3, status="running")
    cluster.kill(3)
    entry(registry, 3, status="offline", role="follower")
    wait_until(lambda: all(_peer(cluster, other, 3)["dead"] for other in (1, 2)), 10, what="the others know")
    assert not _peer(cluster, 1, 3)["offline"], "it said no leave"
    assert registry.names(head), "the death of a follower changes nothing active"
    cluster.start(3)
    assert cluster.settled().term == head.term
    entry(registry, 3, status="running")


def _peer(cluster: Cluster, node: int, peer: int) -> dict[str, Any]:
    found: dict[str, Any] = next(one for one in cluster.ask(node)["peers"] if one["id"] == peer)
    return found


# -- departures ---------------------------------------------------------------------------------


@pytest.mark.long
def test_departures_in_good_order_one_after_the_other(fleet: Fleet, server: RedisServer) -> None:
    cluster = fleet.cluster(redis_url=server.url, timing=CALM)
    registry = Registry(server.url, cluster.name)
    cluster.start()
    first = cluster.settled()
    registry.published(first)

    cluster.term(first.id)
    second = cluster.settled(2, 3, term_above=first.term)
    assert cluster.exit_code(first.id) == 0
    registry.published(second)
    assert registry.elections()[-1]["reason"] in ("handover", "leave")
    wait_until(lambda: first.id not in registry.nodes(), 10, what="its own entry gone")
    for other in (2, 3):
        assert cluster.events(other, "leadership_handed_over"), "handed over before it went"
        assert _peer(cluster, other, first.id)["offline"], "told the others"

    cluster.start(first.id)
    assert cluster.settled().term == second.term
    leaver = next(node for node in cluster.ids if node not in (first.id, second.id))
    cluster.term(leaver)
    assert cluster.exit_code(leaver) == 0
    assert _peer(cluster, second.id, leaver)["offline"]
    assert _peer(cluster, first.id, leaver)["offline"]
    wait_until(lambda: leaver not in registry.nodes(), 10, what="nodes refreshed")
    assert registry.names(second), "a follower that goes changes nothing active"

    for node in (second.id, first.id):
        cluster.term(node)
        assert cluster.exit_code(node) == 0
    wait_until(lambda: not registry.record() and not registry.nodes(), 5, what="the last one cleared the registry")
    elections = registry.elections()
    assert [int(one["term"]) for one in elections] == sorted(int(one["term"]) for one in elections)


@pytest.mark.long
def test_departure_of_all_at_once_clears_the_registry(fleet: Fleet, server: RedisServer) -> None:
    cluster = fleet.cluster(redis_url=server.url, timing=CALM)
    registry = Registry(server.url, cluster.name)
    cluster.start()
    registry.published(cluster.settled())
    cluster.term(*cluster.ids)
    assert [cluster.exit_code(node) for node in cluster.ids] == [0, 0, 0]
    assert not registry.record()
    assert registry.nodes() == {}


@pytest.mark.long
def test_a_second_sigterm_and_sigint_change_nothing_about_the_leave(fleet: Fleet) -> None:
    cluster = fleet.cluster(timing=CALM)
    cluster.start()
    head = cluster.settled()
    cluster.term(head.id)
    with contextlib.suppress(ProcessLookupError):
        cluster.term(head.id)
        cluster.signal(signal.SIGINT, head.id)
    assert cluster.exit_code(head.id) == 0
    assert [fact["event"] for fact in cluster.events(head.id, "leave_announced", "node_ended")] == [
        "leave_announced",
        "node_ended",
    ]
    second = cluster.settled(2, 3, term_above=head.term)
    cluster.signal(signal.SIGINT, second.id)
    assert cluster.exit_code(second.id) == 0
    assert cluster.events(second.id, "leave_announced")


# -- a freeze -----------------------------------------------------------------------------------


def test_a_frozen_controller_is_replaced_and_claims_nothing_once_thawed(fleet: Fleet, server: RedisServer) -> None:
    cluster = fleet.cluster(redis_url=server.url)
    registry = Registry(server.url, cluster.name)
    cluster.start()
    old = cluster.settled()
    registry.published(old)
    watch = TermWatch(registry)
    cluster.freeze(old.id)
    others = set(cluster.ids) - {old.id}
    new = cluster.settled(*others, term_above=old.term)
    registry.published(new)

    with registry.client.monitor() as monitor:
        cluster.thaw(old.id)
        claims = _claims_until_it_follows(cluster, old)
        registry.client.ping()
        commands = list(itertools.takewhile(lambda one: one != "PING", (one["command"] for one in monitor.listen())))
    assert not claims, "the lease ran out during the freeze"
    key = registry.key("controller")
    writes = [one for one in commands if key in one and one.split()[0].upper() in ("HSET", "PEXPIRE", "UNLINK", "DEL")]
    assert all(f"{key} id {old.id} " not in one for one in writes), writes
    leaderships = [one.split() for one in commands if registry_scripts.PUBLISH_CONTROLLER.sha in one]
    assert not [one for one in leaderships if f"tcp://127.0.0.1:{cluster.ports[old.id]}" in one], leaderships
    assert cluster.settled().term >= new.term
    assert int(registry.record()["term"]) >= new.term
    watch.stop()


def _claims_until_it_follows(cluster: Cluster, old: NodeReport) -> list[dict[str, Any]]:
    """What the thawed node says active, in term `old.term` or before it has followed anybody."""
    claims = []

    def follows() -> bool:
        said = cluster.ask(old.id)
        if said and said["active"]:
            claims.append(said)
        return bool(said) and said["controller"] not in (None, old.id)

    wait_until(follows, 30, what="the thawed node follows")
    return claims


# -- signals ------------------------------------------------------------------------------------


@pytest.mark.long
def test_a_storm_of_signals_does_not_disturb_the_controller(fleet: Fleet) -> None:
    cluster = fleet.cluster(timing={**CALM, "heartbeat_ms": 150, "lease_ms": 1200, "election_timeout_ms": 1500})
    cluster.start()
    head = cluster.settled()
    sent_before = cluster.counters(head.id)["sent"]
    over, sent = threading.Event(), [0]

    def storm() -> None:
        while not over.wait(0.02):
            for number in (signal.SIGWINCH, signal.SIGCHLD, signal.SIGCONT, signal.SIGURG):
                os.kill(head.pid, number)
                sent[0] += 1

    thread = threading.Thread(target=storm)
    thread.start()
    try:
        # Two leases long: a loop that the signals delay would have lost its leadership by then.
        holds_for(lambda: cluster.active() is not None, 3.0, "active")
    finally:
        over.set()
        thread.join()
    assert sent[0] > 100
    assert cluster.settled().term == head.term
    assert cluster.counters(head.id)["sent"] > sent_before
    assert not cluster.events(head.id, "stopped_being_active", "leadership_suspended")


# -- many ---------------------------------------------------------------------------------------


@pytest.mark.long
def test_twenty_one_nodes_elect_and_fail_over(fleet: Fleet, server: RedisServer) -> None:
    cluster = fleet.cluster(range(1, 22), redis_url=server.url, timing=CALM)
    registry = Registry(server.url, cluster.name)
    began = time.monotonic()
    cluster.start()
    first = cluster.settled()
    registry.published(first)
    settled_s = time.monotonic() - began
    watch = TermWatch(registry)
    cluster.kill(first.id)
    began = time.monotonic()
    second = cluster.controller(term_above=first.term)
    registry.published(second)
    print(f"21 nodes: start {settled_s:.1f} s, kill until the successor was seen {time.monotonic() - began:.3f} s")
    cluster.settled(*set(cluster.ids) - {first.id}, term_above=first.term)
    watch.stop()
