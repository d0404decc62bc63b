"""Messages without an end (a dead member's port that somebody took, a client, a stolen key): libzmq has no limit for
them, and hands over whole messages only. Nodes, supervisor and commands stay small, and nobody loses leadership."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.clusters import CALM, ROOT, Cluster, Fleet, holds_for
from tests.support.floods import endless_messages, peak_mb
from tests.support.waiting import wait_until

MOST_MB = 100
PARTS = [pytest.param(0, id="empty parts"), pytest.param(60_000, id="long parts", marks=pytest.mark.long)]


def settled(fleet: Fleet) -> Cluster:
    cluster = fleet.cluster(timing=CALM)
    cluster.start()
    cluster.settled()
    return cluster


@pytest.mark.parametrize("part_bytes", PARTS)
def test_a_client_without_an_end(fleet: Fleet, part_bytes: int) -> None:
    cluster = settled(fleet)
    head = cluster.settled()
    with endless_messages("connect", cluster.ports[head.id], part_bytes):
        wait_until(lambda: cluster.counters(head.id)["link_connections_unread"], 20)
        holds_for(lambda: cluster.controller().term == head.term, 2)
    assert cluster.settled().term == head.term
    assert peak_mb(cluster.processes[head.id].pid) <= MOST_MB


@pytest.mark.long  # how much comes in between two looks depends on how busy the machine is
@pytest.mark.parametrize("part_bytes", PARTS)
def test_the_port_of_a_dead_member(fleet: Fleet, part_bytes: int) -> None:
    cluster = settled(fleet)
    head = cluster.settled()
    dead, other = sorted(set(cluster.ids) - {head.id})
    cluster.kill(dead)
    with endless_messages("listen", cluster.ports[dead], part_bytes):
        wait_until(lambda: min(cluster.counters(node)["link_flooded"] for node in (head.id, other)) >= 2, 20)
        assert cluster.controller().term == head.term
        status = command("status", "--json", "-c", str(cluster.conf(head.id)))
        assert status[0] == 0
        assert command("who", "-c", str(cluster.conf(other)))[0] == 0
    assert cluster.controller().term == head.term
    assert max(peak_mb(cluster.processes[node].pid) for node in (head.id, other)) <= MOST_MB
    assert status[1] <= MOST_MB


def command(*arguments: str) -> tuple[int, int]:
    """Exit code of a command, and the most memory that it took, in MB."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen((sys.executable, "-m", "zelect", *arguments), env=environment, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, usage.ru_maxrss // 1024


@pytest.mark.long  # likewise
@pytest.mark.parametrize("part_bytes", PARTS)
def test_a_command_that_asks_nobody_else(tmp_path: Path, fleet: Fleet, part_bytes: int) -> None:
    cluster = fleet.cluster()
    with endless_messages("listen", cluster.ports[1], part_bytes):
        code, mb = command("status", "-c", str(cluster.conf(1)))
    assert code == 5
    assert mb <= MOST_MB
