"""The state of a cluster: what its nodes said of themselves, put together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from zelect.status.codec import plain
from zelect.status.problems import problems
from zelect.status.report import NodeReport, RedisReport
from zelect.status.shortage import Shortage, shortage_of


def controller_of(reports: Mapping[int, NodeReport]) -> NodeReport | None:
    """The node that says of itself that it is active; of several, the one of the newest term."""
    claims = [report for report in reports.values() if report.active]
    return max(claims, key=lambda report: report.term, default=None)


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
        newest = self.newest
        return None if newest is None or self.controller is not None else shortage_of(newest.voters)

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
