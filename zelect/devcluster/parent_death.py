"""Runs a command that the kernel kills when the supervisor dies.

    python -I -S tether.py SUPERVISOR_PID -- COMMAND [ARGUMENT ...]

Linux: this process asks for SIGKILL upon its parent's death (PR_SET_PDEATHSIG, which survives the
exec that follows) and then looks whether the parent died before it could ask. The signal belongs
to the parent *thread*: the supervisor starts its children from its main thread, which lives as
long as the process.

macOS has no such signal: there the command runs untethered, and after the death of a supervisor
`zelect cluster down` ends what it left behind.

It is run as a file, isolated and without site-packages (some 20 ms), and imports nothing of zelect.
"""

from __future__ import annotations

import os
import sys

__all__ = ["prefix"]

_PR_SET_PDEATHSIG = 1
_SIGKILL = 9


def prefix() -> tuple[str, ...]:
    """What to put before a command so that it dies with the calling process."""
    return (sys.executable, "-I", "-S", os.path.abspath(__file__), str(os.getpid()), "--")


def _tether(parent: int) -> None:
    if not sys.platform.startswith("linux"):
        return
    import ctypes  # here only, as importing this module for `prefix` must stay cheap

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0) != 0:
        sys.exit(f"tether: prctl(PR_SET_PDEATHSIG): {os.strerror(ctypes.get_errno())}")
    if os.getppid() != parent:
        sys.exit("tether: the supervisor has died")


def _main(arguments: list[str]) -> None:
    if len(arguments) < 3 or not arguments[0].isdigit() or arguments[1] != "--":
        sys.exit("usage: tether.py SUPERVISOR_PID -- COMMAND [ARGUMENT ...]")
    _tether(int(arguments[0]))
    command = arguments[2:]
    try:
        os.execvp(command[0], command)
    except OSError as error:
        sys.exit(f"tether: {command[0]}: {error.strerror}")


if __name__ == "__main__":
    _main(sys.argv[1:])
