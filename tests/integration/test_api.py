"""A node inside a program: its jobs end in time, one after the other, in threads and in coroutines."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import zelect
from tests.support.clusters import ROOT, Cluster, Fleet
from tests.support.marks import long_but
from tests.support.waiting import wait_until
from zelect.node.leadership.handle import Controller
from zelect.system.clock import now_us
from zelect.system.sockets import CannotBind

BUSY = {"heartbeat_ms": 200, "lease_ms": 1600, "election_timeout_ms": 2000, "stagger_ms": 100, "down_after_ms": 4000}
"""Timings at which a busy machine costs no leadership."""


@dataclass
class Shift:
    """One job in one leadership: who, in which term, from when to when on the election's clock."""

    node: int
    term: int
    began_us: int
    ended_us: int = 0
    lapsed_us: int = 0


@dataclass
class Shifts:
    """The jobs of a test."""

    all: list[Shift] = field(default_factory=list)

    def begin(self, node: int, leadership: zelect.Leadership) -> Shift:
        shift = Shift(node, leadership.term, now_us())
        self.all.append(shift)
        return shift

    def end(self, shift: Shift, leadership: zelect.Leadership) -> None:
        shift.ended_us, shift.lapsed_us = now_us(), leadership.lapses_us

    def work(self, node: int, leadership: zelect.Leadership) -> None:
        """Work until leadership is lost."""
        shift = self.begin(node, leadership)
        try:
            while True:
                leadership.sleep(0.005)
        finally:
            self.end(shift, leadership)

    async def work_async(self, node: int, leadership: zelect.Leadership) -> None:
        shift = self.begin(node, leadership)
        try:
            while True:
                await asyncio.sleep(0.005)
        finally:
            self.end(shift, leadership)

    def working(self, node: int) -> Callable[[], bool]:
        return lambda: bool(self.all) and (self.all[-1].node, self.all[-1].ended_us) == (node, 0)

    def check(self) -> None:
        """Jobs never overlapped, each ended within its lease, and terms grew."""
        for one, other in zip(self.all, self.all[1:], strict=False):
            assert 0 < one.ended_us <= other.began_us, (one, other)
            assert one.term <= other.term, (one, other)


class Program:
    """A thread that works in every leadership of its node."""

    def __init__(self, cluster: Cluster, node: int, shifts: Shifts, **options: object) -> None:
        self.node = zelect.Node(cluster.conf(node), **options)  # type: ignore[arg-type]
        self._id, self._shifts = node, shifts
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            with self.node:
                for leadership in self.node.campaign():
                    leadership.run(self._shifts.work, self._id, leadership)
        except BaseException as error:
            self.error = error

    def stop(self) -> None:
        self.node.ask_to_stop()
        self._thread.join(30)
        assert not self._thread.is_alive()


def test_threads_hand_over_one_after_the_other(fleet: Fleet) -> None:
    cluster, shifts = fleet.cluster(timing=BUSY), Shifts()
    programs = {n: Program(cluster, n, shifts) for n in (1, 2, 3)}
    wait_until(shifts.working(1))
    cluster.settled()
    programs[1].stop()
    wait_until(shifts.working(2))
    gap_ms = (shifts.all[-1].began_us - shifts.all[-2].ended_us) / 1000
    assert 0 <= gap_ms < BUSY["lease_ms"], "a job that has ended is waited for no longer"
    programs[1] = Program(cluster, 1, shifts)
    wait_until(lambda: programs[1].node.controller.id == 2)
    programs[2].stop()
    wait_until(lambda: shifts.working(1)() or shifts.working(3)())
    for program in programs.values():
        program.stop()
        assert program.error is None
    shifts.check()


def test_a_job_ends_within_its_lease_when_the_renewals_stop(fleet: Fleet) -> None:
    """The others are frozen: no connection closes, the answers just cease."""
    cluster, shifts = fleet.cluster(timing=BUSY), Shifts()
    program = Program(cluster, 1, shifts)
    cluster.start(2, 3)
    wait_until(shifts.working(1))
    cluster.settled(2, 3, 1)
    cluster.freeze(2, 3)
    wait_until(lambda: shifts.all[-1].ended_us, what="the job has ended")
    shift = shifts.all[-1]
    assert shift.ended_us < shift.lapsed_us
    cluster.thaw(2, 3)
    wait_until(lambda: len(shifts.all) > 1 or cluster.active(), what="there is a leadership again")
    program.stop()
    shifts.check()


def test_coroutines_are_cancelled_within_the_lease_and_campaign_again(fleet: Fleet) -> None:
    cluster, shifts = fleet.cluster(timing=BUSY), Shifts()
    node = zelect.Node(cluster.conf(1))

    async def main() -> None:
        async with node:
            async for leadership in node.campaign():
                await leadership.run(shifts.work_async(1, leadership))

    program = threading.Thread(target=asyncio.run, args=(main(),))
    program.start()
    cluster.start(2, 3)
    wait_until(shifts.working(1))
    cluster.settled()
    cluster.freeze(2, 3)
    cancelled = shifts.all[-1]
    wait_until(lambda: cancelled.ended_us, what="cancelled")
    assert cancelled.ended_us < cancelled.lapsed_us
    cluster.thaw(2, 3)
    _bring_home(cluster, shifts)
    node.ask_to_stop()
    program.join(30)
    assert not program.is_alive()
    shifts.check()


def _bring_home(cluster: Cluster, shifts: Shifts) -> None:
    """Have node 1 work, whoever is active: the others give it up one after the other."""

    def there() -> bool:
        head = cluster.active()
        if head is not None and head.id != 1 and len(cluster.running()) == 2:
            cluster.term(head.id)
            cluster.exit_code(head.id)
            cluster.start(head.id)
            cluster.settled()
        return shifts.working(1)()

    wait_until(there, 60, what="node 1 works")


def test_what_the_job_returns_and_raises(fleet: Fleet) -> None:
    cluster = fleet.cluster((1,))
    with zelect.Node(cluster.conf(1)) as node:
        leaderships = iter(node.campaign())
        leadership = next(leaderships)
        assert node.leadership is leadership
        assert (leadership.node, leadership.term, leadership.previous, leadership.reason) == (1, 1, 0, "start")
        assert 0 < leadership.remaining_ms < 400
        assert leadership.run(lambda a, b: a + b, 1, 2) == 3
        leadership.check()
        assert (node.controller.id, node.controller.term) == (1, 1)

        async def job(value: int) -> int:
            return value

        async def run() -> int | None:
            return await leadership.run(job(7))

        assert asyncio.run(run()) == 7
        node.ask_to_stop()
        with pytest.raises(zelect.LeadershipLost):
            leadership.check()
        assert leadership.run(lambda: pytest.fail("it is not active")) is None
        assert next(leaderships, None) is None
    assert node.leadership is None


def test_a_job_that_fails_ends_its_leadership(fleet: Fleet) -> None:
    """A single node has nobody to hand over to: it leads again after a rest."""
    cluster = fleet.cluster((1,))

    async def failing() -> None:
        raise ZeroDivisionError

    async def awaited(leadership: zelect.Leadership) -> None:
        await leadership.run(failing())

    async def cancelled(leadership: zelect.Leadership) -> None:
        async with asyncio.timeout(0.01):
            await leadership.run(asyncio.sleep(60))

    ways: list[tuple[Callable[[zelect.Leadership], object], type[Exception]]] = [
        (lambda leadership: leadership.run(lambda: 1 // 0), ZeroDivisionError),
        (lambda leadership: asyncio.run(awaited(leadership)), ZeroDivisionError),
        (lambda leadership: asyncio.run(cancelled(leadership)), TimeoutError),
    ]
    with zelect.Node(cluster.conf(1), rest_s=0.2) as node:
        leaderships = iter(node.campaign())
        for number, (way, error) in enumerate(ways, 1):
            leadership = next(leaderships)
            assert leadership.number == number
            with pytest.raises(error):
                way(leadership)
            assert leadership.lost
            assert node.leadership is None


RESIGNS = """
import asyncio, sys, time, zelect
kind = sys.argv[2]
def fails(*arguments): raise OSError("no route to the database")
async def fails_too(): fails()
async def lead(node):
    async for leadership in node.campaign():
        await leadership.run(fails_too())
async def main():
    async with zelect.Node(sys.argv[1]) as node:
        task = asyncio.create_task(lead(node))
        await asyncio.sleep(600)
if kind == "task":
    asyncio.run(main())
elif kind == "callback":
    with zelect.Node(sys.argv[1], on_elected=fails): time.sleep(600)
else:
    with zelect.Node(sys.argv[1], process=True) as node:
        for leadership in node.campaign():
            leadership.run(leadership.resign)
"""


@pytest.mark.parametrize("kind", long_but(["task", "callback", "resign"], "resign"))
def test_a_program_that_leads_and_does_nothing_hands_over(fleet: Fleet, kind: str) -> None:
    cluster = fleet.cluster(timing=BUSY)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", RESIGNS, str(cluster.conf(1)), kind]
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as program:
        try:
            wait_until(lambda: cluster.ask(1))
            cluster.start(2, 3)
            head = cluster.settled(2, 3, term_above=1)
            assert program.poll() is None
            (how,) = [one for one in cluster.events(head.id, "became_active") if one["term"] == head.term]
            assert how["reason"] == "handover"
        finally:
            program.kill()


@pytest.mark.parametrize("process", [False, True])
@pytest.mark.parametrize("after_s", [0, 0.002, 0.1])
def test_a_start_that_is_cancelled_leaves_nothing_behind(fleet: Fleet, process: bool, after_s: float) -> None:
    cluster = fleet.cluster((1,))

    async def main() -> None:
        node = zelect.Node(cluster.conf(1), process=process)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(after_s), node:
                await asyncio.sleep(60)
        assert not [one.name for one in threading.enumerate() if one.name.startswith("zelect")]
        async with node, zelect.Node(cluster.conf(1), process=process):
            pytest.fail("the first one runs")

    with pytest.raises(zelect.ZelectError, match="already running"):
        asyncio.run(main())


def test_a_program_is_called_back_and_leadership_waits_for_it(fleet: Fleet) -> None:
    cluster, calls = fleet.cluster((1, 2), timing=BUSY, quorum="static"), list[tuple[str, int, int]]()
    going = threading.Event()

    def elected(leadership: zelect.Leadership) -> None:
        calls.append(("elected", leadership.node, leadership.term))
        going.wait()

    def lost(leadership: zelect.Leadership) -> None:
        calls.append(("lost", leadership.node, leadership.term))
        assert leadership.lost

    def controller(head: Controller) -> None:
        calls.append(("controller", head.id, head.term))

    node = zelect.Node(cluster.conf(1), on_elected=elected, on_lost=lost, on_controller=controller)
    with node:
        cluster.start(2)
        wait_until(lambda: ("elected", 1, 1) in calls)
        cluster.settled(1, 2)
        node.ask_to_stop()
        wait_until(lambda: ("lost", 1, 1) in calls)
        still = cluster.active()
        assert still is not None, "on_elected has not returned, so nothing is handed over"
        assert still.id == 1
        going.set()
    assert ("controller", 1, 1) in calls
    wait_until(lambda: (cluster.ask(2)["controller"] or 0) != 1)


@pytest.mark.long
def test_an_unhealthy_program_hands_over_and_a_hung_job_does(fleet: Fleet) -> None:
    cluster, shifts, well = fleet.cluster(timing=BUSY), Shifts(), [True]
    options: dict[str, object] = {"health": lambda: well[0], "health_every_s": 0.05, "hung_after_s": 5.0}
    program = Program(cluster, 1, shifts, **options)
    cluster.start(2, 3)
    wait_until(shifts.working(1))
    cluster.settled()
    well[0] = False
    wait_until(lambda: shifts.all[-1].ended_us)
    head = cluster.settled(2, 3, term_above=shifts.all[-1].term)
    well[0] = True
    cluster.term(head.id)
    program.stop()
    shifts.check()


@pytest.mark.long
def test_a_job_that_hangs_costs_leadership_but_nobody_acts_before_its_lease_has_ended(fleet: Fleet) -> None:
    cluster = fleet.cluster(timing=BUSY)
    goes_on = threading.Event()
    times: dict[str, int] = {}

    def hang(leadership: zelect.Leadership) -> None:
        leadership.check()
        cluster.settled(1, 2, 3)
        goes_on.wait()
        times["lapsed"] = leadership.lapses_us
        leadership.check()

    def program() -> None:
        with node:
            for leadership in node.campaign():
                times["term"] = leadership.term
                leadership.run(hang, leadership)
                return

    node = zelect.Node(cluster.conf(1), hung_after_s=3.0)
    thread = threading.Thread(target=program)
    thread.start()
    cluster.start(2, 3)
    wait_until(lambda: "term" in times)
    head = cluster.settled(2, 3, term_above=times["term"])
    assert node.leadership is None
    goes_on.set()
    thread.join(30)
    assert not thread.is_alive()
    assert times["lapsed"] < head.at_us


OUTLASTS = """
import sys, time, zelect
def job(leadership):
    print("works", flush=True)
    while True: time.sleep(1)
with zelect.Node(sys.argv[1], exits=True) as node:
    for leadership in node.campaign():
        leadership.run(job, leadership)
"""


@pytest.mark.long
def test_a_process_ends_with_a_job_that_outlasts_its_lease(fleet: Fleet) -> None:
    cluster = fleet.cluster((1, 2), timing=BUSY, quorum="static")
    cluster.start(2)
    command = [sys.executable, "-c", OUTLASTS, str(cluster.conf(1))]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as done:
        try:
            assert done.stdout is not None
            assert done.stdout.readline() == "works\n"
            cluster.freeze(2)
            assert done.wait(30) == 70
            assert done.stderr is not None
            assert "outlasts its lease" in done.stderr.read()
        finally:
            done.kill()


def test_what_keeps_a_node_from_starting_is_raised_where_it_is_started(fleet: Fleet, tmp_path: Path) -> None:
    cluster = fleet.cluster((1,))
    with zelect.Node(cluster.conf(1)) as node:
        assert next(iter(node.campaign())).term == 1
        with pytest.raises(CannotBind), zelect.Node(cluster.conf(1)):
            pass
    with pytest.raises(RuntimeError, match="is not running"):
        node.campaign()
    with node:
        assert next(iter(node.campaign())).term == 2, "a node may be started again"
    with pytest.raises(zelect.ConfigError, match="cannot be read"):
        zelect.Node(tmp_path / "nothing.toml")
    with pytest.raises(ValueError, match="half of lease_ms = 400"):
        zelect.Node(cluster.conf(1), margin_ms=201)


def test_callbacks_that_nobody_would_await_are_refused(fleet: Fleet) -> None:
    async def called(leadership: zelect.Leadership) -> None:
        pytest.fail("never")

    with pytest.raises(TypeError, match="on_lost is an async function"):
        zelect.Node(fleet.cluster((1,)).conf(1), on_lost=called)  # type: ignore[arg-type]


def test_a_job_can_not_wait_for_its_own_end(fleet: Fleet) -> None:
    with zelect.Node(fleet.cluster((1,)).conf(1)) as node:

        def stops() -> None:
            with pytest.raises(RuntimeError, match="waits for itself"):
                node.stop()

        async def stops_too() -> None:
            with pytest.raises(RuntimeError, match="waits for itself"):
                await asyncio.to_thread(node.stop)

        async def both() -> None:
            await leadership.run(stops_too())

        leadership = next(iter(node.campaign()))
        leadership.run(stops)
        asyncio.run(both())


@pytest.mark.parametrize("process", [False, True])
def test_a_request_before_the_first_turn_of_the_loop_is_carried_out(
    fleet: Fleet, process: bool, caplog: pytest.LogCaptureFixture
) -> None:
    cluster = fleet.cluster((1,))
    caplog.set_level("INFO", "zelect")
    for _ in range(5):
        node = zelect.Node(cluster.conf(1), process=process)
        node.start()
        node.reload()
        node.stop(30)
    assert sum("reloaded" in record.getMessage() for record in caplog.records) == 5


@pytest.mark.parametrize("process", [False, True])
def test_a_node_reports_through_logging(
    fleet: Fleet, process: bool, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level("INFO", "zelect")
    cluster, refused = fleet.cluster((1,)), list[str]()

    def only_here(record: logging.LogRecord) -> bool:
        refused.append(record.getMessage())
        return "machine_started" not in record.getMessage()

    logger = logging.getLogger("zelect")
    logger.addFilter(only_here)
    try:
        with zelect.Node(cluster.conf(1), process=process) as node:
            next(iter(node.campaign()))
    finally:
        logger.removeFilter(only_here)
    found = {record.__dict__["event"]: record for record in caplog.records}
    assert {"node_started", "became_active", "node_ended"} <= found.keys()
    assert "machine_started" not in found
    active = found["became_active"]
    assert (active.levelname, active.__dict__["node"], active.__dict__["fields"]["term"]) == ("INFO", 1, 1)
    assert active.getMessage().startswith("n1 became_active term=1 reason=start")
    assert abs(active.created - time.time()) < 60
    assert not capfd.readouterr().err, "it is the program's to say where it goes"


def test_a_handler_that_hangs_costs_no_election(fleet: Fleet) -> None:
    goes_on, hangs = threading.Event(), threading.Event()

    class Hanging(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            hangs.set()
            goes_on.wait()

    handler, logger = Hanging(), logging.getLogger("zelect")
    logger.addHandler(handler)
    logger.setLevel("INFO")
    try:
        with zelect.Node(fleet.cluster((1,)).conf(1)) as node:
            leadership = next(iter(node.campaign()))
            assert hangs.wait(20)
            leadership.sleep(1.0)
            goes_on.set()
    finally:
        logger.removeHandler(handler)
        logger.setLevel("NOTSET")


@pytest.mark.long
def test_a_storm_of_signals_ends_a_program_in_good_order(fleet: Fleet) -> None:
    """The handlers of docs/embedding.md interrupt themselves."""
    program = """if True:
        import signal, sys, zelect
        with zelect.Node(sys.argv[1], process=sys.argv[2] == "process") as node:
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, lambda *_: node.ask_to_stop())
            print("ready", flush=True)
            for leadership in node.campaign():
                leadership.run(lambda: leadership.sleep(60))
    """
    cluster = fleet.cluster((1,))
    for kind in ("thread", "process"):
        with subprocess.Popen(
            [sys.executable, "-c", program, str(cluster.conf(1)), kind], stdout=subprocess.PIPE, cwd=ROOT
        ) as run:
            try:
                assert run.stdout is not None
                assert run.stdout.readline() == b"ready\n"
                for number in range(4000):
                    run.send_signal(signal.SIGTERM if number % 2 else signal.SIGINT)
                # A signal after the last line of the program ends it as it ends any other.
                assert run.wait(40) in (0, -signal.SIGTERM, -signal.SIGINT, 1)
            finally:
                run.kill()


def test_importing_zelect_imports_nothing_of_weight() -> None:
    code = "import sys, zelect; print([m for m in ('zmq', 'msgpack', 'redis', 'asyncio', 'click') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "[]\n"
    with pytest.raises(AttributeError, match="nothing_like_it"):
        zelect.nothing_like_it  # noqa: B018
    assert set(zelect.__all__) <= set(dir(zelect)) | {name for name in zelect.__all__ if getattr(zelect, name)}
