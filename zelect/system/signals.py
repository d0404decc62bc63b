"""What wakes a poller: another thread, or a signal of the process.

The standard library alone: a watchdog, which uses it, runs without site-packages.
"""

from __future__ import annotations

import contextlib
import signal
import socket
from collections.abc import Iterable
from types import FrameType
from typing import Self

from zelect.system.forks import in_child


class WakeupPipe:
    """Wakes a poller that waits for the descriptor `fd`; any thread may `ring`."""

    def __init__(self) -> None:
        self._read, self._write = socket.socketpair()
        self._read.setblocking(False)
        self._write.setblocking(False)
        self.fd = self._read.fileno()
        in_child(self._leave_to_parent)

    def fileno(self) -> int:
        return self.fd

    def ring(self) -> None:
        """Wake the poller. Never waits and never raises, not even after `close`."""
        with contextlib.suppress(OSError):
            self._write.send(b"\0")

    def take(self) -> bytes:
        """What came since the last call: the number of each signal, and 0 for a ring."""
        try:
            return self._read.recv(4096)
        except BlockingIOError:
            return b""

    def close(self) -> None:
        self._read.close()
        self._write.close()

    def _leave_to_parent(self) -> None:
        self._read.close()
        self._write.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class SignalPipe(WakeupPipe):
    """The signals `numbers` wake the poller too, and do nothing else. For the main thread.

    Without it a poll that a signal interrupts starts over with its whole timeout, and returns late.
    `last`: the process ends afterwards, and a second signal must not spoil its exit code.
    """

    def __init__(
        self,
        numbers: Iterable[signal.Signals] = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1),
        *,
        last: bool = False,
    ) -> None:
        super().__init__()
        self._last = last
        self._before = {number: signal.signal(number, _noted) for number in numbers}
        signal.set_wakeup_fd(self._write.fileno(), warn_on_full_buffer=False)

    def close(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_IGN if self._last else handler)
        signal.set_wakeup_fd(-1)
        super().close()

    def _leave_to_parent(self) -> None:
        signal.set_wakeup_fd(-1)
        super()._leave_to_parent()


def _noted(number: int, frame: FrameType | None) -> None:
    """The pipe carries the number; the handler only keeps the default one away."""
