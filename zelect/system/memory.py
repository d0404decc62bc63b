"""How much memory this process takes, asked so cheaply that a loop can ask at every turn.

libzmq hands over whole messages only and has no limit for one of many parts: whoever sends one without an end fills
the memory of the process that listens, some 50 bytes for each two that come in plain text, and no socket ever
becomes readable. So who owns sockets looks whether the process has grown, and only then asks the kernel for each
connection how much came over it.
"""

from __future__ import annotations

import os

_STEP_BYTES = 4 << 20
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class MemoryWatch:
    """Watches this process's resident memory. `close` it at the end; not for use after a fork."""

    def __init__(self, step_bytes: int = _STEP_BYTES) -> None:
        self._step_bytes = step_bytes
        try:
            self._statm = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self._statm = -1  # a system that doesn't tell
        self._least = self._resident()

    def has_grown(self) -> bool:
        """Whether the process has grown by a step since this last said so, or since it was smallest after that."""
        resident = self._resident()
        grown = resident >= self._least + self._step_bytes
        if grown or resident < self._least:
            self._least = resident
        return grown

    def close(self) -> None:
        """Give the descriptor back. Harmless when repeated."""
        if self._statm >= 0:
            os.close(self._statm)
            self._statm = -1

    def _resident(self) -> int:
        if self._statm < 0:
            return 0
        return int(os.pread(self._statm, 128, 0).split()[1]) * _PAGE_BYTES
