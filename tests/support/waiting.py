"""Wait for a condition instead of sleeping."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_until(condition: Callable[[], T], within_s: float = 20.0, every_s: float = 0.01, what: str = "") -> T:
    """Return the first true value of `condition`; fail after `within_s` seconds."""
    end = time.monotonic() + within_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"not within {within_s} s: {what or getattr(condition, '__name__', condition)}")
        time.sleep(every_s)
