"""Redis by hand: no library between the socket and the clock."""

from __future__ import annotations

import socket
from typing import Any

from tools.common.checkout import ToolError
from zelect.devcluster.layout import HOST
from zelect.system.clock import now_us


class Wire:
    """A plain connection to Redis. Raises OSError; TimeoutError leaves what was read for the next
    call of `line`."""

    def __init__(self, port: int, host: str = HOST) -> None:
        self._socket = socket.create_connection((host, port), timeout=5)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = b""

    def say(self, *words: str | int) -> None:
        """Send one command; a hung server finds it when it goes on."""
        encoded = [str(word).encode() for word in words]
        parts = [b"*%d\r\n" % len(encoded), *(b"$%d\r\n%s\r\n" % (len(word), word) for word in encoded)]
        self._socket.sendall(b"".join(parts))

    def call(self, *words: str | int) -> Any:
        """The reply to one command: bytes, int, None or a list of these. Raises ToolError on an error."""
        self.say(*words)
        return self.reply()

    def line(self, within_s: float) -> bytes:
        """The next line of what the server says, whatever it belongs to."""
        end_us = now_us() + int(within_s * 1e6)
        while b"\r\n" not in self._buffer:
            self._fill(max(0.0001, (end_us - now_us()) / 1e6))
        line, _, self._buffer = self._buffer.partition(b"\r\n")
        return line

    def reply(self) -> Any:
        """The reply to a command that was sent, as `call` gives it."""
        line = self.line(5)
        kind, rest = line[:1], line[1:]
        if kind == b"-":
            raise ToolError(f"Redis: {rest.decode()}")
        if kind == b"$":
            return None if rest == b"-1" else self._exactly(int(rest))
        if kind == b"*":
            return [self.reply() for _ in range(int(rest))]
        return int(rest) if kind == b":" else rest

    def _fill(self, within_s: float) -> None:
        self._socket.settimeout(within_s)
        more = self._socket.recv(65536)
        if not more:
            raise ConnectionResetError("Redis closed the connection")
        self._buffer += more

    def _exactly(self, size: int) -> bytes:
        while len(self._buffer) < size + 2:
            self._fill(5)
        value, self._buffer = self._buffer[:size], self._buffer[size + 2 :]
        return value

    def close(self) -> None:
        self._socket.close()


def call(port: int, *words: str | int) -> Any:
    """One command over a connection of its own. Raises OSError, ToolError."""
    wire = Wire(port)
    try:
        return wire.call(*words)
    finally:
        wire.close()
