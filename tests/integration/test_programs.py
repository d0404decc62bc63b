"""Programs with a node in them are killed and frozen: their jobs never overlap, in threads or coroutines."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from tests.support.clusters import ROOT, Cluster, Fleet
from tests.support.marks import long_but
from tests.support.waiting import wait_until
from zelect.system.clock import now_us

BUSY = {"heartbeat_ms": 200, "lease_ms": 1600, "election_timeout_ms": 2000, "stagger_ms": 100, "down_after_ms": 4000}

BEGIN = """
import asyncio, os, sys, time, zelect
out = os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
def say(leadership):
    at_us = time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000
    os.write(out, f"{at_us} {leadership.node} {leadership.term}\\n".encode())
"""
THREAD = (
    BEGIN
    + """
def job(leadership):
    while True:
        leadership.sleep(0.002)
        say(leadership)
with zelect.Node(sys.argv[1], process=len(sys.argv) > 3) as node:
    for leadership in node.campaign():
        leadership.run(job, leadership)
"""
)
COROUTINE = (
    BEGIN
    + """
async def job(leadership):
    while True:
        await asyncio.sleep(0.002)
        say(leadership)
async def main():
    async with zelect.Node(sys.argv[1]) as node:
        async for leadership in node.campaign():
            await leadership.run(job(leadership))
asyncio.run(main())
"""
)


def start(cluster: Cluster, out: Path, program: str, *words: str) -> None:
    for node in cluster.ids:
        command = [sys.executable, "-c", program, str(cluster.conf(node)), str(out), *words]
        with cluster.log_of(node).open("ab") as log:
            cluster.processes[node] = subprocess.Popen(
                command, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )


def lines(out: Path) -> list[tuple[int, int, int]]:
    """(when, node, term) of each step of a job, by time."""
    with contextlib.suppress(FileNotFoundError):
        return sorted((int(a), int(b), int(c)) for a, b, c in (line.split() for line in out.read_text().splitlines()))
    return []


def worker(out: Path, term_above: int = 0) -> tuple[int, int, int]:
    """The newest step, once one of a term above has been made."""
    found = wait_until(lambda: (rows := lines(out)) and rows[-1][2] > term_above and rows[-1], 40)
    assert isinstance(found, tuple)
    return found


@pytest.mark.parametrize(
    ("program", "words"),
    long_but([(THREAD, ()), (THREAD, ("process",)), (COROUTINE, ())], (THREAD, ())),
    ids=["thread", "child", "coroutine"],
)
def test_jobs_of_killed_and_frozen_programs_never_overlap(
    fleet: Fleet, tmp_path: Path, program: str, words: tuple[str, ...]
) -> None:
    cluster, out = fleet.cluster(timing=BUSY), tmp_path / "steps"
    start(cluster, out, program, *words)
    _, first, term = worker(out)
    cluster.settled()
    cluster.freeze(first)
    frozen_us = now_us()
    at_us, second, term = worker(out, term) if not words else _kept(cluster, out, term)
    if not words:
        assert max(at for at, node, _ in lines(out) if node == first) < frozen_us + BUSY["lease_ms"] * 1000 < at_us
    cluster.thaw(first)
    cluster.settled()
    cluster.kill(second)
    worker(out, term)
    spans: dict[int, tuple[int, int]] = {}
    for at, _, one in lines(out):
        spans[one] = (spans.get(one, (at, at))[0], at)
    assert all(one[1] < other[0] for one, other in pairwise([spans[key] for key in sorted(spans)]))


def _kept(cluster: Cluster, out: Path, term: int) -> tuple[int, int, int]:
    """A frozen program whose node is a process of its own: the node renews, and no other takes over."""
    before = cluster.controller()
    wait_until(lambda: cluster.ask(before.id)["lease_left_ms"] > 0)
    assert cluster.controller().term == term
    return lines(out)[-1]
