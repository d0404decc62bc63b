"""What a node said of itself, judged: its REPORT as a value.

Leadership is only what a node says of itself with a running lease; what it says of others is hearsay
and decides nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from zelect.core.messages import MalformedMessage
from zelect.status.history import Election, StoredRound, parse_rounds, parse_trace
from zelect.system.clock import now_us

__all__ = ["NodeReport", "PauseReport", "PeerReport", "RedisReport", "controller_of", "parse"]


@dataclass(frozen=True, slots=True)
class RedisReport:
    """Redis, as one node sees it. `state` is "up" or "down"; `problem` is empty when up."""

    url: str
    state: str
    published_term: int | None
    problem: str


@dataclass(frozen=True, slots=True)
class PeerReport:
    """A peer as the node that reports sees it. `ineligible`: why that node, active, would not hand over
    to it; empty where it would."""

    id: int
    priority: int
    linked: bool
    ineligible: str


@dataclass(frozen=True, slots=True)
class PauseReport:
    """No planned transfers for `left_ms` more. `asked`: who asked for it and why."""

    left_ms: float
    asked: str


@dataclass(frozen=True, slots=True)
class NodeReport:
    """What one node said of itself. `since_ms`: Unix time at which it became active (None out of
    leadership); `lease_left_ms` counts from the moment it answered, `at_us` is when that was heard on
    the election's clock; `links` of `peers` peers were connected. `election`: how it came into
    leadership (None not active); `rounds`: what it asked since the last controller was lost. `voting right`:
    members whose votes could be counted, as far as it knows; `cooling_left_ms`: how long it stays out of
    leadership yet because it was asked to."""

    id: int
    pid: int
    term: int
    role: str
    status: str
    address: str
    active: bool
    lease_left_ms: float
    since_ms: int | None
    config_term: int
    version: int
    members: tuple[int, ...]
    generation: int
    witness: str
    survives: int
    links: int
    peers: int
    controller_heard_ms: float | None
    redis: RedisReport
    rss_kb: int
    at_us: int
    reload_problem: str = ""
    election: Election | None = None
    rounds: tuple[StoredRound, ...] = ()
    counters: Mapping[str, int] = field(default_factory=dict)
    may_vote: tuple[int, ...] = ()
    witness_votes: bool = False
    priority: int = 0
    pause: PauseReport | None = None
    cooling_left_ms: float = 0.0
    others: tuple[PeerReport, ...] = ()

    @property
    def age_ms(self) -> float:
        """How long ago this was heard."""
        return (now_us() - self.at_us) / 1000


def _typed(table: Mapping[str, Any], key: str, *kinds: type) -> Any:
    value = table.get(key)
    if type(value) not in kinds:  # exact types: True is no number
        raise MalformedMessage("bad_report", f"{key} is {value!r:.40}")
    return value


_LATER: dict[str, Any] = {"priority": 0, "pause": None, "cooling_left_ms": 0}
"""What nodes of earlier versions do not say."""


def _ids(table: Mapping[str, Any], key: str) -> tuple[int, ...]:
    value = _typed(table, key, list)
    if any(type(node) is not int for node in value):
        raise MalformedMessage("bad_report", key)
    return tuple(value)


def _peer(table: Mapping[str, Any]) -> PeerReport:
    return PeerReport(
        id=_typed(table, "id", int),
        priority=_typed({"priority": 0, **table}, "priority", int),
        linked=_typed(table, "linked", bool),
        ineligible=_typed({"ineligible": "", **table}, "ineligible", str),
    )


def parse(text: str, at_us: int) -> NodeReport:
    """Judge a REPORT's text; raises MalformedMessage."""
    try:
        table = json.loads(text)
    except ValueError as error:
        raise MalformedMessage("bad_report", str(error)) from error
    if type(table) is not dict:
        raise MalformedMessage("bad_report", "not an object")
    none = type(None)
    table = _LATER | table
    voters = {"may_vote": [], "witness_votes": False} | _typed(table, "voters", dict)
    peers = _typed(table, "peers", list)
    if any(type(peer) is not dict for peer in peers):
        raise MalformedMessage("bad_report", "peers")
    pause = _typed(table, "pause", dict, none)
    redis = _typed(table, "redis", dict)
    return NodeReport(
        id=_typed(table, "id", int),
        pid=_typed(table, "pid", int),
        term=_typed(table, "term", int),
        role=_typed(table, "role", str),
        status=_typed(table, "status", str),
        address=_typed(table, "address", str),
        active=_typed(table, "active", bool),
        lease_left_ms=_typed(table, "lease_left_ms", int, float),
        since_ms=_typed(table, "since_ms", int, none),
        config_term=_typed(voters, "config_term", int),
        version=_typed(voters, "version", int),
        members=_ids(voters, "members"),
        generation=_typed(voters, "generation", int),
        witness=_typed(voters, "witness", str),
        survives=_typed(voters, "survives", int),
        links=sum(peer.get("linked") is True for peer in peers),
        peers=len(peers),
        may_vote=_ids(voters, "may_vote"),
        witness_votes=_typed(voters, "witness_votes", bool),
        priority=_typed(table, "priority", int),
        pause=None if pause is None else PauseReport(_typed(pause, "left_ms", int, float), _typed(pause, "asked", str)),
        cooling_left_ms=_typed(table, "cooling_left_ms", int, float),
        others=tuple(_peer(peer) for peer in peers),
        controller_heard_ms=_typed(table, "controller_heard_ms", int, float, none),
        redis=RedisReport(
            url=_typed(redis, "url", str),
            state=_typed(redis, "state", str),
            published_term=_typed(redis, "published_term", int, none),
            problem=_typed(redis, "problem", str),
        ),
        rss_kb=_typed(table, "rss_kb", int),
        at_us=at_us,
        reload_problem=str(table.get("reload_problem", "")),
        election=_election(table),
        rounds=_rounds(table.get("rounds", [])),
        counters=_typed(table, "counters", dict),
    )


def _election(table: Mapping[str, Any]) -> Election | None:
    told = table.get("election")
    if told is None:
        return None
    try:
        trace = parse_trace(told["trace"])
        votes = trace.rounds[-1].votes if trace.rounds else {}
        previous, reason, at_ms = int(told["previous"]), str(told["reason"]), int(told["at_ms"])
    except (KeyError, TypeError, ValueError) as error:
        raise MalformedMessage("bad_report", f"election: {type(error).__name__}") from None
    return Election(table["term"], table["id"], previous, reason, trace.heard_ms, at_ms, votes, trace)


def _rounds(rows: Any) -> tuple[StoredRound, ...]:
    try:
        return parse_rounds(rows)
    except (KeyError, TypeError, ValueError) as error:
        raise MalformedMessage("bad_report", f"rounds: {type(error).__name__}") from None


def controller_of(reports: Mapping[int, NodeReport]) -> NodeReport | None:
    """The node that says of itself that it is active; of several, the one of the newest term."""
    claims = [report for report in reports.values() if report.active]
    return max(claims, key=lambda report: report.term, default=None)
