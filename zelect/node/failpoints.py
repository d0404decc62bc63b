"""Named points between effects at which a test can kill a real node (R1).

`ZELECT_FAILPOINT=after_save:elected` in the environment ends the process with SIGKILL, as if the
power had failed, in the step that carries the fact `elected`, after its save and before anything is
sent. Points: before_save, after_save, after_send, after_publish.

`authenticator:elected` kills nothing: after that step the authenticator answers no more, as if it had failed.
"""

from __future__ import annotations

import os
import signal
from typing import Self

from zelect.core.effects import Effects

FAILPOINTS = ("before_save", "after_save", "after_send", "after_publish")
_AUTHENTICATOR = "authenticator"


class Failpoint:
    """Where to die, from the text `POINT:FACT`. Raises `ValueError` for a point that does not exist."""

    def __init__(self, text: str) -> None:
        self._point, _, self._fact = text.partition(":")
        points = (*FAILPOINTS, _AUTHENTICATOR)
        if self._point not in points or not self._fact:
            raise ValueError(f"ZELECT_FAILPOINT is {text!r}; write POINT:FACT with a POINT of {', '.join(points)}")

    @classmethod
    def from_environment(cls) -> Self | None:
        """The one that the environment names, if it does."""
        text = os.environ.get("ZELECT_FAILPOINT", "")
        return cls(text) if text else None

    def __call__(self, point: str, effects: Effects) -> None:
        """Die here if this is the point."""
        if point == self._point and self._has_come(effects):
            os.kill(os.getpid(), signal.SIGKILL)

    def breaks_authenticator(self, effects: Effects) -> bool:
        """Whether the authenticator is to fail after this step."""
        return self._point == _AUTHENTICATOR and self._has_come(effects)

    def _has_come(self, effects: Effects) -> bool:
        return any(fact.name == self._fact for fact in effects.facts)
