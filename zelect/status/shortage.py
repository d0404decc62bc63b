"""Which node, or what, must return before anybody can be elected: by name, where too few votes are left (R10, R12)."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from zelect.core.quorum import quorum_size
from zelect.core.status import VotersStatus


@dataclass(frozen=True, slots=True)
class Shortage:
    """`count` more votes are needed for a quorum, of `nodes`, each with its data, or (`witness`) of the witness: Redis
    can't be reached. With fewer of them than that, only an operator can go on."""

    count: int
    nodes: tuple[int, ...]
    witness: bool

    @property
    def text(self) -> str:
        """One sentence for people, without a full stop."""
        those = [f"node {node}" for node in self.nodes] + ["Redis with the witness's data"] * self.witness
        if len(those) < self.count:
            lost = f"{self.count} more vote{'s' if self.count > 1 else ''}"
            return f"no quorum: {lost} would be needed and can't come; see 'zelect members reset'"
        if self.count == 1:
            who = " or ".join(those)
        elif self.count == len(those):
            who = " and ".join(those)
        else:
            who = f"{self.count} of {', '.join(those)}"
        return f"no quorum: {who} must return"


def shortage_of(voters: VotersStatus, down: Collection[int] = ()) -> Shortage | None:
    """What is missing by what a node knows of its voters, once `down` are gone too; None: nothing, or there is no
    cluster yet."""
    if not voters.members:
        return None
    here = set(voters.may_vote) & set(voters.members) - set(down)
    all_votes = len(voters.members) + voters.witness_votes
    votes = len(here) + (voters.witness_votes and voters.witness == "member")
    count = quorum_size(range(all_votes)) - votes
    away = tuple(sorted(set(voters.members) - here))
    return Shortage(count, away, voters.witness_votes and voters.witness == "unreachable") if count > 0 else None
