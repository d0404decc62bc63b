"""A thread that holds the interpreter lock, as careless native code does."""

from __future__ import annotations

import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

_LOOK_S = 0.02
_FOR_EVER_S = 3600.0


class Hog(threading.Thread):
    """Waits until `path` appears; the file holds how many milliseconds to hold the lock."""

    def __init__(self, path: Path) -> None:
        super().__init__(name="hog", daemon=True)
        self._path = path

    def run(self) -> None:
        while True:
            time.sleep(_LOOK_S)
            with suppress(OSError, ValueError):
                for_s = float(self._path.read_text()) / 1000
                self._path.unlink()
                self._hold(for_s)

    def _hold(self, for_s: float) -> None:
        """Nobody may ask for the lock before the interval is over, so a loop keeps it."""
        before = sys.getswitchinterval()
        sys.setswitchinterval(_FOR_EVER_S)
        end = time.monotonic() + for_s
        while time.monotonic() < end:
            pass
        sys.setswitchinterval(before)
