"""The witness's side of Redis (R12): one memory, one script, no Lua.

A twin of the script in `zelect.redis.witness_scripts`, so that the simulator and the checker ask the same
questions of the same rules. tests/model/test_modelcheck.py compares it with the script, answer by answer.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from zelect.core.effects import WitnessCreate, WitnessIntent, WitnessPing, WitnessVote
from zelect.core.events import Event, NamedProcess, WitnessAnswered, WitnessCreated, WitnessVoted
from zelect.core.messages import Refusal
from zelect.core.quorum import RecordId, Witness

Process = tuple[int, int]
"""A node and its incarnation."""


@dataclass(frozen=True, slots=True)
class Memory:
    """What the witness holds in Redis: one hash. The term that was acknowledged comes third in `acked`;
    `created_at`: on the clock of the node that created it."""

    identity: Witness
    term: int
    voted_for: Process
    acked: tuple[int, int, int]
    record_id: RecordId
    created_term: int
    created_at: int


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

    def answer(
        self, who: Process, intent: WitnessIntent, at: int, *, bound: bool = True, once: bool = False
    ) -> tuple[WitnessServer, Event | None]:
        """Run the script for process `who`, which asked `at` this moment of its clock. Without `bound` the
        identity is not checked (a mutant). With `once` a creation is not carried out a second time after
        what it created was lost."""
        if isinstance(intent, WitnessCreate):
            if once and intent.key in self.created and (self.memory is None or self.memory.identity.key != intent.key):
                return self, None
            return self._create(who, intent, at)
        server = self
        if not bound and self.memory is None:
            server = replace(self, memory=Memory(self.identity(""), 0, (0, 0), (0, 0, 0), (0, 0, 0), 0, 0))
        if isinstance(intent, WitnessVote):
            return server._vote(who, intent, bound)
        assert isinstance(intent, WitnessPing)
        return server._ping(who, intent, bound)

    def _create(self, who: Process, intent: WitnessCreate, at: int) -> tuple[WitnessServer, Event | None]:
        memory, identity = self.remembered(), self.identity(intent.key)
        if memory is None and self.memory is not None and self.memory.identity.key == intent.key:
            return self, None
        if memory is not None and memory.identity == identity:
            return self, WitnessCreated(identity)
        if memory is not None:
            generation, later = memory.record_id[0], memory.created_term == intent.term and memory.created_at > at
            newer = generation == intent.record.id[0] and (memory.term > intent.term or later)
            if generation > intent.record.id[0] or newer:
                return self, None
        memory = Memory(identity, intent.term, who, (*who, intent.term), intent.record.id, intent.term, at)
        return replace(self, memory=memory, created=self.created | {intent.key}), WitnessCreated(identity)

    def _refusal(self, identity: Witness, term: int, least: int, record_id: RecordId, bound: bool) -> Refusal | None:
        if self.memory is None or not self.same(identity, bound):
            return Refusal.UNRECOGNIZED
        if term < least:
            return Refusal.OLD_TERM
        return Refusal.STALE_VOTERS if record_id < self.memory.record_id else None

    def _vote(self, who: Process, intent: WitnessVote, bound: bool) -> tuple[WitnessServer, Event]:
        memory, sought = self.memory, intent.term_sought
        least = (memory.term if memory is not None else 0) + intent.pre
        reason = self._refusal(intent.identity, sought, least, intent.record.id, bound)
        if reason is Refusal.UNRECOGNIZED or memory is None:
            return self, WitnessVoted(intent.pre, intent.round, Refusal.UNRECOGNIZED, 0)
        if reason is None and sought == memory.term and memory.voted_for != who and (bound or memory.voted_for[0]):
            reason = Refusal.VOTED
        if reason is None and not intent.pre:  # the record is not taken over: a vote commits nothing
            memory = replace(memory, term=sought, voted_for=who)
        named = (NamedProcess(*memory.acked),) if memory.acked[0] else ()
        answer = WitnessVoted(intent.pre, intent.round, reason, memory.term, named)
        return replace(self, memory=memory), answer

    def _ping(self, who: Process, intent: WitnessPing, bound: bool) -> tuple[WitnessServer, Event]:
        memory, term = self.memory, intent.term
        reason = self._refusal(intent.identity, term, memory.term if memory is not None else 0, intent.record.id, bound)
        if reason is Refusal.UNRECOGNIZED or memory is None:
            return self, WitnessAnswered(intent.number, term, intent.record.id, Refusal.UNRECOGNIZED, 0)
        if reason is None and memory.acked[2] == term and memory.acked[:2] != who:
            reason = Refusal.VOTED
        if reason is None and (memory.acked[2] < term or intent.record.id > memory.record_id):
            voted_for = who if memory.term < term else memory.voted_for
            memory = replace(memory, term=term, voted_for=voted_for, acked=(*who, term), record_id=intent.record.id)
        answer = WitnessAnswered(intent.number, term, intent.record.id, reason, memory.term)
        return replace(self, memory=memory), answer
