"""The voters and their quorum (R2, R10).

A *record* says whose votes count: (config_term, version, members, witness). Records are ordered by
(generation, config_term, version); the newer one is right. A quorum is more than half of the
voters: the record's members, and the witness in Redis where the record names one (R12). Votes are
counted by voter, never by message, so that a duplicated answer counts once. With three nodes a
count of messages goes unnoticed; with five it elects two controllers.

Records follow the logless reconfiguration of Schultz, Dardik and Tripakis (OPODIS 2021, arXiv
2102.11960): only an active controller changes one, by one voter at a time, and only when a quorum has
saved the previous record in the controller's term. Any two quorums of records that follow each other then
share a voter, and an older record elects nobody, because a quorum would refuse it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum

RecordId = tuple[int, int, int]
"""(generation, config_term, version): what orders two voter records."""

WITNESS = 0
"""The witness as a voter, beside the ids of nodes, which begin at 1."""


@dataclass(frozen=True, slots=True)
class Witness:
    """The identity of a witness (R12): a key of its own, the server's run and its replication
    history. A server that restarted, failed over, was flushed or restored differs in one of them."""

    key: str
    run_id: str
    replid: str


@dataclass(frozen=True, slots=True)
class Record:
    """The voters: whose votes count.

    `config_term` is the term of the controller that wrote it (0: it comes from the configuration or
    from an operator), `version` grows with each change. `members` are the ids of the voting nodes, in
    ascending order; which members are configured is another matter (`Settings.members`).
    `epochs` says for each of them which storage epoch votes, 0 where none is known yet. A node that
    lost its state has a new epoch, and may vote only after the old one was removed (R1).
    `generation` is 0 until an operator forces new voters (reset).
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
            raise ValueError("each member has one epoch")
        object.__setattr__(self, "voters", self.members if self.witness is None else (WITNESS, *self.members))

    @property
    def id(self) -> RecordId:
        """What orders this record among others."""
        return (self.generation, self.config_term, self.version)

    def epoch_of(self, node: int) -> int:
        """Which storage epoch of `node` votes; 0: not known yet, -1: none, it is not a voter."""
        return self.epochs[self.members.index(node)] if node in self.members else -1

    def named(self) -> dict[int, int]:
        """The epoch that votes, by member, ascending; for questions about many of them."""
        return dict(zip(self.members, self.epochs, strict=True))

    def counts(self, node: int, epoch: int) -> bool:
        """Whether `epoch` of `node` has a voting right. In the first record every epoch has, because none is
        known yet; from then on only the one that the record names."""
        known = self.epoch_of(node)
        return known == epoch or (known == 0 and self.config_term == 0)

    def rewritten(self, term: int, epochs: Mapping[int, int]) -> Record:
        """The same voters, rewritten by the winner of `term` (R7a, R10), with `epochs` for those members
        whose epoch was not known before."""
        known = (epoch or epochs.get(node, 0) for node, epoch in self.named().items())
        return replace(self, config_term=term, version=self.version + 1, epochs=tuple(known))

    def with_epochs(self, epochs: Mapping[int, int]) -> Record:
        """The next version, with `epochs` for those members whose epoch was not known before."""
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
        """Whether at most one voter was added or removed. To replace a witness by another is two changes,
        and so is to replace a member's epoch: the new one knows nothing of the votes of the old one
        (R1, R12). To name an epoch that was not known is no change of the voters."""
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
    """More than half: the smallest size at which any two groups share a voter."""
    return len(voters) // 2 + 1


def has_quorum(voters: Collection[int], group: Iterable[int]) -> bool:
    """Whether `group` holds a quorum of `voters`; ids of others in it don't count."""
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
