"""The processes that a command started, found and killed without the guard: for when that is dead, or frozen.

Linux only; elsewhere nothing is found, and what made a session for itself lives on.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

__all__ = ["MARK", "adopt_orphans", "kill_below", "kill_orphans"]

MARK = "ZELECT_GUARD"
"""In the environment of a command: the process that guards it."""

_PR_SET_CHILD_SUBREAPER = 36
_LONGEST_S = 0.2
_AGAIN_S = 0.001


def adopt_orphans() -> None:
    """Make orphans among this process's descendants its children, not those of init."""
    if sys.platform.startswith("linux"):
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def kill_below(pid: int) -> bool:
    """Kill all that descends from `pid`, again and again until nothing lives there; whether it came to that.
    `pid` itself is left alone."""
    return _kill(lambda: _below(pid)) if pid else True


def kill_orphans(guard: int) -> bool:
    """Kill what the dead process `guard` guarded, as far as it has become this process's child, and all
    that descends from it; whether nothing of it lives."""
    mark = f"{MARK}={guard}".encode()

    def orphans() -> list[int]:
        found = []
        for child in _children(os.getpid()):
            with contextlib.suppress(OSError):
                if mark in Path(f"/proc/{child}/environ").read_bytes().split(b"\0"):
                    found += [child, *_below(child)]
        return found

    return _kill(orphans)


def _kill(who: Callable[[], list[int]]) -> bool:
    end_s = time.monotonic() + _LONGEST_S
    while living := who():
        for pid in living:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > end_s:
            return False
        time.sleep(_AGAIN_S)
    return True


def _below(pid: int) -> list[int]:
    parents = _parents()
    found, next_ones = list[int](), [pid]
    while next_ones:
        next_ones = [child for child, parent in parents.items() if parent in next_ones and child not in found]
        found += next_ones
    return found


def _children(pid: int) -> list[int]:
    return [child for child, parent in _parents().items() if parent == pid]


def _parents() -> dict[int, int]:
    """Each living process's parent; those that are dead and not reaped yet are left out."""
    found: dict[int, int] = {}
    with contextlib.suppress(FileNotFoundError):
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                with contextlib.suppress(OSError):
                    state, parent = Path(f"/proc/{entry}/stat").read_bytes().rpartition(b")")[2].split()[:2]
                    if state not in (b"Z", b"X"):
                        found[int(entry)] = int(parent)
    return found
