"""The witness's side of Redis in the small world (R12): one memory, one script, no Lua.

A twin of the script in `zelect.redis.witness_scripts`, line by line, so that the simulator and the
checker ask the same questions of the same rules.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from zelect.core.effects import WitnessCreate, WitnessIntent, WitnessLook, WitnessPing, WitnessVote
from zelect.core.events import Event, WitnessAnswered, WitnessCreated, WitnessSeen, WitnessVoted
from zelect.core.messages import Refusal
from zelect.core.quorum import RecordId, Witness

__all__ = ["Memory", "Redis"]


@dataclass(frozen=True)
class Memory:
    """What the witness holds in Redis: one hash. `voted_for` and `acked` begin with a node and its
    incarnation; the term that was acknowledged comes third."""

    identity: Witness
    term: int
    voted_for: tuple[int, int]
    acked: tuple[int, int, int]
    record_id: RecordId
    created_term: int
    created_us: int


class Redis:
    """A server with one memory of a witness, a run id, a history of replication, and ways to forget."""

    def __init__(self) -> None:
        self.up = True
        self.run = 1
        self.history = 1
        self.memory: Memory | None = None

    # -- what can happen to it ------------------------------------------------------------------

    def restart(self) -> None:
        """Everything is forgotten, and another run begins."""
        self.run += 1
        self.memory = None

    def restore(self, old: Memory | None) -> None:
        """Another run begins, with an old dump."""
        self.run += 1
        self.memory = old

    def fail_over(self, old: Memory | None) -> None:
        """A replica takes over, with what had reached it: same kind of server, other run and history."""
        self.run += 1
        self.history += 1
        self.memory = old

    def re_replicate(self) -> None:
        """The server was a replica for a moment and is a primary again: another history, same run."""
        self.history += 1

    def flush(self) -> None:
        self.memory = None

    # -- what it answers ------------------------------------------------------------------------

    def identity(self, key: str) -> Witness:
        """What a memory under `key` would be called now."""
        return Witness(key, f"run{self.run}", "repl" if self.history == 1 else f"repl{self.history}")

    def remembered(self) -> Memory | None:
        """The memory, if it was written in this very run; what another left behind is nobody's."""
        memory = self.memory
        return memory if memory is not None and memory.identity == self.identity(memory.identity.key) else None

    def same(self, identity: Witness | None) -> bool:
        memory = self.remembered()
        return memory is not None and memory.identity == identity

    def carry_out(self, node: int, incarnation: int, intent: WitnessIntent, asked_us: int = 0) -> Event | None:
        """Run the script. None: nothing that the node would hear of."""
        if isinstance(intent, WitnessLook):
            return WitnessSeen(intent.identity, self.up, self.up and self.same(intent.identity))
        if not self.up:
            return None
        if isinstance(intent, WitnessCreate):
            return self._found((node, incarnation), intent, asked_us)
        if isinstance(intent, WitnessVote):
            return self._vote((node, incarnation), intent)
        return self._ping((node, incarnation), intent)

    def _found(self, who: tuple[int, int], intent: WitnessCreate, asked_us: int) -> Event | None:
        memory = self.remembered()
        if memory is None and self.memory is not None and self.memory.identity.key == intent.key:
            return None
        if memory is not None and memory.identity.key != intent.key:
            ours, theirs = memory.record_id[0], intent.record_id[0]
            newer = memory.term > intent.term
            later = memory.created_term == intent.term and memory.created_us > asked_us
            if ours > theirs or (ours == theirs and (newer or later)):
                return None
        if memory is None or memory.identity.key != intent.key:
            acked = (*who, intent.term)
            identity = self.identity(intent.key)
            self.memory = Memory(identity, intent.term, who, acked, intent.record_id, intent.term, asked_us)
        return WitnessCreated(self.identity(intent.key))

    def _refusal(self, identity: Witness, term: int, record_id: RecordId, pre: bool = False) -> Refusal | None:
        memory = self.remembered()
        if memory is None or memory.identity != identity:
            return Refusal.UNRECOGNIZED
        if term < memory.term or (pre and term == memory.term):
            return Refusal.OLD_TERM
        return Refusal.STALE_VOTERS if record_id < memory.record_id else None

    def _vote(self, who: tuple[int, int], intent: WitnessVote) -> Event:
        sought, memory = intent.term_sought, self.remembered()
        reason = self._refusal(intent.identity, sought, intent.record_id, intent.pre)
        if reason is Refusal.UNRECOGNIZED or memory is None:
            return WitnessVoted(intent.pre, intent.round, Refusal.UNRECOGNIZED, 0)
        if reason is None and sought == memory.term and memory.voted_for != who:
            reason = Refusal.VOTED
        if reason is None and not intent.pre:
            # The record is not taken over: a vote commits nothing.
            self.memory = memory = replace(memory, term=sought, voted_for=who)
        return WitnessVoted(intent.pre, intent.round, reason, memory.term, *memory.acked)

    def _ping(self, who: tuple[int, int], intent: WitnessPing) -> Event:
        term, memory = intent.term, self.remembered()
        reason = self._refusal(intent.identity, term, intent.record_id)
        if reason is Refusal.UNRECOGNIZED or memory is None:
            return WitnessAnswered(intent.number, term, intent.record_id, Refusal.UNRECOGNIZED, 0)
        if reason is None and memory.acked[2] == term and memory.acked[:2] != who:
            reason = Refusal.VOTED
        if reason is None and (memory.acked[2] < term or intent.record_id > memory.record_id):
            voted_for = who if memory.term < term else memory.voted_for
            self.memory = memory = replace(
                memory, term=term, voted_for=voted_for, acked=(*who, term), record_id=intent.record_id
            )
        return WitnessAnswered(intent.number, term, intent.record_id, reason, memory.term)
