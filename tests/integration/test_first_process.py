"""A node, or `zelect run`, as the first process of a container: orphans that end are taken away, signals arrive."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.clusters import CALM, Cluster, Fleet
from tests.support.waiting import wait_until

UNSHARE = ("unshare", "--pid", "--fork", "--kill-child", "--map-root-user")
ORPHAN = '["/bin/sh", "-c", "(sleep 0.3; echo $$ >> PATH) & exit 0"]'


@pytest.fixture
def namespace() -> None:
    """Skips the test where there can be no process namespace."""
    if sys.platform != "linux" or shutil.which("unshare") is None:
        pytest.skip("needs Linux with unshare to make a process namespace")
    if subprocess.run([*UNSHARE, "true"], capture_output=True).returncode != 0:
        pytest.skip("not permitted to make a process namespace")


def _stats() -> list[tuple[int, int, str]]:
    """Of each process: its id, its parent's, its state."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            pid, rest = path.read_text().split(" (", 1)
        except OSError:
            continue
        state, parent, *_ = rest.rpartition(")")[2].split()
        found.append((int(pid), int(parent), state))
    return found


def _children(parent: int) -> dict[int, str]:
    return {pid: state for pid, of, state in _stats() if of == parent}


def _first(process: subprocess.Popen[bytes]) -> int:
    """The first process of the namespace that `process` (unshare) has made."""
    return wait_until(lambda: next(iter(_children(process.pid)), 0), what="the first process")


def _start(cluster: Cluster, *command: str) -> subprocess.Popen[bytes]:
    log = cluster.log_of(1).open("ab")
    argv = [*UNSHARE, sys.executable, "-m", "zelect", *command]
    process = cluster.processes[1] = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    log.close()
    return process


@pytest.mark.usefixtures("namespace")
def test_a_node_as_the_first_process_leaves_no_zombies_and_gets_signals(fleet: Fleet, tmp_path: Path) -> None:
    cluster, ended = fleet.cluster((1,), timing=CALM), tmp_path / "ended"
    hook = ORPHAN.replace("PATH", str(ended))
    cluster.conf(1).write_text(cluster.text(1) + f"\n[hooks]\non_elected = [{', '.join([hook] * 3)}]\n")
    process = _start(cluster, "node", "-c", str(cluster.conf(1)))
    first = _first(process)
    wait_until(lambda: ended.exists() and len(ended.read_text().split()) == 3, 40, what="three orphans have ended")
    wait_until(lambda: len(_children(first)) == 1, 10, what="nothing is left but the node")
    assert "Z" not in _children(first).values()
    os.kill(first, signal.SIGHUP)
    wait_until(lambda: cluster.events(1, "reloaded"), 20, what="signals are passed on")
    os.kill(first, signal.SIGTERM)
    assert process.wait(30) == 0
    assert cluster.events(1, "node_ended")


@pytest.mark.usefixtures("namespace")
def test_a_job_as_the_first_process_leaves_no_zombies_and_its_exit_code_comes_through(
    fleet: Fleet, tmp_path: Path
) -> None:
    cluster, ended = fleet.cluster((1,), timing=CALM), tmp_path / "ended"
    job = f"(sleep 0.3; echo $$ >> {ended}) & sleep 2; exit 7"
    run = ("run", "-c", str(cluster.conf(1)), "--restart", "never", "--child-exit-code", "--", "sh", "-c", job)
    process = _start(cluster, *run)
    first = _first(process)
    wait_until(ended.exists, 40, what="the orphan has ended")
    assert "Z" not in _children(first).values()
    assert process.wait(60) == 7
