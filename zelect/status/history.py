"""The history of elections as Redis keeps it: `zelect:{NAME}:elections`, read and checked.

An entry that is none (another program's, or garbage) is counted and left out, never guessed at.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = [
    "Election",
    "NotAnElection",
    "StoredRound",
    "StoredTrace",
    "parse_election",
    "parse_rounds",
    "parse_trace",
    "read_elections",
]


class NotAnElection(ValueError):
    """An entry of the stream that no node of this release or an earlier one writes."""


@dataclass(frozen=True, slots=True)
class StoredRound:
    """One round of questions: asked `asked_ms` before leadership was entered, over `took_ms` later.
    `votes`: voter to the reason of its refusal, "" where it granted; voter 0 is the witness."""

    term: int
    pre: bool
    asked_ms: float
    took_ms: float
    outcome: str
    votes: Mapping[int, str]


@dataclass(frozen=True, slots=True)
class StoredTrace:
    """When what happened, in milliseconds before leadership was entered (None: unknown), and every
    round. `heard_ms`: the controller before was heard last; `lost_ms`: it was noticed to be gone;
    `elected_ms`: the vote was won. `asked`: who asked the controller before to hand over, and why;
    empty where nobody did."""

    heard_ms: float | None
    lost_ms: float | None
    elected_ms: float | None
    rounds: tuple[StoredRound, ...]
    asked: str = ""


@dataclass(frozen=True, slots=True)
class Election:
    """How `id` became active at `at_ms` (Unix; in entries of older releases when
    Redis heard of it). `previous`: 0 for unknown;
    `gap_ms`: from when the one before was last heard (so up to a heartbeat before its end), None
    where that is unknown. `votes` as in `StoredRound`. `telling`: None in entries of older releases."""

    term: int
    id: int
    previous: int
    reason: str
    gap_ms: float | None
    at_ms: int = 0
    votes: Mapping[int, str] | None = None
    trace: StoredTrace | None = None


def parse_election(key: str, entry: Mapping[str, str]) -> Election:
    """Read entry `key` of the stream. Raises `NotAnElection`."""
    try:
        gap_ms = float(entry["gap_ms"] or -1)
        return Election(
            term=int(entry["term"]),
            id=int(entry["id"]),
            previous=int(entry["previous"] or 0),
            reason=entry["reason"],
            gap_ms=gap_ms if gap_ms >= 0 else None,
            at_ms=int(entry.get("since_ms") or key.partition("-")[0]),
            votes=_votes(json.loads(entry["votes"])),
            trace=parse_trace(json.loads(entry["trace"])) if entry.get("trace") else None,
        )
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise NotAnElection(f"{key}: {type(error).__name__}") from None


def parse_trace(table: Any) -> StoredTrace:
    """Read what `zelect.status.trace.plain_trace` wrote. Raises KeyError, TypeError or ValueError."""
    heard, lost, elected = (
        None if table[name] is None else float(table[name]) for name in ("heard_ms", "lost_ms", "elected_ms")
    )
    return StoredTrace(heard, lost, elected, parse_rounds(table["rounds"]), str(table.get("asked") or ""))


def parse_rounds(rows: Any) -> tuple[StoredRound, ...]:
    """Read what `zelect.status.trace.plain_rounds` wrote. Raises KeyError, TypeError or ValueError."""
    return tuple(
        StoredRound(
            term=int(row["term"]),
            pre=bool(row["pre"]),
            asked_ms=float(row["asked_ms"]),
            took_ms=float(row["took_ms"]),
            outcome=str(row["outcome"]),
            votes=_votes(row["votes"]),
        )
        for row in rows
    )


def _votes(rows: Any) -> dict[int, str]:
    return {int(row["voter"]): "" if row["granted"] is True else str(row["reason"] or "refused") for row in rows}


def read_elections(
    client: Any, cluster: str, most: int, wanted: Callable[[Election], bool] = lambda election: True
) -> tuple[Sequence[Election], int]:
    """The newest `most` elections of `cluster` that are `wanted`, newest first, and how many entries
    were none. `client` is a redis-py client; raises what it raises."""
    found: list[Election] = []
    garbage = 0
    until = "+"
    while len(found) < most:
        page = client.xrevrange(f"zelect:{{{cluster}}}:elections", max=until, count=100)
        if not page:
            break
        for key, entry in page:
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
