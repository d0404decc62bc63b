"""The office of a node, for other threads of its process to ask about.

The poller loop alone writes; anybody reads. What is handed over is one immutable value, replaced
whole, so no lock is needed, and the answer to "may I act?" is a look at the clock (R5): it stays
right when the loop hangs, and when the whole process was frozen since.
"""

from __future__ import annotations

from zelect.core.lease import Tenure
from zelect.shell.clock import now_us

__all__ = ["Office"]


class Office:
    """What a node's own process may know of its office."""

    __slots__ = ("tenure",)

    def __init__(self) -> None:
        self.tenure: Tenure | None = None

    def held(self) -> Tenure | None:
        """The office, while this node may act as controller at this very moment."""
        tenure = self.tenure
        return tenure if tenure is not None and now_us() < tenure.lapses_us else None
