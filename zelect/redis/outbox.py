"""What is still to be written to the registry: at most one item of a kind.

It can't grow, and an item that has been overtaken by a newer one is never written.
"""

from __future__ import annotations

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


@dataclass(frozen=True, slots=True)
class Job:
    """An intent and the wall-clock time that belongs to it: since when the node is active, or
    when its own entry was submitted; 0 for the others."""

    intent: Intent
    unix_ms: int


class Outbox:
    """At most one job of a kind (of `MarkOffline`: for each node). Not thread-safe."""

    def __init__(self, counters: dict[str, int]) -> None:
        self._jobs: dict[object, Job] = {}
        self._departed = False
        self._counters = counters

    def __len__(self) -> int:
        return len(self._jobs)

    def put(self, job: Job) -> None:
        """Add a newer job; it takes the place of what it overtakes."""
        if self._departed and not isinstance(job.intent, AskController):
            return
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

    def put_back(self, job: Job) -> None:
        """Keep a job that failed, unless something newer has overtaken it."""
        kind, intent = _kind(job.intent), job.intent
        overtaken = kind in self._jobs or (self._departed and not isinstance(intent, WithdrawController | Depart))
        if isinstance(intent, PublishController):
            overtaken = overtaken or any(intent.term <= term for term in self._terms(WithdrawController))
        if overtaken:
            self._counters["coalesced"] += 1
        else:
            self._jobs[kind] = job

    def pop(self) -> Job | None:
        """The next job: a question first, then in the order of urgency."""
        kind = min(self._jobs, key=_rank, default=None)
        return self._jobs.pop(kind) if kind is not None else None

    def _terms(self, *kinds: object) -> list[int]:
        held = [self._jobs[kind].intent for kind in kinds if kind in self._jobs]
        return [intent.term for intent in held if isinstance(intent, PublishController | WithdrawController)]

    def _drop(self, kind: object) -> None:
        if self._jobs.pop(kind, None) is not None:
            self._counters["coalesced"] += 1


_ORDER = (AskController, WithdrawController, PublishController, PublishNode, MarkOffline, Depart)


def _kind(intent: Intent) -> object:
    return (MarkOffline, intent.node) if isinstance(intent, MarkOffline) else type(intent)


def _rank(kind: Any) -> int:
    return _ORDER.index(kind[0] if isinstance(kind, tuple) else kind)
