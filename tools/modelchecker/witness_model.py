"""The witness as the checker has it: the rules of the script in `zelect.redis.witness_scripts`, in Python.

The twin is compared with the script itself, operation by operation, in tests/model/test_modelcheck.py.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from tools.modelchecker.parts import Ask
from zelect.core.effects import WitnessCreate, WitnessPing, WitnessVote
from zelect.core.events import Event, WitnessAnswered, WitnessCreated, WitnessVoted
from zelect.core.messages import Refusal
from zelect.core.quorum import RecordId, Witness

__all__ = ["Memory", "Server", "answer", "flushed", "restarted", "same"]


@dataclass(frozen=True, slots=True)
class Memory:
    """The hash in Redis."""

    key: str
    run: int
    term: int
    voted: tuple[int, int]
    acked: tuple[int, int, int]
    record_id: RecordId
    new_witness: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Server:
    """Redis: which run of the server it is, what it holds, and the keys of all memories begun in it."""

    run: int = 1
    memory: Memory | None = None
    begun: frozenset[str] = frozenset()


def flushed(server: Server) -> Server:
    """The keys are gone; the server runs on."""
    return replace(server, memory=None)


def restarted(server: Server, keeps: bool) -> Server:
    """Another run, with its keys from a dump or without."""
    return replace(server, run=server.run + 1, memory=server.memory if keeps else None)


def same(server: Server, identity: Witness | None, bound: bool = True) -> bool:
    """Whether the memory that `identity` names is still the one in use."""
    memory = server.memory
    if identity is None or memory is None:
        return False
    return not bound or (memory.run == server.run and identity == Witness(memory.key, f"r{server.run}", "p"))


def answer(server: Server, ask: Ask, bound: bool = True, once: bool = False) -> tuple[Server, Event | None]:
    """Run the script for `ask`. Without `bound` nobody's identity is checked (a mutant). With `once`
    no founding is carried out a second time after what it began was lost."""
    intent = ask.intent
    if isinstance(intent, WitnessCreate):
        present = server.memory is not None and server.memory.key == intent.key
        if once and intent.key in server.begun and not present:
            return server, None
        return _found(server, ask, intent)
    if not bound and server.memory is None:
        empty = Memory("", server.run, 0, (0, 0), (0, 0, 0), (0, 0, 0), (0, 0))
        server = replace(server, memory=empty)
    if isinstance(intent, WitnessVote):
        return _vote(server, ask, intent, bound)
    assert isinstance(intent, WitnessPing)
    return _ping(server, ask, intent, bound)


def _found(server: Server, ask: Ask, intent: WitnessCreate) -> tuple[Server, Event | None]:
    memory = server.memory
    valid = memory is not None and memory.run == server.run
    if memory is not None and not valid and memory.key == intent.key:
        return server, None
    new_witness = WitnessCreated(Witness(intent.key, f"r{server.run}", "p"))
    if memory is not None and valid:
        if memory.key == intent.key:
            return server, new_witness
        newer = memory.term > intent.term or (memory.new_witness[0] == intent.term and memory.new_witness[1] > ask.turn)
        if memory.record_id[0] > intent.record_id[0] or (memory.record_id[0] == intent.record_id[0] and newer):
            return server, None
    who = (ask.node, ask.incarnation)
    begun = Memory(
        intent.key, server.run, intent.term, who, (*who, intent.term), intent.record_id, (intent.term, ask.turn)
    )
    return replace(server, memory=begun, begun=server.begun | {intent.key}), new_witness


def _refusal(
    server: Server, identity: Witness, term: int, least: int, record_id: RecordId, bound: bool
) -> Refusal | None:
    if not same(server, identity, bound):
        return Refusal.UNRECOGNIZED
    assert server.memory is not None
    if term < least:
        return Refusal.OLD_TERM
    return Refusal.STALE_VOTERS if record_id < server.memory.record_id else None


def _vote(server: Server, ask: Ask, intent: WitnessVote, bound: bool) -> tuple[Server, Event]:
    memory, sought, who = server.memory, intent.term_sought, (ask.node, ask.incarnation)
    term = memory.term if memory is not None else 0
    reason = _refusal(server, intent.identity, sought, term + intent.pre, intent.record_id, bound)
    if reason is None and memory is not None and sought == term and memory.voted != who and (bound or memory.voted[0]):
        reason = Refusal.VOTED
    if reason is Refusal.UNRECOGNIZED or memory is None:
        return server, WitnessVoted(intent.pre, intent.round, Refusal.UNRECOGNIZED, 0)
    if reason is None and not intent.pre:
        memory = replace(memory, term=sought, voted=who)
    return replace(server, memory=memory), WitnessVoted(intent.pre, intent.round, reason, memory.term, *memory.acked)


def _ping(server: Server, ask: Ask, intent: WitnessPing, bound: bool) -> tuple[Server, Event]:
    memory, who = server.memory, (ask.node, ask.incarnation)
    term = memory.term if memory is not None else 0
    reason = _refusal(server, intent.identity, intent.term, term, intent.record_id, bound)
    if reason is None and memory is not None:
        if memory.acked[2] == intent.term and memory.acked[:2] != who:
            reason = Refusal.VOTED
        elif memory.acked[2] < intent.term or intent.record_id > memory.record_id:
            voted = who if memory.term < intent.term else memory.voted
            acked = (*who, intent.term)
            memory = replace(memory, term=intent.term, voted=voted, acked=acked, record_id=intent.record_id)
    told = 0 if reason is Refusal.UNRECOGNIZED or memory is None else memory.term
    event = WitnessAnswered(intent.number, intent.term, intent.record_id, reason, told)
    return replace(server, memory=memory), event
