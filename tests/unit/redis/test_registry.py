"""The registry in Redis (R13), against a real server."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
import zmq

from tests.support.no_redis import drips, listening, says_http, says_seven
from tests.support.ports import free_port
from tests.support.redis_server import running_server
from tests.support.waiting import wait_until
from zelect.core.effects import (
    AskController,
    Depart,
    Intent,
    MarkOffline,
    PublishController,
    PublishNode,
    WithdrawController,
)
from zelect.core.election_trace import ElectionTrace, Round, Vote
from zelect.core.messages import Reason
from zelect.devcluster.bundled_server import RedisServer
from zelect.redis.errors import safe_url
from zelect.redis.outbox import Job, Outbox
from zelect.redis.registry import RegistryClient, RegistryHint, RegistryStatus
from zelect.redis.worker import RedisSettings
from zelect.system.clock import now_us, unix_ms

BASE = "zelect:{demo}:"
CONTROLLER, NODES, ELECTIONS, CHANGES = (BASE + part for part in ("controller", "nodes", "elections", "changes"))
MINUTE_US = 60_000_000
RUNNING = PublishNode("follower", "running", 1)


class Registry:
    """A server, a client of it that looks, and processes that write."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], server: RedisServer) -> None:
        self.context, self.server = context, server
        self.client: Any = redis.Redis.from_url(server.url, decode_responses=True)
        self.processes: list[RegistryClient] = []

    def process(self, node: int = 1, incarnation: int = 1, **changes: Any) -> RegistryClient:
        settings: dict[str, Any] = {"url": self.server.url, "ttl_ms": 60_000, "timeout_ms": 2000, "cluster": "demo"}
        settings |= {"node": node, "address": f"tcp://127.0.0.1:{7100 + node}", "incarnation": incarnation} | changes
        process = RegistryClient(self.context, RedisSettings(**settings))
        self.processes.append(process)
        process.start()
        return process

    def record(self) -> dict[str, str]:
        return dict(self.client.hgetall(CONTROLLER))

    def entry(self, node: int) -> dict[str, Any] | None:
        text = self.client.hget(NODES, str(node))
        return None if text is None else json.loads(text)

    def elections(self) -> list[dict[str, str]]:
        return [dict(fields) for _, fields in self.client.xrange(ELECTIONS)]

    @contextmanager
    def changes(self) -> Iterator[Callable[[], dict[str, Any]]]:
        with self.client.pubsub() as heard:
            heard.subscribe(CHANGES)
            wait_until(lambda: heard.get_message(timeout=0.1))

            def following() -> dict[str, Any]:
                message = wait_until(lambda: heard.get_message(timeout=0.1), what="a message on changes")
                value: dict[str, Any] = json.loads(message["data"])
                return value

            yield following


def _registry(context: zmq.Context[zmq.Socket[bytes]], server: RedisServer) -> Iterator[Registry]:
    registry = Registry(context, server)
    try:
        yield registry
    finally:
        for process in registry.processes:
            process.close(0.1)
        registry.client.close()


@pytest.fixture
def registry(context: zmq.Context[zmq.Socket[bytes]], shared_server: RedisServer) -> Iterator[Registry]:
    """On a server that no test damages."""
    yield from _registry(context, shared_server)


@pytest.fixture
def own_registry(context: zmq.Context[zmq.Socket[bytes]], tmp_path: Path) -> Iterator[Registry]:
    """On a server of the test's own, to be damaged."""
    with running_server(tmp_path) as server:
        yield from _registry(context, server)


def trace(*votes: Vote) -> ElectionTrace:
    """Heard last 50 ms before leadership; lost, asked and elected in the last three."""
    return ElectionTrace(1000, 48_000, 50_500, 51_000, (Round(4, False, 49_000, 50_500, "won", votes),))


def leadership(term: int = 1, valid_us: int = MINUTE_US, **changes: Any) -> PublishController:
    now = now_us()
    fields: dict[str, Any] = {"term": term, "active_since_us": now, "valid_until_us": now + valid_us, "previous": 0}
    fields |= {"reason": Reason.START, "gap_us": -1, "trace": trace(Vote(1, True, ""))}
    return PublishController(**(fields | changes))


def settle(process: RegistryClient, *intents: Intent) -> RegistryStatus:
    """Have `intents` carried out, and return the status after them."""
    before = sum(process.counters[name] for name in ("written", "void", "superseded"))
    process.submit(intents)
    wait_until(
        lambda: sum(process.counters[name] for name in ("written", "void", "superseded")) >= before + len(intents),
        what="intents carried out",
    )
    answer(process)
    return process.status


def answer(process: RegistryClient) -> RegistryHint:
    """Ask who is controller; everything submitted before has been tried by then."""
    process.submit([AskController()])
    hints: list[RegistryHint] = []

    def heard() -> bool:
        process.pipe.poll(100)
        hints.extend(event for event in process.receive() if isinstance(event, RegistryHint))
        return bool(hints)

    wait_until(heard, what="the answer")
    return hints[0]


def status_where(process: RegistryClient, holds: Callable[[RegistryStatus], bool]) -> RegistryStatus:
    def looked() -> bool:
        process.pipe.poll(50)
        process.receive()
        return holds(process.status)

    wait_until(looked, what=f"another status than {process.status}")
    return process.status


# -- what is written ----------------------------------------------------------------------


def test_leadership_is_published_in_full(registry: Registry) -> None:
    votes = (Vote(1, True, ""), Vote(2, False, "promised"))
    entered_ms = unix_ms()
    with registry.changes() as following:
        settle(
            registry.process(), leadership(4, previous=2, reason=Reason.DEATH, gap_us=1_234_567, trace=trace(*votes))
        )
        assert following() == {"id": 1, "term": 4, "reason": "death"}
    record = registry.record()
    since_ms = int(record.pop("since_ms"))
    assert record == {"id": "1", "term": "4", "address": "tcp://127.0.0.1:7101", "incarnation": "1"}
    assert abs(since_ms - entered_ms) < 60_000
    assert 0 < registry.client.pttl(CONTROLLER) <= 60_000
    (entry,) = registry.elections()
    assert json.loads(entry.pop("votes")) == [
        {"voter": 1, "granted": True, "reason": ""},
        {"voter": 2, "granted": False, "reason": "promised"},
    ]
    assert json.loads(entry.pop("trace")) == {
        "heard_ms": 50.0,
        "lost_ms": 3.0,
        "elected_ms": 0.5,
        "rounds": [
            {
                "term": 4,
                "pre": False,
                "began_ms": 2.0,
                "took_ms": 1.5,
                "outcome": "won",
                "votes": [
                    {"voter": 1, "granted": True, "reason": ""},
                    {"voter": 2, "granted": False, "reason": "promised"},
                ],
            }
        ],
    }
    assert int(entry.pop("since_ms")) == since_ms, "told again, it is the same leadership since the same time"
    assert entry == {"id": "1", "term": "4", "previous": "2", "reason": "death", "gap_ms": "1234.567"}


@pytest.mark.parametrize(("gap_us", "text"), [(-1, ""), (0, "0.000"), (7, "0.007"), (1000, "1.000")])
def test_the_gap_has_three_digits_or_is_unknown(registry: Registry, gap_us: int, text: str) -> None:
    settle(registry.process(), leadership(gap_us=gap_us))
    assert registry.elections()[0]["gap_ms"] == text


def test_a_refresh_repeats_nothing_and_keeps_since(registry: Registry) -> None:
    process, held = registry.process(), leadership(3)
    settle(process, held)
    first = registry.record()
    registry.client.pexpire(CONTROLLER, 1000)
    with registry.changes() as following:
        settle(process, held)
        settle(process, WithdrawController(3, "test"))
        assert following()["id"] is None  # the refresh itself said nothing
    settle(registry.process(incarnation=1), held)
    assert len(registry.elections()) == 1
    settle(process, held)
    assert registry.record() == first
    assert registry.client.pttl(CONTROLLER) > 1000


def test_a_newer_term_overwrites_an_older_one_and_never_the_reverse(registry: Registry) -> None:
    one, two = registry.process(1), registry.process(2)
    settle(one, leadership(5))
    settle(two, leadership(6))
    assert (registry.record()["id"], registry.record()["term"]) == ("2", "6")
    status = settle(one, leadership(5))
    assert (registry.record()["id"], registry.record()["term"]) == ("2", "6")
    assert [entry["term"] for entry in registry.elections()] == ["5", "6"]
    assert status == RegistryStatus(True, 6, 2, status.problem)
    assert status.problem.startswith("superseded: Redis names node 2 for term 6")
    assert settle(one, leadership(7)) == RegistryStatus(True, 7, 1, "")


def test_a_living_controller_of_another_cluster_is_not_overwritten(registry: Registry) -> None:
    ours, theirs = registry.process(1), registry.process(2, 7)
    identity = BASE + "identity"
    assert settle(theirs, leadership(3, cluster_id=0xABC)).published_id == 2
    assert registry.client.get(identity) == "abc"
    before = registry.record()
    status = settle(ours, leadership(9, cluster_id=0x123))
    assert (registry.record(), registry.client.get(identity)) == (before, "abc")
    assert "node 2 of cluster abc" in status.problem
    assert "this node belongs to cluster 123" in status.problem
    settle(theirs, WithdrawController(3, "leave"))
    status = settle(ours, leadership(9, cluster_id=0x123))
    assert (status.published_id, registry.client.get(identity), status.problem) == (1, "123", "")
    other = registry.process(2, 8)
    assert settle(other, leadership(10, cluster_id=0x123)).published_id == 2, "a fail-over within the cluster"


@pytest.mark.parametrize(
    "junk",
    [
        lambda r: r.set(BASE + "identity", "no id"),
        lambda r: r.delete(BASE + "identity") and r.hset(BASE + "identity", "a", "b"),
    ],
)
def test_garbage_for_the_clusters_id_is_replaced(registry: Registry, junk: Callable[[Any], object]) -> None:
    settle(registry.process(2), leadership(3, cluster_id=0x123))
    junk(registry.client)
    assert settle(registry.process(1), leadership(4, cluster_id=0x123)).published_id == 1
    assert registry.client.get(BASE + "identity") == "123"


def test_where_the_history_was_deleted_the_record_is_the_floor(registry: Registry) -> None:
    settle(registry.process(2), leadership(6))
    registry.client.delete(ELECTIONS)
    status = settle(registry.process(1), leadership(5))
    assert status.problem.startswith("superseded: Redis names node 2 for term 6")
    assert (registry.record()["id"], registry.record()["term"]) == ("2", "6")


def test_after_expiry_the_last_election_is_the_floor(registry: Registry) -> None:
    settle(registry.process(2, ttl_ms=1), leadership(6))
    wait_until(lambda: not registry.client.exists(CONTROLLER))
    status = settle(registry.process(1), leadership(5))
    assert status.problem.startswith("superseded: Redis names node 2 for term 6")
    assert (status.published_term, status.published_id) == (0, 0)
    assert registry.record() == {}


@pytest.mark.parametrize(("node", "incarnation"), [(2, 1), (1, 2)])
def test_a_term_belongs_to_one_process(registry: Registry, node: int, incarnation: int) -> None:
    settle(registry.process(1, 1), leadership(5))
    status = settle(registry.process(node, incarnation), leadership(5))
    assert "another cluster of the same name" in status.problem
    assert (registry.record()["id"], registry.record()["incarnation"]) == ("1", "1")


def test_large_terms_are_compared_exactly(registry: Registry) -> None:
    process, most = registry.process(), 2**53 - 1
    settle(process, leadership(most - 1))
    settle(process, leadership(most))
    assert settle(process, leadership(most - 1)).problem.startswith("superseded")
    assert registry.record()["term"] == str(most)
    assert answer(process) == RegistryHint(1, most)


def test_the_record_expires_unless_refreshed(registry: Registry) -> None:
    with registry.changes() as following:
        settle(registry.process(ttl_ms=50), leadership())
        assert following()["id"] == 1, "it was there"
    wait_until(lambda: not registry.client.exists(CONTROLLER))
    assert registry.record() == {}


def test_a_refresh_after_a_flush_brings_all_back(registry: Registry) -> None:
    process, held = registry.process(), leadership(3)
    settle(process, held)
    first, history = registry.record(), registry.elections()
    registry.client.flushall()
    registry.client.script_flush()
    with registry.changes() as following:
        settle(process, held)
        assert following() == {"id": 1, "term": 3, "reason": "start"}
    assert (registry.record(), registry.elections()) == (first, history)


def test_leadership_whose_lease_is_over_is_not_published(registry: Registry) -> None:
    process = registry.process()
    settle(process, leadership(valid_us=0))
    assert process.counters["void"] == 1
    assert not registry.client.exists(CONTROLLER, ELECTIONS)


def test_withdrawing_takes_only_what_is_mine(registry: Registry) -> None:
    one, two = registry.process(1), registry.process(2)
    settle(two, leadership(6))
    settle(one, WithdrawController(6, "lapsed"))
    settle(registry.process(2, incarnation=2), WithdrawController(6, "lapsed"))
    settle(two, WithdrawController(5, "lapsed"))
    assert registry.record()["id"] == "2"
    with registry.changes() as following:
        assert settle(two, WithdrawController(6, "lapsed")) == RegistryStatus(True, 0, 0, "")
        assert following() == {"id": None, "term": 6, "reason": "lapsed"}
    assert not registry.client.exists(CONTROLLER)


def test_a_node_publishes_its_entry(registry: Registry) -> None:
    before = unix_ms()
    settle(registry.process(3), PublishNode("candidate", "voting", 9))
    entry = registry.entry(3)
    assert entry is not None
    assert before <= entry.pop("seen_ms") <= unix_ms()
    assert entry == {
        "address": "tcp://127.0.0.1:7103",
        "role": "candidate",
        "status": "voting",
        "term": 9,
        "incarnation": 1,
    }


def test_a_node_is_marked_offline_unless_it_came_back_in_a_newer_term(registry: Registry) -> None:
    large = 2**53 - 2  # more digits than Lua's JSON would keep
    process = registry.process(1)
    settle(registry.process(2), PublishNode("follower", "running", large))
    settle(process, MarkOffline(2, large - 1), MarkOffline(3, large))
    assert registry.entry(2) == {**(registry.entry(2) or {}), "status": "running"}
    before = registry.entry(2) or {}
    settle(process, MarkOffline(2, large))
    assert registry.entry(2) == {**before, "status": "offline"}
    assert registry.entry(3) is None


# -- who is controller --------------------------------------------------------------------


def test_the_hint_names_the_controller_or_the_last_term(registry: Registry) -> None:
    process = registry.process(2)
    assert answer(process) == RegistryHint(0, 0)
    settle(registry.process(1), leadership(4))
    assert answer(process) == RegistryHint(1, 4)
    registry.client.delete(CONTROLLER)
    assert answer(process) == RegistryHint(0, 4)
    registry.client.hset(CONTROLLER, mapping={"id": 1, "term": 3, "incarnation": 1, "since_ms": 1, "address": ""})
    assert answer(process) == RegistryHint(0, 4)


GOOD = {"id": "2", "term": "8", "incarnation": "1", "since_ms": "1", "address": "tcp://h:1"}
GARBAGE: list[tuple[str, Callable[[Any], object]]] = [
    (CONTROLLER, lambda r: r.set(CONTROLLER, "x")),
    (CONTROLLER, lambda r: r.sadd(CONTROLLER, "x")),
    (CONTROLLER, lambda r: r.rpush(CONTROLLER, "x")),
    (CONTROLLER, lambda r: r.hset(CONTROLLER, "id", "1")),
    *(
        (CONTROLLER, lambda r, bad=bad: r.hset(CONTROLLER, mapping={**GOOD, **bad}))
        for bad in (
            {"id": "0"},
            {"id": "65536"},
            {"id": "nan"},
            {"term": "0"},
            {"term": "9007199254740992"},
            {"term": "1e3"},
            {"term": "0x10"},
            {"term": "-1"},
            {"term": "99999999999999999999999"},
            {"incarnation": ""},
            {"since_ms": "soon"},
            {"address": "x" * 300},
        )
    ),
    (NODES, lambda r: r.set(NODES, "x")),
    (ELECTIONS, lambda r: r.hset(ELECTIONS, "x", "y")),
    (ELECTIONS, lambda r: r.xadd(ELECTIONS, {"id": "one", "term": "two"})),
    (ELECTIONS, lambda r: r.xadd(ELECTIONS, {"junk": "x"})),
]


@pytest.mark.parametrize(("key", "damage"), GARBAGE)
def test_garbage_counts_as_absent_and_is_reported(
    registry: Registry, key: str, damage: Callable[[Any], object]
) -> None:
    process = registry.process()
    damage(registry.client)
    assert answer(process) == RegistryHint(0, 0)
    status = status_where(process, lambda status: "garbage in Redis: " in status.problem)
    assert status.up
    assert key.rpartition(":")[2] in status.problem
    assert process.counters["garbage"] >= 1

    settle(process, leadership(5), RUNNING)
    assert {**registry.record(), "since_ms": ""} == {
        "id": "1", "term": "5", "address": "tcp://127.0.0.1:7101", "since_ms": "", "incarnation": "1"
    }  # fmt: skip
    assert registry.client.ttl(CONTROLLER) > 0
    status = settle(process, leadership(5), RUNNING)
    assert (status.up, status.published_term) == (True, 5)
    wrong_type = registry.client.type(NODES) == "string" or registry.client.type(ELECTIONS) == "hash"
    assert bool(status.problem) == wrong_type
    settle(process, Depart(last=True))
    assert not registry.client.exists(CONTROLLER)


@pytest.mark.parametrize(
    "junk", ["", "{", "[1]", "7", '{"status": 3, "term": 1}', '{"status": "up", "term": 1.5}', "[" * 5000]
)
def test_a_garbage_entry_is_left_alone_and_does_not_count_as_living(registry: Registry, junk: str) -> None:
    process = registry.process(1)
    settle(process, leadership(5), RUNNING)
    registry.client.hset(NODES, "2", junk)
    status = settle(process, MarkOffline(2, 5))
    assert bool(junk) == ("entry of node 2" in status.problem)
    assert registry.client.hget(NODES, "2") == junk
    if '"up"' not in junk:
        settle(process, Depart(last=False))
        assert not registry.client.exists(CONTROLLER, NODES)


# -- leaving ------------------------------------------------------------------------------


def test_the_last_to_depart_removes_controller_and_nodes(registry: Registry) -> None:
    one, two = registry.process(1), registry.process(2)
    settle(one, leadership(5), RUNNING)
    settle(two, RUNNING)
    with registry.changes() as following:
        settle(one, Depart(last=False))
        assert following() == {"id": None, "term": 5, "reason": "leave"}
    assert registry.entry(1) is None
    assert registry.entry(2) is not None
    settle(two, Depart(last=False))  # nobody else is left, whatever it knows
    assert not registry.client.exists(CONTROLLER, NODES)
    assert registry.client.exists(ELECTIONS)


def test_a_follower_that_departs_leaves_a_living_controller(registry: Registry) -> None:
    one, two = registry.process(1), registry.process(2)
    settle(one, leadership(5), RUNNING)
    settle(two, RUNNING)
    settle(two, Depart(last=True))
    assert registry.record()["id"] == "1"


def test_the_record_of_an_offline_controller_goes_with_the_last(registry: Registry) -> None:
    one, two = registry.process(1), registry.process(2)
    settle(one, leadership(5), RUNNING)
    settle(two, RUNNING, MarkOffline(1, 5))
    settle(two, Depart(last=False))
    assert not registry.client.exists(CONTROLLER, NODES)


def test_a_departed_node_publishes_no_more(registry: Registry) -> None:
    process = registry.process()
    settle(process, RUNNING)
    settle(process, Depart(last=True))
    process.submit([RUNNING, leadership(5), MarkOffline(2, 5)])
    answer(process)
    assert not registry.client.exists(CONTROLLER, NODES)


def test_a_connection_begins_without_a_greeting(registry: Registry) -> None:
    """Each would cost a round trip, of which a vote of the witness has few."""
    registry.client.config_resetstat()
    settle(registry.process(), RUNNING)
    assert {"cmdstat_client|setinfo", "cmdstat_hello"}.isdisjoint(registry.client.info("commandstats"))


# -- when Redis fails --------------------------------------------------------------------


def test_a_frozen_server_blocks_nobody_is_reported_and_heals(own_registry: Registry) -> None:
    process = own_registry.process(timeout_ms=200)
    settle(process, RUNNING)
    own_registry.server.freeze()
    held = leadership(5)
    for _ in range(2000):
        process.submit([held, RUNNING, MarkOffline(2, 5)])
    assert answer(process) == RegistryHint(0, 0)
    status = status_where(process, lambda status: not status.up)
    assert status.problem.startswith("timeout")
    own_registry.server.thaw()
    assert status_where(process, lambda status: status.up).published_term == 5
    assert own_registry.record()["term"] == "5"
    assert process.counters["coalesced"] > 5000
    assert len(own_registry.elections()) == 1


def test_a_killed_server_is_reported_and_heals_after_a_restart(own_registry: Registry) -> None:
    process = own_registry.process()
    settle(process, leadership(5), RUNNING)
    own_registry.server.kill()
    process.submit([leadership(5)])
    status = status_where(process, lambda status: not status.up)
    assert (status.published_term, status.published_id) == (5, 1)
    assert status_where(process, lambda status: "connection refused" in status.problem)
    assert answer(process) == RegistryHint(0, 0)
    own_registry.server.start()
    own_registry.server.wait_ready(30)
    status_where(process, lambda status: status.up)
    wait_until(lambda: own_registry.record().get("term") == "5")


def test_leadership_that_ends_while_redis_hangs_is_never_published(own_registry: Registry) -> None:
    process = own_registry.process(timeout_ms=100)
    own_registry.server.kill()
    process.submit([RUNNING])
    status_where(process, lambda status: "refused" in status.problem)
    process.submit([leadership(5, valid_us=1000)])
    own_registry.server.start()
    own_registry.server.wait_ready(30)
    wait_until(lambda: process.counters["void"])
    assert own_registry.record() == {}


def test_what_is_overtaken_is_not_written(own_registry: Registry) -> None:
    process = own_registry.process(timeout_ms=200)
    settle(process, leadership(3))
    own_registry.server.kill()
    process.submit([RUNNING])
    status_where(process, lambda status: not status.up)
    process.submit([leadership(5), WithdrawController(5, "lapsed")])  # leadership 5 must not appear after its end
    process.submit([leadership(6), leadership(7)])
    process.submit([PublishNode("candidate", "voting", 6), PublishNode("controller", "running", 7)])
    process.submit([leadership(4)])
    own_registry.server.start()
    own_registry.server.wait_ready(30)
    status_where(process, lambda status: status.up and status.published_term == 7)
    wait_until(lambda: own_registry.entry(1))
    assert [entry["term"] for entry in own_registry.elections()] == ["7"]
    assert (own_registry.entry(1) or {})["role"] == "controller"
    assert process.counters["coalesced"] == 5


def test_a_withdrawal_ends_what_is_pending_of_its_term(own_registry: Registry) -> None:
    process = own_registry.process()
    own_registry.server.kill()
    process.submit([leadership(5)])
    status_where(process, lambda status: "refused" in status.problem)
    process.submit([WithdrawController(5, "lapsed")])
    own_registry.server.start()
    own_registry.server.wait_ready(30)
    status_where(process, lambda status: status.up)
    answer(process)
    assert not own_registry.client.exists(CONTROLLER, ELECTIONS)


def test_what_failed_is_kept_only_while_nothing_newer_has_come() -> None:
    counters = {"coalesced": 0}
    old, new = Job(leadership(5), 1), Job(leadership(6), 2)
    for newer, kept in (
        ([], [old]),
        ([new], [new]),
        ([Job(WithdrawController(5, ""), 0)], [Job(WithdrawController(5, ""), 0)]),
        ([Job(WithdrawController(4, ""), 0)], [Job(WithdrawController(4, ""), 0), old]),
        ([Job(Depart(True), 0)], [Job(Depart(True), 0)]),
    ):
        outbox = Outbox(counters)
        outbox.put(old)
        assert outbox.pop() is old
        for job in newer:
            outbox.put(job)
        outbox.put_back(old)
        assert list(iter(outbox.pop, None)) == kept


def test_closing_with_a_hung_server_is_bounded(own_registry: Registry) -> None:
    process = own_registry.process(timeout_ms=30_000)
    settle(process, RUNNING)
    own_registry.server.freeze()
    process.submit([Depart(last=True)])
    closer = threading.Thread(target=process.close, args=(0.2,), daemon=True)
    closer.start()
    closer.join(20)  # far below the timeout of the exchange that hangs
    assert not closer.is_alive()


def test_a_departure_just_before_the_close_is_carried_out(own_registry: Registry) -> None:
    process = own_registry.process()
    settle(process, leadership(5), RUNNING)
    process.submit([WithdrawController(5, "leaving"), Depart(last=True)])
    process.close(20)
    assert not own_registry.client.exists(CONTROLLER, NODES)
    process.close()
    process.submit([RUNNING])
    assert not own_registry.client.exists(NODES)


def test_a_close_waits_for_a_redis_that_comes_back_in_time(own_registry: Registry) -> None:
    process = own_registry.process(timeout_ms=200)
    settle(process, leadership(5), RUNNING)
    own_registry.server.freeze()
    process.submit([WithdrawController(5, "leaving"), Depart(last=True)])
    status_where(process, lambda status: not status.up)
    closer = threading.Thread(target=process.close, args=(20,))
    closer.start()
    own_registry.server.thaw()
    closer.join(30)
    assert not own_registry.client.exists(CONTROLLER, NODES)


@pytest.mark.parametrize(
    ("serve", "problem"), [(says_http, "garbage"), (says_seven, "garbage"), (drips, "timeout: .* hung")]
)
def test_what_is_no_redis_gets_the_hint_nothing(
    registry: Registry, serve: Callable[[socket.socket], None], problem: str
) -> None:
    with listening(serve) as url:
        process = registry.process(url=url, timeout_ms=200)
        assert answer(process) == RegistryHint(0, 0)
        assert re.match(problem, status_where(process, lambda status: bool(re.match(problem, status.problem))).problem)
        process.close(0.1)


def test_no_redis_configured(registry: Registry) -> None:
    process = registry.process(url="")
    assert process.pipe.poll(10_000)
    assert process.receive() == [RegistryStatus(False, 0, 0, "not configured")]
    process.submit([leadership(5), AskController()])
    assert process.pipe.poll(10_000)
    assert process.receive() == [RegistryHint(0, 0)]
    assert process.receive() == []
    process.close()


def test_a_url_that_cannot_be_used_is_reported_without_its_password(registry: Registry) -> None:
    for url in ("redis://:sec/ret@host:1/0", "http://:secret@host", "redis://:secret@127.0.0.1:1/0?nonsense=secret"):
        process = registry.process(url=url, timeout_ms=100)
        status = status_where(process, lambda status: status.problem != "not asked yet")
        assert "redis.url" in status.problem
        assert "sec" not in status.problem
        assert "ret@" not in status.problem
        assert answer(process) == RegistryHint(0, 0)


def test_the_url_cannot_change_time_outs_and_retries(own_registry: Registry) -> None:
    url = own_registry.server.url + "?socket_timeout=600&retry_on_timeout=true&health_check_interval=1&timeout=600"
    process = own_registry.process(url=url, timeout_ms=100)
    settle(process, RUNNING)
    own_registry.server.freeze()
    process.submit([RUNNING])
    assert "within 100 ms" in status_where(process, lambda status: "within" in status.problem).problem


def _refused(registry: Registry, **changes: Any) -> RegistryStatus:
    process = registry.process(**changes)
    process.submit([leadership(5), RUNNING])
    return status_where(process, lambda status: not status.up and status.problem != "not asked yet")


def test_each_refusal_has_its_fix_and_no_password(own_registry: Registry) -> None:
    client, server = own_registry.client, own_registry.server
    host = server.url.removeprefix("redis://")
    problem = _refused(own_registry, url=f"redis://:s3cret@{host}").problem
    assert problem.startswith("WRONGPASS: wrong password")
    assert "s3cret" not in problem

    client.acl_setuser("some", enabled=True, passwords=["+p"], keys=["*"], commands=["+@all", "-hset"])
    problem = _refused(own_registry, url=f"redis://some:p@{host}").problem
    assert problem.startswith("NOPERM: the user lacks permissions")
    client.acl_setuser("none", enabled=True, passwords=["+p"])
    assert _refused(own_registry, url=f"redis://none:p@{host}").problem.startswith("NOPERM")

    client.replicaof("127.0.0.1", str(free_port()))
    assert _refused(own_registry).problem.startswith("READONLY: the server is a read-only replica")
    client.replicaof("NO", "ONE")

    client.config_set("maxmemory", "1")
    process = own_registry.process(2)
    process.submit([leadership(5), RUNNING])
    problem = status_where(process, lambda status: not status.up and status.problem != "not asked yet").problem
    assert problem.startswith("OOM: the server's memory is full")
    client.config_set("maxmemory", "0")
    status_where(process, lambda status: status.up)
    wait_until(lambda: own_registry.entry(2))

    client.config_set("min-replicas-to-write", "1")
    assert _refused(own_registry).problem.startswith("NOREPLICAS")
    client.config_set("min-replicas-to-write", "0")

    client.config_set("requirepass", "s3cret")
    problem = _refused(own_registry).problem
    assert problem.startswith("NOAUTH: a password is needed")


def test_a_server_that_cannot_save_is_named(own_registry: Registry) -> None:
    client, directory = own_registry.client, own_registry.server.directory
    (directory / "dump.rdb").mkdir()  # so that the rename to it fails
    client.config_set("save", "3600 1")
    client.set("x", "y")
    client.bgsave()
    wait_until(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err")
    assert _refused(own_registry).problem.startswith("MISCONF: the server refuses writes")
    client.config_set("save", "")  # else it would refuse to end, too


def test_a_cluster_node_without_the_keys_is_named(context: zmq.Context[zmq.Socket[bytes]], tmp_path: Path) -> None:
    with running_server(tmp_path, "--cluster-enabled", "yes") as server:
        for registry in _registry(context, server):
            assert _refused(registry).problem.startswith("CLUSTERDOWN")
            registry.client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
            process = registry.process()
            wait_until(lambda: settle(process, leadership(5)).up)  # noqa: B023
            assert registry.record()["term"] == "5"  # all keys of a script are in one slot


def test_a_demoted_primary_is_left_for_the_new_one(own_registry: Registry) -> None:
    process = own_registry.process()
    settle(process, RUNNING)
    own_registry.client.replicaof("127.0.0.1", str(free_port()))
    clients = {client["id"] for client in own_registry.client.client_list()}
    process.submit([RUNNING])
    status_where(process, lambda status: "READONLY" in status.problem)
    wait_until(
        lambda: {client["id"] for client in own_registry.client.client_list()} - clients, what="a new connection"
    )
    own_registry.client.replicaof("NO", "ONE")
    assert status_where(process, lambda status: status.up).problem == ""


@pytest.mark.parametrize(
    ("url", "safe"),
    [
        ("redis://127.0.0.1:6379/0", "redis://127.0.0.1:6379/0"),
        ("redis://:secret@host:1/2", "redis://***@host:1/2"),
        ("rediss://user:sec@ret@host/0", "rediss://***@host/0"),
        ("redis://:sec/ret#x?y@host/0", "redis://***@host/0"),
        ("unix:///run/redis.sock?db=1&password=secret", "unix:///run/redis.sock?db=1&password=***"),
        ("", ""),
    ],
)
def test_a_safe_url_has_no_secrets(url: str, safe: str) -> None:
    assert safe_url(url) == safe


def test_the_main_thread_does_not_import_redis() -> None:
    code = "import sys, zelect.redis.registry; print('redis' in sys.modules, 'asyncio' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.split()[0] == "False", done.stderr


AT = {node: f"tcp://127.0.0.1:{7100 + node}" for node in (1, 2)}


def an_entry(node: int, seen_ms: int, **more: Any) -> str:
    return json.dumps(
        {"address": AT[node], "incarnation": 1, "status": "running", "term": 1, "seen_ms": seen_ms} | more
    )


def alone(registry: Registry, cluster_id: int) -> RegistryClient:
    """Node 1, which knows of no other node."""
    one = registry.process(1, members={1: AT[1]})
    one.know({1: AT[1]}, cluster_id)
    return one


def looked(process: RegistryClient, word: str) -> str:
    """What is wrong in Redis, by the first status that has `word`."""
    process.submit([RUNNING])
    wait_until(lambda: process.status.up and word in process.status.problem, what=f"{word!r} in the status")
    return process.status.problem


def test_who_is_of_the_same_cluster_is_no_other_one_where_the_own_list_lags_behind(registry: Registry) -> None:
    """Node 1 has not heard yet that node 2 was added, and is controller."""
    two = registry.process(2)
    two.know(AT, 0xC7)
    settle(two, RUNNING)
    settle(two, leadership(5, cluster_id=0xC7))
    entry = registry.entry(2)
    assert entry is not None
    assert entry["cluster_id"] == "c7"
    assert looked(alone(registry, 0xC7), "") == ""


@pytest.mark.parametrize("more", [{}, {"cluster_id": "c8"}])
def test_the_entry_of_a_node_that_lives_is_not_to_be_removed(registry: Registry, more: dict[str, str]) -> None:
    registry.client.hset(NODES, "2", an_entry(2, unix_ms(), **more))
    problem = looked(alone(registry, 0xC7), "another cluster named demo")
    assert "there is a node 2 at tcp://127.0.0.1:7102, which is not a member of this one" in problem
    assert "HDEL" not in problem


def test_what_is_left_of_a_node_may_be_removed(registry: Registry) -> None:
    registry.client.hset(NODES, "2", an_entry(2, unix_ms() - 180_000))
    looked(alone(registry, 0xC7), f"remove what is left of it: HDEL {NODES} 2")


def test_a_new_node_that_does_not_list_the_members_is_told_of_their_cluster(registry: Registry) -> None:
    registry.client.hset(NODES, "2", an_entry(2, unix_ms(), cluster_id="c7"))
    problem = looked(alone(registry, 0), "there is a cluster named demo in this Redis already: there is a node 2")
    assert "list its members to join it" in problem
    assert "HDEL" not in problem


def test_what_was_wrong_is_looked_at_again_when_a_member_was_added(registry: Registry) -> None:
    registry.client.hset(NODES, "2", an_entry(2, unix_ms()))
    one = alone(registry, 0xC7)
    looked(one, "another cluster")
    one.know(AT, 0xC7)
    one.submit([RUNNING])
    wait_until(lambda: one.status.problem == "", 5.0, what="it looks again before its ten seconds are over")
