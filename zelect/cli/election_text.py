"""Elections in words and tables, for people: at most 80 columns."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Mapping, Sequence

from zelect.cli.table import WIDTH, columns
from zelect.status.history import Election, StoredRound, StoredTrace

__all__ = ["REASONS", "REFUSALS", "explain_election", "explain_rounds", "history_table"]

REASONS = {
    "start": "nobody was known to lead",
    "timeout": "the controller before fell silent",
    "death": "the controller before was proven dead",
    "leave": "the controller before left",
    "handover": "the controller before handed over",
}
"""Why a candidate campaigned, by the election's reason."""

REFUSALS = {
    "old_term": "it knows a newer term",
    "voted": "it voted for another",
    "promised": "still bound to a controller",
    "grace_period": "just restarted, votes after its grace period",
    "lost_state": "lost its memory, no voting right yet",
    "leaving": "it was leaving",
    "not_member": "candidate not in its voters",
    "unrecognized": "not the witness in the record",
    "unreachable": "no answer from Redis in time",
    "stale_voters": "candidate's voters is older",
}
"""What a refusal means, by its typed reason (docs/protocol.md)."""

_OUTCOMES = {"overtaken": "overtaken by a newer term or another's election"}

_PERMISSION = {"term", "elected", "before", "gap ms", "yes", "no"}


def history_table(elections: Sequence[Election]) -> list[str]:
    """One line an election, newest first."""
    rows = []
    for one in elections:
        votes = one.votes or {}
        refused = sum(1 for reason in votes.values() if reason)
        rows.append(
            (
                str(one.term),
                str(one.id),
                str(one.previous or "-"),
                one.reason,
                "-" if one.gap_ms is None else f"{one.gap_ms:.1f}",
                str(len(votes) - refused),
                str(refused),
                _when(one.at_ms),
            )
        )
    head = ("term", "elected", "before", "reason", "gap ms", "yes", "no", "when (local time)")
    return columns(head, rows, _PERMISSION)


def _when(at_ms: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at_ms / 1000)) + f".{at_ms % 1000:03d}"


def explain_election(one: Election) -> list[str]:
    """Why, and how, `one` went as it went."""
    why = REASONS.get(one.reason, one.reason)
    lines = [f"term {one.term}: node {one.id} became active, {_when(one.at_ms)}"]
    before = f"node {one.previous}" if one.previous else "nobody known"
    lines.append(f"  because   {why} (before: {before})")
    if one.trace is None:
        lines += [
            "  rounds    an older release wrote this entry: only the last vote is known",
            *_votes(one.votes or {}),
        ]
        return lines
    if one.trace.asked:
        lines += textwrap.wrap(f"  asked by  {one.trace.asked}", WIDTH, subsequent_indent=" " * 12)
    lines += _phases(one, one.trace)
    lines.append("")
    return lines + explain_rounds(one.trace.rounds)


def _phases(one: Election, told: StoredTrace) -> list[str]:
    first = told.rounds[0].asked_ms if told.rounds else None
    steps = (
        ("last word of the controller before", told.heard_ms),
        ("its end was noticed", told.lost_ms),
        ("first question was asked", first),
        ("the vote was won", told.elected_ms),
        ("active", 0.0),
    )
    lines, before = ["  when      ms before leadership   step took"], None
    for name, ms in steps:
        if ms is None:
            continue
        took = "" if before is None else f"{before - ms:9.1f}"
        lines.append(f"            {ms:16.1f}   {took:>9}  {name}")
        before = ms
    return lines


def explain_rounds(rounds: Sequence[StoredRound]) -> list[str]:
    """Every round with every answer."""
    lines = []
    for number, one in enumerate(rounds, 1):
        kind, outcome = "pre-vote" if one.pre else "vote", _OUTCOMES.get(one.outcome, one.outcome)
        lines.append(f"  round {number}   {kind} for term {one.term}: {outcome} after {one.took_ms:.1f} ms")
        lines += _votes(one.votes)
    return lines


def _votes(votes: Mapping[int, str]) -> list[str]:
    lines = []
    for voter, reason in votes.items():
        who = f"node {voter}" if voter else "witness"
        said = f"no: {reason} ({REFUSALS[reason]})" if reason in REFUSALS else f"no: {reason}" if reason else "yes"
        lines.append(f"            {who}: {said}")
    return lines
