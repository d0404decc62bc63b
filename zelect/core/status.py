"""What a node says of itself when asked, as far as the machine knows it.

Each fact is declared here once: a node's report (`zelect.status.report`) has the same fields, and its JSON
the same names (`zelect.status.codec`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from zelect.core.election_trace import ElectionTrace, Round


@dataclass(frozen=True, slots=True)
class VotersStatus:
    """The voter record that this node has saved, and what follows from it.

    `cluster_id` is 0 in a new node; `addresses` are those of all nodes that belong to the cluster, by id.
    `witness` is member, ready, unrecognized, unreachable or unused; `witness_votes`: whether the record
    names one; `may_vote`: members whose votes could be counted now, as far as this node knows; `survives`:
    how many more members may fail one after the other (-1: no quorum now).
    """

    cluster_id: int
    addresses: Mapping[str, str]
    generation: int
    config_term: int
    version: int
    members: tuple[int, ...]
    epochs: tuple[int, ...]
    witness: str
    witness_votes: bool
    may_vote: tuple[int, ...]
    survives: int

    @property
    def places(self) -> tuple[tuple[int, str], ...]:
        """The addresses as a voter record has them."""
        return tuple(sorted((int(node), address) for node, address in self.addresses.items()))

    @property
    def age(self) -> tuple[int, int, int]:
        """Of two records the newer has the higher one."""
        return self.generation, self.config_term, self.version


@dataclass(frozen=True, slots=True)
class PeerStatus:
    """A peer as this node sees it. `heard_ago_us` is None when it was never heard. `ineligible`: why this
    node, active, would not hand over to it; empty when it would. `problem`: what the peer last refused of this
    node's messages, and why."""

    id: int
    linked: bool
    dead: bool
    offline: bool
    heard_ago_us: int | None
    priority: int = 0
    ineligible: str = ""
    problem: str = ""


@dataclass(frozen=True, slots=True)
class PauseStatus:
    """No planned transfers for `left_us` more. `asked`: who asked for it, and why."""

    left_us: int
    asked: str


class Belongs(StrEnum):
    """How a node belongs to the cluster: as a voter; without a vote now; not any more, because it was removed; new,
    about to join the cluster that its peers belong to; or new, about to found one."""

    VOTER = "voter"
    NO_VOTE = "no_vote"
    REMOVED = "removed"
    JOINING = "joining"
    NEW = "new"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFacts:
    """What both a node and its observers know about it.

    `active` holds at the moment of asking, by the lease's deadline (R5); `lease_left_us` is how long the
    lease still runs, 0 when not active. `controller` is the node that this one follows, itself when active,
    None when it knows of none: second-hand, for people only. `cooling_left_us`: for how long this node does not
    campaign because it was asked to step down. `epoch` is its storage epoch, `belongs` one of `Belongs`;
    `missing` are the members that a new node waits for, to found the cluster with them (R15). `votes`: whether its vote
    counts now, see `State.votes`.
    """

    id: int
    incarnation: int
    term: int
    role: str
    status: str
    active: bool
    lease_left_us: int
    controller: int | None
    controller_heard_ago_us: int | None
    quorate: bool
    epoch: int
    belongs: str
    missing: tuple[int, ...]
    voters: VotersStatus
    succession: tuple[int, ...]
    peers: tuple[PeerStatus, ...]
    priority: int
    pause: PauseStatus | None
    cooling_left_us: int
    votes: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStatus(NodeFacts):
    """The answer to a QUERY, before the process adds what only it knows.

    `active_for_us`: since when this node is active, 0 when it is not. `trace`, `previous` (the controller
    before, 0: unknown) and `reason`: how it became active, while it is; `rounds`: those that it asked since
    the last controller was lost. Their times are on the clock of `now_us`.
    """

    active_for_us: int
    refused_by_gate: Mapping[str, int]
    now_us: int
    trace: ElectionTrace | None
    previous: int
    reason: str
    rounds: tuple[Round, ...]
