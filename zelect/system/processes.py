"""Which process a number means: a pid may belong to another one by now.

A process is known by its pid and the moment it started, which the kernel tells (in ticks since the boot; elsewhere
`ps` tells the time). A number that came from another PID namespace means nothing here: then no process with that
start is found, and nothing is signalled.
"""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

_STARTED_AT = 19
"""Where /proc/PID/stat tells it, counted after the command's name, which may hold anything."""


def started(pid: int) -> str:
    """When process `pid` started; "" where there is none, or only one that has ended and is not reaped yet."""
    try:
        words = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return "" if words[0] in (b"Z", b"X") else words[_STARTED_AT].decode()
    except (OSError, IndexError):
        pass
    if Path("/proc/self").exists():
        return ""
    listed = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return listed.stdout.strip()


def send(pid: int, since: str, number: signal.Signals) -> bool:
    """Send the process that started at `since` a signal; whether it is there. Never another one: the kernel's handle
    on the process is taken before its start is looked at."""
    if pid <= 0 or not since:
        return False
    if not hasattr(os, "pidfd_open"):
        if started(pid) != since:
            return False
        with suppress(ProcessLookupError):
            os.kill(pid, number)
        return True
    try:
        handle = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        if started(pid) != since:
            return False
        signal.pidfd_send_signal(handle, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(handle)
    return True
