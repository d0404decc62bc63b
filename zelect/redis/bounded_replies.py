"""What Redis may answer: so many bytes to what was sent last, within the time limit in all.

redis-py reads a bulk, a line or an array of any length, and its time limit begins again with each byte: a Redis that
lies can fill the memory and hold up a caller for ever. Its parsers read from a socket alone, so that is where the
limits stand, below all of them: `BoundedSocket` is given to a connection in the place of its socket.
"""

from __future__ import annotations

import functools
import socket
import time
from typing import Any

MOST_REPLY_BYTES = 1 << 20
"""Of an answer, or of several to a pipeline. An object in Python takes up to sixteen times what it takes here."""


class ReplyTooLong(Exception):
    """Redis' answer is longer than any that it can have reason to give."""


class BoundedSocket:
    """The connected socket `inner`, as far as redis-py uses one. What comes after each `sendall` is bounded in size,
    and in time by the socket's own time limit."""

    def __init__(self, inner: socket.socket, most_bytes: int = MOST_REPLY_BYTES) -> None:
        self._inner = inner
        self._most_bytes = self._left_bytes = most_bytes
        self._limit_s = inner.gettimeout()
        self._until_s = self._due_s()

    def _due_s(self) -> float:
        return time.monotonic() + (self._limit_s or 0.0)

    def settimeout(self, limit_s: float | None) -> None:
        self._inner.settimeout(limit_s)
        self._limit_s = limit_s

    def sendall(self, data: bytes) -> None:
        self._left_bytes, self._until_s = self._most_bytes, self._due_s()
        self._inner.settimeout(self._limit_s)
        self._inner.sendall(data)

    def recv(self, size: int) -> bytes:
        """Raises TimeoutError when the answer takes too long in all, and `ReplyTooLong`."""
        if self._limit_s:  # 0: redis-py only looks whether something is there
            left_s = self._until_s - time.monotonic()
            if left_s <= 0:
                raise TimeoutError("timed out")
            self._inner.settimeout(left_s)
        data = self._inner.recv(min(size, self._left_bytes + 1))
        self._left_bytes -= len(data)
        if self._left_bytes < 0:
            raise ReplyTooLong(f"an answer of more than {self._most_bytes} bytes")
        return data

    def __getattr__(self, name: str) -> Any:
        """Everything else is the socket's: shutdown, close, getsockname …"""
        return getattr(self._inner, name)


class BoundedReplies:
    """What a connection with such a socket is besides one of redis-py."""

    def _connect(self) -> BoundedSocket:
        return BoundedSocket(super()._connect())  # type: ignore[misc]


@functools.cache
def bounded(kind: Any) -> Any:
    """The class of connections `kind`, with bounded answers."""
    return type(kind.__name__, (BoundedReplies, kind), {})
