"""What is yet to be written to the registry: at most one item of a kind.

It can't grow, and an item that has been overtaken by a newer one is never written.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from zelect.core.effects import (
    AskController,
    Depart,
    Intent,
    MarkOffline,
    PublishController,
    PublishNode,
    WithdrawController,
)

__all__ = ["Job", "Outbox"]

_RETRY_S = 0.25
_LAST_RETRY_S = 0.05


@dataclass(frozen=True, slots=True)
class Job:
    """An intent and the wall-clock time that belongs to it: since when leadership is held, or
    when the node said what its entry says; 0 for the others."""

    intent: Intent
    unix_ms: int


class Outbox:
    """What is to be written, at most one item of a kind (of `MarkOffline`: for a node)."""

    def __init__(self, counters: dict[str, int]) -> None:
        self._jobs: dict[object, Job] = {}
        self._changed = threading.Condition()
        self._fresh = False
        self._departed = False
        self._close_at: float | None = None
        self._counters = counters

    def put(self, jobs: Sequence[Job]) -> None:
        """Add newer jobs; they take the place of what they overtake."""
        with self._changed:
            for job in jobs:
                if not self._departed or isinstance(job.intent, AskController):
                    self._add(job)
            self._fresh = True
            self._changed.notify()

    def _add(self, job: Job) -> None:
        kind = _kind(job.intent)
        match job.intent:
            case PublishController(term=term):
                if any(term < held for held in self._terms(PublishController, WithdrawController)):
                    self._counters["coalesced"] += 1
                    return
            case WithdrawController(term=term):
                if any(term >= held for held in self._terms(PublishController)):
                    self._drop(PublishController)
            case Depart():
                self._departed = True
                for other in [key for key in self._jobs if key not in (AskController, WithdrawController)]:
                    self._drop(other)
        self._drop(kind)
        self._jobs[kind] = job

    def _terms(self, *kinds: object) -> list[int]:
        held = [self._jobs[kind].intent for kind in kinds if kind in self._jobs]
        return [intent.term for intent in held if isinstance(intent, PublishController | WithdrawController)]

    def _drop(self, kind: object) -> None:
        if self._jobs.pop(kind, None) is not None:
            self._counters["coalesced"] += 1

    def put_back(self, job: Job) -> None:
        """Keep a job that failed, unless something newer has overtaken it."""
        with self._changed:
            kind, intent = _kind(job.intent), job.intent
            overtaken = kind in self._jobs or (self._departed and not isinstance(intent, WithdrawController | Depart))
            if isinstance(intent, PublishController):
                overtaken = overtaken or any(intent.term <= term for term in self._terms(WithdrawController))
            if overtaken:
                self._counters["coalesced"] += 1
            else:
                self._jobs[kind] = job

    def pop(self) -> Job | None:
        """The next job: a question first, then what others wait for most."""
        with self._changed:
            kind = min(self._jobs, key=_rank, default=None)
            return self._jobs.pop(kind) if kind is not None else None

    def wait(self) -> bool:
        """Wait for a new job, or until a failed one may be tried again. False: it is over."""
        with self._changed:
            if self._close_at is not None:
                left = self._close_at - time.monotonic()
                if left <= 0 or not self._jobs:
                    return False
                self._changed.wait(min(_LAST_RETRY_S, left))
                return True
            self._changed.wait_for(
                lambda: self._fresh or self._close_at is not None, timeout=_RETRY_S if self._jobs else None
            )
            self._fresh = False
            return True

    def close(self, within_s: float) -> None:
        """Let `wait` end when all is written, or after `within_s` seconds."""
        with self._changed:
            self._close_at = time.monotonic() + within_s
            self._changed.notify()


_ORDER = (AskController, WithdrawController, PublishController, PublishNode, MarkOffline, Depart)


def _kind(intent: Intent) -> object:
    return (MarkOffline, intent.node) if isinstance(intent, MarkOffline) else type(intent)


def _rank(kind: Any) -> int:
    return _ORDER.index(kind[0] if isinstance(kind, tuple) else kind)
