"""The state of a cluster: what its nodes said of themselves, put together."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from zelect.core.quorum import quorum_size
from zelect.core.status import Belongs, VotersStatus
from zelect.status.codec import plain
from zelect.status.problems import problems
from zelect.status.report import NodeReport, RedisReport
from zelect.status.shortage import Shortage, shortage_of


def controller_of(reports: Mapping[int, NodeReport]) -> NodeReport | None:
    """The node that says of itself that it is active; of several, the one of the newest term."""
    claims = [report for report in reports.values() if report.active]
    return max(claims, key=lambda report: report.term, default=None)


def saved_without(reports: Mapping[int, NodeReport], node: int) -> bool:
    """Whether a quorum has saved the active controller's voter record, and `node` is not in that."""
    active = controller_of(reports)
    if active is None or str(node) in active.voters.addresses:
        return False
    voters = active.voters
    holders = [member for member in voters.members if member in reports and _same(reports[member].voters, voters)]
    votes = len(holders) + (voters.witness_votes and voters.witness == "member")
    return votes >= quorum_size(range(len(voters.members) + voters.witness_votes))


def _same(some: VotersStatus, others: VotersStatus) -> bool:
    return (some.cluster_id, some.age) == (others.cluster_id, others.age)


def disconnected(reports: Mapping[int, NodeReport], nodes: Iterable[int]) -> tuple[int, ...]:
    """Those of `nodes` that answer, but are not connected to another one that does."""
    links = {node: {peer.id for peer in reports[node].peers if peer.linked} for node in nodes if node in reports}
    return tuple(sorted(a for a in links if any(b not in links[a] or a not in links[b] for b in links if b != a)))


@dataclass(frozen=True, slots=True)
class ControllerStatus:
    """The controller. `source` is "node" where it says itself that it is active, else "followers": it gave no answer,
    but `followers` follow it. Theirs is hearsay: true a moment ago."""

    id: int
    term: int
    address: str
    since_ms: int | None
    source: str
    followers: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class ClusterStatus:
    """The reports of those that answered, by id, of the nodes at `addresses`. `denials`: why nodes that could be
    reached gave no answer; `refused`: nodes whose address refuses connections, so that no node runs there."""

    cluster: str
    addresses: Mapping[int, str]
    reports: Mapping[int, NodeReport]
    denials: Mapping[int, str] = field(default_factory=dict)
    refused: Collection[int] = ()

    @property
    def controller(self) -> NodeReport | None:
        """The node that says itself that it is active."""
        return controller_of(self.reports)

    @property
    def named(self) -> ControllerStatus | None:
        """The controller, by its own word or, where it could not be asked, by its followers'."""
        if (active := self.controller) is not None:
            return ControllerStatus(active.id, active.term, active.address, active.since_ms, "node")
        named = {(one.term, one.controller) for one in self.reports.values() if one.controller is not None}
        term, node = max((claim for claim in named if claim[1] not in self.reports), default=(0, 0))
        if not node:
            return None
        followers = [one.id for one in self.reports.values() if (one.term, one.controller) == (term, node)]
        address = self.recorded.get(node) or self.addresses.get(node, "")
        return ControllerStatus(node, term, address, None, "followers", tuple(sorted(followers)))

    @property
    def unasked(self) -> tuple[int, ...]:
        """Voters, by the newest record that was reported, that gave no answer, and may run."""
        members = self.newest.voters.members if self.newest is not None else ()
        return tuple(sorted(set(members or self.addresses) - set(self.reports) - set(self.refused)))

    @property
    def is_known(self) -> bool:
        """Whether it is known which node is active, or that none is. A node that was not asked may be active if those
        that were not, with the witness, are a quorum: of the newest record, since a newer one would have been saved by
        one of the others (R10)."""
        if self.named is not None or self.newest is None:
            return self.newest is not None
        voters = self.newest.voters
        all_votes = len(voters.members or self.addresses) + voters.witness_votes
        votes = len(self.unasked) + voters.witness_votes
        return not self.unasked or votes < quorum_size(range(all_votes))

    @property
    def newest(self) -> NodeReport | None:
        """The report with the newest voter record; that of a removed node only where no other answered."""
        return max(
            self.reports.values(),
            key=lambda report: (report.belongs != Belongs.REMOVED, report.voters.age),
            default=None,
        )

    @property
    def founded(self) -> bool:
        """Whether a node that answered belongs to a cluster."""
        return any(report.belongs_to_cluster for report in self.reports.values())

    @property
    def recorded(self) -> dict[int, str]:
        """The nodes that belong to the cluster, with their addresses, by the newest record; empty where there is
        none."""
        return {} if self.newest is None else dict(self.newest.voters.places)

    @property
    def best(self) -> NodeReport | None:
        """The node to believe about the voters: the controller, else the one with the newest record."""
        return self.controller or self.newest

    @property
    def term(self) -> int | None:
        named = self.named
        return named.term if named else max((report.term for report in self.reports.values()), default=None)

    @property
    def redis(self) -> RedisReport | None:
        """Redis as the controller sees it, else as any node does."""
        report = self.controller or next(iter(self.reports.values()), None)
        return report.redis if report else None

    @property
    def shortage(self) -> Shortage | None:
        """Which node or what must return while no node is active, by the newest voter record that was reported."""
        return None if self.named is not None else self.shortage_after(())

    def shortage_after(self, down: Collection[int]) -> Shortage | None:
        """Which node or what must return once `down` are gone too, by the node to believe about the voters."""
        if self.best is None:
            return None
        voters = self.best.voters
        return shortage_of(voters, down, disconnected(self.reports, set(voters.members) - set(down)))

    @property
    def exit_code(self) -> int:
        """0: a node is active; 1: none is; 5: no node answered, or those that did can't know."""
        return 5 if not self.is_known else 0 if self.named is not None else 1

    def as_json(self) -> dict[str, Any]:
        """What `zelect status --json` prints. What nobody said is null."""
        active, named, newest, wrong = self.controller, self.named, self.newest, problems(self.reports)
        return {
            "cluster": self.cluster,
            "term": self.term,
            "known": self.is_known,
            "quorate": named is not None,
            "controller": plain(named),
            "voters": newest and {**_fields(newest.voters, _OF_VOTERS), "witness": newest.witness},
            "needs": plain(self.shortage),
            "redis": plain(self.redis),
            "pause": active and plain(active.pause),
            "nodes": [
                _node(node, address, self.reports.get(node), wrong.get(node) or self.denials.get(node, ""))
                for node, address in sorted(self.addresses.items())
            ],
        }


_OF_VOTERS = ("config_term", "version", "members")
_OF_NODE = ("pid", "role", "status", "term", "counters")


def _node(node: int, address: str, report: NodeReport | None, problem: str) -> dict[str, Any]:
    known = dict.fromkeys(_OF_NODE) if report is None else _fields(report, _OF_NODE)
    return {"id": node, **known, "address": address, "reachable": report is not None, "problem": problem}


def _fields(value: object, names: Iterable[str]) -> dict[str, Any]:
    return {name: plain(getattr(value, name)) for name in names}
