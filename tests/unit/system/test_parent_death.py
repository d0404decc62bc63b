"""Commands that die with their parent, and orphans."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from tests.support.paths import ROOT
from tests.support.waiting import wait_until

SCRIPT = ROOT / "zelect" / "system" / "parent_death.py"
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux has this")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", "-S", str(SCRIPT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_the_command_runs() -> None:
    assert run(str(os.getpid()), "--", "/bin/echo", "here").stdout == "here\n"
    assert "no-such-command: No such file" in run(str(os.getpid()), "--", "no-such-command").stderr
    assert "usage: " in run("--", "/bin/echo").stderr


@linux
def test_an_orphan_is_not_started() -> None:
    done = run("1", "--", "/bin/echo", "here")
    assert (done.returncode, done.stdout) == (1, "")
    assert "has died" in done.stderr


PARENT = """
import subprocess, sys
from zelect.system.parent_death import prefix
print(subprocess.Popen([*prefix(), "sleep", "1000"], start_new_session=True).pid, flush=True)
sys.stdin.read()
"""


@linux
def test_the_command_dies_with_its_parent() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        wait_until(lambda: b"sleep" in command_line(child), what="it became the command")
        parent.send_signal(signal.SIGKILL)
    wait_until(lambda: not command_line(child))


def command_line(pid: int) -> bytes:
    """Empty for a process that is dead."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read()
    except OSError:
        return b""
