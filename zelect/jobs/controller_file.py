"""`zelect file`: a file that names the controller while that is true."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from pathlib import Path

from zelect.client.observer import Observer, Seen
from zelect.system.clock import now_us
from zelect.system.signals import SignalPipe


class ControllerFile:
    """Writes `path` by what `observer` sees every `every_s` seconds: "ID TERM", no file while nobody is active."""

    def __init__(self, path: Path, observer: Observer, every_s: float) -> None:
        self._path, self._observer, self._every_s = path, observer, every_s
        self._new = path.with_name(f".{path.name}.{os.getpid()}")

    def keep(self) -> None:
        """Keep the file until TERM or INT, and remove it. Raises `OSError` when it can't be written."""
        with SignalPipe((signal.SIGTERM, signal.SIGINT)) as news:
            poll = select.poll()
            poll.register(news.fileno(), select.POLLIN)
            seen: Seen | None = None
            try:
                while True:
                    # An answer that stops being true before the next look is shown no longer than it is.
                    seen = self._observer.controller(self._every_s) or (
                        seen if seen is not None and seen.fresh else None
                    )
                    self._show(seen)
                    left_s = self._every_s
                    if seen is not None:
                        left_s = min(left_s, max(0.001, (seen.until_us - now_us()) / 1e6))
                    if poll.poll(left_s * 1000):
                        return
            finally:
                self._show(None)
                self._observer.close()

    def _show(self, seen: Seen | None) -> None:
        if seen is None or not seen.fresh:
            with contextlib.suppress(FileNotFoundError):
                self._path.unlink()
            return
        self._new.write_text(f"{seen.id} {seen.term}\n")
        os.replace(self._new, self._path)
