"""The electorate and its quorum (R2, R10).

A *record* says who may vote: (config_term, version, members). Records are ordered by
(config_term, version); whoever holds the newer one is right. A quorum is more than half of the
members. Votes are counted by voter, never by message, so a duplicated answer counts once: with
three nodes a count of messages goes unnoticed, with five it elects two controllers.

The record changes only at taking office here (the winner rewrites it with its own term); one
member at a time and the witness follow the logless reconfiguration of Schultz, Dardik and
Tripakis (OPODIS 2021, arXiv 2102.11960).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum

__all__ = ["Outcome", "Record", "RecordId", "has_quorum", "quorum_size", "tally"]

RecordId = tuple[int, int]
"""(config_term, version): what orders two electorate records."""


@dataclass(frozen=True, slots=True)
class Record:
    """The electorate: whose votes count.

    `config_term` is the term of the controller that wrote it (0: founded by configuration),
    `version` grows with each change, `members` are node ids in ascending order.
    """

    config_term: int
    version: int
    members: tuple[int, ...]

    def __post_init__(self) -> None:
        if list(self.members) != sorted(set(self.members)):
            raise ValueError("members must be distinct and in ascending order")

    @property
    def id(self) -> RecordId:
        """What orders this record among others."""
        return (self.config_term, self.version)

    def rewritten(self, term: int) -> Record:
        """The same electorate, claimed by the controller of `term` (R7a, R10)."""
        return replace(self, config_term=term, version=self.version + 1)


class Outcome(Enum):
    """What the answers given so far decide."""

    WON = "won"
    LOST = "lost"
    PENDING = "pending"


def quorum_size(members: Collection[int]) -> int:
    """More than half: the smallest number that any two groups of must share a member."""
    return len(members) // 2 + 1


def has_quorum(members: Collection[int], group: Iterable[int]) -> bool:
    """Whether `group` (other ids in it count nothing) holds a quorum of `members`."""
    return len(set(group).intersection(members)) >= quorum_size(members)


def tally(members: Collection[int], answers: Mapping[int, bool]) -> Outcome:
    """Judge `answers` (voter id to granted): won, lost, or not decided yet (R2)."""
    granted = {voter for voter, yes in answers.items() if yes}
    refused = {voter for voter, yes in answers.items() if not yes}
    if has_quorum(members, granted):
        return Outcome.WON
    if not has_quorum(members, set(members) - refused):
        return Outcome.LOST
    return Outcome.PENDING
