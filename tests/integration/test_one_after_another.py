"""The walk of the original, with real nodes and a real Redis: members leave one after the other until the
last is active alone; they return and follow; the last one leaves, and another becomes controller (R11).

`pytest tests/integration/test_one_after_another.py --walks 10` takes each form ten times in a row.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterable
from dataclasses import dataclass

import pytest
import zmq

from tests.support.clusters import Cluster, Fleet
from tests.support.waiting import wait_until
from tests.support.watches import Registry, TermWatch, VoteWatch
from zelect.client.query import Asker, ask_all
from zelect.devcluster.bundled_server import RedisServer
from zelect.status.cluster import ClusterStatus
from zelect.status.report import NodeReport
from zelect.system.clock import now_us

UNHURRIED = {
    "heartbeat_ms": 150,
    "lease_ms": 1200,
    "election_timeout_ms": 1500,
    "stagger_ms": 100,
    "down_after_ms": 1500,
}
"""Slow enough for busy processors: no node may take a working controller for dead."""
WAYS = {"term": signal.SIGTERM, "kill": signal.SIGKILL, "freeze": signal.SIGSTOP}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """As many walks of each form as --walks says."""
    if "number" in metafunc.fixturenames:
        metafunc.parametrize("number", range(1, metafunc.config.getoption("--walks") + 1))


@dataclass(frozen=True, slots=True)
class Claim:
    """A node said that it was active: at some moment after `asked_us` and before `at_us`."""

    asked_us: int
    at_us: int
    id: int
    term: int


class ClaimWatch:
    """A thread that keeps asking all nodes who is active; `stop` judges what they said."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._over = threading.Event()
        self.claims: list[Claim] = []
        self.looks = 0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        asker, poller = Asker(self._cluster.name, self._cluster.addresses, context), zmq.Poller()
        asker.register(poller)
        # A node is asked again once it has answered, so it was asked after its answer before.
        asked_us = dict.fromkeys(self._cluster.ids, 0)
        try:
            while not self._over.wait(0.02):
                asker.ask()
                poller.poll(20)
                asker.collect()
                for node, report in asker.reports.items():
                    if report.active:
                        self.claims.append(Claim(asked_us[node], report.at_us, node, report.term))
                    asked_us[node] = report.at_us
                asker.reports.clear()
                self.looks += 1
        finally:
            asker.close()
            context.destroy(linger=0)

    def look(self) -> None:
        """Wait until the nodes were asked once more."""
        before = self.looks
        wait_until(lambda: self.looks > before + 1, what="the nodes were asked again")

    def of(self, nodes: Iterable[int], since_us: int) -> list[Claim]:
        """What any of `nodes` claimed that was heard after `since_us`."""
        wanted = set(nodes)
        return [claim for claim in list(self.claims) if claim.id in wanted and claim.at_us > since_us]

    def stop(self) -> None:
        """Fails when a term had two controllers (S1), or a node was active after one of a newer
        term had been (S2)."""
        self._over.set()
        self._thread.join(30)
        holders: dict[int, int] = {}
        for claim in self.claims:
            assert holders.setdefault(claim.term, claim.id) == claim.id, f"two controllers in term {claim.term}"
        newest: list[Claim] = []  # ever newer terms, by the time at which each was first heard
        for claim in sorted(self.claims, key=lambda claim: claim.at_us):
            before = [one for one in newest if one.at_us < claim.asked_us]
            assert not before or before[-1].term <= claim.term, f"{claim} after {before[-1]}"
            if not newest or claim.term > newest[-1].term:
                newest.append(claim)
        assert holders


class Walk:
    """One walk of `cluster`: turns nodes off (`way`) and on, and checks after each step that all who can be
    asked agree. `heads` holds each controller seen as (term, id)."""

    def __init__(self, cluster: Cluster, registry: Registry, way: str) -> None:
        self.cluster, self.registry, self.way = cluster, registry, way
        self.watch, self.terms = ClaimWatch(cluster), TermWatch(registry)
        self.on: set[int] = set()
        self.heads: list[tuple[int, int]] = []

    def begin(self) -> None:
        self.cluster.start()
        self.on = set(self.cluster.ids)
        self._leads(self.cluster.adapted(*self.on))

    def off(self, node: int) -> None:
        if self.way == "kill":
            self.cluster.kill(node)
        else:
            self.cluster.signal(WAYS[self.way], node)
            if self.way == "term":
                assert self.cluster.exit_code(node) == 0
        self.on.discard(node)

    def turn_on(self, *nodes: int) -> None:
        """Start `nodes` again, or thaw them; until they follow none of them may claim anything."""
        self.watch.look()
        since_us = now_us()
        if self.way == "freeze":
            self.cluster.thaw(*nodes)
        else:
            self.cluster.start(*nodes)
        self.on.update(nodes)
        self.cluster.adapted(*self.on)
        assert not self.watch.of(nodes, since_us), "a node that returns claims nothing (R8)"

    def stays(self, members: Iterable[int] = ()) -> None:
        """The same controller is still active, in the same term."""
        head = self.cluster.adapted(*self.on, members=members)
        assert (head.term, head.id) == self.heads[-1], "no node preempts a working controller"
        self._agreed(head)

    def changes(self, members: Iterable[int] = ()) -> int:
        """Another node is active, in a newer term; returns its id."""
        head = self.cluster.adapted(*self.on, members=members)
        self._leads(head)
        return head.id

    def _leads(self, head: NodeReport) -> None:
        assert all(head.term > term for term, _ in self.heads), "terms grow"
        assert not self.heads or head.id != self.heads[-1][1], "not the same node again"
        self.heads.append((head.term, head.id))
        self._agreed(head)

    def _agreed(self, head: NodeReport) -> None:
        """The nodes, `status` and Redis say the same: exactly one controller, its id, its term."""
        cluster, registry = self.cluster, self.registry
        registry.published(head)
        wait_until(lambda: cluster.ask(head.id)["redis"]["published_term"] == head.term, 20, what="it knows that, too")
        # Frozen nodes are not asked: they would only be waited for. Dead ones refuse.
        asked = {node: cluster.addresses[node] for node in self.on | self._dead()}
        reports = ask_all(cluster.name, asked, 20.0, lambda some: set(some) >= self.on)
        assert set(reports) == self.on
        assert [report.id for report in reports.values() if report.active] == [head.id]
        assert {report.role for node, report in reports.items() if node != head.id} <= {"follower"}
        assert {report.term for report in reports.values()} == {head.term}
        status = ClusterStatus(cluster.name, asked, reports).as_json()
        controller, record = status["controller"], registry.record()
        assert (controller["id"], controller["term"], controller["address"]) == (
            int(record["id"]),
            int(record["term"]),
            record["address"],
        )
        assert (controller["id"], status["term"], status["redis"]["published_term"]) == (head.id, head.term, head.term)
        last = registry.elections()[-1]
        assert (last["id"], last["term"]) == (record["id"], record["term"])
        wait_until(
            lambda: (
                {n for n, entry in registry.nodes().items() if entry["role"] == "controller" and n in self.on}
                == {head.id}
            ),
            20,
            what="one controller among the nodes in Redis",
        )
        wait_until(
            lambda: cluster.ask(head.id)["voters"]["survives"] == len(self.on) - 1,
            20,
            what=f"{len(self.on) - 1} more may fail, one after the other",
        )

    def _dead(self) -> set[int]:
        return set(self.cluster.ids) - self.cluster.running()

    def end(self) -> None:
        """No other node was ever active: all who asked, Redis, and the nodes' own logs say so."""
        self.watch.stop()
        self.terms.stop()
        facts = [fact for node in self.cluster.ids for fact in self.cluster.events(node, "became_active")]
        entered = sorted((fact["term"], fact["node"]) for fact in facts)
        assert entered == self.heads
        assert {(claim.term, claim.id) for claim in self.watch.claims} <= set(self.heads)
        assert self.terms.seen == self.heads
        assert [(int(one["term"]), int(one["id"])) for one in self.registry.elections()] == self.heads


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.long
def test_the_walk(fleet: Fleet, server: RedisServer, size: int, way: str, number: int) -> None:
    cluster = fleet.cluster(range(1, size + 1), redis_url=server.url, timing=UNHURRIED)
    votes_seen = VoteWatch(cluster)
    walk = Walk(cluster, Registry(server.url, cluster.name), way)
    everybody = set(cluster.ids)

    walk.begin()
    assert walk.heads[-1][1] == 1, "first start: the first in line"

    for node in range(size, 2, -1):
        walk.off(node)
        walk.stays()
    walk.off(1)
    assert walk.changes(members={1, 2}) == 2, "the last one is active alone, with the witness"

    walk.turn_on(*everybody - {2})
    walk.stays()

    walk.off(2)
    assert walk.changes() in everybody - {2}
    walk.turn_on(2)
    walk.stays()

    walk.end()
    votes_seen.stop()
