"""A local cluster with real nodes, a real Redis and the real command line."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.ports import free_ports
from tests.support.waiting import wait_until
from zelect.devcluster.control import bring_down
from zelect.devcluster.layout import Layout


def zelect(*arguments: str | Path | int, code: int | None = 0) -> str:
    """Run the command; returns what it printed. `code`: the exit code it must have (None: any)."""
    done = subprocess.run(
        [sys.executable, "-m", "zelect", *map(str, arguments)], capture_output=True, text=True, timeout=90
    )
    output = done.stdout + done.stderr
    assert code is None or done.returncode == code, f"exit code {done.returncode}: {output}"
    return output


def alive(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


class Cluster:
    """A detached cluster of `nodes` nodes in `directory`."""

    def __init__(self, directory: Path, nodes: int = 3) -> None:
        self.layout = Layout(directory)
        self.nodes = nodes
        self.base_port = free_ports(nodes)[0]

    def up(self, code: int | None = 0) -> str:
        place = ("--dir", self.layout.directory, "--base-port", self.base_port)
        return zelect("cluster", "up", self.nodes, *place, "--detach", code=code)

    def do(self, *command: str | int, code: int | None = 0) -> str:
        return zelect("cluster", *command, "--dir", self.layout.directory, code=code)

    def listed(self) -> dict[str, Any]:
        listed: dict[str, Any] = json.loads(self.do("status", "--json", code=None))
        return listed

    def process(self, node: int) -> dict[str, Any]:
        found: dict[str, Any] = self.listed()["processes"]["nodes"][node - 1]
        return found

    def controller(self) -> dict[str, Any]:
        """What `zelect status --json` says of the controller; empty when there is none."""
        state = json.loads(zelect("status", "--dir", self.layout.directory, "--json", code=None))
        found: dict[str, Any] | None = state["controller"]
        return found or {}

    def pids(self) -> list[int]:
        processes = self.listed()["processes"]
        return [processes["supervisor"], processes["redis_pid"], *(node["pid"] for node in processes["nodes"])]


@contextlib.contextmanager
def running(directory: Path) -> Iterator[Cluster]:
    made = Cluster(directory)
    made.up()
    try:
        yield made
    finally:
        if made.layout.plan_file.exists():
            bring_down(made.layout, 20)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with running(tmp_path / "cluster") as made:
        yield made


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster that no test changes."""
    with running(tmp_path_factory.mktemp("standing") / "cluster") as made:
        yield made


# -- the life of a cluster -----------------------------------------------------------------


def test_up_kill_start_down(cluster: Cluster) -> None:
    first = wait_until(cluster.controller)
    pids = cluster.pids()
    told = cluster.do("kill", first["id"])
    assert f"node {first['id']} killed" in told
    second = wait_until(cluster.controller)
    assert second["id"] != first["id"]
    assert second["term"] > first["term"]
    assert f"node {second['id']} is active" in told
    assert cluster.process(first["id"])["exit_code"] == -signal.SIGKILL
    cluster.do("kill", first["id"], code=1)
    assert "started" in cluster.do("start", first["id"])
    cluster.do("start", first["id"], code=1)
    pids += cluster.pids()
    assert cluster.do("down") == "the cluster is down\n"
    assert not [pid for pid in pids if alive(pid)]
    assert cluster.do("down") == "the cluster was not running\n"
    assert "is not running" in cluster.do("status", code=5)


@pytest.mark.long
def test_up_again_goes_on_with_the_terms(cluster: Cluster) -> None:
    before = wait_until(cluster.controller)
    cluster.do("down")
    assert "3 nodes" in zelect("cluster", "up", 5, "--dir", cluster.layout.directory, "--detach", code=2)
    cluster.up()
    after = wait_until(cluster.controller)
    assert after["term"] > before["term"]


def test_stop_is_a_graceful_leave(cluster: Cluster) -> None:
    first = wait_until(cluster.controller)
    cluster.do("freeze", first["id"])  # even a frozen node is stopped in good order
    told = cluster.do("stop", first["id"])
    assert f"node {first['id']} stopped" in told
    assert cluster.process(first["id"])["exit_code"] == 0


@pytest.mark.long
def test_a_bundled_redis_that_died_comes_back(cluster: Cluster) -> None:
    def told_ms() -> int:
        found = json.loads(zelect("history", "--json", "--dir", cluster.layout.directory, code=None) or "[]")
        return int(found[0]["at_ms"]) if found else 0

    head, redis = wait_until(cluster.controller), cluster.listed()["processes"]["redis_pid"]
    since_ms = wait_until(told_ms)
    assert f"pid {redis}" in cluster.do("status")
    os.kill(redis, signal.SIGKILL)
    later = wait_until(lambda: {cluster.listed()["processes"]["redis_pid"]} - {None, redis}, 30).pop()
    told = cluster.layout.supervisor_log.read_text()
    assert "Redis has ended" in told
    assert f"Redis was restarted (pid {later}), empty" in told
    wait_until(lambda: (cluster.listed()["status"]["redis"] or {}).get("published_term") == head["term"], 30)
    assert cluster.controller()["term"] == head["term"], "the controller has not changed"
    assert wait_until(told_ms) == since_ms, "nor has its history"
    os.kill(later, signal.SIGKILL)  # again, soon: now it waits longer
    wait_until(lambda: "it will be restarted in 1 s" in cluster.layout.supervisor_log.read_text(), 30)
    wait_until(lambda: cluster.listed()["processes"]["redis_pid"], 30)


@pytest.mark.long
def test_freeze_and_thaw(cluster: Cluster) -> None:
    first = wait_until(cluster.controller)
    cluster.do("freeze", first["id"])
    assert cluster.process(first["id"])["state"] == "frozen"
    assert psutil.Process(cluster.process(first["id"])["pid"]).status() == psutil.STATUS_STOPPED
    second = wait_until(cluster.controller)
    assert second["id"] != first["id"]
    cluster.do("thaw", first["id"])
    assert "is not frozen" in cluster.do("thaw", first["id"])
    nodes = wait_until(lambda: [node for node in cluster.listed()["status"]["nodes"] if node["reachable"]][2:])
    assert nodes


@pytest.mark.long
def test_the_last_of_three_is_active_alone(cluster: Cluster) -> None:
    shrunk = ("members", "--dir", str(cluster.layout.directory), "--json")
    cluster.do("kill", 1)
    wait_until(lambda: json.loads(zelect(*shrunk))["voters"] == [2, 3], what="the voters are without node 1")
    told = cluster.do("kill", 2)
    assert "node 3 is active" in told
    alone = json.loads(zelect(*shrunk))
    assert (alone["voters"], alone["witness"], alone["survives"]) == ([2, 3], "member", 0)


@pytest.mark.long
def test_without_a_quorum_nobody_is_active(cluster: Cluster) -> None:
    pids = [cluster.process(node)["pid"] for node in (1, 2)]  # to ask takes a command, which takes a while
    for pid in pids:  # both at once: the record had no time to change
        os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: not cluster.controller(), what="the controller is frozen, or its lease has ended")
    zelect("status", "--dir", cluster.layout.directory, code=5)  # the one that answers can't know what the others do


@pytest.mark.long
def test_a_node_that_ends_by_itself_is_shown_and_not_started_again(cluster: Cluster) -> None:
    pid = cluster.process(3)["pid"]
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: cluster.process(3)["state"] == "ended")
    assert cluster.process(3)["pid"] == pid
    log = cluster.layout.supervisor_log
    wait_until(lambda: "exited on its own (signal 9); not restarted" in log.read_text())
    assert "exited on its own" in cluster.do("status")


def test_unknown_node_is_bad_usage(standing: Cluster) -> None:
    assert "it has 1, 2, 3" in standing.do("kill", 4, code=2)
    assert "it has 1, 2, 3" in standing.do("logs", 4, code=2)


def test_logs_show_one_node_or_all(standing: Cluster) -> None:
    assert not standing.do("logs", 2).startswith("n")
    assert set(re.findall(r"^n\d(?= \| )", standing.do("logs"), re.MULTILINE)) == {"n1", "n2", "n3"}


# -- one supervisor, and what dies with it -------------------------------------------------


@pytest.mark.long
def test_second_supervisor_is_refused(cluster: Cluster) -> None:
    told = cluster.up(code=2)
    assert f"pid {cluster.listed()['processes']['supervisor']}" in told
    assert wait_until(cluster.controller)


@pytest.mark.long
def test_everything_dies_with_a_killed_supervisor(cluster: Cluster) -> None:
    if not sys.platform.startswith("linux"):
        pytest.skip("only Linux kills children with their parent")
    supervisor, *children = cluster.pids()
    frozen = cluster.process(2)["pid"]
    cluster.do("freeze", 2)
    os.kill(supervisor, signal.SIGKILL)
    wait_until(lambda: not any(map(alive, children)), what="children to die")
    assert frozen in children
    cluster.do("down")
    assert not cluster.layout.control_file.exists()
    cluster.up()


def test_down_ends_a_frozen_supervisor(cluster: Cluster) -> None:
    supervisor, *children = cluster.pids()
    os.kill(supervisor, signal.SIGSTOP)
    assert bring_down(cluster.layout, 1)
    wait_until(lambda: not any(map(alive, [supervisor, *children])))


@pytest.mark.long
def test_foreground_prints_lines_and_ends_on_interrupt(tmp_path: Path) -> None:
    place = ("--dir", str(tmp_path / "c"), "--base-port", str(free_ports(3)[0]), "--name", "fore")
    process = subprocess.Popen(
        [sys.executable, "-m", "zelect", "cluster", "up", "3", *place], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        line = next(line for line in process.stdout if " is active, term " in line)
        assert "term 1" in line
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
        assert process.wait(30) == 0
        assert rest.count("stopped (exit code 0)") == 3
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_taken_port_names_the_fix(tmp_path: Path) -> None:
    made = Cluster(tmp_path / "cluster")
    with socket.create_server(("127.0.0.1", made.base_port + 1)):
        told = made.up(code=4)
    assert str(made.base_port + 1) in told
    assert "--base-port" in told
    assert made.layout.supervisor_pid() is None
