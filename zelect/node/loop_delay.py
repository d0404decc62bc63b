"""Whether a turn of the loop came late (R14): what is then taken for others' silence may be one's own.

A late turn judges no campaign, so what was due stays due. The next turn must not be late for that
alone, else a node that overslept would spin, and never campaign. It is given a moment instead:
after a freeze the messages have yet to come in from the kernel.
"""

from __future__ import annotations

__all__ = ["BREATH_US", "LoopDelay"]

BREATH_US = 5_000


class LoopDelay:
    """Judges turn after turn. `most_us`: how much later than due is not late yet."""

    __slots__ = ("_late", "_most_us")

    def __init__(self, most_us: int) -> None:
        self._most_us = most_us
        self._late = False

    def due_us(self, due_us: int, now_us: int) -> int:
        """When a turn that begins now is due, if something is due at `due_us`."""
        return max(due_us, now_us + BREATH_US) if self._late else due_us

    def judge(self, due_us: int, now_us: int) -> bool:
        """Whether the turn that was due at `due_us` is late."""
        self._late = now_us > due_us + self._most_us
        return self._late
