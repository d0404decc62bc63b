"""Rules broken on purpose, at the seams between the machine and its world: the checker must see each.

Nothing of the shipped code is changed on disk; what cannot be done at a seam is swapped for the
time of one search.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from tools.modelchecker.canonical import NOW
from tools.modelchecker.model import Seams
from zelect.core.actors import health, membership, voters
from zelect.core.effects import Effects, Saved
from zelect.core.events import Event, MessageReceived, WitnessVoted
from zelect.core.messages import Handover, Pong, Voting, VotResp
from zelect.core.quorum import Record, Witness
from zelect.core.settings import Settings
from zelect.core.state import LeaderState, Peer, State
from zelect.core.step import Step
from zelect.core.voters import Change, VoterHealth


@dataclass(frozen=True)
class Mutant:
    """A broken rule, and where it shows: a scenario and the bounds that suffice."""

    rule: str
    about: str
    seams: Callable[[], Seams]
    scenario: str
    bounds: dict[str, Any] = field(default_factory=dict)
    swapped: Callable[[], Any] | None = None

    @contextmanager
    def broken(self) -> Iterator[None]:
        """While what must be swapped is."""
        undo = self.swapped() if self.swapped is not None else None
        try:
            yield
        finally:
            if undo is not None:
                undo()


class _NothingSaved(Seams):
    def saved(self, disk: Saved, effects: Effects) -> Saved:
        return disk


class _SentFirst(Seams):
    def prefixes(self, effects: Effects) -> Iterable[tuple[bool, bool]]:
        return [(False, True)] if effects.save is not None and (effects.send or effects.witness) else []


class _NoPromise(Seams):
    def after(self, state: State, effects: Effects) -> None:
        if state.promise is not None and state.promise.to != state.node:
            state.promise = None


class _NoSilence(Seams):
    def after(self, state: State, effects: Effects) -> None:
        state.grace_until_us = 0


class _SecondVote(Seams):
    def before(self, state: State, event: Event, settings: Settings) -> Event:
        if _heard(event, Voting) and state.saved.voted_for != state.node:
            state.saved = replace(state.saved, voted_for=0, voted_epoch=0)
        return event

    def saved(self, disk: Saved, effects: Effects) -> Saved:
        # Judged by its grants: what stands on disk is not what is looked at.
        return replace(super().saved(disk, effects), voted_for=0, voted_epoch=0)


class _NoMemoryLost(Seams):
    def before(self, state: State, event: Event, settings: Settings) -> Event:
        if state.saved.epoch != 1:
            state.saved = replace(state.saved, epoch=1)
        return event


class _OlderRecords(Seams):
    def before(self, state: State, event: Event, settings: Settings) -> Event:
        message = event.envelope.message if isinstance(event, MessageReceived) else None
        if isinstance(event, MessageReceived) and isinstance(message, Voting) and message.record.id < state.record.id:
            record = replace(message.record, config_term=state.record.config_term, version=state.record.version)
            lenient = replace(message, record=record)
            return MessageReceived(replace(event.envelope, message=lenient))
        return event


class _AnyWitness(Seams):
    def bound(self) -> bool:
        return False


class _VotesByMessage(Seams):
    def before(self, state: State, event: Event, settings: Settings) -> Event:
        campaign = state.campaign
        if not (_heard(event, VotResp) and campaign is not None and isinstance(event, MessageReceived)):
            return event
        sender = event.envelope.sender
        others = [node for node in state.members if node not in campaign.answers]
        if sender in campaign.answers and others:
            known = state.peers[others[0]].incarnation or 1
            return MessageReceived(replace(event.envelope, sender=others[0], incarnation=known))
        return event


class _LeaseFromReply(Seams):
    def before(self, state: State, event: Event, settings: Settings) -> Event:
        if (
            isinstance(event, MessageReceived)
            and isinstance(event.envelope.message, Pong)
            and state.leader_state is not None
        ):
            state.leader_state.sent_us[event.envelope.message.number] = NOW
        return event


class _ActiveAtOnce(Seams):
    def after(self, state: State, effects: Effects) -> None:
        if state.leader_state is not None:
            state.leader_state.promises_end_us = 0


class _WitnessNamesNobody(Seams):
    def before(self, state: State, event: Event, settings: Settings) -> Event:
        return replace(event, named=()) if isinstance(event, WitnessVoted) else event


class _HearsWhileSaving(Seams):
    def waits(self) -> bool:
        return False


class _JobUnprotected(Seams):
    def after(self, state: State, effects: Effects) -> None:
        if state.pending_handover is not None and state.promise is not None and state.promise.to == state.node:
            state.promise = None


def _handed_over_at_once() -> Callable[[], None]:
    def at_once(step: Step, message: Handover) -> None:
        step.broadcast(message)

    return _swap(health, "hand_over", at_once)


def _heard(event: Event, kind: type) -> bool:
    return isinstance(event, MessageReceived) and isinstance(event.envelope.message, kind)


def _swap(owner: Any, name: str, new: Any) -> Callable[[], None]:
    old = getattr(owner, name)
    setattr(owner, name, new)
    return lambda: setattr(owner, name, old)


def _all(undo: list[Callable[[], None]]) -> None:
    for back in undo:
        back()


def _uncommitted() -> Callable[[], None]:
    return _swap(LeaderState, "committed", lambda self, record: True)


def _copy_kept() -> Callable[[], None]:
    return _swap(membership, "_compare_with_memory", lambda step, message: None)


class _Both(Change):
    """All but the lowest member go at once."""

    def applied(self, record: Record, processes: Any = None, witness: Witness | None = None) -> Record:
        for node in record.members[1:]:
            record = replace(record.without_member(node), version=record.version)
        return replace(record, version=record.version + 1)


def _two_at_once() -> Callable[[], None]:
    def hasty(record: Record, health: VoterHealth, dynamic: bool) -> Change | None:
        gone = health.gone & set(record.members)
        return _Both(remove=min(gone)) if len(record.members) > 1 and gone else None

    undo = [
        _swap(voters, "next_change", hasty),
        _swap(Record, "differs_by_one_from", lambda self, other: True),
    ]
    return lambda: _all(undo)


_ONE = {"crashes": 1, "restarts": 1, "witness_losses": 0, "candidates": (2,), "victims": (3,), "inside": False}
_THREE = {"victims": (3,), "versions": 1, "inside": False}

MUTANTS = {
    "nothing-saved": Mutant("R1", "effects are carried out without the save", _NothingSaved, "votes3", _THREE),
    "sent-first": Mutant("R1", "packets leave before the save", _SentFirst, "votes3", {**_THREE, "inside": True}),
    "forgot-and-votes": Mutant(
        "R1", "a node that lost its disk votes", _NoMemoryLost, "votes3", {**_THREE, "losses": 1}
    ),
    "second-vote": Mutant("R2", "a voter forgets whom it voted for", _SecondVote, "votes3", {"crashes": 0}),
    "votes-by-message": Mutant("R2", "grants are counted, not voters", _VotesByMessage, "votes5"),
    "no-promise": Mutant("R3", "an answered PING promises nothing", _NoPromise, "static3", {"crashes": 0}),
    "front-is-proof": Mutant(
        "R9",
        "what refuses for a process proves it dead, though its own connection stands",
        Seams,
        "static3",
        {"crashes": 0, "fronts": 2},
        lambda: _swap(Peer, "connected", property(lambda self: self.linked)),
    ),
    "no-silence": Mutant("R4", "a restarted node votes at once", _NoSilence, "static3", _ONE),
    "lease-from-reply": Mutant(
        "R5", "the lease counts from the answer", _LeaseFromReply, "static3", {"crashes": 0, "candidates": (2,)}
    ),
    "too-much-drift": Mutant("R5", "clocks drift apart beyond the margin", Seams, "static3", {"crashes": 0, "skew": 2}),
    "leadership-at-once": Mutant("R7", "a winner does not wait for earlier promises", _ActiveAtOnce, "lone"),
    "witness-names-nobody": Mutant("R12", "the witness keeps no controller in mind", _WitnessNamesNobody, "lone"),
    "older-records": Mutant(
        "R10",
        "a voter takes candidates with older records",
        _OlderRecords,
        "floor",
        {**_ONE, "candidates": (3,), "crashes": 0, "creations": 0},
    ),
    "uncommitted": Mutant(
        "R10", "changes do not wait for a quorum", Seams, "grow", {"terms": 2, "versions": 3}, _uncommitted
    ),
    "two-at-once": Mutant(
        "R10", "several members go at once", Seams, "shrink", {**_ONE, "victims": (), "terms": 2}, _two_at_once
    ),
    "handed-over-at-once": Mutant(
        "R6", "a leadership is handed over while its job acts", Seams, "guarded3", {}, _handed_over_at_once
    ),
    "job-unprotected": Mutant("R6", "the node's own promise ends before the job does", _JobUnprotected, "guarded3"),
    "members-uncommitted": Mutant(
        "R10", "an operator's changes do not wait for a quorum", Seams, "remove3", {"changes": 2}, _uncommitted
    ),
    "hears-while-saving": Mutant("R1", "a node goes on while it saves", _HearsWhileSaving, "slow3"),
    "copy-kept": Mutant(
        "R16", "a node keeps the older copy that its peers tell it of", Seams, "copied3", {}, _copy_kept
    ),
    "any-witness": Mutant(
        "R12",
        "the witness's identity is not checked",
        _AnyWitness,
        "floor",
        {"crashes": 0, "witness_losses": 1, "candidates": (1, 2), "creations": 0},
    ),
}
