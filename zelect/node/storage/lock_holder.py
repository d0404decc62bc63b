"""What keeps a node from being proven dead while a job of it lives in another process (R6, R9).

Peers take a node for dead when its connections are closed and either its lock is free or its address
refuses a new connection. Both come with the end of the node's process. A job in another process (a
command, or the program whose child the node is) lives on for some milliseconds, and its successor
could begin before it has ended. So that process, or one that ends the job, holds both too: a copy of the
descriptor with the lock, which holds the lock, and the listening socket, which goes on accepting
connections although no answer comes.
"""

from __future__ import annotations

import os
import socket
import stat
from contextlib import suppress

from zelect.system.forks import in_child


class LockHolder:
    """Holds a node's lock by `lock`, a copy of its descriptor, and `listener`, one of the node's listening
    socket (-1: none). Closes both at its end, and in a forked child."""

    def __init__(self, lock: int, listener: int) -> None:
        self._fd, self._listener = lock, listener
        in_child(self.release)

    def release(self) -> None:
        """The job has ended. Harmless when repeated."""
        for fd in (self._fd, self._listener):
            if fd >= 0:
                os.close(fd)
        self._fd = self._listener = -1


def listener_of(port: int) -> int:
    """A new descriptor of this process's socket that listens on TCP `port`; -1 where none is found.
    libzmq keeps its descriptors to itself, so they are looked for."""
    for name in ("/proc/self/fd", "/dev/fd"):
        with suppress(OSError):
            numbers = [int(entry) for entry in os.listdir(name) if entry.isdigit()]
            return next((fd for number in numbers if (fd := _listening(number, port)) >= 0), -1)
    return -1


def _listening(number: int, port: int) -> int:
    try:
        if not stat.S_ISSOCK(os.fstat(number).st_mode):
            return -1
        copy = os.dup(number)
        before = os.get_blocking(copy)
        with socket.socket(fileno=copy) as one:
            os.set_blocking(copy, before)  # a default timeout would change it, for the other copies too
            if one.family not in (socket.AF_INET, socket.AF_INET6) or one.type != socket.SOCK_STREAM:
                return -1
            listens = one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
            return one.detach() if listens and one.getsockname()[1] == port else -1
    except OSError:
        return -1
