"""The witness's side of Redis (R12): one memory, one script, no Lua.

A twin of the script in `zelect.redis.witness_scripts`, so that the simulator and the checker ask the same
questions of the same rules. tests/model/test_modelcheck.py compares it with the script, answer by answer.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from zelect.core.effects import WitnessCreate, WitnessIntent, WitnessPing, WitnessVote
from zelect.core.events import Event, NamedProcess, WitnessAnswered, WitnessCreated, WitnessVoted
from zelect.core.messages import Refusal
from zelect.core.quorum import NO_RECORD, Record, RecordId, Witness
from zelect.core.timing import LIVES_PERCENT
from zelect.redis.witness_scripts import MOST_NAMES

Process = tuple[int, int]
"""A node and its incarnation."""


@dataclass(frozen=True, slots=True)
class Memory:
    """What the witness holds in Redis: one hash. The term that was acknowledged comes third in `acked`;
    `created_at`: on the clock of the node that created it; `acked_us`: of the last acknowledgement, on the server's.
    `names`: whom it acknowledged, and those it voted for since; with `many` there are more."""

    identity: Witness
    term: int
    voted_for: Process
    acked: tuple[int, int, int]
    record: Record
    created_term: int
    created_at: int
    acked_us: int = 0
    names: tuple[NamedProcess, ...] = ()
    many: bool = False

    @property
    def record_id(self) -> RecordId:
        return self.record.id

    def others(self, who: Process) -> tuple[tuple[NamedProcess, ...], bool]:
        """The names that `who` is told, and whether there are more than two."""
        others = tuple(name for name in self.names if (name.node, name.incarnation) != who)
        return others, self.many or len(others) > MOST_NAMES - 1

    def lives_for(self, who: Process, clock_us: int) -> bool:
        """Whether another than `who` was acknowledged a moment ago, and so is alive."""
        since_us, lives_us = clock_us - self.acked_us, self.names[0].promise_ms * 10 * LIVES_PERCENT
        return self.acked[:2] != who and self.acked_us > 0 and 0 <= since_us < lives_us

    def voting(self, sought: int, who: Process, promise_ms: int, record: Record) -> Memory:
        """After a vote for `who` in term `sought`."""
        me = NamedProcess(*who, sought, promise_ms)
        names = [me if (name.node, name.incarnation) == who else name for name in self.names]
        many = self.many
        if me not in names:
            many = many or len(names) >= MOST_NAMES
            names = [*names, me][:MOST_NAMES]
        return replace(self, term=sought, voted_for=who, record=record, names=tuple(names), many=many)


@dataclass(frozen=True, slots=True)
class WitnessServer:
    """A Redis server: which run it is, which history of replication, what it holds, and the keys of all
    memories that were created in it."""

    run: int = 1
    history: int = 1
    memory: Memory | None = None
    created: frozenset[str] = frozenset()

    def identity(self, key: str) -> Witness:
        """What a memory under `key` would be called now."""
        return Witness(key, f"run{self.run}", "repl" if self.history == 1 else f"repl{self.history}")

    def remembered(self) -> Memory | None:
        """The memory if it was written in this run; what an earlier run left belongs to nobody."""
        memory = self.memory
        return memory if memory is not None and memory.identity == self.identity(memory.identity.key) else None

    def same(self, identity: Witness | None, bound: bool = True) -> bool:
        """Whether the memory called `identity` is still the one in use."""
        if identity is None or self.memory is None:
            return False
        memory = self.remembered()
        return not bound or (memory is not None and memory.identity == identity)

    def flushed(self) -> WitnessServer:
        """The keys are gone; the server runs on."""
        return replace(self, memory=None)

    def restarted(self, memory: Memory | None) -> WitnessServer:
        """Another run, which begins with `memory`: that of a dump, or none."""
        return replace(self, run=self.run + 1, memory=memory)

    @property
    def handed_out(self) -> Record | None:
        """The voter record that is kept here, whatever the identity of the memory."""
        return None if self.memory is None else self.memory.record

    def answer(
        self,
        who: Process,
        intent: WitnessIntent,
        at: int,
        promise_ms: int = 0,
        *,
        clock_us: int = 0,
        bound: bool = True,
        once: bool = False,
    ) -> tuple[WitnessServer, Event | None]:
        """Run the script for process `who`, which asked `at` this moment of its clock, and whose election timeout is
        `promise_ms`. `clock_us`: the server's clock; 0 where it tells none, and so can't say that a controller lives
        (as in the checker). Without `bound` the identity is not checked (a mutant). With `once` a creation is not
        carried out a second time after what it created was lost."""
        if isinstance(intent, WitnessCreate):
            if once and intent.key in self.created and (self.memory is None or self.memory.identity.key != intent.key):
                return self, None
            return self._create(who, intent, at, promise_ms)
        server = self
        if not bound and self.memory is None:
            server = replace(self, memory=Memory(self.identity(""), 0, (0, 0), (0, 0, 0), NO_RECORD, 0, 0))
        if isinstance(intent, WitnessVote):
            return server._vote(who, intent, promise_ms, clock_us, bound)
        assert isinstance(intent, WitnessPing)
        return server._ping(who, intent, promise_ms, clock_us, bound)

    def _create(
        self, who: Process, intent: WitnessCreate, at: int, promise_ms: int
    ) -> tuple[WitnessServer, Event | None]:
        memory, identity = self.remembered(), self.identity(intent.key)
        if memory is None and self.memory is not None and self.memory.identity.key == intent.key:
            return self, None
        if memory is not None and memory.identity == identity:
            return self, WitnessCreated(identity)
        if memory is not None:
            later = memory.created_term == intent.term and memory.created_at > at
            same = memory.record.cluster_id == intent.record.cluster_id
            ahead = memory.record_id[0] - intent.record.id[0] if same else 0
            if ahead > 0 or (ahead == 0 and (memory.term > intent.term or later)):
                return self, None
        acked, names = (*who, intent.term), (NamedProcess(*who, intent.term, promise_ms),)
        memory = Memory(identity, intent.term, who, acked, intent.record, intent.term, at, names=names)
        return replace(self, memory=memory, created=self.created | {intent.key}), WitnessCreated(identity)

    def _refusal(self, identity: Witness, term: int, least: int, record_id: RecordId, bound: bool) -> Refusal | None:
        if self.memory is None or not self.same(identity, bound):
            return Refusal.UNRECOGNIZED
        if term < least:
            return Refusal.OLD_TERM
        return Refusal.STALE_VOTERS if record_id < self.memory.record_id else None

    def _handed_out(self, reason: Refusal | None) -> Record | None:
        """The record that comes with this refusal."""
        return self.handed_out if reason in (Refusal.UNRECOGNIZED, Refusal.STALE_VOTERS) else None

    def _vote(
        self, who: Process, intent: WitnessVote, promise_ms: int, clock_us: int, bound: bool
    ) -> tuple[WitnessServer, WitnessVoted]:
        memory, sought, record = self.memory, intent.term_sought, intent.record
        least = (memory.term if memory is not None else 0) + intent.pre
        reason = self._refusal(intent.identity, sought, least, record.id, bound)
        if reason is Refusal.UNRECOGNIZED or memory is None:
            unknown = WitnessVoted(intent.pre, intent.round, Refusal.UNRECOGNIZED, 0)
            return self, replace(unknown, record=self.handed_out)
        if reason is None and sought == memory.term and memory.voted_for != who and (bound or memory.voted_for[0]):
            reason = Refusal.VOTED
        if reason is None and intent.pre and memory.lives_for(who, clock_us):
            reason = Refusal.PROMISED
        if reason is None and not intent.pre and (memory.term < sought or memory.record_id < record.id):
            memory = memory.voting(sought, who, promise_ms, record)
        named, many = memory.others(who)
        answer = WitnessVoted(intent.pre, intent.round, reason, memory.term, named, many, self._handed_out(reason))
        return replace(self, memory=memory), answer

    def _ping(
        self, who: Process, intent: WitnessPing, promise_ms: int, clock_us: int, bound: bool
    ) -> tuple[WitnessServer, WitnessAnswered]:
        memory, term, record = self.memory, intent.term, intent.record
        reason = self._refusal(intent.identity, term, memory.term if memory is not None else 0, record.id, bound)
        if reason is Refusal.UNRECOGNIZED or memory is None:
            unknown = WitnessAnswered(intent.number, term, record.id, Refusal.UNRECOGNIZED, 0, self.handed_out)
            return self, unknown
        if reason is None and memory.acked[2] == term and memory.acked[:2] != who:
            reason = Refusal.VOTED
        if reason is None and (memory.acked[2] < term or record.id > memory.record_id):
            voted_for = who if memory.term < term else memory.voted_for
            names = (NamedProcess(*who, term, promise_ms),)
            memory = replace(
                memory, term=term, voted_for=voted_for, acked=(*who, term), record=record, names=names, many=False
            )
        if reason is None:
            memory = replace(memory, acked_us=clock_us)
        answer = WitnessAnswered(intent.number, term, record.id, reason, memory.term, self._handed_out(reason))
        return replace(self, memory=memory), answer
