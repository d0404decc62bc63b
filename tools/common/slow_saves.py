"""Disks that take long to sync, by strace: each fdatasync of a process waits before it begins."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from tools.common.checkout import ToolError

_ATTACHED_WITHIN_S = 20.0


def missing() -> str:
    """Why saves can't be slowed down here; empty when they can."""
    return "" if shutil.which("strace") else "strace is not installed"


def _strace(by_ms: int) -> tuple[str, ...]:
    inject = f"inject=fdatasync:delay_enter={by_ms * 1000}"
    return ("strace", "-f", "--seccomp-bpf", "-qq", "-o", os.devnull, "-e", "trace=fdatasync", "-e", inject)


def saving_slowly(by_ms: int) -> tuple[str, ...]:
    """What to put before a command whose saves, from the first, are to take `by_ms` longer. Its process is the
    command's own; the tracer ends with it."""
    return (*_strace(by_ms), "-D") if by_ms else ()


@contextlib.contextmanager
def slowed_saves(pids: Iterable[int], by_ms: int) -> Iterator[None]:
    """The saves of these running processes take `by_ms` longer. Raises ToolError."""
    pids = tuple(pids)
    tracers = [subprocess.Popen([*_strace(by_ms), "-p", str(pid)]) for pid in pids]
    try:
        end = time.monotonic() + _ATTACHED_WITHIN_S
        while not all(map(_is_traced, pids)):
            if time.monotonic() > end:
                raise ToolError(f"strace does not attach to {pids}")
            time.sleep(0.01)
        yield
    finally:
        for tracer in tracers:
            tracer.kill()
            tracer.wait()


def _is_traced(pid: int) -> bool:
    return "TracerPid:\t0" not in Path(f"/proc/{pid}/status").read_text()
