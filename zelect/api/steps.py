"""A coroutine that looks at its leadership before each of its steps.

A cancellation takes effect when the event loop gets to it. After a freeze of the whole process the loop
may first run what else was due, for instance the next step of the job itself, long after leadership was
lost. So the job's steps go through this wrapper: the look at the clock and the step are one, and when
leadership is lost the job is cancelled and does not go on. Tasks that the job made for itself are not
looked after.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator
from typing import Any, TypeVar

T = TypeVar("T")


class Steps(Coroutine[Any, Any, T]):
    """`job`, cancelled at its first step at which `is_lost()`. `cancelled`: it was, and is cleaning up; that
    happens once. What else is thrown into it, by a task that failed or by a timeout of its own, changes
    nothing about this."""

    def __init__(self, job: Coroutine[Any, Any, T], is_lost: Callable[[], bool]) -> None:
        self.cancelled = False
        self._job = job
        self._is_lost = is_lost

    def send(self, value: Any) -> Any:
        if self._must_end():
            return self._job.throw(asyncio.CancelledError())
        return self._job.send(value)

    def throw(self, *error: Any) -> Any:
        if self._must_end():
            return self._job.throw(asyncio.CancelledError())
        return self._job.throw(*error)

    def _must_end(self) -> bool:
        """Whether the job is to be cancelled at this step."""
        if self.cancelled or not self._is_lost():
            return False
        self.cancelled = True
        return True

    def close(self) -> None:
        self._job.close()

    def __await__(self) -> Generator[Any, Any, T]:
        return self._job.__await__()
