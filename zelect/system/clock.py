"""The one clock of the election.

CLOCK_BOOTTIME counts suspended time and never jumps (R5); `time.monotonic` stops while a laptop
sleeps, so a lease judged by it would outlive its promises. Values of two processes of one host
are comparable. macOS has no CLOCK_BOOTTIME; there CLOCK_MONOTONIC (which counts suspended time on
that system) serves a local cluster for development.
"""

from __future__ import annotations

import time

_CLOCK: int = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def now_us() -> int:
    """Microseconds on the election's clock; only differences mean anything."""
    return time.clock_gettime_ns(_CLOCK) // 1000


def unix_ms() -> int:
    """Milliseconds since 1970 by the wall clock: for people and records, never for a decision."""
    return time.time_ns() // 1_000_000
