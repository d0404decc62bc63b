"""The examples run as they are: three replicas each; one works, and when it is killed another takes over."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import redis

from tests.support.clusters import ROOT, Cluster, Fleet
from tests.support.waiting import wait_until
from zelect.devcluster.bundled_server import RedisServer

EXAMPLES = ROOT / "examples"
BUSY = {"heartbeat_ms": 200, "lease_ms": 1600, "election_timeout_ms": 2000, "stagger_ms": 300, "down_after_ms": 4000}
"""Timings at which a busy machine costs no leadership."""


def start(cluster: Cluster, command: Callable[[int], Sequence[object]]) -> None:
    for node in cluster.ids:
        with cluster.log_of(node).open("ab") as log:
            cluster.processes[node] = subprocess.Popen(
                [sys.executable, *map(str, command(node))],
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )


def in_turns(steps: list[tuple[int, int]]) -> None:
    """Each term belongs to one node, and terms only grow: no node worked beside or after its successor."""
    terms = [term for term, _ in steps]
    assert terms == sorted(terms)
    assert len(set(steps)) == len(set(terms))


def taken_over(cluster: Cluster, steps: Callable[[], list[tuple[int, int]]], at_least: int = 3) -> None:
    """Wait for work, kill the replica that does it, and wait for another to go on."""
    wait_until(lambda: len(steps()) >= at_least, 40, what="the first works")
    term, node = steps()[-1]
    cluster.kill(node)
    wait_until(lambda: [one for one in steps() if one[0] > term], 40, what="another works")
    in_turns(steps())
    assert steps()[-1][1] != node


def test_one_scheduler_among_three_replicas(fleet: Fleet, own_server: RedisServer) -> None:
    cluster = fleet.cluster(redis_url=own_server.url, timing=BUSY)
    start(cluster, lambda node: (EXAMPLES / "scheduler.py", cluster.conf(node)))
    with redis.Redis.from_url(own_server.url, decode_responses=True) as client:

        def ticks() -> list[tuple[int, int]]:
            words = [line.split() for line in client.lrange("{ledger}:ticks", 0, -1)]
            return [(int(term), int(node)) for term, node in words]

        taken_over(cluster, ticks)
        assert client.hlen("apscheduler.jobs") == 1, "the schedule was taken over, not made twice"


@pytest.mark.long
def test_a_poller_takes_each_order_once(fleet: Fleet, own_server: RedisServer) -> None:
    cluster = fleet.cluster(redis_url=own_server.url, timing=BUSY)
    with redis.Redis.from_url(own_server.url, decode_responses=True) as client:
        client.rpush("{orders}:waiting", *range(50))
        start(cluster, lambda node: (EXAMPLES / "poller.py", cluster.conf(node)))

        def done() -> list[tuple[int, int]]:
            words = [line.split() for line in client.lrange("{orders}:done", 0, -1)]
            return [(int(term), int(node)) for _, term, node in words]

        wait_until(lambda: len(done()) == 50, 40, what="the first fifty")
        client.rpush("{orders}:waiting", *range(50, 20_000))
        taken_over(cluster, done, 60)
        client.ltrim("{orders}:waiting", 0, 20)
        wait_until(lambda: not client.exists("{orders}:waiting"), 40, what="the rest")
        orders = [int(line.split()[0]) for line in client.lrange("{orders}:done", 0, -1)]
        assert orders == list(range(len(orders))), "each once, in their order, none lost"
    living = [node for node in cluster.ids if cluster.processes[node].poll() is None]
    cluster.term(*living)
    assert [cluster.exit_code(node) for node in living] == [0, 0]


@pytest.mark.long
def test_a_shell_job_runs_where_leadership_is(fleet: Fleet, tmp_path: Path) -> None:
    cluster, out = fleet.cluster(timing=BUSY), tmp_path / "report"
    job = ("--", EXAMPLES / "job.sh", out)
    start(cluster, lambda node: ("-m", "zelect", "run", "-c", cluster.conf(node), *job))
    log = Path(f"{out}.log")

    def work() -> list[tuple[int, int]]:
        lines = log.read_text().splitlines() if log.exists() else []
        return [(int(term), int(node)) for term, node, word in map(str.split, lines) if word == "works"]

    taken_over(cluster, work)
    last = work()[-1]
    cluster.term(last[1])
    assert cluster.exit_code(last[1]) == 0
    assert f"{last[0]} {last[1]} ends" in log.read_text()


@pytest.mark.long
def test_two_nodes_and_a_witness(fleet: Fleet, own_server: RedisServer) -> None:
    """Either node may fail, or Redis may; with two of the three gone nobody is active until one is back."""
    cluster = fleet.cluster((1, 2), redis_url=own_server.url)
    for node in cluster.ids:
        text = (EXAMPLES / "two_nodes" / f"n{node}.toml").read_text()
        text = text.replace('name = "pair"', f'name = "{cluster.name}"').replace(
            "data/n", str(cluster.directory / "data")
        )
        text = text.replace("redis://127.0.0.1:6379/0", own_server.url)
        for other in cluster.ids:
            text = text.replace(f"tcp://127.0.0.1:711{other}", cluster.addresses[other])
        cluster.conf(node).write_text(text + '\n[log]\nformat = "json"\n')
    cluster.start()
    first = cluster.settled()
    wait_until(lambda: cluster.ask(first.id)["voters"]["witness"] == "member", 20, what="the witness is a voter")
    cluster.kill(first.id)
    (other,) = set(cluster.ids) - {first.id}
    second = cluster.controller(term_above=first.term)
    assert second.id == other
    own_server.stop()
    wait_until(lambda: cluster.active() is None, 20, what="alone without the witness nobody leads")
    cluster.start(first.id)
    assert cluster.controller(term_above=second.term).id in cluster.ids
