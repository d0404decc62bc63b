"""Who belongs to the cluster, whose votes count, and what is a quorum (R2, R10, R15).

A *record* says who belongs and who votes: cluster id, (generation, config_term, version), the nodes with their
addresses, the members among them that vote now, each with its storage epoch, and the witness in Redis where the record
names one (R12). Records of one cluster are ordered by (generation, config_term, version); the newer one is right. A
quorum is more than half of the voters. Votes are counted by voter, never by message, so that a duplicated answer counts
once. With three nodes a count of messages does no harm; with five it elects two controllers.

A voter is an id *and* a storage epoch: a member that lost its data has a new epoch, and the votes of the old epoch
can't be contradicted, because that epoch never votes again (R16).

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
"""(generation, config_term, version): what orders two voter records of one cluster."""

Addresses = tuple[tuple[int, str], ...]
"""(node, address), in ascending order of the nodes."""

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
    """Who belongs to the cluster, and whose votes count.

    `config_term` is the term of the controller that wrote it (0: an operator forced it, or it is only
    proposed), `version` grows with each change. `members` are the ids of the voting nodes, in ascending
    order; `epochs` says for each of them which storage epoch votes. `addresses` lists all nodes that belong
    to the cluster; those that are not in `members` have no vote now. `generation` is 0 until an
    operator forces new voters (reset). `cluster_id` is chosen when the cluster is founded (R15); 0: this is
    the absence of a record, `NO_RECORD`.
    """

    config_term: int
    version: int
    members: tuple[int, ...]
    witness: Witness | None = None
    generation: int = 0
    epochs: tuple[int, ...] = ()
    cluster_id: int = 0
    addresses: Addresses = ()
    voters: tuple[int, ...] = field(init=False, compare=False, repr=False)
    """The members, and `WITNESS` where there is one."""

    def __post_init__(self) -> None:
        if list(self.members) != sorted(set(self.members)):
            raise ValueError("members must be distinct and in ascending order")
        if not self.epochs:
            object.__setattr__(self, "epochs", (0,) * len(self.members))
        if len(self.epochs) != len(self.members):
            raise ValueError("each member has one epoch")
        if not set(self.members) <= {node for node, _ in self.addresses}:
            raise ValueError("each member has an address")
        if list(self.addresses) != sorted(dict(self.addresses).items()):
            raise ValueError("addresses must be those of distinct nodes, in ascending order")
        object.__setattr__(self, "voters", self.members if self.witness is None else (WITNESS, *self.members))

    @property
    def id(self) -> RecordId:
        """What orders this record among others of its cluster."""
        return (self.generation, self.config_term, self.version)

    @property
    def proposed(self) -> bool:
        """Whether this is what new nodes vote on when they found a cluster (R15), and binds nobody yet."""
        return self.config_term == self.version == 0

    @property
    def nodes(self) -> tuple[int, ...]:
        """All nodes that belong to the cluster, ascending."""
        return tuple(node for node, _ in self.addresses)

    def epoch_of(self, node: int) -> int:
        """Which storage epoch of `node` votes; -1: none, it is not a voter."""
        return self.epochs[self.members.index(node)] if node in self.members else -1

    def named(self) -> dict[int, int]:
        """The epoch that votes, by member, ascending; for questions about many of them."""
        return dict(zip(self.members, self.epochs, strict=True))

    def counts(self, node: int, epoch: int) -> bool:
        """Whether `epoch` of `node` has a voting right."""
        return self.epoch_of(node) == epoch

    def rewritten(self, term: int) -> Record:
        """The same voters, rewritten by the winner of `term` (R7, R10)."""
        return replace(self, config_term=term, version=self.version + 1)

    def with_member(self, node: int, epoch: int) -> Record:
        """The next version, in which `node` votes with its `epoch`. It belongs to the cluster already."""
        after = {**self.named(), node: epoch}
        members = tuple(sorted(after))
        return replace(
            self, version=self.version + 1, members=members, epochs=tuple(after[member] for member in members)
        )

    def without_member(self, node: int) -> Record:
        """The next version, in which `node` has no vote; it still belongs to the cluster."""
        after = self.named()
        after.pop(node, None)
        return replace(self, version=self.version + 1, members=tuple(after), epochs=tuple(after.values()))

    def with_address(self, node: int, address: str) -> Record:
        """The next version, in which `node` belongs to the cluster, at `address`."""
        after = {**dict(self.addresses), node: address}
        return replace(self, version=self.version + 1, addresses=tuple(sorted(after.items())))

    def without_node(self, node: int) -> Record:
        """The next version, in which `node` no longer belongs to the cluster."""
        after = self.without_member(node)
        return replace(after, addresses=tuple(entry for entry in after.addresses if entry[0] != node))

    def with_witness(self, witness: Witness | None) -> Record:
        """The next version, with or without a witness."""
        return replace(self, version=self.version + 1, witness=witness)

    def differs_by_one_from(self, other: Record) -> bool:
        """Whether at most one voter was added or removed. To replace a witness by another is two changes,
        and so is to replace a member's epoch: the new one knows nothing of the votes of the old one
        (R12, R16)."""
        if self.witness is not None and other.witness is not None and self.witness != other.witness:
            return False
        before, after = other.named(), self.named()
        if any(before[node] != after[node] for node in before.keys() & after.keys()):
            return False
        return len(set(self.voters) ^ set(other.voters)) <= 1


NO_RECORD = Record(0, 0, ())
"""What a new node has: it belongs to no cluster yet (R15)."""


def follows(earlier: tuple[tuple[int, int], ...], later: Mapping[int, int]) -> bool:
    """Whether the founding list `later` (member to epoch) names everybody whom `earlier` named, with the same
    or a newer epoch: what binds a new node that has voted on `earlier` (R15)."""
    return all(later.get(node, -1) >= epoch for node, epoch in earlier)


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
