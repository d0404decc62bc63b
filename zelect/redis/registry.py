"""The registry in Redis (R13): what a node publishes there, and who is controller by it.

What is still to be written waits in an `Outbox`, which holds at most one item of a kind: it can't grow, and
what has been overtaken is never written. A write that failed is tried again until it is overtaken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import zmq

from zelect.core.effects import (
    AskController,
    Depart,
    Intent,
    MarkOffline,
    PublishController,
    PublishNode,
    WithdrawController,
)
from zelect.redis.errors import RedisFailure, explain, safe_url
from zelect.redis.outbox import Job, Outbox
from zelect.redis.publisher import LeaseOver, Publisher
from zelect.redis.registry_scripts import RegistryReply
from zelect.redis.worker import Known, RedisSettings, RedisWorker
from zelect.system.clock import now_us, unix_ms

_COUNTERS = ("submitted", "coalesced", "written", "void", "superseded", "failed", "garbage", "unanswered")
_TIMEOUTS = 4
"""A question, and any single write, has this many timeouts."""
_AUDIT_EVERY_US = 10_000_000
_QUESTION, _WRITE = "question", "write"


@dataclass(frozen=True, slots=True)
class RegistryHint:
    """The answer to `AskController`: `controller` by the record (0: none), and the
    newest `term` that Redis knows of. (0, 0) when Redis does not answer in time."""

    controller: int
    term: int


@dataclass(frozen=True, slots=True)
class RegistryStatus:
    """How the registry is doing. `published_term` and `published_id`: the record
    when Redis last answered (0: none). `problem`: what is wrong and how to fix it, else empty;
    with `up`, everything was written all the same."""

    up: bool
    published_term: int
    published_id: int
    problem: str


RegistryEvent = RegistryHint | RegistryStatus


class RegistryClient(RedisWorker[Intent, RegistryEvent]):
    """`status`, the newest one, may be read at any time."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], settings: RedisSettings) -> None:
        super().__init__(context, settings, "registry", _COUNTERS)
        self.status = RegistryStatus(False, 0, 0, "not asked yet" if settings.url else "not configured")
        self._publisher = Publisher(self._connection, settings)
        self._outbox = Outbox(self.counters)
        self._active_since = (-1, -1, 0)
        self._timeout_ms = _TIMEOUTS * settings.timeout_ms
        # The worker's own: the record in the last answer, notes that only some answers bring, the next audit, and
        # what was known of the cluster in the last one.
        self._published = (0, 0)
        self._notes: dict[str, str] = {}
        self._audit_at_us = 0
        self._audited: Known | None = None

    def start(self) -> None:
        super().start()
        if not self.settings.url:
            self._emit(self.status)

    def know(self, members: Mapping[int, str], cluster_id: int) -> None:
        """These nodes belong to the cluster with this id (0: none yet), with these addresses: an entry of another one
        is worth a warning."""
        if (members, cluster_id) != (self._publisher.known.members, self._publisher.known.cluster_id):
            self._publisher.known = Known(dict(members), cluster_id)

    # -- with the lock held -------------------------------------------------------------------

    def _add(self, intents: Sequence[Intent]) -> None:
        if _QUESTION not in self._deadlines and any(isinstance(intent, AskController) for intent in intents):
            self._expect(_QUESTION, now_us() + self._timeout_ms * 1000, self._question_unanswered)
        for intent in intents:
            self._outbox.put(Job(intent, self._unix_ms(intent)))

    def _unix_ms(self, intent: Intent) -> int:
        if isinstance(intent, PublishNode):
            return unix_ms()
        if not isinstance(intent, PublishController):
            return 0
        # Once per leadership: the wall clock may be set while leadership is held.
        if self._active_since[:2] != (intent.term, intent.active_since_us):
            since_ms = unix_ms() - (now_us() - intent.active_since_us) // 1000
            self._active_since = (intent.term, intent.active_since_us, max(0, since_ms))
        return self._active_since[2]

    def _has_work(self) -> bool:
        return bool(self._outbox)

    def _answer_without_redis(self, intents: Sequence[Intent]) -> None:
        if any(isinstance(intent, AskController) for intent in intents):
            self._emit(RegistryHint(0, 0))

    def _take_problem(self, problem: str) -> None:
        self._tell(RegistryStatus(False, 0, 0, problem))

    def _tell(self, status: RegistryStatus) -> None:
        if status != self.status:
            self.status = status
            self._emit(status)

    def _question_unanswered(self) -> None:
        self.counters["unanswered"] += 1
        self._emit(RegistryHint(0, 0))

    def _write_hangs(self) -> None:
        what = f"has not answered after {self._timeout_ms} ms; is it, or DNS, hanging?"
        self._tell(replace(self.status, up=False, problem=f"timeout: {safe_url(self.settings.url)} {what}"))

    def _answer(self, hint: RegistryHint) -> None:
        if self._met(_QUESTION):
            self._emit(hint)

    def _next(self) -> Job | None:
        job = self._outbox.pop()
        if job is not None:
            self._expect(_WRITE, now_us() + self._timeout_ms * 1000, self._write_hangs)
        return job

    # -- the worker: without the lock ---------------------------------------------------------

    def _carry_out(self) -> None:
        """Carry out all that is there, keep what failed for later, and report once: a status that
        went up and down with every single write would be of no use."""
        failed: list[tuple[Job, RedisFailure]] = []
        garbage: dict[str, None] = {}
        done = 0
        while True:
            with self._lock:
                job = self._next()
            if job is None:
                break
            outcome = self._attempt(job)
            if isinstance(outcome, RegistryReply):
                done += 1
                self._published = (outcome.term, outcome.id)
                garbage |= dict.fromkeys(outcome.garbage)
            elif outcome is not None:
                failed.append((job, outcome))
                if outcome.lost:
                    break
        with self._lock:
            for job, _ in failed:
                if not isinstance(job.intent, AskController):
                    self._outbox.put_back(job)
        if not any(failure.lost for _, failure in failed):
            self._audit(at_once=bool(failed))
        with self._lock:
            if failed:
                problem = _joined(failed[0][1].problem, self._notes.get("audit"))
                self._tell(RegistryStatus(False, *self._published, problem))
            elif done:
                self.counters["garbage"] += len(garbage)
                problem = _joined(*(f"garbage in Redis: {text}" for text in garbage), *self._notes.values())
                self._tell(RegistryStatus(True, *self._published, problem))

    def _attempt(self, job: Job) -> RegistryReply | RedisFailure | None:
        """One job; None where its lease is over."""
        outcome: RegistryReply | RedisFailure | None
        try:
            outcome = self._publisher.carry_out(job)
        except LeaseOver:
            outcome = None
        except Exception as error:  # whatever Redis answers or does must not end this thread
            self._connection.drop()  # its state is not known; a demoted primary keeps it open
            outcome = explain(error, self.settings.url, self.settings.timeout_ms)
        with self._lock:
            self._met(_WRITE)
            self._note(job.intent, outcome)
        return outcome

    def _note(self, intent: Intent, outcome: RegistryReply | RedisFailure | None) -> None:
        """Count, answer the question, and keep notes of one kind of answer until the next of that kind."""
        if outcome is None:
            self.counters["void"] += 1
        elif isinstance(outcome, RedisFailure):
            self.counters["failed"] += 1
            if isinstance(intent, AskController):
                self._answer(RegistryHint(0, 0))
        elif isinstance(intent, AskController):
            stands = outcome.term >= outcome.last_term
            self._answer(RegistryHint(outcome.id if stands else 0, max(outcome.term, outcome.last_term)))
        else:
            superseded = outcome.outcome in ("superseded", "other_cluster")
            self.counters["superseded" if superseded else "written"] += 1
            if isinstance(intent, PublishController):
                self._notes["leadership"] = _superseded(intent, outcome) if superseded else outcome.more
            elif isinstance(intent, WithdrawController | Depart):
                self._notes.pop("leadership", None)
            elif isinstance(intent, MarkOffline):
                self._notes["entry"] = outcome.more
                self.counters["garbage"] += bool(outcome.more)
            elif isinstance(intent, PublishNode):
                self._notes.pop("entry", None)

    def _audit(self, at_once: bool) -> None:
        """Note from time to time, and when more is known of the cluster, what is wrong in Redis beside this node's own
        records."""
        known = self._publisher.known
        if not at_once and known is self._audited and now_us() < self._audit_at_us:
            return
        self._audit_at_us, self._audited = now_us() + _AUDIT_EVERY_US, known
        with self._lock:
            self._expect(_WRITE, now_us() + self._timeout_ms * 1000, self._write_hangs)
        try:
            self._notes["audit"] = self._publisher.audit(known, self.counters["written"] > 0)
        except Exception:  # what keeps it from an answer meets the next write too, which reports it
            self._connection.drop()
            self._notes.pop("audit", None)
        with self._lock:
            self._met(_WRITE)


def _joined(*problems: str | None) -> str:
    return "; ".join(filter(None, problems))


def _superseded(intent: PublishController, reply: RegistryReply) -> str:
    term, own_name = intent.term, "Give each its own cluster.name"
    if reply.outcome == "other_cluster":
        return (
            f"another cluster of the same name publishes here: its controller is node {reply.id} of cluster "
            f"{reply.more}, this node belongs to cluster {intent.cluster_id:x}. {own_name}"
        )
    newest, node = max((reply.term, reply.id), (reply.last_term, reply.last_id))
    text = f"superseded: Redis names node {node} for term {newest}, this node was elected in term {term}"
    if newest == term:
        text += f"; does another cluster of the same name use this Redis? {own_name}"
    return text
