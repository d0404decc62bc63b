"""The witness in Redis (R12): what a node asks it, and what replaces an answer that comes too late.

Of each kind of question only the newest counts. One that could not be sent in time is never sent,
because what it asks for has been decided otherwise since.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import zmq

from zelect.core.effects import WitnessCreate, WitnessIntent, WitnessLook, WitnessPing, WitnessVote
from zelect.core.events import WitnessAnswered, WitnessCreated, WitnessSeen, WitnessVoted
from zelect.core.messages import Refusal
from zelect.core.quorum import Record, Witness
from zelect.redis.errors import explain, safe_url
from zelect.redis.witness_record import RecordTexts, RefusedRecord
from zelect.redis.witness_scripts import WITNESS_SCRIPT, WitnessReply, parse_witness_reply, witness_key, words
from zelect.redis.worker import RedisSettings, RedisWorker
from zelect.system.clock import now_us

WitnessEvent = WitnessVoted | WitnessAnswered | WitnessCreated | WitnessSeen

_COUNTERS = ("submitted", "overtaken", "done", "refused", "failed", "unsent", "unanswered", "records_refused")
_ORDER = (WitnessVote, WitnessPing, WitnessCreate, WitnessLook)


@dataclass(frozen=True, slots=True, eq=False)
class _Question:
    """What is asked, when it was asked, and until when its answer is worth anything."""

    intent: WitnessIntent
    asked_us: int
    until_us: int


class WitnessClient(RedisWorker[WitnessIntent, WitnessEvent]):
    """After `timeout_ms` a vote is answered as UNREACHABLE and a look as not ready, whatever Redis does; a
    PING and a creation then stay without an answer. `problem` may be read at any time."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], settings: RedisSettings) -> None:
        super().__init__(context, settings, "witness", _COUNTERS)
        self._key = witness_key(settings.cluster)
        self._records = RecordTexts(settings.cluster, settings.secret, settings.trusting)
        self._problem = "" if settings.url else "not configured"
        self._in_use = self._refused_record = ""
        self._unsent: dict[type, _Question] = {}

    @property
    def problem(self) -> str:
        """What is wrong with Redis as a witness and how to fix it, else empty. Without secrets."""
        return "; ".join(filter(None, (self._problem, self._in_use, self._refused_record)))

    # -- with the lock held -------------------------------------------------------------------

    def _add(self, intents: Sequence[WitnessIntent]) -> None:
        asked_us = now_us()
        until_us = asked_us + self.settings.timeout_ms * 1000
        for intent in intents:
            kind, question = type(intent), _Question(intent, asked_us, until_us)
            self.counters["overtaken"] += kind in self._unsent
            self._unsent[kind] = question
            if isinstance(intent, WitnessVote | WitnessLook):
                self._expect(kind, until_us, partial(self._unanswered, intent), about=question)

    def _has_work(self) -> bool:
        return bool(self._unsent) and not self._closed

    def _answer_without_redis(self, intents: Sequence[WitnessIntent]) -> None:
        for intent in intents:
            if isinstance(intent, WitnessLook):
                self._emit(_no_answer(intent))

    def _take_problem(self, problem: str) -> None:
        self._problem = problem

    def _unanswered(self, intent: WitnessIntent) -> None:
        self.counters["unanswered"] += 1
        url, timeout_ms = safe_url(self.settings.url), self.settings.timeout_ms
        hung = f"timeout: {url} gave no answer within {timeout_ms} ms; is it hung or overloaded?"
        self._problem = self._problem or hung
        self._emit(_no_answer(intent))

    def _next(self) -> _Question | None:
        while self._has_work():
            question = self._unsent.pop(min(self._unsent, key=_ORDER.index))
            if now_us() < question.until_us:
                return question
            self.counters["unsent"] += 1
        return None

    # -- the worker: without the lock ---------------------------------------------------------

    def _carry_out(self) -> None:
        while True:
            with self._lock:
                question = self._next()
            if question is None:
                return
            self._ask(question)

    def _ask(self, question: _Question) -> None:
        intent = question.intent
        try:
            texts = [self._key, *map(str, self._words(question))]
            reply = parse_witness_reply(self._connection.run(WITNESS_SCRIPT, 1, texts))
        except Exception as error:  # whatever Redis answers or does must not end this thread
            self._connection.drop()  # its state is not known; a late answer may lie in it
            self._problem = explain(error, self.settings.url, self.settings.timeout_ms).problem
            self._answer(question, _no_answer(intent), "failed")
            return
        if reply.ineligible:
            self._connection.drop()  # a demoted primary keeps it open, but the name may lead elsewhere now
        self._judge(intent, reply)
        event = _event(intent, reply, self._record_in(reply))
        self._answer(question, event, "done" if reply.refusal is None else "refused")

    def _record_in(self, reply: WitnessReply) -> Record | None:
        """The voter record that comes with an answer. What is none is counted, noted for people, and changes
        nothing."""
        try:
            record = self._records.read(reply.record)
        except RefusedRecord as why:
            self.counters["records_refused"] += 1
            self._refused_record = f"the voter record at {safe_url(self.settings.url)} {why}, and is not taken"
            return None
        if reply.record:
            self._refused_record = ""
        return record

    def _answer(self, question: _Question, event: WitnessEvent | None, counter: str) -> None:
        with self._lock:
            self.counters[counter] += 1
            expected = isinstance(question.intent, WitnessVote | WitnessLook)
            if expected and not self._met(type(question.intent), about=question):
                return  # a newer one was asked, or it has been answered in its place
            if event is not None:
                self._emit(event)

    def _words(self, question: _Question) -> tuple[str | int, ...]:
        match question.intent:
            case WitnessVote(identity, pre, _, term_sought, record):
                return self._asking("pre" if pre else "vote", identity, term_sought, record, question)
            case WitnessPing(identity, term, _, record):
                return self._asking("ping", identity, term, record, question)
            case WitnessCreate(key, term, record):
                return self._asking("create", Witness(key, "", ""), term, record, question)
            case WitnessLook(identity):
                return words("look", identity)

    def _asking(
        self, op: str, identity: Witness, term: int, record: Record, question: _Question
    ) -> tuple[str | int, ...]:
        settings, text = self.settings, self._records.write(record)
        asked = (record.id, question.asked_us, settings.promise_ms, text, record.cluster_id)
        return words(op, identity, settings.node, settings.incarnation, term, *asked)

    def _judge(self, intent: WitnessIntent, reply: WitnessReply) -> None:
        """Note what is wrong, for people. Only a look checks everything, so only a look clears the note."""
        if isinstance(intent, WitnessLook):
            self._problem = self._explain(reply.note)
            if reply.same:
                self._in_use = ""
        elif isinstance(intent, WitnessCreate):
            refused = reply.refusal is Refusal.OLD_TERM
            self._in_use = _rival(intent, reply, safe_url(self.settings.url)) if refused else ""

    def _explain(self, note: str) -> str:
        """What a look found wrong with the server."""
        place = safe_url(self.settings.url)
        if note == "CLUSTER":
            return f"{place} is a Redis Cluster, which can't be a witness: point redis.url at a standalone server"
        if note == "NAMELESS":
            return f"{place} does not report its run_id and master_replid, so it can't be a witness"
        if note.startswith("EVICTS "):
            policy = note.partition(" ")[2]
            return f"maxmemory-policy {policy} of {place} may evict the witness: set it to noeviction"
        if not note:
            return ""
        from redis.exceptions import ResponseError

        return explain(ResponseError(note), self.settings.url, self.settings.timeout_ms).problem


def _event(intent: WitnessIntent, reply: WitnessReply, record: Record | None) -> WitnessEvent | None:
    match intent:
        case WitnessVote(_, pre, number):
            return WitnessVoted(pre, number, reply.refusal, reply.term, reply.named, reply.many, record)
        case WitnessPing(_, term, number, mine):
            return WitnessAnswered(number, term, mine.id, reply.refusal, reply.term, record)
        case WitnessCreate(key):
            return WitnessCreated(Witness(key, reply.run_id, reply.replid)) if reply.refusal is None else None
        case WitnessLook(identity):
            return WitnessSeen(identity, ready=not reply.ineligible, same=reply.same, record=record)


def _no_answer(intent: WitnessIntent) -> WitnessEvent | None:
    """What replaces an answer that does not come."""
    match intent:
        case WitnessVote(_, pre, number):
            return WitnessVoted(pre, number, Refusal.UNREACHABLE, 0)
        case WitnessLook(identity):
            return WitnessSeen(identity, ready=False, same=False)
    return None


def _rival(intent: WitnessCreate, reply: WitnessReply, place: str) -> str:
    return (
        f"a witness memory of term {reply.term} is in use at {place}, newer than this controller's {intent.term}; "
        "does another cluster of the same name use this Redis? Give each its own cluster.name"
    )
