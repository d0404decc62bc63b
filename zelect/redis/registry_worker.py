"""The Redis side of a node: a registry behind a pipe, which nobody waits for (R13).

Two threads stand between the node and Redis. The *worker* owns the connection and may hang in it
for as long as it likes (a name lookup and a server that drips single bytes know no time-out). The
*pump* owns the far end of the pipe and never waits for anything but its own queue, so that a
question is answered in time whatever Redis does. What is yet to be written lies in a `Outbox`,
which holds at most one item of a kind: it can't grow, and an item that has been overtaken is never
written.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count

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
from zelect.redis.credentials import Credentials
from zelect.redis.errors import RedisFailure, explain, safe_url
from zelect.redis.outbox import Job, Outbox
from zelect.redis.registry import LeaseOver, Publisher, Registry
from zelect.redis.registry_scripts import Reply
from zelect.system.clock import now_us, unix_ms

__all__ = ["RegistryHint", "RegistryState", "RegistryWorker", "StoreEvent", "safe_url"]

_READY_WITHIN_MS = 5000
_TIMEOUT = 4
"""A question, and any single write, has this many time-outs."""
_NEVER = float("inf")
_AUDIT_EVERY_S = 10.0
_numbers = count(1)


@dataclass(frozen=True, slots=True)
class RegistryHint:
    """The answer to `AskController`: `controller` by the record that stands (0: none), and the
    newest `term` that Redis knows of. (0, 0) when Redis says nothing in time."""

    controller: int
    term: int


@dataclass(frozen=True, slots=True)
class RegistryState:
    """How the registry is doing. `published_term` and `published_id`: the record that stood
    when Redis last answered (0: none). `problem`: what is wrong and how to fix it, else empty;
    with `up`, everything was written all the same."""

    up: bool
    published_term: int
    published_id: int
    problem: str


StoreEvent = RegistryHint | RegistryState


class RegistryWorker:
    """The main thread's side. `pipe` becomes readable when `receive` has something to give.

    `url`: of Redis, "" for none. `ttl_ms`: life of the controller's record unless refreshed.
    `timeout_ms`: for one exchange with Redis. The rest says who publishes: `cluster`, `node`,
    `address`, `incarnation`; `members`: the members' ids and addresses (none: unrecognized are not
    looked for); `credentials`: user, password and TLS. `counters` and `state` (the newest `RegistryState`
    received) may be read at any time. Not thread-safe: one thread makes, uses and closes it.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        *,
        url: str,
        ttl_ms: int,
        timeout_ms: int,
        cluster: str,
        node: int,
        address: str,
        incarnation: int,
        members: Mapping[int, str] | None = None,
        credentials: Credentials | None = None,
    ) -> None:
        who = Publisher(url, ttl_ms, timeout_ms, cluster, node, address, incarnation)
        self._who = replace(who, members=dict(members or {}), credentials=credentials or Credentials())
        names = ("submitted", "coalesced", "written", "void", "superseded", "failed", "garbage", "unanswered")
        self.counters: dict[str, int] = dict.fromkeys(names, 0)
        self.state = RegistryState(False, 0, 0, "not asked yet" if url else "not configured")
        self._told = self._said = self.state
        self._outbox = Outbox(self.counters)
        self._to_pump: queue.SimpleQueue[StoreEvent | str] = queue.SimpleQueue()
        self._events: deque[StoreEvent] = deque(maxlen=256)
        self._since = (-1, -1, 0)
        # Until when Redis may take for the write that it is about (None: nothing is being written),
        # and whether the pump will look at that without being woken: a wake-up a write is dear.
        self._timeout_s = _TIMEOUT * timeout_ms / 1000
        self._done_by: float | None = None
        self._watched = False
        self._audit_at = 0.0
        self._closed = False
        self._threads: tuple[threading.Thread, ...] = ()
        self.pipe, self._far_end = context.socket(zmq.PAIR), context.socket(zmq.PAIR)
        name = f"inproc://zelect-store-{next(_numbers)}"
        self.pipe.bind(name)
        self._far_end.connect(name)

    def start(self) -> None:
        """Start the threads and wait, for some seconds at most, until they are ready; whether
        Redis answers does not matter."""
        if not self._who.url:
            self._emit(self.state)
            return
        self._threads = tuple(
            threading.Thread(target=target, name=f"store-{name}", daemon=True)
            for target, name in ((self._work, "worker"), (self._pump, "pump"))
        )
        for thread in self._threads:
            thread.start()
        self.pipe.poll(_READY_WITHIN_MS)

    def submit(self, intents: Sequence[Intent]) -> None:
        """Have `intents` carried out. Never blocks and never raises, whatever Redis does."""
        if self._closed or not intents:
            return
        asked = any(isinstance(intent, AskController) for intent in intents)
        if not self._who.url:
            if asked:
                self._emit(RegistryHint(0, 0))
            return
        self.counters["submitted"] += len(intents)
        if asked:
            self._to_pump.put("asked")
        self._outbox.put([Job(intent, self._unix_ms(intent)) for intent in intents])

    def _unix_ms(self, intent: Intent) -> int:
        if isinstance(intent, PublishNode):
            return unix_ms()
        if not isinstance(intent, PublishController):
            return 0
        # Once per leadership: the wall clock may be set while leadership is held.
        if self._since[:2] != (intent.term, intent.active_since_us):
            since_ms = unix_ms() - (now_us() - intent.active_since_us) // 1000
            self._since = (intent.term, intent.active_since_us, max(0, since_ms))
        return self._since[2]

    def receive(self) -> list[StoreEvent]:
        """What has come from Redis since the last call; never blocks."""
        with contextlib.suppress(zmq.Again):
            while True:
                self.pipe.recv(zmq.NOBLOCK)
        events: list[StoreEvent] = []
        while self._events:
            events.append(self._events.popleft())
        for event in events:
            if isinstance(event, RegistryState):
                self.state = event
        return events

    def close(self, within_s: float = 1.0) -> None:
        """Write what is still to be written if Redis allows it within `within_s` seconds, then
        end. A worker that hangs in Redis is left to end with the process."""
        if self._closed:
            return
        self._closed = True
        if self._threads:
            worker, pump = self._threads
            self._outbox.close(within_s)
            worker.join(within_s)
            self._to_pump.put("end")
            pump.join()
        self.pipe.close(linger=0)
        self._far_end.close(linger=0)

    # -- pump: owns the far end of the pipe -----------------------------------------------

    def _emit(self, event: StoreEvent | None) -> None:
        if event is not None:
            self._events.append(event)
        with contextlib.suppress(zmq.Again):  # a full pipe is readable, and that is all it is for
            self._far_end.send(b"", zmq.NOBLOCK)

    def _pump(self) -> None:
        answer_by, look_at = _NEVER, _NEVER
        while True:
            left = min(answer_by, look_at) - time.monotonic()
            try:
                news = self._to_pump.get(timeout=max(0.0, left) if left < _NEVER else None)
            except queue.Empty:
                if answer_by <= look_at:
                    answer_by = _NEVER
                    self.counters["unanswered"] += 1
                    self._emit(RegistryHint(0, 0))
                else:
                    look_at = self._look(look_at)
                continue
            match news:
                case "end":
                    return
                case "asked":
                    answer_by = min(answer_by, time.monotonic() + self._timeout_s)
                case "writing":
                    look_at = self._look(_NEVER)
                case RegistryHint():
                    # A question is answered once: an answer after that is no news.
                    if answer_by < _NEVER:
                        self._emit(news)
                    answer_by = _NEVER
                case RegistryState():
                    self._tell(news)
                case _:
                    self._emit(None)

    def _look(self, looked_at: float) -> float:
        """Tell when what was to be done by `looked_at` hangs in Redis; returns when to look again.
        With nothing to look at, the worker's next write wakes the pump."""
        if self._done_by == looked_at:
            self._tell(replace(self._told, up=False, problem=_hung(self._who)))
        self._watched = False
        done_by = self._done_by  # read after that: either it is seen here, or the worker sees that it must wake
        if done_by is None or done_by == looked_at:
            return _NEVER
        self._watched = True
        return done_by

    def _tell(self, state: RegistryState) -> None:
        if state != self._told:
            self._told = state
            self._emit(state)

    # -- worker: owns the connection ------------------------------------------------------

    def _work(self) -> None:
        try:
            registry = Registry(self._who)
        except Exception as error:  # a registry that can't be had never takes the node down
            # Not the error's text: a URL that can't be parsed stands in it with its password.
            problem = f"{type(error).__name__}: redis.url {safe_url(self._who.url)} can't be used; correct it"
            self._say(RegistryState(False, 0, 0, problem))
            self._to_pump.put("ready")
            return
        self._to_pump.put("ready")
        notes: dict[str, str] = {}
        published = (0, 0)
        while self._outbox.wait():
            published = self._round(registry, notes, published)
        registry.close()

    def _round(self, registry: Registry, notes: dict[str, str], published: tuple[int, int]) -> tuple[int, int]:
        """Carry out all that is there, keep what failed for later, and report once: a state that
        went up and down with every single write would tell nobody anything."""
        failed: list[tuple[Job, RedisFailure]] = []
        garbage: dict[str, None] = {}
        done = 0
        while (job := self._outbox.pop()) is not None:
            self._begin()
            outcome = self._attempt(registry, job)
            self._done_by = None
            if isinstance(outcome, Reply):
                done += 1
                published = (outcome.term, outcome.id)
                garbage |= dict.fromkeys(outcome.garbage)
                self._take_notes(notes, job.intent, outcome)
            elif isinstance(outcome, RedisFailure):
                failed.append((job, outcome))
                if outcome.lost:
                    break
        for job, _ in failed:
            if not isinstance(job.intent, AskController):
                self._outbox.put_back(job)
        if not any(failure.lost for _, failure in failed):
            self._audit(registry, notes, now=bool(failed))
        if failed:
            self._say(RegistryState(False, *published, _joined(failed[0][1].problem, notes.get("audit"))))
        elif done:
            self.counters["garbage"] += len(garbage)
            problem = _joined(*(f"garbage in Redis: {text}" for text in garbage), *notes.values())
            self._say(RegistryState(True, *published, problem))
        return published

    def _begin(self) -> None:
        """From here on the worker is in Redis' hands."""
        self._done_by = time.monotonic() + self._timeout_s
        if not self._watched:
            self._to_pump.put("writing")

    def _say(self, state: RegistryState) -> None:
        if state != self._said or state != self._told:  # the pump may have told of a hang meanwhile
            self._said = state
            self._to_pump.put(state)

    def _audit(self, registry: Registry, notes: dict[str, str], now: bool) -> None:
        """Note from time to time what is amiss beside this node's own business; `now`: at once."""
        if not now and time.monotonic() < self._audit_at:
            return
        self._audit_at = time.monotonic() + _AUDIT_EVERY_S
        self._begin()
        try:
            notes["audit"] = registry.audit(self.counters["written"] > 0)
        except Exception:  # what keeps it from an answer meets the next write too, which reports it
            registry.close()
            notes.pop("audit", None)
        self._done_by = None

    def _attempt(self, registry: Registry, job: Job) -> Reply | RedisFailure | None:
        asks = isinstance(job.intent, AskController)
        try:
            reply = registry.carry_out(job)
        except LeaseOver:
            self.counters["void"] += 1
            return None
        except Exception as error:  # whatever Redis says or does must not end this thread
            registry.close()  # what the connection is good for is not known; a demoted primary keeps it open
            self.counters["failed"] += 1
            if asks:
                self._to_pump.put(RegistryHint(0, 0))
            return explain(error, self._who.url, self._who.timeout_ms)
        if asks:
            self._to_pump.put(
                RegistryHint(reply.id if reply.term >= reply.last_term else 0, max(reply.term, reply.last_term))
            )
        else:
            self.counters["superseded" if reply.outcome == "superseded" else "written"] += 1
        return reply

    def _take_notes(self, notes: dict[str, str], intent: Intent, reply: Reply) -> None:
        """Keep what only some answers tell until an answer of the same kind tells otherwise."""
        if isinstance(intent, PublishController):
            notes["leadership"] = _superseded(intent.term, reply) if reply.outcome == "superseded" else reply.more
        elif isinstance(intent, WithdrawController | Depart):
            notes.pop("leadership", None)
        elif isinstance(intent, MarkOffline):
            notes["entry"] = reply.more
            self.counters["garbage"] += bool(reply.more)
        elif isinstance(intent, PublishNode):
            notes.pop("entry", None)


def _joined(*problems: str | None) -> str:
    return "; ".join(filter(None, problems))


def _superseded(term: int, reply: Reply) -> str:
    newest, node = max((reply.term, reply.id), (reply.last_term, reply.last_id))
    text = f"superseded: Redis names node {node} for term {newest}, this node was elected in term {term}"
    if newest == term:
        text += "; does another cluster of the same name use this Redis? Give each its own cluster.name"
    return text


def _hung(who: Publisher) -> str:
    timeout_ms = _TIMEOUT * who.timeout_ms
    return f"time-out: {safe_url(who.url)} is not done after {timeout_ms} ms; is it, or the name lookup, hung?"
