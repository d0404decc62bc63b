"""Faults meet the process that they mean, and no later owner of its pid."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from tests.support.waiting import wait_until
from tools.chaos_lab.pidfds import ProcessHandles


def sleeper() -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)


def test_a_signal_ends_the_process_that_is_meant() -> None:
    handles = ProcessHandles()
    with sleeper() as process:
        handles.know(1, process.pid)
        assert handles.runs(1)
        handles.signal(1, signal.SIGKILL)
        wait_until(lambda: not handles.runs(1), what="it has ended, although nobody has reaped it")
        assert process.wait(10) == -signal.SIGKILL
    handles.signal(1, signal.SIGKILL)
    assert not handles.runs(1)
    handles.close()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="pidfds are Linux's alone")
def test_one_that_ended_before_it_was_known_is_never_met() -> None:
    handles = ProcessHandles()
    with sleeper() as process:
        process.kill()
        process.wait(10)
        handles.know(1, process.pid)
    assert not handles.runs(1)
    handles.signal(1, signal.SIGKILL)
    with sleeper() as another:
        handles.know(1, another.pid)
        assert handles.runs(1)
        another.kill()
    handles.close()


def test_a_node_that_nobody_knows_is_nobody() -> None:
    handles = ProcessHandles()
    assert not handles.runs(7)
    handles.signal(7, signal.SIGKILL)
