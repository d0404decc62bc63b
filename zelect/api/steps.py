"""A coroutine that looks at its leadership before each of its steps.

Cancelling takes effect when the event loop gets to it. After a freeze of the whole process the loop
may first run what else was due, the next step of the job itself for instance, long after leadership
has ended. So the job's steps are taken through this wrapper: the look at the clock and the step are
one, and a stopped being active cancels the job instead of letting it go on. Tasks that the job made for
itself are not looked after.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator
from typing import Any, TypeVar

__all__ = ["Steps"]

T = TypeVar("T")


class Steps(Coroutine[Any, Any, T]):
    """`job`, cancelled at its first step at which `is_lost()`. `cancelled`: it has been told of that, and
    is cleaning up; it is told once. What else is thrown into it, by a task that failed or a time-out of its
    own, changes nothing of this."""

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
        """Whether the job is to be told now."""
        if self.cancelled or not self._is_lost():
            return False
        self.cancelled = True
        return True

    def close(self) -> None:
        self._job.close()

    def __await__(self) -> Generator[Any, Any, T]:
        return self._job.__await__()
