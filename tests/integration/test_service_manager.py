"""What a node tells systemd: a socket of the test's stands for it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.clusters import Cluster, Fleet
from tests.support.paths import ROOT
from tests.support.waiting import wait_until
from zelect.system.service_manager import ServiceManager


class Manager:
    """Hears what a node says, line by line."""

    def __init__(self, path: Path) -> None:
        self.path, self.lines = path, list[str]()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.setblocking(False)

    def hear(self) -> list[str]:
        while True:
            try:
                self.lines += self._socket.recv(4096).decode().splitlines()
            except BlockingIOError:
                return self.lines

    def until(self, line: str, after: int = 0) -> None:
        wait_until(lambda: line in self.hear()[after:], what=f"{line} in {self.lines}")

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    made = Manager(tmp_path / "notify")
    yield made
    made.close()


@contextmanager
def service(cluster: Cluster, node: int, manager: Manager, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    """`node` as systemd would start it."""
    what = (
        ["run", "-c", str(cluster.conf(node)), "--", *command] if command else ["node", "-c", str(cluster.conf(node))]
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "zelect", *what],
        env={**os.environ, "PYTHONPATH": str(ROOT), "NOTIFY_SOCKET": str(manager.path), "WATCHDOG_USEC": "300000"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("command", [(), ("sleep", "600")], ids=["node", "run"])
def test_a_node_says_how_it_is_doing(fleet: Fleet, manager: Manager, command: tuple[str, ...]) -> None:
    cluster = fleet.cluster()
    cluster.start(1, 2)
    with service(cluster, 3, manager, *command) as process:
        manager.until("READY=1")
        head = cluster.settled()
        manager.until(f"STATUS=follows node {head.id}, term {head.term}")
        heard = len(manager.hear())
        wait_until(lambda: manager.hear()[heard:].count("WATCHDOG=1") > 3)
        process.send_signal(signal.SIGHUP)
        manager.until("RELOADING=1")
        manager.until("READY=1", after=manager.lines.index("RELOADING=1"))
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        manager.until("STOPPING=1")


def test_a_returning_node_is_ready_once_its_vote_counts_a_new_one_at_once(fleet: Fleet, manager: Manager) -> None:
    cluster = fleet.cluster()
    with service(cluster, 1, manager):
        manager.until("READY=1")  # alone and new: the others may be started after it
        cluster.start(2, 3)
        cluster.settled()
    heard = len(manager.hear())
    cluster.kill(2, 3)
    with service(cluster, 1, manager) as process:
        manager.until("STATUS=no controller is known", after=heard)
        wait_until(lambda: manager.hear()[heard:].count("WATCHDOG=1") > 5)
        assert "READY=1" not in manager.lines[heard:], "no quorum is there"
        cluster.start(2, 3)
        manager.until("READY=1", after=heard)
        assert process.poll() is None


@pytest.mark.parametrize(
    ("environ", "there"),
    [
        ({}, False),
        ({"NOTIFY_SOCKET": "relative"}, False),
        ({"NOTIFY_SOCKET": "/" + "x" * 200}, False),
        ({"NOTIFY_SOCKET": "/run/nobody/listens"}, True),
        ({"NOTIFY_SOCKET": "@abstract", "WATCHDOG_USEC": "9" * 400}, True),
        ({"NOTIFY_SOCKET": "@abstract", "WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"}, True),
    ],
)
def test_what_the_environment_says(environ: dict[str, str], there: bool) -> None:
    made = ServiceManager.from_environment(environ)
    assert (made is not None) == there
    if made is not None:
        made.reloading()  # nobody listens, and nothing is raised
        assert made.due_us > 1 << 60, "no watchdog of this process"
        made.close()
