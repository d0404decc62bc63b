"""The watchdog with a lease that the test sets: the command is dead before the lease ends."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.waiting import wait_until
from zelect.core.lease import Lease
from zelect.jobs.watchdog_client import WatchdogClient
from zelect.node.leadership.handle import Controller, NodeHandle
from zelect.node.storage.data_dir import DataDir, DataDirInUse, lock_evidence
from zelect.system.clock import now_us

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux finds every descendant")
TERM_MS, KILL_MS = 400, 200
STUBBORN = "trap 'echo TERM >> $0.out' TERM; echo $$ >> $0.out; while :; do sleep 0.01; done"


class Stand:
    """A watchdog that is attached to a data directory, a listening socket and a handle, all of the test's."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.data_dir = DataDir.open(directory / "data", "demo", 1)
        self.data_dir.announce(77)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        self.handle = NodeHandle()
        self.client = WatchdogClient(TERM_MS, KILL_MS)
        self.client.attach(self.data_dir, self.port, self.handle)
        self.messages: list[dict[str, Any]] = []

    def lease(self, lease_ms: int, term: int = 3) -> int:
        """Hold a lease for so long; returns when it lapses."""
        lapses_us = now_us() + lease_ms * 1000
        self.handle.update(Lease(term, 1, lapses_us), Controller(1, term, 0, "start"))
        return lapses_us

    def start(self, script: str, term: int = 3) -> None:
        env = {"PATH": os.environ["PATH"]}
        self.client.start(["sh", "-c", script, str(self.directory / "job")], env, term)

    def heard(self, key: str) -> dict[str, Any]:
        """The first message with `key`, once it has come."""

        def found() -> dict[str, Any] | None:
            self.messages += self.client.receive()
            return next((message for message in self.messages if key in message), None)

        message = wait_until(found, 30, what=f"the watchdog says {key}")
        assert message is not None
        return message

    def lines(self) -> list[str]:
        with contextlib.suppress(FileNotFoundError):
            return (self.directory / "job.out").read_text().split()
        return []

    def end_watchdog(self) -> None:
        """Close the channel, and wait until the watchdog has ended. Harmless when repeated."""
        client, self.client = self.client, WatchdogClient(TERM_MS, KILL_MS)
        client.close()

    def close(self) -> None:
        self.client.close()
        self.listener.close()
        self.data_dir.close()


@pytest.fixture
def stand(tmp_path: Path) -> Iterator[Stand]:
    made = Stand(tmp_path)
    yield made
    made.close()


def gone(pid: int) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    return True


@pytest.mark.parametrize(("script", "code"), [("exit 0", 0), ("exit 3", 3), ("kill -9 $$", 137)])
def test_a_command_that_ends_by_itself_is_told_with_its_code(stand: Stand, script: str, code: int) -> None:
    stand.lease(60_000)
    stand.start(script)
    assert stand.heard("ended") == {"ended": code, "by_itself": True}


def test_a_command_that_cannot_be_started_is_told_with_the_reason(stand: Stand) -> None:
    stand.lease(60_000)
    stand.client.start(["./no-such-command"], {}, 3)
    assert stand.heard("failed") == {"failed": "./no-such-command: No such file or directory"}
    assert stand.heard("ended")["ended"] == 127


@pytest.mark.parametrize(("lease_ms", "term"), [(60_000, 4), (TERM_MS - 100, 3)], ids=["another term", "about to end"])
def test_a_command_is_not_started_when_leadership_is_lost(stand: Stand, lease_ms: int, term: int) -> None:
    stand.lease(lease_ms)
    stand.start("echo started >> $0.out", term)
    stand.heard("too_late")
    assert stand.lines() == []


def test_term_and_then_kill_come_before_the_lease_ends(stand: Stand) -> None:
    lapses_us = stand.lease(5000)
    stand.start(STUBBORN)
    wait_until(stand.lines)
    assert stand.heard("ended") == {"ended": 137, "by_itself": False}
    assert now_us() < lapses_us
    pid, *signals = stand.lines()
    assert signals == ["TERM"]
    assert gone(int(pid))


def test_a_renewed_lease_lets_the_command_run(stand: Stand) -> None:
    os.mkfifo(stand.directory / "job.fifo")
    lapses_us = stand.lease(TERM_MS + 1000)
    stand.start("read line < $0.fifo; exit 5")
    stand.heard("started")
    stand.lease(60_000)
    wait_until(lambda: now_us() > lapses_us, what="the first lease would have ended")
    (stand.directory / "job.fifo").write_text("go on\n")
    assert stand.heard("ended") == {"ended": 5, "by_itself": True}


def test_stop_waits_for_the_grace_and_a_second_one_does_not(stand: Stand) -> None:
    stand.lease(60_000)
    stand.start(STUBBORN)
    wait_until(stand.lines)
    stand.client.stop(50_000)
    wait_until(lambda: "TERM" in stand.lines())
    stand.client.stop(0)
    assert stand.heard("ended") == {"ended": 137, "by_itself": False}


def test_signals_go_on_to_the_group(stand: Stand) -> None:
    stand.lease(60_000)
    stand.start("trap 'exit 9' USR1; echo $$ >> $0.out; while :; do sleep 0.01; done")
    wait_until(stand.lines)
    stand.client.signal(signal.SIGUSR1)
    assert stand.heard("ended") == {"ended": 9, "by_itself": True}


def test_what_a_command_leaves_behind_is_killed(stand: Stand) -> None:
    stand.lease(60_000)
    stand.start("setsid sleep 1000 & echo $! >> $0.out; exit 0")
    assert stand.heard("ended") == {"ended": 0, "by_itself": True}
    (left,) = stand.lines()
    assert gone(int(left))


def test_a_closed_channel_kills_the_command_and_ends_the_watchdog(stand: Stand) -> None:
    stand.lease(60_000)
    stand.start(STUBBORN)
    wait_until(stand.lines)
    stand.end_watchdog()
    assert gone(int(stand.lines()[0]))


def test_it_holds_lock_and_listener_until_the_command_is_dead(stand: Stand, tmp_path: Path) -> None:
    stand.lease(60_000)
    stand.start("echo $$ >> $0.out; sleep 1000")
    wait_until(stand.lines)
    stand.listener.close()
    stand.data_dir.close()
    socket.create_connection(("127.0.0.1", stand.port)).close()
    assert not lock_evidence(tmp_path / "data", "demo", 1, 77)
    with pytest.raises(DataDirInUse):
        DataDir.open(tmp_path / "data", "demo", 1)
    stand.end_watchdog()
    assert lock_evidence(tmp_path / "data", "demo", 1, 77)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", stand.port))


def test_a_frozen_watchdog_is_done_without(stand: Stand) -> None:
    stand.lease(60_000)
    stand.start("(setsid sleep 1000 & echo $! >> $0.out); " + STUBBORN)
    pids = wait_until(lambda: len(stand.lines()) == 2 and stand.lines())
    assert pids
    stand.heard("started")
    watchdog = psutil.Process(int(pids[1])).parent()
    assert watchdog is not None
    watchdog.suspend()
    try:
        for _ in range(100_000):
            stand.client.signal(signal.SIGUSR2)  # more than its socket takes
        wait_until(lambda: stand.client.kill(watchdog_too=False))  # to be called again while something lives
        assert all(gone(int(pid)) for pid in pids)
    finally:
        watchdog.resume()
    stand.heard("ended")


def test_a_killed_watchdog_takes_the_command_along(stand: Stand) -> None:
    stand.lease(60_000)
    stand.start("(setsid sleep 1000 & echo $! >> $0.out); " + STUBBORN)
    pids = wait_until(lambda: len(stand.lines()) == 2 and stand.lines())
    assert pids
    watchdog = psutil.Process(int(pids[1])).parent()
    assert watchdog is not None
    watchdog.kill()
    stand.heard("gone")
    wait_until(lambda: stand.client.kill())
    assert all(gone(int(pid)) for pid in pids)
