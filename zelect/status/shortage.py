"""Which node, or what, must return before anybody can be elected: by name, where too few votes are left (R10, R12)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from zelect.core.quorum import quorum_size
from zelect.core.status import VotersStatus


@dataclass(frozen=True, slots=True)
class Shortage:
    """`count` more votes are needed for a quorum, of `nodes`, each with its data, or (`witness`) of the witness: Redis
    can't be reached. With fewer of them than that, only an operator can go on. `disconnected`: members that are here,
    some of `nodes` among them, but not connected to each other; `witness_lost`: the witness votes by the record, but
    the one in Redis is another: Redis lost its data, or is another server."""

    count: int
    nodes: tuple[int, ...]
    witness: bool
    disconnected: tuple[int, ...] = ()
    witness_lost: bool = False

    @property
    def text(self) -> str:
        """One sentence for people, without a full stop."""
        return self.text_for("")

    def text_for(self, place: str) -> str:
        """The same; `place`: the options that name the cluster, for commands that are recommended."""
        lost_witness = "; the witness in Redis lost its data, so it has no vote now" if self.witness_lost else ""
        away = [node for node in self.nodes if node not in self.disconnected]
        count = self.count - (len(self.nodes) - len(away))
        those = [f"node {node}" for node in away] + ["Redis with the witness's data"] * self.witness
        if len(those) < count:
            lost = f"{self.count} more vote{'s' if self.count > 1 else ''}"
            see = f"'zelect members{place} reset --help'"
            return f"no quorum: {lost} would be needed and can't come; see {see}{lost_witness}"
        parts = []
        if self.disconnected:
            *first, last = map(str, self.disconnected)
            parts.append(f"nodes {', '.join(first)} and {last} answer, but are not connected to each other")
        if count > 0:
            parts.append(f"{_some_of(count, those)} must return")
        return f"no quorum: {'; '.join(parts)}{lost_witness}"


def _some_of(count: int, those: Sequence[str]) -> str:
    if count == 1:
        return " or ".join(those)
    return " and ".join(those) if count == len(those) else f"{count} of {', '.join(those)}"


def shortage_of(
    voters: VotersStatus, down: Collection[int] = (), disconnected: Collection[int] = ()
) -> Shortage | None:
    """What is missing by what a node knows of its voters, once `down` are gone too; None: nothing, or there is no
    cluster yet. `disconnected`: members that answer, but are not connected to another one that does."""
    if not voters.members:
        return None
    here = set(voters.may_vote) & set(voters.members) - set(down)
    all_votes = len(voters.members) + voters.witness_votes
    votes = len(here) + (voters.witness_votes and voters.witness == "member")
    count = quorum_size(range(all_votes)) - votes
    away = tuple(sorted(set(voters.members) - here))
    if count <= 0:
        return None
    apart = tuple(sorted(disconnected)) if set(away) & set(disconnected) else ()
    unreachable, lost = (voters.witness_votes and voters.witness == word for word in ("unreachable", "unrecognized"))
    return Shortage(count, away, unreachable, apart, lost)
