"""What a node says of itself: one model for the message (REPORT), JSON, tables and metrics.

Being active is only what a node says of itself with a running lease; what it says of others is hearsay and
decides nothing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path

from zelect.core.messages import MalformedMessage
from zelect.core.status import Belongs, NodeFacts, NodeStatus
from zelect.status.codec import plain, read
from zelect.status.election import Election, RoundReport, round_reports, trace_report
from zelect.system.clock import now_us, unix_ms
from zelect.system.foreign import read_json
from zelect.version import __version__


@dataclass(frozen=True, slots=True)
class RedisReport:
    """Redis, as one node sees it. `state` is "up", "down", or "unused" where none is configured; `problem` is empty
    when up."""

    url: str
    state: str
    published_term: int | None
    problem: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeReport(NodeFacts):
    """What one node said of itself. `since_ms`: Unix time at which it became active, None when it is not;
    `election`: how it became active, None when it is not; `rounds`: what it asked since the last controller
    was lost, before the moment of the report; `counters`: by name. `at_us`: when the report was heard, on the
    election's clock, from which `lease_left_us` counts; 0 where it was made."""

    cluster: str
    version: str
    pid: int
    address: str
    since_ms: int | None
    uptime_us: int
    rss_kb: int
    redis: RedisReport
    election: Election | None
    rounds: tuple[RoundReport, ...]
    counters: Mapping[str, int]
    reload_problem: str = ""
    at_us: int = 0

    @property
    def age_us(self) -> int:
        """How long ago this was heard."""
        return now_us() - self.at_us

    @property
    def belongs_to_cluster(self) -> bool:
        """Whether it is a member of a cluster: it has a voter record, and was not removed."""
        return bool(self.voters.cluster_id) and self.belongs != Belongs.REMOVED

    @property
    def witness(self) -> str:
        """The state of the witness; "unused" also where there is no Redis that it could be in."""
        absent = self.redis.state == "unused" and not self.voters.witness_votes
        return "unused" if absent else self.voters.witness

    @property
    def links(self) -> int:
        """How many peers are connected."""
        return sum(peer.linked for peer in self.peers)


def report_of(
    status: NodeStatus,
    *,
    cluster: str,
    address: str,
    redis: RedisReport,
    counters: Mapping[str, int],
    reload_problem: str,
    began_us: int,
) -> NodeReport:
    """What the machine says of itself, and what only its process knows. `began_us`: when it started."""
    since_ms = unix_ms() - status.active_for_us // 1000 if status.active else None
    election = None
    if status.trace is not None and since_ms is not None:
        trace = trace_report(status.trace)
        election = Election(status.term, status.id, status.previous, status.reason, trace.heard_us, since_ms, trace)
    return NodeReport(
        **{field.name: getattr(status, field.name) for field in fields(NodeFacts)},
        cluster=cluster,
        version=__version__,
        pid=os.getpid(),
        address=address,
        since_ms=since_ms,
        uptime_us=now_us() - began_us,
        rss_kb=_resident_kb(),
        redis=redis,
        election=election,
        rounds=round_reports(status.rounds, status.now_us),
        counters=counters,
        reload_problem=reload_problem,
    )


def encode(report: NodeReport) -> str:
    """The JSON text of `report`. In large clusters too it must stay within one message."""
    return json.dumps(plain(report), separators=(",", ":"))


def parse(text: str, at_us: int) -> NodeReport:
    """Judge a REPORT's text, heard at `at_us`. Raises `MalformedMessage`."""
    try:
        return replace(read(NodeReport, read_json(text)), at_us=at_us)
    except ValueError as error:
        raise MalformedMessage("bad_report", str(error)) from None


def _resident_kb() -> int:
    """Resident memory of this process in KiB; 0 where the system doesn't tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return 0
    return pages * 4
