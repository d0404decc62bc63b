"""A program with a node forks: the child has nothing of the node, and hides nothing of its death (R9)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.support.clusters import CALM, ROOT, Cluster, Fleet
from tests.support.waiting import wait_until

BEGIN = """
import multiprocessing, os, sys, time, zelect
from concurrent.futures import ProcessPoolExecutor
conf, kind, out = sys.argv[1:4]
def say(text):
    with open(out, "a") as file:
        file.write(text + "\\n")
def refused(leadership):
    try:
        leadership.check()
    except zelect.LeadershipLost as error:
        return "forked" in str(error) and leadership.lost and leadership.remaining_ms == 0
    return False
"""
POOL = (
    BEGIN
    + """
def work(number):
    time.sleep(0.05)
    return refused(kept[0])
kept = []
def job(leadership):
    kept.append(leadership)
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("fork")) as pool:
        while True:
            leadership.check()
            assert all(pool.map(work, range(2)))
            say(f"works {leadership.term}")
with zelect.Node(conf, process=kind == "process") as node:
    for leadership in node.campaign():
        leadership.run(job, leadership)
"""
)
FORK = (
    BEGIN
    + """
node = zelect.Node(conf, process=kind == "process")
with node:
    for leadership in node.campaign():
        if os.fork() == 0:
            break
        leadership.run(lambda: leadership.sleep(600))
    else:
        sys.exit()
    assert refused(leadership)
    assert leadership.run(lambda: 1) is None
    assert node.leadership is None and node.ended and node.controller.id == 0
    node.ask_to_stop(); node.stop()
    try: node.campaign()
    except RuntimeError: pass
    try: node.start()
    except (zelect.ChildFailed, zelect.CannotBind) as error: assert "already running" in str(error), error
    say(f"works {leadership.term}")
    time.sleep(600)
"""
)


@contextmanager
def program(cluster: Cluster, text: str, kind: str, out: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-W", "ignore", "-c", text, str(cluster.conf(1)), kind, str(out)]
    with cluster.log_of(1).open("ab") as log:
        run = subprocess.Popen(
            command, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=log, stderr=log, start_new_session=True
        )
    try:
        yield run
    finally:
        run.kill()
        run.wait()


@pytest.mark.parametrize("kind", ["thread", "process"])
@pytest.mark.parametrize("text", [POOL, FORK], ids=["pool", "fork"])
def test_a_forked_child_hides_no_death_and_hinders_no_restart(
    fleet: Fleet, tmp_path: Path, text: str, kind: str
) -> None:
    cluster, out = fleet.cluster(timing=CALM), tmp_path / "out"
    with program(cluster, text, kind, out) as first:
        wait_until(lambda: cluster.ask(1))
        cluster.start(2, 3)
        head = cluster.settled()
        assert head.id == 1
        wait_until(lambda: out.exists() and "works" in out.read_text(), 40, what="the job works, and its child")
        children = [one for one in psutil.Process(first.pid).children() if "--child" not in one.cmdline()]
        assert children
        try:
            assert not any(connections_of(one, cluster) for one in children)
            first.send_signal(signal.SIGKILL)
            first.wait()
            after = cluster.controller(term_above=head.term)
            assert all(one.is_running() for one in children)
            (how,) = [one for one in cluster.events(after.id, "became_active") if one["term"] == after.term]
            assert how["reason"] == ("death" if kind == "thread" else "handover"), "nobody had to wait for a timeout"
            with program(cluster, POOL, kind, out):
                wait_until(lambda: cluster.ask(1), 40, what="the program runs again, beside the old children")
        finally:
            for one in children:
                one.kill()


def connections_of(process: psutil.Process, cluster: Cluster) -> list[object]:
    """What a process has open of a node: sockets between nodes, its files, its pages."""
    ports = {int(at.rpartition(":")[2]) for at in cluster.addresses.values()}
    sockets = [
        one for one in process.net_connections("tcp") if {end.port for end in (one.laddr, one.raddr) if end} & ports
    ]
    names = [os.readlink(f"/proc/{process.pid}/fd/{number}") for number in os.listdir(f"/proc/{process.pid}/fd")]
    return [*sockets, *(name for name in names if str(cluster.data_dirs[1]) in name or "zelect-lease" in name)]
