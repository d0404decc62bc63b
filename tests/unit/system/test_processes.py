"""A process is its pid and the moment it started: another one of that number is not signalled."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from zelect.system.processes import send, started


def test_only_the_process_that_is_meant_is_signalled() -> None:
    process = subprocess.Popen((sys.executable, "-c", "import time; time.sleep(600)"))
    since = started(process.pid)
    assert since
    assert since == started(process.pid)
    assert not send(process.pid, "1", signal.SIGKILL)
    assert not send(process.pid, "", signal.SIGKILL)
    assert not send(0, since, signal.SIGKILL)
    assert not send(-1, since, signal.SIGKILL)
    assert process.poll() is None
    assert send(process.pid, since, signal.SIGKILL)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert started(process.pid) == "", "one that has ended is none"
    process.wait()
    assert not send(process.pid, since, signal.SIGKILL)
