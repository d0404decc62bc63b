"""The witness in Redis (R12), against a real server."""

from __future__ import annotations

import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import redis
import zmq

from tests.support.no_redis import drips, listening, says_http, says_nonsense, says_seven
from tests.support.ports import free_port
from tests.support.records import made_record
from tests.support.redis_server import running_server
from tests.support.waiting import wait_until
from tools.common.founded import CLUSTER_ID
from zelect.core.effects import WitnessCreate, WitnessIntent, WitnessLook, WitnessPing, WitnessVote
from zelect.core.events import NamedProcess, WitnessAnswered, WitnessCreated, WitnessSeen, WitnessVoted
from zelect.core.messages import Refusal
from zelect.core.quorum import Record, RecordId, Witness
from zelect.core.timing import LIVES_PERCENT
from zelect.devcluster.bundled_server import RedisServer
from zelect.redis.witness import WitnessClient, WitnessEvent
from zelect.redis.witness_record import RecordTexts
from zelect.redis.worker import RedisSettings

MEMORY = "zelect:{demo}:witness"
TERM, RECORD = 5, (0, 5, 3)
CREATOR = (9, 90)
"""Node and incarnation of the controller that creates the memory in TERM, with RECORD."""
MOST = 2**53 - 1
PROMISE_MS = 700
TEXTS = RecordTexts("demo")


def of(record_id: RecordId, cluster_id: int = CLUSTER_ID) -> Record:
    """A voter record with these numbers."""
    return made_record(record_id[1], record_id[2], (1, 2), generation=record_id[0], cluster_id=cluster_id)


def named(*processes: tuple[int, int, int]) -> tuple[NamedProcess, ...]:
    """What the witness says of (node, incarnation, term)s."""
    return tuple(NamedProcess(*process, PROMISE_MS) for process in processes)


class Asking:
    """A server, a client of it that looks, and nodes that ask it to be their witness."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], server: RedisServer) -> None:
        self.context, self.server = context, server
        self.redis: Any = redis.Redis.from_url(server.url, decode_responses=True)
        self.clients: dict[tuple[int, int], WitnessClient] = {}
        self.others: list[WitnessClient] = []
        self.promise_ms = PROMISE_MS

    def client(self, **changes: Any) -> WitnessClient:
        settings: dict[str, Any] = {"url": self.server.url, "timeout_ms": 10_000, "cluster": "demo"}
        settings |= {"ttl_ms": 3000, "address": "tcp://127.0.0.1:7101", "node": 1, "incarnation": 10}
        settings |= {"promise_ms": self.promise_ms}
        client = WitnessClient(self.context, RedisSettings(**(settings | changes)))
        self.others.append(client)
        client.start()
        return client

    def of(self, process: tuple[int, int]) -> WitnessClient:
        if process not in self.clients:
            self.clients[process] = self.client(node=process[0], incarnation=process[1])
        return self.clients[process]

    def create(self, key: str = "k", term: int = TERM, record_id: RecordId = RECORD) -> Witness:
        event = ask(self.of(CREATOR), WitnessCreate(key, term, of(record_id)))
        assert isinstance(event, WitnessCreated)
        return event.identity

    def refused(
        self, key: str = "k", term: int = TERM, record_id: RecordId = RECORD, cluster_id: int = CLUSTER_ID
    ) -> bool:
        """Whether a creation is refused; refusals have no event."""
        client = self.of(CREATOR)
        before = client.counters["refused"]
        client.submit([WitnessCreate(key, term, of(record_id, cluster_id)), WitnessLook(None)])
        wait_until(lambda: client.pipe.poll(100) and any(isinstance(e, WitnessSeen) for e in client.receive()))
        return client.counters["refused"] > before

    def vote(
        self, identity: Witness, term: int, process: tuple[int, int] = (1, 10), record_id: RecordId = RECORD,
        pre: bool = False,
    ) -> WitnessVoted:  # fmt: skip
        event = ask(self.of(process), WitnessVote(identity, pre, 1, term, of(record_id)))
        assert isinstance(event, WitnessVoted)
        assert (event.pre, event.round) == (pre, 1)
        return event

    def ping(
        self, identity: Witness, term: int, process: tuple[int, int] = (1, 10), record_id: RecordId = RECORD
    ) -> WitnessAnswered:
        event = ask(self.of(process), WitnessPing(identity, term, 7, of(record_id)))
        assert isinstance(event, WitnessAnswered)
        assert (event.number, event.of_term, event.record_id) == (7, term, record_id)
        return event

    def look(self, identity: Witness | None, process: tuple[int, int] = (1, 10)) -> tuple[bool, bool]:
        event = ask(self.of(process), WitnessLook(identity))
        assert isinstance(event, WitnessSeen)
        assert event.identity == identity
        if event.ready or event.record is not None:  # an answer that did not come brings none
            assert event.record == self.kept()
        return event.ready, event.same

    def kept(self) -> Record | None:
        """The voter record in Redis, which every look brings, whatever the identity."""
        try:
            text = self.redis.hget(MEMORY, "record") if self.redis.type(MEMORY) == "hash" else None
        except redis.exceptions.ClusterDownError:
            return None
        return TEXTS.read(text) if text else None

    def memory(self) -> dict[str, str]:
        """What every acknowledgement leaves as it was: all but its time."""
        memory = dict(self.redis.hgetall(MEMORY))
        memory.pop("acked_us", None)
        return memory

    def acked_us(self) -> int:
        return int(self.redis.hget(MEMORY, "acked_us"))

    def is_unrecognized(self, identity: Witness) -> None:
        """Nothing is given in the name of `identity`, and nothing changed."""
        before = self.redis.dump(MEMORY) if self.redis.info("replication")["role"] == "master" else None
        kept = self.kept()
        unrecognized = WitnessVoted(True, 1, Refusal.UNRECOGNIZED, 0, record=kept)
        assert self.vote(identity, TERM + 1, pre=True) == unrecognized
        assert self.vote(identity, TERM + 1) == replace(unrecognized, pre=False)
        assert self.vote(identity, TERM, CREATOR) == replace(unrecognized, pre=False)
        acked = self.ping(identity, TERM, CREATOR)
        assert (acked.reason, acked.record) == (Refusal.UNRECOGNIZED, kept)
        assert self.ping(identity, TERM + 1).reason is Refusal.UNRECOGNIZED
        assert not self.look(identity)[1]
        assert before is None or self.redis.dump(MEMORY) == before

    def restart(self, kill: bool = False) -> None:
        if kill:
            self.server.kill()
        else:
            self.server.stop()
        self.server.start()
        self.server.wait_ready(30)
        for process in self.clients:  # a connection of before is noticed with the first question
            wait_until(lambda: self.look(None, process)[0])  # noqa: B023


def ask(client: WitnessClient, intent: WitnessIntent) -> WitnessEvent:
    client.submit([intent])
    return following(client)


def following(client: WitnessClient) -> WitnessEvent:
    events: list[WitnessEvent] = []

    def heard() -> bool:
        client.pipe.poll(100)
        events.extend(client.receive())
        return bool(events)

    wait_until(heard, what="an answer of the witness")
    assert len(events) == 1
    return events[0]


@contextmanager
def asking_at(context: zmq.Context[zmq.Socket[bytes]], server: RedisServer) -> Iterator[Asking]:
    asking = Asking(context, server)
    try:
        yield asking
    finally:
        for client in asking.others:
            client.close(0.1)
        asking.redis.close()


@pytest.fixture
def asking(context: zmq.Context[zmq.Socket[bytes]], shared_server: RedisServer) -> Iterator[Asking]:
    """At a server that no test damages."""
    with asking_at(context, shared_server) as asking:
        yield asking


@pytest.fixture
def own(context: zmq.Context[zmq.Socket[bytes]], tmp_path: Path) -> Iterator[Asking]:
    """At a server of the test's own, to be damaged."""
    with running_server(tmp_path) as server, asking_at(context, server) as asking:
        yield asking


# -- creation -----------------------------------------------------------------------------


def test_a_new_memory_holds_its_creators_term_and_vote(asking: Asking) -> None:
    identity = asking.create("k-1")
    info = asking.redis.info()
    assert identity == Witness("k-1", info["run_id"], info["master_replid"])
    memory = asking.memory()
    assert int(memory.pop("created_us")) > 0
    assert memory == {
        "key": "k-1", "run_id": identity.run_id, "replid": identity.replid, "term": "5",
        "voted_for": "9", "voted_incarnation": "90", "acked": "9", "acked_incarnation": "90", "acked_term": "5",
        "generation": "0", "config_term": "5", "version": "3", "created_term": "5", "cluster_id": str(CLUSTER_ID),
        "record": TEXTS.write(of(RECORD)), "names": "9 90 5 700", "many": "0",
    }  # fmt: skip
    assert asking.redis.ttl(MEMORY) == -1
    assert asking.vote(identity, TERM) == WitnessVoted(False, 1, Refusal.VOTED, 5, named((9, 90, 5)))


def test_a_repeated_reset_takes_nothing_back(asking: Asking) -> None:
    identity = asking.create()
    assert asking.vote(identity, TERM + 1).reason is None
    assert asking.ping(identity, TERM + 1).reason is None
    before = asking.memory()
    assert asking.create() == identity
    assert asking.memory() == before


@pytest.mark.parametrize(
    ("term", "record_id", "refused"),
    [
        (TERM, RECORD, False),  # the same controller again: its first memory was of no use
        (TERM + 1, (0, 6, 4), False),
        (TERM - 1, RECORD, True),
        (TERM - 1, (0, 9, 9), True),
        (TERM - 1, (1, 0, 1), False),  # another generation, forced by nodes that had seen less
    ],
)
def test_a_reset_replaces_what_no_newer_controller_uses(
    asking: Asking, term: int, record_id: RecordId, refused: bool
) -> None:
    identity = asking.create("old")
    before = asking.memory()
    assert asking.refused("new", term, record_id) is refused
    assert (asking.memory() == before) is refused
    assert asking.look(identity) == (True, refused)
    problem = asking.of(CREATOR).problem
    assert ("term 5 is in use" in problem) is refused


def test_a_generation_is_not_replaced_by_an_older_one(asking: Asking) -> None:
    asking.create("new", TERM, (1, 5, 3))
    assert asking.refused("old", TERM + 5, (0, 10, 9))


@pytest.mark.parametrize("generation", [0, 1, 2])
def test_the_generation_of_another_cluster_says_nothing(asking: Asking, generation: int) -> None:
    """All nodes lost their data and founded a cluster again, which was never reset; or two clusters share a name."""
    asking.create("lost", TERM, (1, 5, 3))
    assert asking.refused("older", TERM - 1, (generation, 4, 1), cluster_id=CLUSTER_ID + 1)
    assert not asking.refused("again", TERM + 1, (generation, 6, 1), cluster_id=CLUSTER_ID + 1)
    assert asking.refused("older", TERM, (generation + 1, 6, 2), cluster_id=CLUSTER_ID)


def test_what_a_refused_reset_met_is_forgotten_once_another_succeeds(asking: Asking) -> None:
    asking.create("old")
    assert asking.refused("new", TERM - 1)
    asking.create("newer", TERM + 1)
    assert asking.of(CREATOR).problem == ""


@pytest.mark.parametrize(
    "damage",
    [
        lambda r: r.set(MEMORY, "x"),
        lambda r: r.rpush(MEMORY, "x"),
        lambda r: r.hset(MEMORY, "term", "many"),
        lambda r: r.hset(MEMORY, mapping={"key": "other", "term": "9000"}),
    ],
)
def test_garbage_makes_room_for_a_new_memory(asking: Asking, damage: Callable[[Any], object]) -> None:
    damage(asking.redis)
    asking.redis.expire(MEMORY, 1000)
    identity = asking.create()
    assert asking.redis.ttl(MEMORY) == -1
    assert asking.look(identity) == (True, True)


def test_a_memory_that_was_damaged_is_not_created_again_under_its_key(asking: Asking) -> None:
    identity = asking.create()
    assert asking.vote(identity, TERM + 1).reason is None
    asking.redis.hset(MEMORY, "voted_for", "0")
    assert asking.refused("k")
    asking.is_unrecognized(identity)
    asking.create("another")


# -- votes --------------------------------------------------------------------------------

VOTES: list[tuple[int, RecordId, Refusal | None, Refusal | None]] = [
    # term, record, what a vote is refused for, what a pre-vote is refused for
    (TERM - 1, RECORD, Refusal.OLD_TERM, Refusal.OLD_TERM),
    (TERM, RECORD, Refusal.VOTED, Refusal.OLD_TERM),
    (TERM + 1, RECORD, None, None),
    (TERM + 1000, RECORD, None, None),
    (MOST, RECORD, None, None),
    (TERM + 1, (0, 5, 4), None, None),
    (TERM + 1, (0, 6, 1), None, None),
    (TERM + 1, (1, 0, 0), None, None),
    (TERM + 1, (0, 5, 2), Refusal.STALE_VOTERS, Refusal.STALE_VOTERS),
    (TERM + 1, (0, 4, 100), Refusal.STALE_VOTERS, Refusal.STALE_VOTERS),
    (TERM - 1, (0, 4, 100), Refusal.OLD_TERM, Refusal.OLD_TERM),
]


def saved_of(record_id: RecordId) -> dict[str, str]:
    """What is kept of a record: its numbers, and the whole of it."""
    numbers = dict(zip(("generation", "config_term", "version"), map(str, record_id), strict=True))
    return {**numbers, "record": TEXTS.write(of(record_id))}


@pytest.mark.parametrize(("term", "record_id", "reason", "pre_reason"), VOTES)
def test_a_vote_is_judged_like_a_nodes(
    asking: Asking, term: int, record_id: RecordId, reason: Refusal | None, pre_reason: Refusal | None
) -> None:
    identity = asking.create()
    before = asking.memory()
    acked = named((*CREATOR, TERM))
    kept = of(RECORD) if reason is Refusal.STALE_VOTERS else None
    answer = asking.vote(identity, term, (1, 10), record_id, pre=True)
    assert answer == WitnessVoted(True, 1, pre_reason, TERM, acked, record=kept)
    assert asking.memory() == before
    for _ in range(2):  # and again: the answer got lost
        answer = asking.vote(identity, term, (1, 10), record_id)
        assert answer == WitnessVoted(False, 1, reason, TERM if reason else term, acked, record=kept)
        granted = {"term": str(term), "voted_for": "1", "voted_incarnation": "10", **saved_of(record_id)}
        granted["names"] = f"9 90 5 700,1 10 {term} 700"
        assert asking.memory() == before | ({} if reason else granted)


def test_one_vote_a_term_to_one_process(asking: Asking) -> None:
    identity = asking.create()
    assert asking.vote(identity, 6, (1, 10)).reason is None
    assert asking.vote(identity, 6, (2, 20)).reason is Refusal.VOTED
    assert asking.vote(identity, 6, (1, 11)).reason is Refusal.VOTED
    assert asking.vote(identity, 6, (2, 20), pre=True).reason is Refusal.OLD_TERM
    assert asking.vote(identity, 7, (2, 20)).reason is None
    assert asking.vote(identity, 6, (1, 10)).reason is Refusal.OLD_TERM


def test_large_numbers_are_compared_as_numbers_and_exactly(asking: Asking) -> None:
    identity = asking.create("k", 9, (0, 9, 9))
    assert asking.vote(identity, 10, record_id=(0, 9, 10)).reason is None  # as text, "10" < "9"
    assert asking.ping(identity, 100, record_id=(0, 9, 10)).reason is None
    assert asking.vote(identity, 101, record_id=(0, 9, 9)).reason is Refusal.STALE_VOTERS
    assert asking.vote(identity, MOST - 1, record_id=(0, 10, 1)).term == MOST - 1
    assert asking.vote(identity, MOST, (2, MOST), record_id=(0, 10, 1)).term == MOST
    assert asking.memory()["term"] == str(MOST)
    assert asking.vote(identity, MOST - 1, record_id=(0, 10, 1)).reason is Refusal.OLD_TERM
    assert asking.ping(identity, MOST, (2, MOST), (0, MOST, MOST)).reason is None
    assert asking.vote(identity, MOST, (2, MOST - 1), (0, MOST, MOST)).reason is Refusal.VOTED
    assert asking.vote(identity, MOST, (2, MOST), (0, MOST, MOST - 1)).reason is Refusal.STALE_VOTERS


def test_a_vote_names_whom_the_witness_acknowledged_and_whom_it_voted_for_since(asking: Asking) -> None:
    identity, first = asking.create(), (1, 10, 6)
    assert asking.ping(identity, 6, (1, 10)).reason is None
    asking.redis.hset(MEMORY, "acked_us", 1)  # long ago
    for term, process, others in (
        (7, (2, 20), [first]),
        (8, (3, 30), [first, (2, 20, 7)]),
        (9, (2, 20), [first, (3, 30, 8)]),
        (10, (1, 10), [(2, 20, 9), (3, 30, 8)]),
    ):
        before = asking.memory()
        asked = asking.vote(identity, term, process, pre=True)
        assert asked == WitnessVoted(True, 1, None, term - 1, named(*others))
        assert asking.memory() == before
        for _ in range(2):  # and again: the answer got lost
            assert asking.vote(identity, term, process) == WitnessVoted(False, 1, None, term, named(*others))
    assert asking.ping(identity, 10, (1, 10)).reason is None
    assert asking.vote(identity, 11, (3, 30)) == WitnessVoted(False, 1, None, 11, named((1, 10, 10)))


def test_from_the_third_name_on_it_says_many_until_the_next_acknowledgement(asking: Asking) -> None:
    identity = asking.create()
    processes = [(1, 10), (2, 20), (3, 30), (1, 11)]
    for term, process in enumerate(processes, TERM + 1):
        for _ in range(2):
            assert asking.vote(identity, term, process).many is (process in processes[2:]), process
    assert asking.vote(identity, TERM + 5, (2, 20)).many
    assert asking.ping(identity, TERM + 5, (2, 20)).reason is None
    last = asking.vote(identity, TERM + 6, (3, 30))
    assert last == WitnessVoted(False, 1, None, TERM + 6, named((2, 20, TERM + 5)))


def test_a_name_comes_with_the_election_timeout_of_its_process(asking: Asking) -> None:
    identity = asking.create()
    slow = asking.client(node=2, incarnation=20, promise_ms=4000)
    assert isinstance(ask(slow, WitnessPing(identity, 6, 7, of(RECORD))), WitnessAnswered)
    (name,) = asking.vote(identity, 7).named
    assert name == NamedProcess(2, 20, 6, 4000)


# -- pings --------------------------------------------------------------------------------

PINGS: list[tuple[int, tuple[int, int], RecordId, Refusal | None]] = [
    (TERM, CREATOR, RECORD, None),
    (TERM, CREATOR, (0, 5, 4), None),
    (TERM, (1, 10), RECORD, Refusal.VOTED),  # two controllers in one term: cannot be
    (TERM, (9, 91), RECORD, Refusal.VOTED),
    (TERM + 1, (1, 10), RECORD, None),
    (TERM + 9, (1, 10), (1, 0, 0), None),
    (TERM - 1, (1, 10), RECORD, Refusal.OLD_TERM),
    (TERM - 1, (1, 10), (0, 6, 1), Refusal.OLD_TERM),
    (TERM, CREATOR, (0, 5, 2), Refusal.STALE_VOTERS),
    (TERM + 1, (1, 10), (0, 4, 9), Refusal.STALE_VOTERS),
]


@pytest.mark.parametrize(("term", "process", "record_id", "reason"), PINGS)
def test_a_ping_is_acknowledged_in_its_term_and_with_its_record(
    asking: Asking, term: int, process: tuple[int, int], record_id: RecordId, reason: Refusal | None
) -> None:
    identity = asking.create()
    before = asking.memory()
    fields = ("acked", "acked_incarnation", "acked_term")
    after = dict(zip(fields, map(str, (*process, term)), strict=True)) | saved_of(record_id)
    after["names"] = f"{process[0]} {process[1]} {term} 700"
    if term > TERM:
        after |= {"voted_for": str(process[0]), "voted_incarnation": str(process[1])}
    for _ in range(2):
        answer = asking.ping(identity, term, process, record_id)
        kept = of(RECORD) if reason is Refusal.STALE_VOTERS else None
        assert (answer.reason, answer.term, answer.record) == (reason, TERM if reason else term, kept)
        assert asking.memory() == before | ({} if reason else {"term": str(term), **after})


def test_after_a_ping_nobody_else_gets_the_vote_of_its_term(asking: Asking) -> None:
    identity = asking.create()
    assert asking.ping(identity, 6, (1, 10)).reason is None
    assert asking.vote(identity, 6, (2, 20)).reason is Refusal.VOTED


def test_a_ping_does_not_take_back_the_vote_of_its_term(asking: Asking) -> None:
    identity = asking.create()
    assert asking.vote(identity, 6, (2, 20)).reason is None
    assert asking.ping(identity, 6, (1, 10)).reason is None  # node 1 won without the witness
    assert asking.vote(identity, 6, (1, 10)).reason is Refusal.VOTED
    assert asking.vote(identity, 6, (2, 20)) == WitnessVoted(False, 1, None, 6, named((1, 10, 6)))


def test_the_pings_of_a_steady_controller_write_only_when_they_were_acknowledged(asking: Asking) -> None:
    identity = asking.create()
    memory, before = asking.memory(), asking.redis.info("persistence")["rdb_changes_since_last_save"]
    assert asking.ping(identity, TERM, CREATOR).reason is None
    assert asking.look(identity) == (True, True)
    assert asking.redis.info("persistence")["rdb_changes_since_last_save"] == before + 1
    assert asking.memory() == memory
    assert abs(asking.acked_us() - time.time_ns() // 1000) < 20_000_000


def test_nobody_may_depose_a_controller_that_was_acknowledged_a_moment_ago(asking: Asking) -> None:
    asking.promise_ms = 600_000
    identity = asking.create()
    assert asking.vote(identity, TERM + 1, pre=True).reason is None, "nothing was acknowledged yet"
    assert asking.ping(identity, TERM, CREATOR).reason is None
    told = asking.vote(identity, TERM + 1, pre=True)
    assert (told.reason, told.term) == (Refusal.PROMISED, TERM)
    assert [name.node for name in told.named] == [CREATOR[0]], "the asker judges whether it is harmless"
    assert asking.vote(identity, TERM + 1, CREATOR, pre=True).reason is None, "the controller itself may ask"
    lived_us = 600_000 * 10 * LIVES_PERCENT
    asking.redis.hset(MEMORY, "acked_us", asking.acked_us() - lived_us)
    assert asking.vote(identity, TERM + 1, pre=True).reason is None, "it was acknowledged too long ago"
    asking.redis.hset(MEMORY, "acked_us", asking.acked_us() + 2 * lived_us)
    assert asking.vote(identity, TERM + 1, pre=True).reason is None, "the server's clock was put back"
    assert asking.vote(identity, TERM + 1).reason is None, "only the question is refused, never a vote"


# -- one vote a term, by brute force ------------------------------------------------------


@dataclass
class Twin:
    """What the witness should be, said as plainly as possible."""

    term: int = TERM
    voted: dict[int, tuple[int, int]] = field(default_factory=lambda: {TERM: CREATOR})
    acked: tuple[tuple[int, int], int] = (CREATOR, TERM)
    pinged: bool = False
    record: RecordId = RECORD
    since: dict[tuple[int, int], int] = field(default_factory=dict)

    def told(self, process: tuple[int, int]) -> set[tuple[int, int, int]]:
        """Whose lease `process` must outwait: whom it acknowledged, and all whom it voted for since."""
        named = {self.acked[0]: self.acked[1], **self.since}
        return {(*other, term) for other, term in named.items() if other != process}

    def refuses(self, term: int, record_id: RecordId, least: int) -> Refusal | None:
        if term < least:
            return Refusal.OLD_TERM
        return Refusal.STALE_VOTERS if record_id < self.record else None

    def vote(self, process: tuple[int, int], term: int, record_id: RecordId, pre: bool) -> Refusal | None:
        reason = self.refuses(term, record_id, self.term + 1 if pre else self.term)
        if reason is None and self.voted.get(term, process) != process:
            reason = Refusal.VOTED
        if reason is None and pre and self.pinged and self.acked[0] != process:
            reason = Refusal.PROMISED
        if reason is None and not pre:
            if self.voted.get(term) is None or record_id > self.record:  # else it is a repetition
                self.since[process] = term
            self.term, self.record, self.voted[term] = term, record_id, process
        return reason

    def ping(self, process: tuple[int, int], term: int, record_id: RecordId) -> Refusal | None:
        reason = self.refuses(term, record_id, self.term)
        if reason is None and self.acked[1] == term and self.acked[0] != process:
            reason = Refusal.VOTED
        if reason is None:
            self.voted.setdefault(term, process)
            self.term, self.acked, self.record, self.pinged = term, (process, term), record_id, True
            self.since.clear()
        return reason


@pytest.mark.parametrize("seed", range(4))
def test_never_two_votes_in_one_term_whatever_is_asked(asking: Asking, seed: int) -> None:
    dice = random.Random(seed)
    asking.promise_ms = 600_000  # whom it acknowledged is alive to it from then on
    processes = [(1, 10), (1, 11), (2, 20), (3, 30), CREATOR]
    granted: dict[tuple[str, int], tuple[int, int]] = {}
    identity, twin = asking.create("k-0"), Twin()
    for step in range(600):
        if dice.random() < 0.01:
            term = twin.term + dice.randint(0, 1)
            identity = asking.create(f"k-{step}", term, twin.record)
            twin = Twin(term, {term: CREATOR}, (CREATOR, term), record=twin.record)
            granted[identity.key, term] = CREATOR
        process, term = dice.choice(processes), max(1, twin.term + dice.choice((-2, -1, 0, 0, 0, 1, 1, 2)))
        generation, config_term, version = twin.record
        version = max(0, version + dice.choice((-1, 0, 0, 0, 0, 1)))
        config_term = min(term, config_term + dice.choice((-1, 0, 0, 0, 0, 0, 1)))
        record_id = (generation, config_term, version)
        if dice.random() < 0.4:
            answer = asking.ping(identity, term, process, record_id)
            assert (answer.reason, answer.term) == (twin.ping(process, term, record_id), twin.term), step
            continue
        pre = dice.random() < 0.2
        voted = asking.vote(identity, term, process, record_id, pre)
        told = twin.told(process)
        reason = twin.vote(process, term, record_id, pre)
        assert (voted.reason, voted.term) == (reason, twin.term), step
        assert voted.record == (of(twin.record) if reason is Refusal.STALE_VOTERS else None), step
        if voted.many:
            assert len(told) > 2, step
        else:
            assert {(name.node, name.incarnation, name.term) for name in voted.named} == told, step
        if voted.reason is None and not pre:
            assert granted.setdefault((identity.key, term), process) == process, step


# -- who the witness is -------------------------------------------------------------------


@pytest.mark.parametrize(
    "damage",
    [
        lambda r: r.flushall(),
        lambda r: r.delete(MEMORY),
        lambda r: r.pexpire(MEMORY, 1) and wait_until(lambda: not r.exists(MEMORY)),
        lambda r: r.rename(MEMORY, "elsewhere"),
        lambda r: r.move(MEMORY, 1),
        lambda r: r.swapdb(0, 1),
        *(lambda r, name=name: r.hset(MEMORY, name, "other") for name in ("key", "run_id", "replid")),
        *(
            lambda r, name=name, value=value: r.hset(MEMORY, name, value)
            for name in ("term", "voted_for", "voted_incarnation", "acked", "acked_incarnation", "acked_term", "many")
            for value in ("", "-1", "1.5", "0x6", "1e1", " 6", "nan", "9007199254740992", "12345678901234567890")
        ),
        *(lambda r, name=name: r.hdel(MEMORY, name) for name in ("key", "run_id", "term", "acked", "version")),
        lambda r: r.hset(MEMORY, "acked_term", "6"),
        lambda r: r.hset(MEMORY, "voted_for", "65536"),
        *(
            lambda r, names=names: r.hset(MEMORY, "names", names)
            for names in (
                "",
                "9 90 5",
                "9 90 5 -1",
                "0 90 5 700",
                "9 90 5 700;1 10 6 700",
                "1 1 1 1," * 4,
            )
        ),
    ],
)
def test_a_damaged_memory_is_unrecognized(asking: Asking, damage: Callable[[Any], object]) -> None:
    identity = asking.create()
    damage(asking.redis)
    asking.is_unrecognized(identity)


@pytest.mark.parametrize("part", ["key", "run_id", "replid"])
def test_another_identity_is_unrecognized(asking: Asking, part: str) -> None:
    identity = asking.create()
    for value in ("", "x", getattr(identity, part)[:-1], getattr(identity, part) + "0"):
        asking.is_unrecognized(replace(identity, **{part: value}))
    assert asking.look(identity) == (True, True)


def test_an_old_copy_put_back_is_unrecognized_to_the_new_memory(asking: Asking) -> None:
    old = asking.create("old")
    copy = redis.Redis.from_url(asking.server.url).dump(MEMORY)
    new = asking.create("new")
    asking.redis.restore(MEMORY, 0, copy, replace=True)
    asking.is_unrecognized(new)
    assert asking.look(old) == (True, True)


def test_what_does_the_data_no_harm_is_harmless(asking: Asking) -> None:
    identity = asking.create()
    asking.redis.config_resetstat()
    asking.redis.script_flush()
    asking.redis.client_kill_filter(_type="normal", skipme=True)
    wait_until(lambda: asking.look(identity) == (True, True))
    assert asking.vote(identity, TERM + 1).reason is None


@pytest.mark.parametrize("kill", [False, True])
def test_a_restarted_server_is_unrecognized_even_with_its_data(
    context: zmq.Context[zmq.Socket[bytes]], tmp_path: Path, kill: bool
) -> None:
    durable = ("--appendonly", "yes", "--appendfsync", "always", "--save", "3600 1")
    with running_server(tmp_path, *durable) as server, asking_at(context, server) as asking:
        identity = asking.create()
        assert asking.vote(identity, TERM + 1).reason is None
        before = asking.memory()
        asking.restart(kill)
        assert asking.memory() == before
        asking.is_unrecognized(identity)
        # What the earlier run left behind is in nobody's use, so it hinders nobody.
        assert not asking.refused("new", TERM - 1)


def test_a_server_restarted_from_an_old_dump_is_unrecognized(own: Asking) -> None:
    identity = own.create()
    own.redis.save()
    assert own.vote(identity, TERM + 1).reason is None
    own.restart(kill=True)
    assert own.memory()["term"] == str(TERM)
    own.is_unrecognized(identity)
    copy = redis.Redis.from_url(own.server.url).dump(MEMORY)
    assert own.refused("k")  # no key is used twice
    again = own.create("k-2")
    own.redis.restore(MEMORY, 0, copy, replace=True)
    own.is_unrecognized(again)
    own.is_unrecognized(identity)


def test_a_failover_and_back_makes_unrecognized(
    own: Asking, context: zmq.Context[zmq.Socket[bytes]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    before = own.create()
    with running_server(tmp_path_factory.mktemp("other")) as server, asking_at(context, server) as other:
        for one in (own, other):
            one.redis.config_set("repl-diskless-sync-delay", "0")
        other.redis.replicaof("127.0.0.1", str(own.server.port))
        wait_until(lambda: other.redis.info("replication").get("master_link_status") == "up")
        own.is_unrecognized(before)  # with its first replica a server begins another history
        identity = own.create("k-2")
        wait_until(lambda: other.memory() == own.memory())
        other.is_unrecognized(identity)
        assert other.look(identity) == (False, False)
        assert "read-only replica" in other.of((1, 10)).problem
        assert own.look(identity) == (True, True)

        other.redis.replicaof("NO", "ONE")
        other.is_unrecognized(identity)
        assert other.look(identity) == (True, False)
        own.redis.replicaof("127.0.0.1", str(server.port))
        own.is_unrecognized(identity)
        wait_until(lambda: own.redis.info("replication").get("master_link_status") == "up")
        own.redis.replicaof("NO", "ONE")
        assert own.memory()["key"] == identity.key
        assert own.redis.info("server")["run_id"] == identity.run_id
        own.is_unrecognized(identity)


def test_a_replica_of_nobody_is_unrecognized_though_nothing_else_changed(own: Asking) -> None:
    identity = own.create()
    own.redis.replicaof("127.0.0.1", str(free_port()))
    info = own.redis.info()
    assert (info["run_id"], info["master_replid"]) == (identity.run_id, identity.replid)
    own.is_unrecognized(identity)
    own.redis.replicaof("NO", "ONE")
    own.is_unrecognized(identity)


def test_a_demoted_primary_is_left_for_the_new_one(own: Asking) -> None:
    client = own.client()
    assert ask(client, WitnessLook(None)) == WitnessSeen(None, ready=True, same=False)
    own.redis.replicaof("127.0.0.1", str(free_port()))
    connections = own.redis.info("stats")["total_connections_received"]
    for _ in range(3):
        assert ask(client, WitnessLook(None)) == WitnessSeen(None, ready=False, same=False)
    assert own.redis.info("stats")["total_connections_received"] == connections + 2


def test_a_memory_that_was_evicted_is_unrecognized_and_a_warning_is_given(own: Asking) -> None:
    identity = own.create()
    own.redis.config_set("maxmemory-policy", "allkeys-random")
    assert own.look(identity) == (True, True)
    assert own.of((1, 10)).problem == ""  # without a limit nothing is evicted
    own.redis.config_set("maxmemory", "1")
    assert own.look(None)[0]
    assert "maxmemory-policy allkeys-random" in own.of((1, 10)).problem
    own.redis.config_set("maxmemory", "1gb")
    for policy, warned in (("volatile-lru", False), ("noeviction", False), ("allkeys-lfu", True)):
        own.redis.config_set("maxmemory-policy", policy)
        assert own.look(None) == (True, False)
        assert bool(own.of((1, 10)).problem) is warned
    assert not own.redis.exists(MEMORY)
    own.is_unrecognized(identity)


# -- the record that is handed out ----------------------------------------------------------


def test_the_newest_record_is_handed_out_after_each_misfortune(own: Asking) -> None:
    """Whatever becomes of the identity: only a server without the data has nothing to hand out."""
    identity, voted = own.create(), (0, 5, 4)
    assert own.vote(identity, TERM + 1, record_id=voted).reason is None
    own.redis.save()
    acked = (0, 6, 5)
    assert own.ping(identity, TERM + 1, record_id=acked).reason is None
    assert own.kept() == of(acked)
    own.redis.hset(MEMORY, "voted_for", "0")
    own.is_unrecognized(identity)
    assert own.kept() == of(acked)
    own.restart(kill=True)
    own.is_unrecognized(identity)
    assert own.kept() == of(voted), "that of the dump"
    own.redis.flushall()
    own.is_unrecognized(identity)
    assert own.kept() is None


@pytest.mark.parametrize(
    "text",
    [
        "", "x", ":", ":{}", ":[]", ":null", ":[1,2]", ":" + "[" * 100_000, ":" + "9" * 100_000, "x" * 200_000, "\xff",
        ':[7,0,5,3,[1],null,[1],[[1,"a"]],9]', ':[7,0,5,3,[1],null,[1],[]]', ':[7,0,5,3,[0],null,[1],[[0,"a"]]]',
        ':[7,0,5.0,3,[1],null,[1],[[1,"a"]]]', ':[7,0,true,3,[1],null,[1],[[1,"a"]]]',
        ':[7,0,5,-3,[1],null,[1],[[1,"a"]]]', ':[7,0,9007199254740992,3,[1],null,[1],[[1,"a"]]]',
        ':[7,0,5,3,[1],["k",1,"r"],[1],[[1,"a"]]]', ':[7,0,5,3,[1],null,[1],[[1,"a\\u0000"]]]',
    ],
    ids=lambda text: text[:20],
)  # fmt: skip
def test_what_is_no_record_is_refused_counted_and_changes_nothing(asking: Asking, text: str) -> None:
    identity, client = asking.create(), asking.of((1, 10))
    asking.redis.hset(MEMORY, "record", text)
    seen = ask(client, WitnessLook(identity))
    assert seen == WitnessSeen(identity, ready=True, same=True)
    answered = 0 < len(text) <= 131_072  # a longer one the script keeps to itself
    assert client.counters["records_refused"] == answered
    assert ("is not taken" in client.problem) is answered
    stale = ask(client, WitnessVote(identity, True, 1, TERM + 1, of((0, 5, 2))))
    assert stale == WitnessVoted(True, 1, Refusal.STALE_VOTERS, TERM, named((*CREATOR, TERM)))
    assert asking.vote(identity, TERM + 1).reason is None, "votes rest on the numbers alone"
    assert ask(client, WitnessLook(identity)) == WitnessSeen(identity, ready=True, same=True, record=of(RECORD))
    assert client.problem == ""


def test_with_a_secret_only_what_was_written_with_it_is_taken(asking: Asking) -> None:
    ours, others, keyed = (
        asking.client(secret=b"a" * 32, trusting=False),
        asking.client(secret=b"b" * 32, trusting=False),
        asking.client(trusting=False),
    )
    created = ask(ours, WitnessCreate("k", TERM, of(RECORD)))
    assert isinstance(created, WitnessCreated)
    identity = created.identity

    def taken(client: WitnessClient) -> Record | None:
        seen = ask(client, WitnessLook(identity))
        assert isinstance(seen, WitnessSeen)
        assert (seen.ready, seen.same) == (True, True)
        return seen.record

    assert (taken(ours), taken(others), taken(keyed)) == (of(RECORD), None, None)
    assert "security.secret_file" in others.problem
    assert (others.counters["records_refused"], keyed.counters["records_refused"]) == (1, 0)
    forged = asking.redis.hget(MEMORY, "record").replace("7101", "7109")
    asking.redis.hset(MEMORY, "record", forged)
    assert taken(ours) is None
    vote = ask(keyed, WitnessVote(identity, False, 1, TERM + 1, of(RECORD)))
    assert vote == WitnessVoted(False, 1, None, TERM + 1, named((1, 10, TERM))[:0])
    assert taken(ours) is None, "a record without a MAC"


# -- what can't be a witness --------------------------------------------------------------


def test_a_server_that_refuses_writes_is_not_ready_until_it_does_not(own: Asking) -> None:
    identity, config = own.create(), own.redis.config_set
    client = own.client()
    host = own.server.url.removeprefix("redis://")

    def seen(ready: bool, problem: str, client: WitnessClient = client) -> None:
        event = ask(client, WitnessLook(identity))
        assert isinstance(event, WitnessSeen)
        assert event.ready is ready
        assert client.problem.startswith(problem)

    for option, value, back, problem in (
        ("maxmemory", "1", "0", "OOM: the server's memory is full"),
        ("min-replicas-to-write", "1", "0", "NOREPLICAS"),
    ):
        config(option, value)
        seen(False, problem)
        config(option, back)
        seen(True, "")
        assert client.problem == ""
    own.redis.replicaof("127.0.0.1", str(free_port()))
    seen(False, "READONLY: the server is a read-only replica")
    own.redis.replicaof("NO", "ONE")
    seen(True, "")

    own.redis.acl_setuser("some", enabled=True, passwords=["+p"], keys=["*"], commands=["+@all", "-hset"])
    seen(False, "NOPERM", own.client(url=f"redis://some:p@{host}"))
    own.redis.acl_setuser("none", enabled=True, passwords=["+p"], keys=["*"], commands=["+@all", "-info"])
    seen(False, "NOPERM", own.client(url=f"redis://none:p@{host}"))
    seen(False, "WRONGPASS", own.client(url=f"redis://:s3cret@{host}"))


def test_a_server_that_cannot_save_is_not_ready(own: Asking) -> None:
    identity = own.create()
    (own.server.directory / "dump.rdb").mkdir()  # so that the rename to it fails
    own.redis.config_set("save", "3600 1")
    own.redis.bgsave()
    wait_until(lambda: own.redis.info("persistence")["rdb_last_bgsave_status"] == "err")
    assert own.look(identity) == (False, True)
    assert own.of((1, 10)).problem.startswith("MISCONF")
    assert own.vote(identity, TERM + 1) == WitnessVoted(False, 1, Refusal.UNREACHABLE, 0)
    assert own.ping(identity, TERM, CREATOR).reason is None  # what it remembers, it remembers
    own.redis.config_set("save", "")  # else it would refuse to end, too


def test_a_redis_cluster_is_no_witness(context: zmq.Context[zmq.Socket[bytes]], tmp_path: Path) -> None:
    with running_server(tmp_path, "--cluster-enabled", "yes") as server, asking_at(context, server) as asking:
        asking.redis.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        wait_until(lambda: asking.look(None) == (False, False) and "can't be a witness" in asking.of((1, 10)).problem)
        assert asking.refused()
        asking.is_unrecognized(Witness("k", asking.redis.info("server")["run_id"], "x"))


def test_without_redis_looks_are_answered_and_nothing_else(asking: Asking) -> None:
    client, identity = asking.client(url=""), Witness("k", "r", "p")
    assert client.problem == "not configured"
    client.submit([WitnessVote(identity, False, 1, 6, of(RECORD)), WitnessPing(identity, 6, 1, of(RECORD))])
    client.submit([WitnessCreate("k", 6, of(RECORD)), WitnessLook(identity)])
    assert client.pipe.poll(10_000)
    assert client.receive() == [WitnessSeen(identity, ready=False, same=False)]
    assert client.receive() == []
    client.close()


def test_a_url_that_cannot_be_used_is_reported_without_its_password(asking: Asking) -> None:
    for url in ("redis://:sec/ret@host:1/0", "http://:secret@host", "redis://:secret@127.0.0.1:1/0?nonsense=secret"):
        client = asking.client(url=url)
        assert ask(client, WitnessLook(None)) == WitnessSeen(None, ready=False, same=False)
        assert "redis.url" in client.problem
        assert "sec" not in client.problem


# -- when Redis fails --------------------------------------------------------------------


def test_a_frozen_server_blocks_nobody_is_reported_and_heals(own: Asking) -> None:
    identity, client = own.create(), own.client(timeout_ms=100)
    assert ask(client, WitnessLook(identity)) == WitnessSeen(identity, ready=True, same=True, record=of(RECORD))
    own.server.freeze()
    for number in range(1000):
        client.submit([WitnessPing(identity, 6, number, of(RECORD)), WitnessCreate("x", 6, of(RECORD))])
    assert client.receive() == []
    assert ask(client, WitnessLook(identity)) == WitnessSeen(identity, ready=False, same=False)
    assert client.problem.startswith("timeout")
    vote = ask(client, WitnessVote(identity, True, 3, 7, of(RECORD)))
    assert vote == WitnessVoted(True, 3, Refusal.UNREACHABLE, 0)
    wait_until(lambda: sum(client.counters[name] for name in ("overtaken", "unsent", "failed")) == 2002)
    assert client.receive() == []
    own.server.thaw()
    wait_until(lambda: ask(client, WitnessLook(None)) == WitnessSeen(None, ready=True, same=False, record=of(RECORD)))
    assert client.problem == ""


def test_what_could_not_be_sent_in_time_is_never_sent(own: Asking) -> None:
    identity, client = own.create(), own.client(timeout_ms=100)
    assert ask(client, WitnessLook(None)) == WitnessSeen(None, ready=True, same=False, record=of(RECORD))
    own.server.freeze()
    client.submit([WitnessVote(identity, True, 1, 6, of(RECORD)), WitnessPing(identity, 6, 1, of(RECORD))])
    wait_until(lambda: client.counters["failed"] + client.counters["unsent"] == 2)
    assert client.counters["unsent"] == 1
    assert following(client) == WitnessVoted(True, 1, Refusal.UNREACHABLE, 0)
    own.server.thaw()
    wait_until(
        lambda: ask(client, WitnessLook(identity)) == WitnessSeen(identity, ready=True, same=True, record=of(RECORD))
    )
    assert own.memory()["term"] == str(TERM)


def test_a_server_that_is_gone_is_answered_for_at_once_and_heals(own: Asking) -> None:
    identity, client = own.create(), own.client(timeout_ms=60_000)
    own.server.kill()
    assert ask(client, WitnessLook(identity)) == WitnessSeen(identity, ready=False, same=False)
    assert "connection refused" in client.problem
    vote = ask(client, WitnessVote(identity, False, 1, 6, of(RECORD)))
    assert vote == WitnessVoted(False, 1, Refusal.UNREACHABLE, 0)
    client.submit([WitnessPing(identity, 6, 1, of(RECORD))])
    own.server.start()
    own.server.wait_ready(30)
    assert ask(client, WitnessLook(identity)) == WitnessSeen(identity, ready=True, same=False)
    assert client.problem == ""


def test_what_a_frozen_server_runs_late_is_refused_by_what_came_in_between(own: Asking) -> None:
    """A controller's PING and `create` lie in the frozen server while others are elected: they are
    sent after the newer term, as a server that thaws may order its connections as it likes."""
    identity = own.create()
    assert own.vote(identity, 6, (2, 20)).reason is None
    before = own.memory()
    run = own.redis.info("commandstats")["cmdstat_evalsha"]["calls"]
    own.server.freeze()
    late = own.client(node=9, incarnation=90, timeout_ms=100)
    late.submit([WitnessPing(identity, TERM, 8, of(RECORD))])
    wait_until(lambda: late.counters["failed"] == 1)
    late.submit([WitnessCreate("late", TERM, of(RECORD))])
    wait_until(lambda: late.counters["failed"] == 2)
    own.server.thaw()
    wait_until(lambda: own.redis.info("commandstats")["cmdstat_evalsha"]["calls"] == run + 2)
    assert own.look(identity) == (True, True)
    assert own.memory() == before
    assert late.receive() == []


def test_an_overtaken_reset_of_the_same_controller_is_refused(asking: Asking) -> None:
    first = asking.client(node=9, incarnation=90)
    assert isinstance(ask(first, WitnessCreate("k-1", TERM, of(RECORD))), WitnessCreated)
    asking.redis.hincrby(MEMORY, "created_us", 3_600_000_000)  # as if created by a later question
    before = asking.memory()
    first.submit([WitnessCreate("k-0", TERM, of(RECORD))])
    wait_until(lambda: first.counters["refused"] == 1)
    assert asking.memory() == before


def test_of_each_kind_only_the_newest_that_is_not_sent_yet_is_asked(own: Asking) -> None:
    identity, client = own.create(), own.client()
    own.server.freeze()
    client.submit([WitnessLook(identity)])
    wait_until(lambda: not client._unsent)
    for number in (1, 2, 3):
        client.submit([WitnessPing(identity, TERM + number, number, of(RECORD))])
        client.submit([WitnessVote(identity, False, number, TERM + number, of(RECORD))])
    own.server.thaw()
    events: list[WitnessEvent] = []

    def heard() -> bool:
        client.pipe.poll(100)
        events.extend(client.receive())
        return len(events) == 3

    wait_until(heard)
    assert events == [
        WitnessSeen(identity, ready=True, same=True, record=of(RECORD)),
        WitnessVoted(False, 3, None, TERM + 3, named((*CREATOR, TERM))),
        WitnessAnswered(3, TERM + 3, RECORD, None, TERM + 3),
    ]
    assert client.counters["overtaken"] == 4


@pytest.mark.parametrize("serve", [says_http, says_seven, says_nonsense, drips])
def test_what_is_no_redis_is_not_ready(asking: Asking, serve: Callable[[socket.socket], None]) -> None:
    with listening(serve) as url:
        client = asking.client(url=url, timeout_ms=200)
        for _ in range(3):
            assert ask(client, WitnessLook(None)) == WitnessSeen(None, ready=False, same=False)
            assert client.problem
        vote = ask(client, WitnessVote(Witness("k", "r", "p"), False, 4, 6, made_record(5, 3, (1, 2, 3))))
        assert vote == WitnessVoted(False, 4, Refusal.UNREACHABLE, 0)
        client.close(0.1)


def test_closing_with_a_hung_server_is_bounded(own: Asking) -> None:
    identity, client = own.create(), own.client(timeout_ms=60_000)
    own.server.freeze()
    client.submit([WitnessVote(identity, False, 1, 6, of(RECORD)), WitnessLook(identity)])
    closer = threading.Thread(target=client.close, args=(0.2,), daemon=True)
    closer.start()
    closer.join(20)  # far below the timeout of the exchange that hangs
    assert not closer.is_alive()
    own.server.thaw()  # the late answer meets a closed pipe, and the worker ends
    wait_until(lambda: not client._threads[0].is_alive())
    client.close()
    client.submit([WitnessLook(None)])


def test_the_main_thread_does_not_import_redis() -> None:
    code = "import sys, zelect.redis.witness; print('redis' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.split()[0] == "False", done.stderr
