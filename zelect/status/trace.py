"""Stories of elections as JSON: for the stream in Redis and for a node's report."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from zelect.core.election_trace import ElectionTrace, Round

__all__ = ["plain_rounds", "plain_trace"]


def plain_trace(trace: ElectionTrace) -> dict[str, Any]:
    """`story` with times in milliseconds before leadership was entered; None where unknown."""
    active_since_us = trace.active_since_us
    return {
        "heard_ms": _ms(active_since_us, trace.heard_us),
        "lost_ms": _ms(active_since_us, trace.lost_us),
        "elected_ms": _ms(active_since_us, trace.elected_us),
        "rounds": plain_rounds(trace.rounds, active_since_us),
        "asked": trace.asked or None,
    }


def plain_rounds(rounds: Iterable[Round], until_us: int) -> list[dict[str, Any]]:
    """`rounds` with the times of their beginnings in milliseconds before `until_us`."""
    return [
        {
            "term": one.term,
            "pre": one.pre,
            "asked_ms": _ms(until_us, one.began_us),
            "took_ms": _ms(one.ended_us, one.began_us),
            "outcome": one.outcome,
            "votes": [asdict(vote) for vote in one.votes],
        }
        for one in rounds
    ]


def _ms(until_us: int, us: int) -> float | None:
    return None if us < 0 else round((until_us - us) / 1000, 3)
