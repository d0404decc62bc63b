"""The voters and its quorum (R2, R10).

A *record* says who may vote: (config_term, version, members, witness). Records are ordered by
(generation, config_term, version); whoever holds the newer one is right. A quorum is more than
half of the voters: the members, and the witness in Redis where the record names one (R12). Votes
are counted by voter, never by message, so a duplicated answer counts once: with three nodes a
count of messages goes unnoticed, with five it elects two controllers.

Records follow the logless reconfiguration of Schultz, Dardik and Tripakis (OPODIS 2021, arXiv
2102.11960): only a controller active writes one, one voter different from the record before,
and only when a quorum has saved that record before in the controller's term. Two records that
follow each other then share a voter in any two of their quorums, and older ones are dead because
a quorum would refuse them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum

__all__ = ["WITNESS", "Outcome", "Record", "RecordId", "Witness", "has_quorum", "quorum_size", "tally"]

RecordId = tuple[int, int, int]
"""(generation, config_term, version): what orders two voter records."""

WITNESS = 0
"""The witness as a voter, beside the ids of nodes, which begin at 1."""


@dataclass(frozen=True, slots=True)
class Witness:
    """Which memory in Redis is meant (R12): a key of its own, the server's run and its history of
    replication. A server that restarted, failed over, was flushed or restored differs in one."""

    key: str
    run_id: str
    replid: str


@dataclass(frozen=True, slots=True)
class Record:
    """The voters: whose votes count.

    `config_term` is the term of the controller that wrote it (0: founded, by configuration or by
    an operator), `version` grows with each change, `members` are node ids in ascending order.
    `lives` says for each member which life of it votes: a node that lost its memory begins a new
    life, and what its earlier one voted is then void only if that one was taken out first (R1).
    Life 0: not known yet. `generation` is 0 until an operator founds a lost voters again.
    """

    config_term: int
    version: int
    members: tuple[int, ...]
    witness: Witness | None = None
    generation: int = 0
    epochs: tuple[int, ...] = ()
    voters: tuple[int, ...] = field(init=False, compare=False, repr=False)
    """The members, and `WITNESS` where there is one."""

    def __post_init__(self) -> None:
        if list(self.members) != sorted(set(self.members)):
            raise ValueError("members must be distinct and in ascending order")
        if not self.epochs:
            object.__setattr__(self, "epochs", (0,) * len(self.members))
        if len(self.epochs) != len(self.members):
            raise ValueError("each member has one life")
        object.__setattr__(self, "voters", self.members if self.witness is None else (WITNESS, *self.members))

    @property
    def id(self) -> RecordId:
        """What orders this record among others."""
        return (self.generation, self.config_term, self.version)

    def epoch_of(self, node: int) -> int:
        """Which life of `node` votes; 0: not known, -1: none, it is no member."""
        return self.epochs[self.members.index(node)] if node in self.members else -1

    def named(self) -> dict[int, int]:
        """The life that votes by member, ascending; for whoever asks about many of them."""
        return dict(zip(self.members, self.epochs, strict=True))

    def counts(self, node: int, epoch: int) -> bool:
        """Whether `life` of `node` has a voting right. In a founding record each member has, because
        nobody's life is known yet; from then on only the one that the record names."""
        known = self.epoch_of(node)
        return known == epoch or (known == 0 and self.config_term == 0)

    def rewritten(self, term: int, epochs: Mapping[int, int]) -> Record:
        """The same voters, claimed by the controller of `term` (R7a, R10), with the `lives` of
        members that were not known before."""
        known = (epoch or epochs.get(node, 0) for node, epoch in self.named().items())
        return replace(self, config_term=term, version=self.version + 1, epochs=tuple(known))

    def with_epochs(self, epochs: Mapping[int, int]) -> Record:
        """The next version, with the `lives` of members that were not known before."""
        return self.rewritten(self.config_term, epochs)

    def with_member(self, node: int, epoch: int) -> Record:
        """The next version, with one member more."""
        after = {**self.named(), node: epoch}
        members = tuple(sorted(after))
        return replace(
            self, version=self.version + 1, members=members, epochs=tuple(after[member] for member in members)
        )

    def without_member(self, node: int) -> Record:
        """The next version, with one member less."""
        after = self.named()
        after.pop(node, None)
        return replace(self, version=self.version + 1, members=tuple(after), epochs=tuple(after.values()))

    def with_witness(self, witness: Witness | None) -> Record:
        """The next version, with or without a witness."""
        return replace(self, version=self.version + 1, witness=witness)

    def differs_by_one_from(self, other: Record) -> bool:
        """Whether at most one voter was added or removed. Another witness in the place of one is
        two changes, and so is another life of a member: the unrecognized knows nothing of the votes of
        the one before (R1, R12). To learn a life that was not known is none."""
        if self.witness is not None and other.witness is not None and self.witness != other.witness:
            return False
        before, after = other.named(), self.named()
        if any(before[node] not in (0, after[node]) for node in before.keys() & after.keys()):
            return False
        return len(set(self.voters) ^ set(other.voters)) <= 1


class Outcome(Enum):
    """What the answers given so far decide."""

    WON = "won"
    LOST = "lost"
    PENDING = "pending"


def quorum_size(voters: Collection[int]) -> int:
    """More than half: the smallest number that any two groups of must share a voter."""
    return len(voters) // 2 + 1


def has_quorum(voters: Collection[int], group: Iterable[int]) -> bool:
    """Whether `group` (other ids in it count nothing) holds a quorum of `voters`."""
    return len(set(group).intersection(voters)) >= quorum_size(voters)


def tally(voters: Collection[int], answers: Mapping[int, bool]) -> Outcome:
    """Judge `answers` (voter id to granted): won, lost, or not decided yet (R2)."""
    granted = {voter for voter, yes in answers.items() if yes}
    refused = {voter for voter, yes in answers.items() if not yes}
    if has_quorum(voters, granted):
        return Outcome.WON
    if not has_quorum(voters, set(voters) - refused):
        return Outcome.LOST
    return Outcome.PENDING
