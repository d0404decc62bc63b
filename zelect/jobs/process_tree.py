"""The processes that a command started, found and killed without the watchdog: for when that is dead, or frozen.

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

from zelect.jobs.watchdog import below, parents

__all__ = ["MARK", "adopt_orphans", "kill_below", "kill_orphans"]

MARK = "ZELECT_WATCHDOG"
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
    return _kill(lambda: below(pid)) if pid else True


def kill_orphans() -> bool:
    """Kill what has become this process's child and is no hook's: what a watchdog that died guarded, whatever
    that did to its environment; and all that descends from it. Whether nothing of it lives."""

    def orphans() -> list[int]:
        me, found = os.getpid(), list[int]()
        for child in [pid for pid, parent in parents().items() if parent == me]:
            if not _is_hook(child):
                found += [child, *below(child)]
        return found

    return _kill(orphans)


def _is_hook(pid: int) -> bool:
    try:
        return any(word.startswith(b"ZELECT_HOOK=") for word in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"))
    except OSError:
        return False


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
