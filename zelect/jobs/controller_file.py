"""`zelect file`: a file that names the controller while that is true."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections.abc import Callable
from pathlib import Path

from zelect.client.observer import ControllerUnknown, Observer
from zelect.client.published import Seen
from zelect.system.clock import now_us
from zelect.system.signals import SignalPipe


class ControllerFile:
    """Writes `path` by what `observer` sees every `every_s` seconds: "ID TERM", no file while nobody is active, or
    while that can't be found out; then `say` is told why, once."""

    def __init__(self, path: Path, observer: Observer, every_s: float, say: Callable[[str], None]) -> None:
        self._path, self._observer, self._every_s, self._say = path, observer, every_s, say
        self._unknown = False
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
                    seen = self._find() or (seen if seen is not None and seen.fresh else None)
                    self._show(seen)
                    left_s = self._every_s
                    if seen is not None:
                        left_s = min(left_s, max(0.001, (seen.until_us - now_us()) / 1e6))
                    if poll.poll(left_s * 1000):
                        return
            finally:
                self._show(None)
                self._observer.close()

    def _find(self) -> Seen | None:
        """The controller; None where there is none, or where that can't be found out now."""
        try:
            seen = self._observer.controller(self._every_s)
            self._unknown = False
        except ControllerUnknown as error:
            if not self._unknown:
                self._say(f"no {self._path} until this is known again: {error}")
            seen, self._unknown = None, True
        return seen

    def _show(self, seen: Seen | None) -> None:
        if seen is None or not seen.fresh:
            with contextlib.suppress(FileNotFoundError):
                self._path.unlink()
            return
        # Whoever else may write to the directory must not say where this is written to.
        with contextlib.suppress(FileNotFoundError):
            self._new.unlink()
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with open(os.open(self._new, flags, 0o666), "w", encoding="ascii") as file:
            file.write(f"{seen.id} {seen.term}\n")
        os.replace(self._new, self._path)
