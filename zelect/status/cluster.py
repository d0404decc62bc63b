"""The state of a cluster: what its nodes said of themselves, put together."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from zelect.core.quorum import quorum_size
from zelect.core.status import VotersStatus
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
class ClusterStatus:
    """The reports of those that answered, by id, of the nodes at `addresses`."""

    cluster: str
    addresses: Mapping[int, str]
    reports: Mapping[int, NodeReport]

    @property
    def controller(self) -> NodeReport | None:
        return controller_of(self.reports)

    @property
    def newest(self) -> NodeReport | None:
        """The report with the newest voter record."""
        return max(self.reports.values(), key=lambda report: report.voters.age, default=None)

    @property
    def founded(self) -> bool:
        """Whether a node that answered belongs to a cluster."""
        return any(report.voters.cluster_id for report in self.reports.values())

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
        active = self.controller
        return active.term if active else max((report.term for report in self.reports.values()), default=None)

    @property
    def redis(self) -> RedisReport | None:
        """Redis as the controller sees it, else as any node does."""
        report = self.controller or next(iter(self.reports.values()), None)
        return report.redis if report else None

    @property
    def shortage(self) -> Shortage | None:
        """Which node or what must return while no node is active, by the newest voter record that was reported."""
        return None if self.controller is not None else self.shortage_after(())

    def shortage_after(self, down: Collection[int]) -> Shortage | None:
        """Which node or what must return once `down` are gone too, by the node to believe about the voters."""
        if self.best is None:
            return None
        voters = self.best.voters
        return shortage_of(voters, down, disconnected(self.reports, set(voters.members) - set(down)))

    @property
    def exit_code(self) -> int:
        """0: a node is active; 1: none is; 5: nobody answered."""
        return 5 if not self.reports else 0 if self.controller is not None else 1

    def as_json(self) -> dict[str, Any]:
        """What `zelect status --json` prints. What nobody said is null."""
        active, newest, wrong = self.controller, self.newest, problems(self.reports)
        return {
            "cluster": self.cluster,
            "term": self.term,
            "quorate": active is not None,
            "controller": controller_json(active),
            "voters": _some(newest and newest.voters, _OF_VOTERS),
            "needs": plain(self.shortage),
            "redis": plain(self.redis),
            "pause": active and plain(active.pause),
            "nodes": [
                _node(node, address, self.reports.get(node), wrong.get(node, ""))
                for node, address in sorted(self.addresses.items())
            ],
        }


_OF_CONTROLLER = ("id", "term", "address", "since_ms")
_OF_VOTERS = ("config_term", "version", "members", "witness")
_OF_NODE = ("pid", "role", "status", "term", "counters")


def controller_json(active: NodeReport | None) -> dict[str, Any] | None:
    """The active node, as JSON for programs."""
    return _some(active, _OF_CONTROLLER)


def _node(node: int, address: str, report: NodeReport | None, problem: str) -> dict[str, Any]:
    known = _some(report, _OF_NODE) or dict.fromkeys(_OF_NODE)
    return {"id": node, **known, "address": address, "reachable": report is not None, "problem": problem}


def _some(value: object, names: Iterable[str]) -> dict[str, Any] | None:
    return None if value is None else {name: plain(getattr(value, name)) for name in names}
