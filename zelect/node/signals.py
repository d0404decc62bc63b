"""News for a poller: signals of the process, or words of another thread."""

from __future__ import annotations

import contextlib
import signal
import socket
from collections.abc import Iterable
from types import FrameType
from typing import Self

__all__ = ["SignalPipe", "Signals", "WakeupPipe"]


class WakeupPipe:
    """Wakes the poller of a node that is a thread among others; any thread may ring. `take` never
    tells of a signal: those are the process's own."""

    def __init__(self) -> None:
        self._read, self._write = socket.socketpair()
        self._read.setblocking(False)
        self._write.setblocking(False)

    def fileno(self) -> int:
        return self._read.fileno()

    def ring(self) -> None:
        """Never waits and never raises, not even after `close`."""
        with contextlib.suppress(OSError):
            self._write.send(b"\0")

    def take(self) -> bytes:
        """Forget the rings so far; returns no signal numbers."""
        with contextlib.suppress(BlockingIOError):
            self._read.recv(4096)
        return b""

    def close(self) -> None:
        self._read.close()
        self._write.close()


class SignalPipe:
    """Signals as bytes on a socket that the poller can wait for.

    Without it a poll that signals interrupt starts over with its whole time-out and returns late.
    `last`: the process ends after it, and no second signal shall make an ill end of a good one.
    """

    def __init__(
        self,
        numbers: Iterable[signal.Signals] = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP),
        *,
        last: bool = False,
    ) -> None:
        self._last = last
        self._read, self._write = socket.socketpair()
        self._read.setblocking(False)
        self._write.setblocking(False)
        self._before = {number: signal.signal(number, _noted) for number in numbers}
        signal.set_wakeup_fd(self._write.fileno(), warn_on_full_buffer=False)

    def fileno(self) -> int:
        return self._read.fileno()

    def ring(self) -> None:
        """Wake the poller from another thread; never waits and never raises."""
        with contextlib.suppress(OSError):
            self._write.send(b"\0")

    def take(self) -> bytes:
        """The numbers of the signals that came since; 0 for a ring."""
        try:
            return self._read.recv(4096)
        except BlockingIOError:
            return b""

    def close(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_IGN if self._last else handler)
        signal.set_wakeup_fd(-1)
        self._read.close()
        self._write.close()


class Signals(SignalPipe):
    """The same for other signals, as a context."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _noted(number: int, frame: FrameType | None) -> None:
    """The wakeup descriptor carries the news; the handler only keeps the default one away."""
