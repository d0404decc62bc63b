"""`zelect run` with real processes: the command is dead before anybody else's can begin."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.support.clusters import HOST, ROOT, Cluster, Fleet, zelect
from tests.support.waiting import wait_until
from zelect.system.clock import now_us

BUSY = {"heartbeat_ms": 200, "lease_ms": 1600, "election_timeout_ms": 2000, "stagger_ms": 300, "down_after_ms": 4000}
"""Timings at which a busy machine costs no leadership."""

WORKS = """
import os, signal, subprocess, sys, time
out = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
def say(word):
    at_us = time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000
    os.write(out, f"{at_us} {os.environ['ZELECT_NODE']} {os.environ['ZELECT_TERM']} {os.getpid()} {word}\\n".encode())
def told(number, frame):
    say(signal.Signals(number).name)
    if number == signal.SIGTERM and "stubborn" not in sys.argv:
        sys.exit(7)
for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP):
    signal.signal(number, told)
if "family" in sys.argv or "bare" in sys.argv:
    child = subprocess.Popen(["sleep", "1000"], start_new_session=True, env={} if "bare" in sys.argv else None)
    os.write(out, f"0 0 0 {child.pid} grandchild\\n".encode())
if "chain" in sys.argv:
    for depth in range(150):
        if os.fork():
            if depth:
                time.sleep(1000)
            break
        os.setsid()
        os.write(out, f"0 0 0 {os.getpid()} grandchild\\n".encode())
    else:
        time.sleep(1000)
say("begins")
if "fails" in sys.argv:
    sys.exit(3)
while True:
    time.sleep(0.002)
    say("works")
"""


class Stage:
    """Runs of a command by the nodes of a cluster, and what the commands wrote."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.out = cluster.directory / "work.out"
        self.script = cluster.directory / "work.py"
        self.script.write_text(WORKS)

    def start(self, *nodes: int, options: tuple[str, ...] = (), words: tuple[str, ...] = ()) -> None:
        for node in nodes:
            command = [sys.executable, "-m", "zelect", "run", "-c", str(self.cluster.conf(node)), *options, "--"]
            command += [sys.executable, str(self.script), str(self.out), *words]
            with self.cluster.log_of(node).open("ab") as out:
                self.cluster.processes[node] = subprocess.Popen(
                    command,
                    env={**os.environ, "PYTHONPATH": str(ROOT)},
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=out,
                    start_new_session=True,
                )

    def lines(self, word: str = "") -> list[tuple[int, int, int, int, str]]:
        """(when, node, term, pid, word) of each line, or of those with `word`."""
        with contextlib.suppress(FileNotFoundError):
            rows = [line.split() for line in self.out.read_text().splitlines()]
            found = [(int(r[0]), int(r[1]), int(r[2]), int(r[3]), r[4]) for r in rows]
            return [row for row in found if word in ("", row[4])]
        return []

    def begun(self, node: int, term_above: int = 0) -> tuple[int, int, int, int, str]:
        def found() -> tuple[int, int, int, int, str] | None:
            return next((row for row in self.lines("begins") if row[1] == node and row[2] > term_above), None)

        row = wait_until(found, 40, what=f"the command of node {node} runs")
        assert row is not None
        return row

    def check(self) -> None:
        """No two commands at once, and terms only grow with time."""
        spans: dict[int, list[int]] = {}
        for at_us, _, term, _, word in sorted(self.lines()):
            if word != "grandchild":
                span = spans.setdefault(term, [at_us, at_us])
                span[1] = at_us
        ordered = [spans[term] for term in sorted(spans)]
        assert all(one[1] < other[0] for one, other in itertools.pairwise(ordered)), ordered


def gone(pid: int) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    return True


def watchdog_of(stage: Stage, node: int) -> psutil.Process:
    return psutil.Process(stage.cluster.processes[node].pid).children()[0]


def test_a_killed_node_takes_everything_along_before_the_next_command_begins(fleet: Fleet) -> None:
    stage = Stage(fleet.cluster(timing=BUSY))
    stage.start(1, 2, 3, words=("family",))
    first = stage.begun(1)
    stage.cluster.settled()
    (grandchild,) = [row[3] for row in stage.lines("grandchild")]
    watchdog = watchdog_of(stage, 1)
    killed_us = now_us()
    stage.cluster.kill(1)
    second = stage.begun(2, term_above=first[2])
    assert gone(first[3])
    assert gone(grandchild), "a session of its own does not save it"
    assert second[0] - killed_us < BUSY["lease_ms"] * 1000, "its death was proven: no node waited for promises"
    wait_until(lambda: gone(watchdog.pid), what="the watchdog has ended")
    stage.cluster.term(2, 3)
    assert (stage.cluster.exit_code(2), stage.cluster.exit_code(3)) == (0, 0)
    stage.check()


def test_a_frozen_node_leaves_nothing_running_past_its_lease(fleet: Fleet) -> None:
    stage = Stage(fleet.cluster(timing=BUSY))
    stage.start(1, 2, 3, words=("stubborn",))
    first = stage.begun(1)
    stage.cluster.settled()
    stage.cluster.freeze(1)
    frozen_us = now_us()
    stage.begun(2, term_above=first[2])
    assert gone(first[3])
    last_us = max(row[0] for row in stage.lines() if row[2] == first[2])
    assert last_us < frozen_us + BUSY["lease_ms"] * 1000
    assert [row for row in stage.lines("SIGTERM") if row[3] == first[3]], "TERM came before KILL"
    stage.cluster.thaw(1)
    stage.cluster.settled()
    stage.check()


@pytest.mark.long
def test_a_long_line_of_children_in_sessions_of_their_own_is_killed_at_once(fleet: Fleet) -> None:
    stage = Stage(fleet.cluster(timing=BUSY))
    stage.start(1, 2, 3, words=("stubborn", "chain"))
    first = stage.begun(1)
    wait_until(lambda: len(stage.lines("grandchild")) == 150, 40)
    stage.cluster.settled()
    stage.cluster.freeze(1)
    stage.begun(2, term_above=first[2])
    line = [row[3] for row in stage.lines("grandchild")][:150]
    assert gone(first[3])
    assert not [pid for pid in line if not gone(pid)]
    stage.cluster.thaw(1)


def test_a_command_that_ignores_term_is_killed_before_the_lease_ends(fleet: Fleet) -> None:
    """The renewals stop; the node itself is fine."""
    stage = Stage(fleet.cluster(timing=BUSY))
    stage.start(1, words=("stubborn",))
    stage.cluster.start(2, 3)
    first = stage.begun(1)
    stage.cluster.settled()
    stage.cluster.freeze(2, 3)
    frozen_us = now_us()
    wait_until(lambda: gone(first[3]))
    assert max(row[0] for row in stage.lines()) < frozen_us + BUSY["lease_ms"] * 1000
    assert stage.lines("SIGTERM")
    stage.cluster.thaw(2, 3)
    wait_until(lambda: len(stage.lines("begins")) > 1 or _newer(stage.cluster, first[2]), 40)
    stage.check()


def _newer(cluster: Cluster, term: int) -> bool:
    head = cluster.active()
    return head is not None and head.term > term


def test_stopping_waits_for_the_command_hands_over_and_returns_its_code(fleet: Fleet) -> None:
    stage = Stage(fleet.cluster(timing=BUSY))
    stage.start(1, 2, 3, options=("--child-exit-code", "--forward-hup"))
    first = stage.begun(1)
    stage.cluster.settled()
    for number in (signal.SIGUSR1, signal.SIGHUP):
        stage.cluster.signal(number, 1)
        wait_until(lambda name=number.name: stage.lines(name), what=f"{number.name} was forwarded")  # type: ignore[misc]
    stage.cluster.term(1)
    assert stage.cluster.exit_code(1) == 7
    assert gone(first[3])
    second = stage.begun(2, term_above=first[2])
    ended_us = max(row[0] for row in stage.lines() if row[2] == first[2])
    assert second[0] - ended_us < BUSY["lease_ms"] * 1000
    stage.check()


@pytest.mark.parametrize("words", [(), ("stubborn",)], ids=["obedient", "stubborn"])
@pytest.mark.long
def test_a_transfer_waits_for_the_command_to_end(fleet: Fleet, words: tuple[str, ...]) -> None:
    stage = Stage(fleet.cluster(timing=BUSY))
    stage.start(1, 2, 3, words=words)
    head = stage.cluster.settled()
    before = stage.begun(head.id)
    to = 3 if head.id != 3 else 2

    def fit() -> bool:
        peers = {peer.id: peer.ineligible for peer in stage.cluster.controller().peers}
        return not peers[to]

    wait_until(fit)
    done = zelect("transfer", "-c", stage.cluster.conf(1), "--to", to)
    assert done.returncode == 0, done.stderr
    stage.begun(to, term_above=head.term)
    assert [row[3] for row in stage.lines("SIGTERM")] == [before[3]]
    assert gone(before[3])
    stage.check()


def test_a_killed_watchdog_ends_the_command_and_the_run(fleet: Fleet) -> None:
    stage = Stage(fleet.cluster((1,), timing=BUSY))
    stage.start(1)
    first = stage.begun(1)
    watchdog_of(stage, 1).kill()
    assert stage.cluster.exit_code(1) == 1
    assert gone(first[3])
    assert "the watchdog of the command has died" in stage.cluster.log_of(1).read_text()


def test_a_command_that_fails_is_started_again_later_and_later(fleet: Fleet) -> None:
    stage = Stage(fleet.cluster((1,), timing=BUSY))
    stage.start(1, options=("--child-exit-code",), words=("fails",))
    wait_until(lambda: len(stage.lines("begins")) >= 4)
    times_us = [row[0] for row in stage.lines("begins")]
    gaps_ms = [(b - a) / 1000 for a, b in itertools.pairwise(times_us)]
    assert gaps_ms[0] >= 100
    assert gaps_ms[1] >= 200
    assert gaps_ms[2] >= 400
    assert {row[2] for row in stage.lines()} == {1}, "one leadership"
    stage.cluster.term(1)
    assert stage.cluster.exit_code(1) in (3, 7, 143), "by itself, or while it was started again"


@pytest.mark.parametrize(("restart", "code"), [("never", 3), ("on-failure", 0)])
def test_a_command_that_is_done_ends_the_run_with_child_exit_code(fleet: Fleet, restart: str, code: int) -> None:
    cluster = fleet.cluster((1,))
    options = ("run", "-c", cluster.conf(1), "--restart", restart, "--child-exit-code", "--")
    done = zelect(*options, "sh", "-c", f"exit {code}")
    assert done.returncode == code, done.stderr


@pytest.mark.long
def test_without_it_the_node_stays_and_runs_the_command_in_the_next_leadership(fleet: Fleet) -> None:
    stage = Stage(fleet.cluster((1, 2), timing=BUSY, quorum="static"))
    stage.start(1, options=("--restart", "never"), words=("fails",))
    stage.cluster.start(2)
    first = stage.begun(1)
    stage.cluster.settled()
    stage.cluster.freeze(2)
    wait_until(lambda: not (stage.cluster.ask(1) or {"active": True})["active"])
    stage.cluster.thaw(2)
    head = stage.cluster.controller(term_above=first[2])
    assert len(stage.lines("begins")) == (2 if head.id == 1 else 1)


def test_arguments_and_environment_reach_the_command_untouched(fleet: Fleet) -> None:
    cluster = fleet.cluster((1,))
    show = (
        "import os, sys; print(os.getppid(), sys.argv[1:],"
        " {k: v for k, v in sorted(os.environ.items()) if k.startswith('ZELECT_')})"
    )
    words = ("--json", "-c", "a b", "--", "", "$HOME", "ü")
    done = zelect("run", "-c", cluster.conf(1), "--child-exit-code", "--", sys.executable, "-c", show, *words)
    assert done.returncode == 0, done.stderr
    watchdog, _, shown = done.stdout.partition(" ")
    expected = {
        "ZELECT_CONTROLLER": "1",
        "ZELECT_LEASE_MS": "400",
        "ZELECT_NODE": "1",
        "ZELECT_PREVIOUS": "",
        "ZELECT_REASON": "start",
        "ZELECT_ROLE": "controller",
        "ZELECT_TERM": "1",
        "ZELECT_WATCHDOG": watchdog,
    }
    assert shown == f"{list(words)} {expected}\n"


def test_it_runs_without_any_standard_stream(fleet: Fleet, tmp_path: Path) -> None:
    cluster, out = fleet.cluster((1,)), tmp_path / "out"
    job = f"import os; print(os.read(0, 9)); open({str(out)!r}, 'w').write(os.environ['ZELECT_TERM'])"
    words = ("run", "-c", str(cluster.conf(1)), "--child-exit-code", "--", sys.executable, "-c", job)
    closed = ("sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh")
    assert zelect(*words, prefix=closed).returncode == 0
    assert out.read_text() == "1"


@pytest.mark.long
def test_what_cannot_be_run_is_reported_at_once(fleet: Fleet, tmp_path: Path) -> None:
    cluster = fleet.cluster((1,))
    done = zelect("run", "-c", cluster.conf(1), "--", "no-such-command-here")
    assert done.returncode == 2
    assert "no-such-command-here: no such command" in done.stderr
    done = zelect("run", "-c", tmp_path / "none.toml", "--", "true")
    assert done.returncode == 2
    assert zelect("run", "-c", cluster.conf(1)).returncode == 2
    assert "No such option '--grade'" in zelect("run", "-c", cluster.conf(1), "--grade", "1", "--", "true").stderr
    with socket.create_server((HOST, cluster.ports[1])):
        assert zelect("run", "-c", cluster.conf(1), "--", "true").returncode == 4
    cluster.data_dirs[1].mkdir(mode=0o700)
    (cluster.data_dirs[1] / "vote").write_bytes(b"garbage")
    done = zelect("run", "-c", cluster.conf(1), "--", "true")
    assert done.returncode == 3, done.stderr


def test_a_command_that_leaves_children_behind_leaves_none(fleet: Fleet, tmp_path: Path) -> None:
    cluster, pid = fleet.cluster((1,)), tmp_path / "pid"
    leaves = f"(setsid sleep 1000 & echo $! > {pid}) ; exit 0"
    began = time.monotonic()
    assert zelect("run", "-c", cluster.conf(1), "--child-exit-code", "--", "sh", "-c", leaves).returncode == 0
    assert time.monotonic() - began < 60
    assert gone(int(pid.read_text()))


@pytest.mark.long
def test_a_watchdog_that_is_frozen_is_not_waited_for(fleet: Fleet) -> None:
    """The renewals stop, and the watchdog can't act: the node ends the command itself, in time."""
    stage = Stage(fleet.cluster(timing=BUSY))
    stage.start(1, words=("stubborn",))
    stage.cluster.start(2, 3)
    first = stage.begun(1)
    stage.cluster.settled()
    watchdog = watchdog_of(stage, 1)
    watchdog.suspend()
    stage.cluster.freeze(2, 3)
    frozen_us = now_us()
    wait_until(lambda: gone(first[3]))
    assert max(row[0] for row in stage.lines()) < frozen_us + BUSY["lease_ms"] * 1000
    watchdog.resume()
    stage.cluster.thaw(2, 3)
    wait_until(lambda: len(stage.lines("begins")) > 1 or _newer(stage.cluster, first[2]), 40)
    assert stage.cluster.processes[1].poll() is None, "a watchdog that was late does not end the node"
    stage.check()


@pytest.mark.long
def test_a_frozen_watchdog_with_a_full_channel_is_no_obstacle(fleet: Fleet) -> None:
    """Forwarded signals that it does not read, a child in a session of its own, and leadership lost."""
    stage = Stage(fleet.cluster(timing=BUSY))
    stage.start(1, words=("family",))
    stage.cluster.start(2, 3)
    first = stage.begun(1)
    stage.cluster.settled()
    (grandchild,) = [row[3] for row in stage.lines("grandchild")]
    watchdog = watchdog_of(stage, 1)
    watchdog.suspend()
    for _ in range(3000):
        stage.cluster.signal(signal.SIGUSR2, 1)
    stage.cluster.freeze(2, 3)
    frozen_us = now_us()
    wait_until(lambda: gone(first[3]) and gone(grandchild), 20)
    assert max(row[0] for row in stage.lines()) < frozen_us + BUSY["lease_ms"] * 1000
    watchdog.resume()
    stage.cluster.thaw(2, 3)
    wait_until(lambda: len(stage.lines("begins")) > 1 or _newer(stage.cluster, first[2]), 40)
    stage.check()


@pytest.mark.long
def test_a_frozen_watchdog_wakes_when_the_node_is_killed(fleet: Fleet) -> None:
    stage = Stage(fleet.cluster(timing=BUSY))
    stage.start(1, 2, 3, words=("family",))
    first = stage.begun(1)
    stage.cluster.settled()
    (grandchild,) = [row[3] for row in stage.lines("grandchild")]
    watchdog = watchdog_of(stage, 1)
    watchdog.suspend()
    stage.cluster.kill(1)
    stage.begun(2, term_above=first[2])
    assert gone(first[3])
    assert gone(grandchild)
    wait_until(lambda: not watchdog.is_running())
    stage.check()


@pytest.mark.parametrize("child", ["family", "bare"])
def test_a_killed_watchdog_leaves_no_child_behind(fleet: Fleet, child: str) -> None:
    """Not even one that has lost its environment."""
    stage = Stage(fleet.cluster(timing=BUSY, ids=(1,), quorum="static"))
    stage.start(1, words=(child,))
    first = stage.begun(1)
    (grandchild,) = [row[3] for row in stage.lines("grandchild")]
    watchdog_of(stage, 1).kill()
    assert stage.cluster.exit_code(1) == 1
    assert gone(first[3])
    assert gone(grandchild)


@pytest.mark.long
def test_grace_and_a_second_term_hold_though_the_watchdog_is_frozen(fleet: Fleet) -> None:
    stage = Stage(
        fleet.cluster(timing={**BUSY, "lease_ms": 8000, "election_timeout_ms": 9000, "down_after_ms": 20_000})
    )
    stage.start(1, 2, options=("--grace", "30"), words=("stubborn",))
    stage.cluster.start(3)
    first = stage.begun(1)
    watchdog_of(stage, 1).suspend()
    stage.cluster.term(1)
    stage.cluster.signal(signal.SIGINT, 1)
    wait_until(lambda: gone(first[3]), 20, what="the second signal does not wait for the grace")
