"""`zelect who`, `wait`, `watch`, `history` and `why` with real nodes, with Redis and without."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.integration.test_cli import answering, three_ports, write_conf
from tests.support.clusters import CALM, ROOT, Cluster, Fleet, zelect
from tests.support.reports import said
from tests.support.waiting import wait_until
from zelect.devcluster.bundled_server import RedisServer


def conf(cluster: Cluster) -> tuple[str, str]:
    return ("-c", str(cluster.conf(1)))


def test_the_controller_dies_and_the_history_says_why(fleet: Fleet, own_server: RedisServer) -> None:
    cluster = fleet.cluster(redis_url=own_server.url)
    here = conf(cluster)
    nobody = zelect("who", *here, "--timeout", "0.3")
    assert (nobody.returncode, nobody.stdout) == (5, "")
    assert "start one" in nobody.stderr
    assert zelect("wait", *here, "--timeout", "0.3").returncode == 5

    cluster.start()
    first = cluster.settled()
    assert zelect("wait", *here, "--quorum").returncode == 0
    told = zelect("who", *here)
    assert (told.returncode, told.stdout.strip()) == (0, str(first.id))
    assert json.loads(zelect("who", *here, "--json").stdout)["term"] == first.term

    with _watching(here) as watched:
        assert watched.line()["id"] == first.id
        cluster.kill(first.id)
        change = watched.line()
        while change["id"] is None:  # seen in between
            change = watched.line()
        assert change["previous"] == first.id
    second = cluster.controller(term_above=first.term)
    assert change["id"] == second.id
    assert change["term"] == second.term

    table = wait_until(lambda: _history(here, second.term), 10, what="the history has the second election")
    assert [one["term"] for one in table[:2]] == [second.term, first.term]
    assert (table[0]["reason"], table[0]["previous"]) == ("death", first.id)
    why = zelect("why", *here)
    assert why.returncode == 0
    assert f"term {second.term}: node {second.id} became active" in why.stdout
    assert "proven dead" in why.stdout
    assert "vote for term" in why.stdout
    assert max(map(len, why.stdout.splitlines())) <= 80
    assert f"term {first.term}:" in zelect("why", *here, str(first.term)).stdout
    unknown = zelect("why", *here, "4711")
    assert (unknown.returncode, unknown.stdout) == (1, "")

    own_server.stop()
    without = zelect("why", *here)
    assert without.returncode == 0
    assert f"term {second.term}: node {second.id}" in without.stdout
    assert "what the nodes remember" in without.stderr


def _history(here: tuple[str, str], newest: int) -> Any:
    listed = json.loads(zelect("history", *here, "--json").stdout or "[]")
    return listed if listed and listed[0]["term"] == newest else None


@pytest.mark.long
def test_where_no_node_can_be_elected_why_shows_who_refused(fleet: Fleet) -> None:
    cluster = fleet.cluster(quorum="static", timing=CALM)
    here = conf(cluster)
    cluster.start()
    head = cluster.settled()
    others = [node for node in cluster.ids if node != head.id]
    # A restarted node has its grace period, and the other cannot be elected without it (R4).
    cluster.kill(head.id, others[0])
    cluster.start(others[0])
    lonely = wait_until(lambda: _failing(here), 30, what="rounds that failed")
    assert lonely is not None
    assert lonely["controller"] is None
    refusals = {
        vote["reason"]
        for rounds in lonely["failing"].values()
        for one in rounds
        for vote in one["votes"]
        if not vote["granted"]
    }
    assert refusals <= {"grace_period", "promised"}
    assert zelect("who", *here).returncode in (0, 1)  # a node is elected as soon as the grace period is over


def _failing(here: tuple[str, str]) -> dict[str, Any] | None:
    told: dict[str, Any] = json.loads(zelect("why", *here, "--json").stdout or "{}")
    return told if any(told.get("failing", {}).values()) else None


@pytest.mark.long
def test_why_says_that_no_node_is_active_before_the_last_election(fleet: Fleet, server: RedisServer) -> None:
    cluster = fleet.cluster(redis_url=server.url, quorum="static")
    here = conf(cluster)
    cluster.start()
    head = cluster.settled()
    wait_until(lambda: _history(here, head.term), 10, what="the history has the election")
    cluster.kill(*(node for node in cluster.ids if node != head.id))
    wait_until(lambda: zelect("who", *here).returncode == 1, 10, what="no node is active")
    told = zelect("why", *here).stdout
    assert told.startswith("No node is active.")
    assert f"node {head.id} has not requested votes" in told
    assert f"The last election:\n\nterm {head.term}:" in told
    assert "no answer from node" in told


class _Watching:
    """A running `zelect watch`."""

    def __init__(self, here: tuple[str, str]) -> None:
        command = [sys.executable, "-m", "zelect", "watch", *here]
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> _Watching:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(30)
        assert self.process.stdout is not None
        self.process.stdout.close()

    def line(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        told: dict[str, Any] = json.loads(self.process.stdout.readline())
        return told


def _watching(here: tuple[str, str]) -> _Watching:
    return _Watching(here)


def test_watch_ends_when_nobody_reads_it_any_more(fleet: Fleet) -> None:
    """Not only when there is something to print, which may take years."""
    cluster = fleet.cluster((1,), timing=CALM)
    cluster.start()
    cluster.controller()
    with _watching(("-c", str(cluster.conf(1)))) as watched:
        assert watched.line()["id"] == 1
        assert watched.process.stdout is not None
        watched.process.stdout.close()
        assert watched.process.wait(20) == 0


def test_watch_follows_a_voter_record_that_changes(tmp_path: Path) -> None:
    """Its configuration has only node 1. While it runs node 3 joins, and becomes the controller."""
    ports = three_ports()
    here = ("-c", str(write_conf(tmp_path / "n1.toml", {1: ports[1]})))
    nodes: dict[int, Any] = {node: said(node, port, active=node == 2) for node, port in ports.items()}
    for node in nodes.values():
        node["voters"]["addresses"] = {str(at): f"tcp://127.0.0.1:{ports[at]}" for at in (1, 2)}
    with answering(nodes, ports), _watching(here) as watching:
        assert watching.line()["id"] == 2
        for node in nodes.values():
            node["voters"]["addresses"] = {str(at): f"tcp://127.0.0.1:{port}" for at, port in ports.items()}
            node["voters"]["version"] += 1
        nodes[2] |= {"active": False, "since_ms": None}
        nodes[3] |= {"active": True, "term": 5, "lease_left_us": 380_500}
        told = watching.line()
        while told["id"] != 3:
            told = watching.line()
    assert (told["term"], told["source"], told["previous"]) == (5, "node", 2)
