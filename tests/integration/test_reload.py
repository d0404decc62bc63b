"""`zelect reload` reaches every kind of node: under `zelect run`, in a program's thread, beside a program."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.clusters import CALM, ROOT, Cluster, Fleet, zelect
from tests.support.waiting import wait_until
from zelect.security.key_files import DIRECTORY_FILE
from zelect.security.keys import read_directory

PROGRAM = """
import signal, sys, threading, zelect
with zelect.Node(sys.argv[1], process="process" in sys.argv) as node:
    if "listens" in sys.argv:
        signal.signal(signal.SIGHUP, lambda *_: node.reload())
    if "says" in sys.argv:
        node.reload()
    threading.Event().wait()
"""
COMMAND = """
import signal, sys, time
def told(number, frame):
    with open(sys.argv[1], "a") as out:
        out.write("hup\\n")
signal.signal(signal.SIGHUP, told)
with open(sys.argv[1], "a") as out:
    out.write("begins\\n")
while True:
    time.sleep(0.1)
"""


def start(cluster: Cluster, node: int, *command: str) -> None:
    with cluster.log_of(node).open("ab") as log:
        cluster.processes[node] = subprocess.Popen(
            [sys.executable, *command],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )


def program(cluster: Cluster, node: int, *words: str) -> None:
    start(cluster, node, "-c", PROGRAM, str(cluster.conf(node)), *words)


def run(cluster: Cluster, node: int, out: Path, *options: str) -> None:
    command = (sys.executable, "-c", COMMAND, str(out))
    start(cluster, node, "-m", "zelect", "run", "-c", str(cluster.conf(node)), *options, "--", *command)


def said(out: Path) -> list[str]:
    return out.read_text().splitlines() if out.exists() else []


def reload(cluster: Cluster, *nodes: int) -> None:
    for node in nodes or cluster.ids:
        done = zelect("reload", "-c", cluster.conf(node))
        assert (done.returncode, done.stdout) == (0, f"node {node}: reloaded\n"), done.stderr


def linked(cluster: Cluster) -> bool:
    return all(peer["linked"] for node in cluster.ids for peer in cluster.ask(node).get("peers", [{"linked": False}]))


@pytest.mark.long
def test_all_keys_change_wherever_the_nodes_run(fleet: Fleet, tmp_path: Path) -> None:
    """The command active goes on, undisturbed, while every key of the cluster is replaced."""
    cluster, out = fleet.cluster(secure=True, timing=CALM), tmp_path / "out"
    run(cluster, 1, out)
    program(cluster, 2, "listens")
    program(cluster, 3, "process")
    if cluster.settled().id != 1:
        assert zelect("transfer", "-c", cluster.conf(1), "--to", 1).returncode == 0
    wait_until(lambda: said(out), 30, what="the command runs")
    head = cluster.settled()
    old = read_directory(cluster.keys / DIRECTORY_FILE)
    for step in ("--next", "--promote", "--retire"):
        for node in cluster.ids if step == "--promote" else (0,):
            which = [node] if node else list(cluster.ids)
            assert zelect("keygen", "--dir", cluster.keys, step, *which).returncode == 0
            reload(cluster, *([node] if node else []))
            wait_until(lambda: linked(cluster), 20, what=f"all links stand after {step} {node}")
    new = read_directory(cluster.keys / DIRECTORY_FILE)
    assert not set(old.nodes.values()) & set(new.nodes.values())
    after = cluster.settled()
    assert (after.id, after.term) == (head.id, head.term)
    assert said(out) == ["begins"]
    assert all(process.poll() is None for process in cluster.processes.values())


def test_a_program_that_a_signal_would_end_is_not_sent_one(fleet: Fleet) -> None:
    cluster = fleet.cluster(timing=CALM, ids=(1,), quorum="static")
    program(cluster, 1)
    cluster.settled()
    done = zelect("reload", "-c", cluster.conf(1))
    assert done.returncode == 1
    assert f"node 1: SIGHUP would end its process {cluster.processes[1].pid}" in done.stderr
    assert "have it call reload() of its zelect.Node" in done.stderr
    assert cluster.processes[1].poll() is None
    assert not cluster.events(1, "reloaded")


@pytest.mark.parametrize("kind", ["thread", "process"])
def test_a_program_may_reload_by_itself(fleet: Fleet, kind: str) -> None:
    cluster = fleet.cluster(timing=CALM, ids=(1,), quorum="static")
    program(cluster, 1, kind, "says")
    wait_until(lambda: (told := cluster.reports().get(1)) is not None and told.counters.get("reloaded") == 1, 30)


def test_a_command_gets_hup_where_it_is_wanted(fleet: Fleet, tmp_path: Path) -> None:
    cluster, out = fleet.cluster(timing=CALM, ids=(1,), quorum="static"), tmp_path / "out"
    run(cluster, 1, out, "--forward-hup")
    wait_until(lambda: said(out), 30, what="the command runs")
    cluster.signal(signal.SIGHUP, 1)
    wait_until(lambda: said(out) == ["begins", "hup"], 20)
    wait_until(lambda: cluster.events(1, "reloaded"), 20)
