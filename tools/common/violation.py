"""A property of the election that does not hold, as every tool reports it."""

from __future__ import annotations

from typing import Any


class Violation(AssertionError):
    """`rule`: the property (S1, R10, L1, counter ...); `text`: how it is broken. Where a recorded history
    is checked also `us`, when it happened, and `lines`, the shortest part of the history that shows it."""

    def __init__(self, rule: str, text: str, us: int = 0, lines: tuple[Any, ...] = ()) -> None:
        super().__init__(f"{rule}: {text}")
        self.rule = rule
        self.text = text
        self.us = us
        self.lines = lines
