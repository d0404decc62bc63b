"""What keeps a node from being proven dead as long as the process of its job lives (R6, R9).

Peers take a node for dead when its lock is free, or its connection is closed and its address
refuses a new one. Both come with the end of the node's process. Where the job is in another process
(a command, or the program whose child the node is), it lives on for some milliseconds, and its
successor could begin before it has ended. So that process, or one that ends the job, holds both
too: one byte of the lock file, far behind the node's own range, and the listening socket, which
goes on accepting although nobody answers.
"""

from __future__ import annotations

import fcntl
import os
import socket
import stat
from contextlib import suppress
from pathlib import Path

from zelect.node.storage.data_dir import HOLD_BYTE, adopted
from zelect.system.secure_files import open_file

__all__ = ["LockHolder", "listener_of"]


class LockHolder:
    """Holds the lock's byte in `data_dir`, which its node has given free (`DataDir.share`), and
    `listener`, a descriptor of the node's listening socket (-1: none). Raises `OSError` when another
    process holds the byte: the job of an earlier life of this node has not ended."""

    def __init__(self, data_dir: Path, listener: int) -> None:
        self._listener = listener
        self._fd = open_file(data_dir / "lock", os.O_RDWR)
        try:
            fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, HOLD_BYTE)
        except OSError:
            os.close(self._fd)
            raise
        self._forget = adopted(self._fd)

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
