"""Whether a job could be done here (R8): what the program says of itself, and whether a job hangs."""

from __future__ import annotations

import threading
from collections.abc import Callable

from zelect.api.leadership import Leadership
from zelect.system.clock import now_us


class JobHealth:
    """Calls `check` every `every_s` seconds, in a thread of its own. It says no by returning something
    false, by raising, and by not returning for two periods. `hung_after_s` (0: never): a job that was
    not seen alive for so many seconds says no too, see `Leadership.check`."""

    def __init__(self, check: Callable[[], object] | None, every_s: float, hung_after_s: float) -> None:
        self._check = check
        self._every_us = int(every_s * 1e6)
        self._hung_us = int(hung_after_s * 1e6)
        self._last_answer = True
        self._asked_us = 0  # when the check was called that has not returned yet; 0: it has
        self._closed = threading.Event()
        if check is not None:
            threading.Thread(target=self._run, name="zelect-health", daemon=True).start()

    @property
    def due_us(self) -> int:
        """When to judge again, on the election's clock; 0: never."""
        periods = [period for period in (self._every_us if self._check else 0, self._hung_us) if period]
        return now_us() + min(periods) // 2 if periods else 0

    def judge(self, leadership: Leadership | None) -> bool:
        """Whether the node is healthy. `leadership`: the one in which a job acts."""
        hangs = leadership is not None and 0 < self._hung_us < now_us() - leadership.last_alive_us
        asked_us = self._asked_us
        unanswered = asked_us > 0 and now_us() - asked_us > 2 * self._every_us
        return self._last_answer and not hangs and not unanswered

    def close(self) -> None:
        """Call `check` no more."""
        self._closed.set()

    def _run(self) -> None:
        assert self._check is not None
        while not self._closed.wait(self._every_us / 1e6):
            self._asked_us = now_us()
            try:
                self._last_answer = bool(self._check())
            except Exception:  # a check that fails is an answer
                self._last_answer = False
            self._asked_us = 0
