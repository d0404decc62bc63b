"""Reports of nodes that need not run."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tools.common.founded import CLUSTER_ID
from zelect.core.status import PeerStatus, VotersStatus
from zelect.status.codec import plain
from zelect.status.report import NodeReport, RedisReport
from zelect.system.clock import now_us

__all__ = ["report", "said"]


def report(node: int, term: int = 4, active: bool = False, **changes: Any) -> NodeReport:
    """What `node` of three says of itself; `changes` to the voters or to the report."""
    voters = VotersStatus(
        cluster_id=CLUSTER_ID,
        addresses={str(member): f"tcp://127.0.0.1:{7100 + member}" for member in (1, 2, 3)},
        generation=0,
        config_term=term,
        version=9,
        members=(1, 2, 3),
        epochs=(11, 12, 13),
        witness="ready",
        witness_votes=False,
        may_vote=(1, 2, 3),
        survives=1,
    )
    of_voters = {name: changes.pop(name) for name in set(changes) & set(VotersStatus.__slots__)}
    members = of_voters.get("members", (1, 2, 3))
    of_voters.setdefault("addresses", {str(member): f"tcp://127.0.0.1:{7100 + member}" for member in members})
    of_voters.setdefault("epochs", tuple(10 + member for member in members))
    made = NodeReport(
        cluster="demo",
        version="1",
        id=node,
        incarnation=1,
        pid=4000 + node,
        term=term,
        role="controller" if active else "follower",
        status="running",
        address=f"tcp://127.0.0.1:{7100 + node}",
        active=active,
        lease_left_us=380_500 if active else 0,
        since_ms=1_770_000_000_000 if active else None,
        controller=node if active else None,
        controller_heard_ago_us=None if active else 12_500,
        quorate=True,
        epoch=10 + node,
        belongs="voter",
        missing=(),
        voters=replace(voters, **of_voters),
        succession=(),
        peers=tuple(PeerStatus(peer, peer == 7, False, False, 3000) for peer in (7, 8)),
        priority=0,
        pause=None,
        cooling_left_us=0,
        votes=True,
        uptime_us=1_000_000,
        rss_kb=30_000,
        redis=RedisReport("redis://127.0.0.1:6379/0", "up", 4, ""),
        election=None,
        rounds=(),
        counters={"received": 5},
        at_us=now_us(),
    )
    return replace(made, **changes)


def said(node: int, port: int, active: bool = False, **changes: object) -> dict[str, Any]:
    """The JSON of such a report, with `changes`."""
    table: dict[str, Any] = plain(report(node, active=active, address=f"tcp://127.0.0.1:{port}"))
    return table | changes
