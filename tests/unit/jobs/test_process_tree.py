"""Descendants are found and killed, whatever sessions they made for themselves."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys

import psutil
import pytest

from tests.support.paths import ROOT
from tests.support.waiting import wait_until
from zelect.jobs.process_tree import descendants, kill_descendants

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux has /proc")

LINE = """if True:
    import os, time
    from zelect.jobs.process_tree import descendants, kill_orphans
    from zelect.jobs.watchdog import Watchdog
    from zelect.system.parent_death import adopt_orphans
    adopt_orphans()  # as the watchdog does
    for depth in range(20):
        if os.fork():
            break
        os.setsid()
    if depth or os.getppid() != PARENT:
        time.sleep(1000)
    while len(descendants(os.getpid())) < 20:
        time.sleep(0.01)
    line = descendants(os.getpid())
    KILL
    print(*line, flush=True)
    time.sleep(1000)
"""
WATCHDOG = "watchdog = Watchdog.__new__(Watchdog); watchdog.group = line[0]; watchdog.kill_all()"


def gone(pid: int) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    return True


@pytest.mark.parametrize("kill", [WATCHDOG, "kill_orphans()", "pass"], ids=["watchdog", "orphans", "from outside"])
def test_every_generation_is_killed(kill: str) -> None:
    """By the watchdog in one sweep; by the node's process of its orphans; and of another process."""
    program = LINE.replace("PARENT", str(os.getpid())).replace("KILL", kill)
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=ROOT) as run:
        try:
            assert run.stdout is not None
            line = [int(pid) for pid in run.stdout.readline().split()]
            assert len(line) == 20
            if kill == "pass":
                assert set(descendants(run.pid)) == set(line)
                wait_until(lambda: kill_descendants(run.pid))  # on a busy machine more than once
                assert run.poll() is None
            wait_until(lambda: all(gone(pid) for pid in line))
        finally:
            run.kill()
