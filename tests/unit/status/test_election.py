"""The history of elections: how it is read from Redis, and how it is shown."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zelect.core.election_trace import ElectionTrace, Round, Vote
from zelect.core.messages import Reason, Refusal
from zelect.status.codec import plain
from zelect.status.election import (
    NotAnElection,
    parse_election,
    read_elections,
    round_reports,
    stream_fields,
    trace_report,
)
from zelect.status.election_text import REASONS, REFUSALS, explain_election, explain_rounds, history_table

ROUNDS = (
    Round(7, True, 900_000, 1_000_000, "failed", (Vote(1, True, ""), Vote(3, False, "promised"))),
    Round(7, True, 1_100_000, 1_100_400, "won", (Vote(1, True, ""), Vote(3, True, ""))),
    Round(7, False, 1_100_400, 1_101_000, "won", (Vote(0, True, ""), Vote(1, True, ""), Vote(3, False, "voted"))),
)
TRACE = ElectionTrace(heard_us=850_000, lost_us=890_000, elected_us=1_101_000, active_since_us=1_102_000, rounds=ROUNDS)


def entry(**changes: str) -> dict[str, str]:
    votes, trace = stream_fields(TRACE)
    fields = {"id": "1", "term": "7", "previous": "2", "reason": "death", "gap_ms": "252.000"}
    return {**fields, "votes": votes, "trace": trace, **changes}


def test_what_a_node_writes_is_what_is_read() -> None:
    one = parse_election("1770000000123-0", entry())
    assert (one.term, one.id, one.previous, one.reason, one.gap_us) == (7, 1, 2, "death", 252_000)
    assert one.at_ms == 1_770_000_000_123
    assert one.votes == ROUNDS[-1].votes
    assert one.trace == trace_report(TRACE)
    assert (one.trace.heard_us, one.trace.lost_us, one.trace.elected_us) == (252_000, 212_000, 1_000)
    assert [(r.pre, r.outcome, r.began_us, r.took_us) for r in one.trace.rounds] == [
        (True, "failed", 202_000, 100_000),
        (True, "won", 2_000, 400),
        (False, "won", 1_600, 600),
    ]


def test_times_are_milliseconds_in_json() -> None:
    table = plain(trace_report(TRACE))
    assert (table["heard_ms"], table["lost_ms"], table["elected_ms"]) == (252.0, 212.0, 1.0)
    assert table["rounds"][1] | {"votes": []} == {
        **{"term": 7, "pre": True, "began_ms": 2.0, "took_ms": 0.4, "outcome": "won", "votes": []}
    }
    assert json.loads(entry()["votes"])[-1] == {"voter": 3, "granted": False, "reason": "voted"}


@pytest.mark.parametrize(
    "changes",
    [
        {"term": "x"},
        {"gap_ms": "soon"},
        {"trace": ""},
        {"trace": "no json"},
        {"trace": "7"},
        {"trace": '{"heard_ms": 1, "lost_ms": 1, "elected_ms": 1e400, "rounds": []}'},
        {"trace": '{"heard_ms": 1, "lost_ms": 1, "elected_ms": 1, "rounds": [{"votes": [{"voter": 1}]}]}'},
        {"trace": "[]"},
        {"trace": '{"heard_ms": null}'},
        {"trace": '{"heard_ms": 1, "lost_ms": 1, "elected_ms": 1, "rounds": [{}]}'},
        {"trace": "[" * 100_000},
        {"term": "1" + "0" * 30},
        {"id": "-1"},
        {"previous": "9" * 5000},
        {"since_ms": "9" * 19},
    ],
)
def test_an_entry_that_is_none_is_said_to_be_none(changes: dict[str, str]) -> None:
    with pytest.raises(NotAnElection):
        parse_election("5-0", entry(**changes))


@given(st.dictionaries(st.sampled_from(["id", "term", "previous", "reason", "gap_ms", "votes", "trace"]), st.text()))
def test_no_entry_breaks_the_reader(fields: dict[str, str]) -> None:
    try:
        parse_election("5-0", fields)
    except NotAnElection:
        return
    raise AssertionError("made of noise, and taken for an election")


class Stream:
    """What `XREVRANGE` answers for the entries of `rows`, newest first."""

    def __init__(self, rows: list[tuple[int, dict[str, str]]]) -> None:
        self.rows = rows

    def xrevrange(self, key: str, max: str, count: int) -> list[tuple[bytes, dict[bytes, bytes]]]:
        assert key == "zelect:{demo}:elections"
        below = 1 << 60 if max == "+" else int(max.strip("(").partition("-")[0])
        found = [row for row in self.rows if row[0] < below][:count]
        return [(b"%d-0" % at, {k.encode(): v.encode() for k, v in fields.items()}) for at, fields in found]


def test_the_newest_come_first_page_by_page_and_garbage_is_counted() -> None:
    rows: list[Any] = [(at, entry(term=str(at)) if at % 50 else {"hello": "world"}) for at in range(250, 0, -1)]
    found, garbage = read_elections(Stream(rows), "demo", 1000)
    assert [one.term for one in found] == [at for at in range(250, 0, -1) if at % 50]
    assert garbage == 5
    some, _ = read_elections(Stream(rows), "demo", 3)
    assert [one.term for one in some] == [249, 248, 247]
    (old,), _ = read_elections(Stream(rows), "demo", 1, lambda one: one.term == 1)
    assert old.term == 1


class _Endless:
    """A Redis that lies: there is always more, and it is garbage."""

    asked = 0

    def xrevrange(self, key: str, max: str, count: int) -> list[tuple[bytes, dict[bytes, bytes]]]:
        self.asked += 1
        return [(b"1-0", {b"a": b"b"})] * 1000


def test_a_stream_without_an_end_is_not_read_for_ever() -> None:
    endless = _Endless()
    found, garbage = read_elections(endless, "demo", 10)
    assert (found, garbage) == ([], 25 * 200)
    assert endless.asked == 200


def test_an_election_is_explained_in_80_columns() -> None:
    lines = explain_election(parse_election("1770000000123-0", entry()))
    text = "\n".join(lines)
    assert max(map(len, lines)) <= 80
    assert "node 1 became active" in text
    assert REASONS["death"] in text
    assert "round 1   pre-vote for term 7: failed after 100.0 ms" in text
    assert "node 3: no: promised" in text
    assert "witness: yes" in text
    steps = [line.split()[0] for line in lines if line.endswith(("heard", "noticed", "sent", "won", "active"))]
    assert steps == ["252.0", "212.0", "202.0", "1.0", "0.0"]


def test_a_table_of_elections_is_at_most_80_columns_wide() -> None:
    huge = parse_election("1770000000123-0", entry(term=str(2**53 - 1), gap_ms="123456789.123"))
    assert max(map(len, history_table([huge]))) <= 80
    usual = [parse_election("1770000000123-0", entry()), parse_election("5-0", entry(gap_ms="", previous=""))]
    lines = history_table(usual)
    assert lines[1].split()[:7] == ["7", "1", "2", "death", "212.0", "40.0", "2:1"]
    assert lines[2].split()[2:5] == ["-", "death", "212.0"]


@pytest.mark.parametrize(
    ("reason", "previous", "inactive_ms"),
    [
        ("death", "2", 212),  # its connections closed: it had been active until then
        ("leave", "2", 212),
        ("handover", "2", 212),
        ("timeout", "2", 252),  # it may have stopped right after it was heard
        ("timeout", "1", 212),  # this node itself: it knows when it stopped
    ],
)
def test_the_time_without_an_active_node_is_told_apart_from_detection(
    reason: str, previous: str, inactive_ms: int
) -> None:
    one = parse_election("1770000000123-0", entry(reason=reason, previous=previous))
    assert (one.inactive_us, one.detection_us) == (inactive_ms * 1000, 40_000)
    text = " ".join(" ".join(explain_election(one)).split())
    assert f"no node was active for {inactive_ms}.0 ms" in text
    assert ("stopped being active: too few voters" in text) is (previous == "1")
    seen = replace(one, trace=None)
    assert (seen.inactive_us, seen.detection_us) == (252_000, None)


def test_every_reason_has_a_text() -> None:
    assert set(REFUSALS) == {reason.value for reason in Refusal}
    assert set(REASONS) == {reason.value for reason in Reason}


def test_rounds_that_fail_are_told_with_every_answer() -> None:
    lines = explain_rounds(round_reports(ROUNDS[:1], 2_000_000))
    assert lines[0] == "  round 1   pre-vote for term 7: failed after 100.0 ms"
    assert [line.split()[:2] for line in lines[1:]] == [["node", "1:"], ["node", "3:"]]
