"""The processes that a command has started: found in /proc, and killed.

The watchdog kills with it, and the node's process where the watchdog is dead or frozen. Linux only:
elsewhere nothing is found, and what made a session for itself lives on.

The standard library alone: the watchdog runs without site-packages.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterable

MARK = "ZELECT_WATCHDOG"
"""In the environment of a command: the process id of its watchdog."""

_LONGEST_S = 0.2
_AGAIN_S = 0.001


def descendants(pid: int) -> list[int]:
    """All living processes that descend from `pid`."""
    children: dict[int, list[int]] = {}
    for child, parent in _parents().items():
        children.setdefault(parent, []).append(child)
    found = list(children.get(pid, ()))
    for one in found:  # which grows meanwhile
        found += children.get(one, ())
    return found


def kill_each(pids: Iterable[int]) -> None:
    """Kill these processes, as far as they live and this user may."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


def kill_descendants(pid: int) -> bool:
    """Kill what descends from `pid`, but not `pid` itself, until nothing of it lives; False when something
    still does after 0.2 s."""
    return _kill(lambda: descendants(pid))


def kill_orphans() -> bool:
    """Kill the children of this process that are not hooks, and their descendants, until none lives; False
    when one still does after 0.2 s. Where this process adopts orphans, they are what a dead watchdog leaves
    behind, whatever became of their environment."""

    def orphans() -> list[int]:
        me, found = os.getpid(), list[int]()
        for child in [pid for pid, parent in _parents().items() if parent == me]:
            if not _is_hook(child):
                found += [child, *descendants(child)]
        return found

    return _kill(orphans)


def _is_hook(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return any(word.startswith(b"ZELECT_HOOK=") for word in file.read().split(b"\0"))
    except OSError:
        return False


def _kill(find: Callable[[], list[int]]) -> bool:
    end_s = time.monotonic() + _LONGEST_S
    while living := find():
        kill_each(living)
        if time.monotonic() > end_s:
            return False
        time.sleep(_AGAIN_S)
    return True


def _parents() -> dict[int, int]:
    """Each living process and its parent; those that are dead and not yet reaped are left out."""
    found: dict[int, int] = {}
    with contextlib.suppress(FileNotFoundError):
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                with contextlib.suppress(OSError), open(f"/proc/{entry}/stat", "rb") as stat:
                    state, parent = stat.read().rpartition(b")")[2].split()[:2]
                    if state not in (b"Z", b"X"):
                        found[int(entry)] = int(parent)
    return found
