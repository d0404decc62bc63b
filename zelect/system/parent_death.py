"""What becomes of processes when their parent dies: a child that dies with it, orphans that are adopted.

    python -I -S parent_death.py PARENT_PID -- COMMAND [ARGUMENT ...]

runs a command that the kernel kills when the process PARENT_PID dies (`prefix`). It asks for SIGKILL
upon its parent's death (PR_SET_PDEATHSIG, which survives the exec that follows) and then looks whether
the parent died before it could ask. The signal belongs to the parent *thread*: start such commands
from a thread that lives as long as the process.

Linux only. macOS has neither: there the command just runs, and outlives its parent.

This file imports nothing of zelect and little of the standard library: it is also run as a script,
isolated and without site-packages, which takes some 20 ms.
"""

from __future__ import annotations

import os
import sys

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_SIGKILL = 9


def prefix() -> tuple[str, ...]:
    """What to put before a command so that it dies with the calling process."""
    return (sys.executable, "-I", "-S", os.path.abspath(__file__), str(os.getpid()), "--")


def die_with_parent(number: int = _SIGKILL) -> None:
    """Have this process get signal `number` when the thread that started it dies. Raises `OSError`."""
    _prctl("PR_SET_PDEATHSIG", _PR_SET_PDEATHSIG, number)


def adopt_orphans() -> None:
    """Make orphans among this process's descendants its own children, and not those of init. Raises
    `OSError`."""
    _prctl("PR_SET_CHILD_SUBREAPER", _PR_SET_CHILD_SUBREAPER, 1)


def _prctl(name: str, option: int, value: int) -> None:
    if not sys.platform.startswith("linux"):
        return
    import ctypes  # only here: importing this module for `prefix` must stay cheap

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl({name}): {os.strerror(number)}")


def _main(arguments: list[str]) -> None:
    if len(arguments) < 3 or not arguments[0].isdigit() or arguments[1] != "--":
        sys.exit("usage: parent_death.py PARENT_PID -- COMMAND [ARGUMENT ...]")
    command = arguments[2:]
    try:
        die_with_parent()
        if sys.platform.startswith("linux") and os.getppid() != int(arguments[0]):
            sys.exit(f"{command[0]}: not started: the process that wanted it, {arguments[0]}, has died")
        os.execvp(command[0], command)
    except OSError as error:
        sys.exit(f"{command[0]}: {error.strerror}")


if __name__ == "__main__":
    _main(sys.argv[1:])
