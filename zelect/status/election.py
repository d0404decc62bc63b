"""One model of an election: how a node tells it, how Redis keeps it, how it is read and shown.

The stream `zelect:{NAME}:elections` has one entry an election. An entry that is none (another program's,
or garbage) is counted and left out, never guessed at.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from zelect.core.election_trace import ElectionTrace, Round, Vote
from zelect.core.timing import MAX_NODE_ID, MAX_TERM
from zelect.status.codec import plain, read
from zelect.system.foreign import read_json, shown

_PAGE = 25
_MOST_PAGES = 200
_MOST_MS = 253_402_300_799_999  # of a year with four digits


class NotAnElection(ValueError):
    """An entry of the stream that no node writes."""


@dataclass(frozen=True, slots=True)
class RoundReport:
    """One round of vote requests: begun `began_us` before the moment that the report is about, over
    `took_us` later. `outcome`: won, failed or overtaken."""

    term: int
    pre: bool
    began_us: int
    took_us: int
    outcome: str
    votes: tuple[Vote, ...]


@dataclass(frozen=True, slots=True)
class TraceReport:
    """When what happened, in microseconds before the node became active (None: unknown), and every
    round. `heard_us`: the previous controller was heard last; `lost_us`: its loss was noticed; `elected_us`:
    the vote was won. `asked`: who asked the previous controller to hand over, and why; empty where nobody did."""

    heard_us: int | None
    lost_us: int | None
    elected_us: int
    rounds: tuple[RoundReport, ...]
    asked: str = ""


@dataclass(frozen=True, slots=True)
class Election:
    """How `id` became active at `at_ms` (Unix). `previous`: the previous controller, 0 for unknown; `gap_us`:
    since it was last heard (so up to a heartbeat before its end), None where that is unknown. `trace`: None
    where the election was seen from outside only."""

    term: int
    id: int
    previous: int
    reason: str
    gap_us: int | None
    at_ms: int
    trace: TraceReport | None

    @property
    def inactive_us(self) -> int | None:
        """For how long no node was active before: since the previous controller was seen to end or to stop. One that
        only became unresponsive may have stopped right after it was last heard, so then that counts. None: unknown."""
        trace = self.trace
        if trace is None or trace.lost_us is None or (self.reason == "timeout" and self.previous != self.id):
            return self.gap_us
        return trace.lost_us

    @property
    def detection_us(self) -> int | None:
        """From when the previous controller was last heard until its loss was noticed; None where that is unknown. Of a
        controller that died it is no loss of time: it was active until just before."""
        trace = self.trace
        if trace is None or trace.heard_us is None or trace.lost_us is None:
            return None
        return trace.heard_us - trace.lost_us

    @property
    def votes(self) -> tuple[Vote, ...]:
        """Those of the round that was won."""
        return self.trace.rounds[-1].votes if self.trace is not None and self.trace.rounds else ()


def trace_report(trace: ElectionTrace) -> TraceReport:
    """What a node tells of its `trace`."""
    now = trace.active_since_us
    heard, lost = (None if us < 0 else now - us for us in (trace.heard_us, trace.lost_us))
    return TraceReport(heard, lost, now - trace.elected_us, round_reports(trace.rounds, now), trace.asked)


def round_reports(rounds: Iterable[Round], until_us: int) -> tuple[RoundReport, ...]:
    """What a node tells of its `rounds`, with their times before `until_us`."""
    return tuple(
        RoundReport(one.term, one.pre, until_us - one.began_us, one.ended_us - one.began_us, one.outcome, one.votes)
        for one in rounds
    )


def stream_fields(trace: ElectionTrace) -> tuple[str, str]:
    """The fields `votes` and `trace` of an entry of the stream."""
    table = plain(trace_report(trace))
    return json.dumps(table["rounds"][-1]["votes"] if table["rounds"] else []), json.dumps(table)


def parse_election(key: str, entry: Mapping[str, str]) -> Election:
    """Read entry `key` of the stream. Raises `NotAnElection`."""
    try:
        gap_ms = float(entry["gap_ms"] or -1)
        return Election(
            term=_number(entry["term"], MAX_TERM),
            id=_number(entry["id"], MAX_NODE_ID),
            previous=_number(entry["previous"] or "0", MAX_NODE_ID),
            reason=shown(entry["reason"]),
            gap_us=round(gap_ms * 1000) if 0 <= gap_ms < _MOST_MS else None,
            at_ms=_number(entry.get("since_ms") or key.partition("-")[0], _MOST_MS),
            trace=read(TraceReport, read_json(entry["trace"])),
        )
    except (KeyError, ValueError) as error:
        raise NotAnElection(f"{key}: {error!r:.80}") from None


def _number(text: str, most: int) -> int:
    if not (len(text) <= 20 and text.isascii() and text.isdigit() and int(text) <= most):
        raise ValueError(f"{text!r:.40} is out of range")
    return int(text)


def read_elections(
    client: Any, cluster: str, most: int, wanted: Callable[[Election], bool] = lambda election: True
) -> tuple[Sequence[Election], int]:
    """The newest `most` elections of `cluster` that are `wanted`, newest first, and how many entries
    were none. `client` is a redis-py client; raises what it raises."""
    found: list[Election] = []
    garbage = 0
    until = "+"
    for _ in range(_MOST_PAGES):
        page = client.xrevrange(f"zelect:{{{cluster}}}:elections", max=until, count=_PAGE)
        if not page or len(found) >= most:
            break
        for key, entry in page[:_PAGE]:
            try:
                election = parse_election(_text(key), {_text(k): _text(v) for k, v in entry.items()})
            except NotAnElection:
                garbage += 1
                continue
            if wanted(election) and len(found) < most:
                found.append(election)
        until = f"({_text(page[-1][0])}"
    return found, garbage


def _text(value: bytes | str) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value
