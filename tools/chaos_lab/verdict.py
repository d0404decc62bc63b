"""What judging a history comes to, and how it is told."""

from __future__ import annotations

from dataclasses import dataclass

from tools.chaos_lab.histories import Line, timeline

__all__ = ["Violation"]

_MOST_LINES = 24


@dataclass(frozen=True, slots=True)
class Violation:
    """A promise that did not hold. `rule`: S1, S2, S3, saved, counter, L1, growth, busy or leftover;
    `us`: when; `lines`: the shortest slice of history that shows it."""

    rule: str
    text: str
    us: int
    lines: tuple[Line, ...]

    def tell(self, width: int = 80) -> list[str]:
        """The slice as a timeline, under what it shows."""
        shown = timeline(self.lines, width=width - 2)
        if len(shown) > _MOST_LINES:
            left_out = len(shown) - _MOST_LINES
            shown = [*shown[: _MOST_LINES // 2], f"... {left_out} lines ...", *shown[-_MOST_LINES // 2 :]]
        return [f"{self.rule}: {self.text}", *(f"  {line}" for line in shown)]
