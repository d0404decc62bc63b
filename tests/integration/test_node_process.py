"""A node as a child process: a busy interpreter costs a thread its leadership, and a child not; deaths on
either side."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading

import psutil
import pytest

import zelect
from tests.support.clusters import CALM, ROOT, Fleet
from tests.support.marks import long_but
from tests.support.waiting import wait_until
from zelect.system.clock import now_us

BUSY = {"heartbeat_ms": 100, "lease_ms": 800, "election_timeout_ms": 1000, "stagger_ms": 100, "down_after_ms": 4000}
HELD_MS = 2500
"""For how long a job holds the interpreter's lock: longer than the lease and than every promise."""


def child_of_this_process() -> psutil.Process:
    living = [p for p in psutil.Process().children() if p.status() != psutil.STATUS_ZOMBIE]
    (child,) = [p for p in living if "--child" in p.cmdline()]
    return child


def hold_the_interpreter() -> None:
    """As a C library does that does not release the interpreter's lock."""
    ctypes.PyDLL(None).usleep(HELD_MS * 1000)


@pytest.mark.parametrize("process", [False, True], ids=["thread", "process"])
def test_a_job_that_holds_the_interpreter(fleet: Fleet, process: bool) -> None:
    cluster = fleet.cluster(timing=BUSY)
    node = zelect.Node(cluster.conf(1), process=process)
    with node:
        cluster.start(2, 3)
        leadership = next(iter(node.campaign()))
        cluster.settled()
        began_us = now_us()
        leadership.run(hold_the_interpreter)
        assert now_us() - began_us >= HELD_MS * 1000
        if process:
            assert not leadership.lost, "its node renewed the lease meanwhile"
            assert cluster.ask(2)["term"] == leadership.term
        else:
            assert leadership.lost
            assert cluster.controller(term_above=leadership.term).id != 1


@pytest.mark.long
def test_nobody_succeeds_a_killed_child_before_the_job_has_ended(fleet: Fleet) -> None:
    cluster, ends = fleet.cluster(timing=CALM), threading.Event()
    ended_us = [0]

    def job(leadership: zelect.Leadership) -> None:
        wait_until(lambda: leadership.lost)
        assert not ends.wait(0.5)  # long after its node's death could be proven
        ended_us[0] = now_us()

    node = zelect.Node(cluster.conf(1), process=True)
    node.start()
    cluster.start(2, 3)
    leaderships = iter(node.campaign())
    leadership = next(leaderships)
    cluster.settled()
    thread = threading.Thread(target=leadership.run, args=(job, leadership))
    thread.start()
    child_of_this_process().kill()
    head = cluster.controller(term_above=leadership.term)
    thread.join()
    assert ended_us[0] < head.at_us
    with pytest.raises(zelect.NodeFailed, match="was killed by SIGKILL"):
        next(leaderships)
    with pytest.raises(zelect.NodeFailed, match="was killed by SIGKILL"):
        node.stop()

    node.start()  # lock and port are free again
    wait_until(lambda: node.controller.id, what="its loop runs")
    child_of_this_process().terminate()
    wait_until(lambda: node.ended, what="the node left without being asked from here")
    node.stop()


def test_a_frozen_child_costs_leadership_in_time(fleet: Fleet) -> None:
    cluster = fleet.cluster((1,), timing=BUSY)
    with zelect.Node(cluster.conf(1), process=True) as node:
        leadership = next(iter(node.campaign()))
        child = child_of_this_process()
        child.suspend()
        frozen_us = now_us()
        with pytest.raises(zelect.LeadershipLost):
            leadership.sleep(60)
        assert now_us() < leadership.lapses_us
        assert leadership.lapses_us <= frozen_us + BUSY["lease_ms"] * 1000
        child.resume()
        again = next(iter(node.campaign()))
        assert again is not leadership
        assert again.term >= leadership.term


HOLDS = """
import ctypes, sys, zelect
def job(leadership):
    print(leadership.term, flush=True)
    ctypes.PyDLL(None).usleep(60_000_000)
with zelect.Node(sys.argv[1], process=True, exits=True) as node:
    for leadership in node.campaign():
        leadership.run(job)
"""


@pytest.mark.long
def test_a_program_that_holds_its_interpreter_past_the_lease_is_killed_by_its_child(fleet: Fleet) -> None:
    """The renewals stop, and nothing in the program itself could end the job."""
    cluster = fleet.cluster(timing=CALM)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", HOLDS.replace("job)", "job, leadership)"), str(cluster.conf(1))]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as program:
        try:
            wait_until(lambda: cluster.ask(1), what="the program's node is there, so it is elected first")
            cluster.start(2, 3)
            assert program.stdout is not None
            assert program.stdout.readline() == b"1\n"
            cluster.settled()
            cluster.freeze(2, 3)
            frozen_us = now_us()
            assert program.wait(30) == -signal.SIGKILL
            assert now_us() - frozen_us < 1000 * int(CALM["lease_ms"])
        finally:
            program.kill()


PROGRAM = """
import sys, threading, zelect
def job(leadership):
    print(leadership.term, flush=True)
    while True: leadership.sleep(0.01)
with zelect.Node(sys.argv[1], process=True) as node:
    for leadership in node.campaign():
        leadership.run(job, leadership)
"""


@pytest.mark.parametrize("number", long_but([signal.SIGKILL, signal.SIGINT], signal.SIGINT))
def test_the_child_ends_with_the_program(fleet: Fleet, number: signal.Signals) -> None:
    cluster = fleet.cluster(timing=CALM)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", PROGRAM, str(cluster.conf(1))]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as program:
        try:
            wait_until(lambda: cluster.ask(1), what="the program's node is there, so it is elected first")
            cluster.start(2, 3)
            assert program.stdout is not None
            assert program.stdout.readline() == b"1\n"
            cluster.settled()
            (child,) = psutil.Process(program.pid).children()
            began_us = now_us()
            program.send_signal(number)
            program.wait(30)
            head = cluster.controller(term_above=1)
            assert head.at_us - began_us < 1000 * int(CALM["election_timeout_ms"]), "it left: no node had to wait"
            wait_until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)
        finally:
            program.kill()


def test_what_keeps_a_child_from_starting_is_raised(fleet: Fleet) -> None:
    cluster = fleet.cluster((1,))
    with zelect.Node(cluster.conf(1)), pytest.raises(zelect.ChildFailed, match="cannot listen on"):
        zelect.Node(cluster.conf(1), process=True).start()
