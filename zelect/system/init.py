"""The first process of a container: it gets every orphan, and nobody else takes away what is left of those that ended.

Orphans are what hooks and jobs leave behind. The node does not wait for processes that it doesn't know, so it runs in a
child, and the first process only passes signals on and takes the ended ones away, as `docker run --init` would.
"""

from __future__ import annotations

import contextlib
import os
import signal

_PASSED_ON = (
    *(signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT),
    *(signal.SIGUSR1, signal.SIGUSR2, signal.SIGCONT, signal.SIGWINCH),
)


def be_init() -> None:
    """Go on in a child where this process is the first one (id 1); elsewhere do nothing. To be called before there are
    threads. The first process ends with the child's exit code, or 128 and the number of the signal that ended it."""
    if os.getpid() != 1:
        return
    # Blocked, and not only without a handler: the kernel drops what the first process neither blocks nor handles.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {*_PASSED_ON, signal.SIGCHLD})
    child = os.fork()
    if child == 0:
        _take_the_terminal()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return
    os._exit(_serve(child))


def _take_the_terminal() -> None:
    """Be a process group of its own, else Ctrl-C would come twice: from the terminal, and from the first process."""
    with contextlib.suppress(OSError):
        os.setpgid(0, 0)
        before = signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        try:
            if os.isatty(0):
                os.tcsetpgrp(0, os.getpid())
        finally:
            signal.signal(signal.SIGTTOU, before)


def _serve(child: int) -> int:
    """Pass signals on to `child`, and take away what has ended, until `child` has; its exit code."""
    while True:
        number = signal.sigwait({*_PASSED_ON, signal.SIGCHLD})
        if number != signal.SIGCHLD:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, number)
            continue
        for pid, status in _ended():
            if pid == child:
                code = os.waitstatus_to_exitcode(status)
                return code if code >= 0 else 128 - code


def _ended() -> list[tuple[int, int]]:
    """The children that have ended, each with its status."""
    found = []
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG)) != (0, 0):
            found.append(ended)
    return found
