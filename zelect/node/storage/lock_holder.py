"""What keeps a node from being proven dead while a job of it lives in another process (R6, R9).

Peers take a node for dead when its connections are closed and either its lock is free or its address
refuses a new connection. Both come with the end of the node's process. A job in another process (a
command, or the program whose child the node is) lives on for some milliseconds, and its successor
could begin before it has ended. So that process, or one that ends the job, holds both too: one byte of
the lock file, far behind the node's own line, and the listening socket, which goes on accepting
connections although no answer comes.
"""

from __future__ import annotations

import fcntl
import os
import socket
import stat
from contextlib import suppress

from zelect.node.storage.data_dir import HOLD_BYTE, adopted


class LockHolder:
    """Holds the byte of a node's lock, on the descriptor `lock` that `DataDir.share` returned there, and
    `listener`, a descriptor of the node's listening socket (-1: none). Closes both at its end. Raises
    `OSError` when another process holds the byte: the job of an earlier run of this node has not ended."""

    def __init__(self, lock: int, listener: int) -> None:
        self._fd, self._listener = lock, listener
        self._forget = adopted(lock)
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, HOLD_BYTE)
        except OSError:
            self._forget()
            os.close(lock)
            raise

    def release(self) -> None:
        """The job has ended. Harmless when repeated."""
        if self._fd >= 0:
            self._forget()
            os.close(self._fd)
            self._fd = -1
        if self._listener >= 0:
            os.close(self._listener)
            self._listener = -1


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
        with socket.socket(fileno=os.dup(number)) as one:
            if one.family not in (socket.AF_INET, socket.AF_INET6) or one.type != socket.SOCK_STREAM:
                return -1
            listens = one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
            return one.detach() if listens and one.getsockname()[1] == port else -1
    except OSError:
        return -1
