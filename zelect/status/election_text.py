"""Elections as text and tables of at most 80 columns."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Sequence

from zelect.core.election_trace import Vote
from zelect.status.election import Election, RoundReport, TraceReport
from zelect.status.table import WIDTH, Column, table

REASONS = {
    "start": "no controller was known",
    "timeout": "the previous controller became unresponsive",
    "death": "the previous controller was proven dead",
    "leave": "the previous controller left",
    "handover": "the previous controller handed over",
}
"""Why an election was held, by its reason."""

REFUSALS = {
    "old_term": "it knows a newer term",
    "voted": "it voted for another candidate",
    "promised": "its promise to a controller still runs",
    "grace_period": "it just restarted: grace period",
    "lost_state": "the record names an earlier storage epoch of it: it lost its state",
    "other_founding": "it voted to found the cluster with other members",
    "leaving": "it was leaving",
    "not_member": "the candidate or this node is not in the candidate's record",
    "unrecognized": "it lost its data, or is another one than the witness in the record",
    "unreachable": "no answer from Redis in time",
    "stale_voters": "the candidate's voter record is older",
}
"""What a refusal means, by its reason (docs/protocol.md)."""

_OUTCOMES = {"overtaken": "overtaken by a newer term or another node's election"}


def _refused(one: Election) -> int:
    return sum(not vote.granted for vote in one.votes)


def _ms(us: int | None) -> str:
    return "-" if us is None else f"{us / 1000:.1f}"


ELECTION_COLUMNS = (
    Column[Election]("term", lambda one: one.term, right=True),
    Column[Election]("elected", lambda one: one.id, right=True),
    Column[Election]("before", lambda one: one.previous or "-", right=True),
    Column[Election]("reason", lambda one: one.reason),
    Column[Election]("gap ms", lambda one: _ms(one.inactive_us), right=True),
    Column[Election]("noticed", lambda one: _ms(one.detection_us), right=True),
)
_MORE_COLUMNS = (
    Column[Election]("votes", lambda one: f"{len(one.votes) - _refused(one)}:{_refused(one)}", right=True),
    Column[Election]("when (local time)", lambda one: _when(one.at_ms).partition(".")[0]),
)


_LEGEND = (
    "gap: no node was active for so long. noticed: from when the previous controller",
    "was last heard until its loss was noticed. votes: yes:no.",
)


def history_table(elections: Sequence[Election]) -> list[str]:
    """One line an election, in their order, and what the columns mean."""
    return [*table([*ELECTION_COLUMNS, *_MORE_COLUMNS], elections), "", *_LEGEND]


def _when(at_ms: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at_ms / 1000)) + f".{at_ms % 1000:03d}"


def explain_election(one: Election) -> list[str]:
    """Why `one` was held, and how it went."""
    reason = REASONS.get(one.reason, one.reason)
    if one.reason == "timeout" and one.previous == one.id:
        reason = "this node itself had stopped being active: too few voters had answered"
    before = f"node {one.previous}" if one.previous else "none known"
    lines = [
        f"term {one.term}: node {one.id} became active, {_when(one.at_ms)}",
        *textwrap.wrap(f"  reason    {reason} (before: {before})", WIDTH, subsequent_indent=" " * 12),
    ]
    if one.inactive_us is not None:
        lines.append(f"  gap       no node was active for {_ms(one.inactive_us)} ms")
    if one.trace is None:
        return lines
    if one.trace.asked:
        lines += textwrap.wrap(f"  asked by  {one.trace.asked}", WIDTH, subsequent_indent=" " * 12)
    return [*lines, *_phases(one.trace), "", *explain_rounds(one.trace.rounds)]


def _phases(trace: TraceReport) -> list[str]:
    steps = (
        ("the previous controller was last heard", trace.heard_us),
        ("its loss was noticed", trace.lost_us),
        ("the first vote request was sent", trace.rounds[0].began_us if trace.rounds else None),
        ("the vote was won", trace.elected_us),
        ("the node became active", 0),
    )
    lines, before = ["  when      ms before active   step took"], None
    for name, us in steps:
        if us is None:
            continue
        took = "" if before is None else f"{(before - us) / 1000:.1f}"
        lines.append(f"            {us / 1000:16.1f}   {took:>9}  {name}")
        before = us
    return lines


def explain_rounds(rounds: Sequence[RoundReport]) -> list[str]:
    """Every round with every answer."""
    lines = []
    for number, one in enumerate(rounds, 1):
        kind, outcome = "pre-vote" if one.pre else "vote", _OUTCOMES.get(one.outcome, one.outcome)
        lines.append(f"  round {number}   {kind} for term {one.term}: {outcome} after {one.took_us / 1000:.1f} ms")
        lines += map(_vote, one.votes)
    return lines


def _vote(vote: Vote) -> str:
    voter = f"node {vote.voter}" if vote.voter else "witness"
    reason = vote.reason
    answer = "yes" if vote.granted else f"no: {reason} ({REFUSALS[reason]})" if reason in REFUSALS else f"no: {reason}"
    return f"            {voter}: {answer}"
