"""The witness in Redis (R12), asked through a pipe by a node that never waits for it.

This is another adapter than the registry (`zelect.redis.registry_worker`), with a connection of its own:
a vote must not queue behind a publication. The *worker* thread owns the connection and may hang
in it; the *watch* thread answers in its place when the time is over. Of each kind of question only
the newest counts; one that could not be sent in time is never sent, because what it asks for has
been decided otherwise since.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING

import zmq

from zelect.core.effects import WitnessCreate, WitnessIntent, WitnessLook, WitnessPing, WitnessVote
from zelect.core.events import WitnessAnswered, WitnessCreated, WitnessSeen, WitnessVoted
from zelect.core.messages import Refusal
from zelect.core.quorum import Witness
from zelect.redis.credentials import Credentials
from zelect.redis.errors import explain, safe_url
from zelect.redis.registry import connect
from zelect.redis.witness_scripts import WITNESS_SCRIPT, WitnessReply, parse_witness_reply, witness_key, words
from zelect.system.clock import now_us

if TYPE_CHECKING:
    import redis

__all__ = ["WitnessClient", "WitnessEvent"]

WitnessEvent = WitnessVoted | WitnessAnswered | WitnessCreated | WitnessSeen

_READY_WITHIN_MS = 5000
_ORDER = (WitnessVote, WitnessPing, WitnessCreate, WitnessLook)
_numbers = count(1)


@dataclass(frozen=True, slots=True, eq=False)
class _Job:
    """A question, when it was asked, and until when its answer is worth anything."""

    intent: WitnessIntent
    asked_us: int
    until_us: int


class WitnessClient:
    """The main thread's side. `pipe` becomes readable when `receive` has something to give.

    `url`: of Redis, "" for none. `timeout_ms`: after so long a vote is answered as UNREACHABLE and
    a look as not ready, whatever Redis does; a PING and a founding then stay without an answer.
    `cluster`, `node` and `incarnation` say who asks; `access`: user, password and TLS.
    `counters` and `problem` may be read at any time. Not thread-safe: one thread makes, uses and closes it.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        *,
        url: str,
        timeout_ms: int,
        cluster: str,
        node: int,
        incarnation: int,
        credentials: Credentials | None = None,
    ) -> None:
        self._credentials = credentials or Credentials()
        self._url, self._timeout_ms = url, timeout_ms
        self._key, self._node, self._incarnation = witness_key(cluster), node, incarnation
        names = ("submitted", "overtaken", "done", "refused", "failed", "unsent", "unanswered")
        self.counters: dict[str, int] = dict.fromkeys(names, 0)
        self._problem = "" if url else "not configured"
        self._in_use = ""
        # One lock for all that the threads share; nobody holds it while waiting for Redis.
        lock = threading.Lock()
        self._fresh, self._asked = threading.Condition(lock), threading.Condition(lock)
        self._unsent: dict[type, _Job] = {}
        self._open: dict[type, _Job] = {}
        self._watched_us: int | None = None
        self._events: deque[WitnessEvent] = deque(maxlen=256)
        self._closed = False
        self._threads: tuple[threading.Thread, ...] = ()
        self.pipe, self._far_end = context.socket(zmq.PAIR), context.socket(zmq.PAIR)
        name = f"inproc://zelect-witness-{next(_numbers)}"
        self.pipe.bind(name)
        self._far_end.connect(name)

    @property
    def problem(self) -> str:
        """What is wrong with Redis as a witness and how to fix it, else empty. Without secrets."""
        return "; ".join(filter(None, (self._problem, self._in_use)))

    def start(self) -> None:
        """Start the threads and wait, for some seconds at most, until they are ready; whether
        Redis answers does not matter."""
        if not self._url:
            return
        self._threads = tuple(
            threading.Thread(target=target, name=f"witness-{name}", daemon=True)
            for target, name in ((self._work, "worker"), (self._watch, "watch"))
        )
        for thread in self._threads:
            thread.start()
        self.pipe.poll(_READY_WITHIN_MS)

    def submit(self, intents: Sequence[WitnessIntent]) -> None:
        """Ask. Never blocks and never raises, whatever Redis does."""
        if self._closed or not intents:
            return
        asked_us = now_us()
        with self._fresh:
            self.counters["submitted"] += len(intents)
            for intent in intents:
                if self._url:
                    self._put(_Job(intent, asked_us, asked_us + self._timeout_ms * 1000))
                elif isinstance(intent, WitnessLook):
                    self._emit(_not_ready(intent))
            self._fresh.notify()
            if self._watched_us is None and self._open:
                self._asked.notify()

    def _put(self, job: _Job) -> None:
        kind = type(job.intent)
        self.counters["overtaken"] += kind in self._unsent
        self._unsent[kind] = job
        if isinstance(job.intent, WitnessVote | WitnessLook):
            self._open[kind] = job

    def receive(self) -> list[WitnessEvent]:
        """What has come since the last call; never blocks."""
        with contextlib.suppress(zmq.Again):
            while True:
                self.pipe.recv(zmq.NOBLOCK)
        events: list[WitnessEvent] = []
        while self._events:
            events.append(self._events.popleft())
        return events

    def close(self, within_s: float = 1.0) -> None:
        """End, within `within_s` seconds or little more. What was not sent yet never is; a worker
        that hangs in Redis is left to end with the process."""
        if self._closed:
            return
        with self._fresh:
            self._closed = True
            self._fresh.notify()
            self._asked.notify()
        end = time.monotonic() + within_s
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))
        with self._fresh:  # no thread is in the middle of an answer, and none begins another
            self._far_end.close(linger=0)
        self.pipe.close(linger=0)

    # -- answers: under the lock --------------------------------------------------------------

    def _emit(self, event: WitnessEvent | None) -> None:
        if self._closed:
            return
        if event is not None:
            self._events.append(event)
        with contextlib.suppress(zmq.Again):  # a full pipe is readable, and that is all it is for
            self._far_end.send(b"", zmq.NOBLOCK)

    def _answer(self, job: _Job, event: WitnessEvent | None, counter: str) -> None:
        with self._fresh:
            self.counters[counter] += 1
            kind = type(job.intent)
            if isinstance(job.intent, WitnessVote | WitnessLook):
                if self._open.get(kind) is not job:
                    return  # a newer one was asked, or it has been answered in its place
                del self._open[kind]
            if event is not None:
                self._emit(event)

    # -- watch: answers for those who don't ---------------------------------------------------

    def _watch(self) -> None:
        with self._asked:
            while not self._closed:
                # What is asked later is due later: while this one is watched nobody need be woken.
                due_us = self._watched_us = min((job.until_us for job in self._open.values()), default=None)
                self._asked.wait(None if due_us is None else max(0, due_us - now_us()) / 1_000_000)
                for kind, job in list(self._open.items()):
                    if now_us() >= job.until_us:
                        del self._open[kind]
                        self.counters["unanswered"] += 1
                        self._problem = self._problem or _hung(self._url, self._timeout_ms)
                        self._emit(_no_answer(job.intent))

    # -- worker: owns the connection ----------------------------------------------------------

    def _work(self) -> None:
        client: redis.Redis | None = None
        try:
            client = connect(self._url, self._timeout_ms / 1000, self._credentials)
        except Exception as error:  # a witness that can't be had never takes the node down
            # Not the error's text: a URL that can't be parsed stands in it with its password.
            self._problem = f"{type(error).__name__}: redis.url {safe_url(self._url)} can't be used; correct it"
        with self._fresh:
            self._emit(None)
        while (job := self._next()) is not None:
            if client is None:
                self._answer(job, _no_answer(job.intent), "failed")
            else:
                self._carry_out(client, job)
        if client is not None:
            client.connection_pool.disconnect()

    def _next(self) -> _Job | None:
        with self._fresh:
            while True:
                self._fresh.wait_for(lambda: self._unsent or self._closed)
                if self._closed:
                    return None
                job = self._unsent.pop(min(self._unsent, key=_ORDER.index))
                if now_us() < job.until_us:
                    return job
                self.counters["unsent"] += 1

    def _carry_out(self, client: redis.Redis, job: _Job) -> None:
        try:
            reply = self._run(client, *self._words(job))
        except Exception as error:  # whatever Redis says or does must not end this thread
            client.connection_pool.disconnect()  # what it is good for is not known; a late answer may lie in it
            self._problem = explain(error, self._url, self._timeout_ms).problem
            self._answer(job, _no_answer(job.intent), "failed")
            return
        if reply.ineligible:
            client.connection_pool.disconnect()  # a demoted primary keeps it open, but the name may lead elsewhere now
        self._judge(job.intent, reply)
        self._answer(job, _event(job.intent, reply), "done" if reply.refusal is None else "refused")

    def _words(self, job: _Job) -> tuple[str | int, ...]:
        me = (self._node, self._incarnation)
        match job.intent:
            case WitnessVote(identity, pre, _, term_sought, record_id):
                return words("pre" if pre else "vote", identity, *me, term_sought, record_id)
            case WitnessPing(identity, term, _, record_id):
                return words("ping", identity, *me, term, record_id)
            case WitnessCreate(key, term, record_id):
                return words("found", Witness(key, "", ""), *me, term, record_id, job.asked_us)
            case WitnessLook(asked):
                return words("look", asked)

    def _run(self, client: redis.Redis, *args: str | int) -> WitnessReply:
        from redis.exceptions import NoScriptError

        texts = [self._key, *map(str, args)]
        with contextlib.suppress(NoScriptError):
            return parse_witness_reply(client.evalsha(WITNESS_SCRIPT.sha, 1, *texts))
        # EVAL also loads the script, and needs no permission for SCRIPT LOAD.
        return parse_witness_reply(client.eval(WITNESS_SCRIPT.text, 1, *texts))

    def _judge(self, intent: WitnessIntent, reply: WitnessReply) -> None:
        """Note what to tell people. Only a look sees everything, so only a look says that all is well."""
        if isinstance(intent, WitnessLook):
            self._problem = self._amiss(reply.note)
            if reply.same:
                self._in_use = ""
        elif isinstance(intent, WitnessCreate):
            self._in_use = _rival(intent, reply, safe_url(self._url)) if reply.refusal is Refusal.OLD_TERM else ""

    def _amiss(self, note: str) -> str:
        place = safe_url(self._url)
        if note == "CLUSTER":
            return f"{place} is a Redis Cluster, which can't be a witness: point redis.url at a server of its own"
        if note == "NAMELESS":
            return f"{place} does not tell its run_id and master_replid, so it can't be a witness"
        if note.startswith("EVICTS "):
            policy = note.partition(" ")[2]
            return f"maxmemory-policy {policy} of {place} may evict the witness: set it to noeviction"
        if not note:
            return ""
        from redis.exceptions import ResponseError

        return explain(ResponseError(note), self._url, self._timeout_ms).problem


def _event(intent: WitnessIntent, reply: WitnessReply) -> WitnessEvent | None:
    match intent:
        case WitnessVote(_, pre, number):
            acked = (reply.acked, reply.acked_incarnation, reply.acked_term)
            return WitnessVoted(pre, number, reply.refusal, reply.term, *acked)
        case WitnessPing(_, term, number, record_id):
            return WitnessAnswered(number, term, record_id, reply.refusal, reply.term)
        case WitnessCreate(key):
            return WitnessCreated(Witness(key, reply.run_id, reply.replid)) if reply.refusal is None else None
        case WitnessLook(identity):
            return WitnessSeen(identity, ready=not reply.ineligible, same=reply.same)


def _no_answer(intent: WitnessIntent) -> WitnessEvent | None:
    """What stands for an answer that does not come."""
    match intent:
        case WitnessVote(_, pre, number):
            return WitnessVoted(pre, number, Refusal.UNREACHABLE, 0)
        case WitnessLook():
            return _not_ready(intent)
    return None


def _not_ready(intent: WitnessLook) -> WitnessSeen:
    return WitnessSeen(intent.identity, ready=False, same=False)


def _hung(url: str, timeout_ms: int) -> str:
    return f"time-out: {safe_url(url)} gave no answer within {timeout_ms} ms; is it hung or overloaded?"


def _rival(intent: WitnessCreate, reply: WitnessReply, place: str) -> str:
    return (
        f"a witness memory of term {reply.term} is in use at {place}, newer than this controller's {intent.term}; "
        "does another cluster of the same name use this Redis? Give each its own cluster.name"
    )
