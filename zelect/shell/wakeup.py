"""Signals for a poller."""

from __future__ import annotations

import signal
import socket
from types import FrameType

__all__ = ["Wakeup"]


class Wakeup:
    """Signals as bytes on a socket that the poller can wait for.

    Without it a poll that signals interrupt starts over with its whole time-out and returns late.
    """

    def __init__(self) -> None:
        self._read, self._write = socket.socketpair()
        self._read.setblocking(False)
        self._write.setblocking(False)
        self._before = {number: signal.signal(number, _noted) for number in (signal.SIGTERM, signal.SIGINT)}
        signal.set_wakeup_fd(self._write.fileno(), warn_on_full_buffer=False)

    def fileno(self) -> int:
        return self._read.fileno()

    def take(self) -> bytes:
        """The numbers of the signals that came since."""
        try:
            return self._read.recv(4096)
        except BlockingIOError:
            return b""

    def close(self) -> None:
        signal.set_wakeup_fd(-1)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._read.close()
        self._write.close()


def _noted(number: int, frame: FrameType | None) -> None:
    """The wakeup descriptor carries the news; the handler only keeps the default one away."""
