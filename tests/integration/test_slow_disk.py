"""Rounds of votes follow the disk (R8): nodes whose saves take long elect all the same."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.support.clusters import Cluster, Fleet, fleet_of
from tests.support.waiting import wait_until

pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.skipif(shutil.which("strace") is None, reason="strace slows the saves down, and is not installed"),
]


@pytest.fixture
def fleet(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Fleet]:
    with fleet_of(request, tmp_path) as made:
        yield made


def _is_traced(pid: int) -> bool:
    return "TracerPid:\t0" not in Path(f"/proc/{pid}/status").read_text()


@contextlib.contextmanager
def slow_saves(cluster: Cluster, by_ms: int, *nodes: int) -> Iterator[None]:
    """Each fdatasync of `nodes` takes `by_ms` longer."""
    inject = f"inject=fdatasync:delay_enter={by_ms * 1000}"
    command = ["strace", "-f", "--seccomp-bpf", "-qq", "-o", "/dev/null", "-e", "trace=fdatasync", "-e", inject, "-p"]
    tracers = [subprocess.Popen([*command, str(cluster.processes[node].pid)]) for node in nodes]
    try:
        for node in nodes:
            wait_until(partial(_is_traced, cluster.processes[node].pid), 20.0, what="strace is attached")
        yield
    finally:
        for tracer in tracers:
            tracer.kill()
            tracer.wait()


@pytest.mark.parametrize("by_ms", [50, pytest.param(120, marks=pytest.mark.long), 500])
@pytest.mark.parametrize("quorum", ["static", "dynamic"])
def test_a_slow_disk_elects_within_seconds(fleet: Fleet, quorum: str, by_ms: int) -> None:
    """With a fixed round of 100 ms no save of 50 ms or more ever led to an election."""
    cluster = fleet.cluster(quorum=quorum)
    cluster.start()
    head = cluster.settled()
    survivors = [node for node in cluster.ids if node != head.id]
    with slow_saves(cluster, by_ms, *survivors):
        cluster.kill(head.id)
        assert cluster.controller(term_above=head.term, within_s=30.0).id in survivors
