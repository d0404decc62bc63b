"""Dataclasses to JSON and back; a report's way from the core over the wire."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.support.reports import report
from tools.simulator.small_world import World
from zelect.core.election_trace import Vote
from zelect.core.messages import MalformedMessage
from zelect.core.messages import Report as ReportMessage
from zelect.core.status import NodeFacts, NodeStatus, PauseStatus, PeerStatus
from zelect.status.codec import WrongShape, plain, read
from zelect.status.election import Election, RoundReport, TraceReport
from zelect.status.report import NodeReport, RedisReport, encode, parse, report_of

ROUND = RoundReport(4, False, 2_000, 1_500, "won", (Vote(0, True, ""), Vote(3, False, "voted")))
ELECTION = Election(4, 1, 2, "death", 252_000, 1_770_000_000_000, TraceReport(252_000, None, 500, (ROUND,), "me: why"))
FULL = report(
    1,
    active=True,
    election=ELECTION,
    rounds=(ROUND,),
    pause=PauseStatus(60_000_000, "me: why"),
    peers=(PeerStatus(2, True, False, False, None, -1, "behind", "term_jump: this node's term is 4"),),
    belongs="new",
    missing=(2, 3),
    epoch=2**52,
    addresses={"1": "tcp://a:1", "2": "tcp://[::1]:2", "3": "tcp://c:3", "10": "tcp://d:4"},
    epochs=(5, 0, 2**52),
    cluster_id=2**53 - 1,
    redis=RedisReport("", "down", None, "not configured"),
    reload_problem="no such key",
)


def test_what_is_written_is_what_is_read() -> None:
    assert parse(encode(FULL), FULL.at_us) == FULL


def test_who_belongs_comes_back_as_a_record_has_it() -> None:
    read_back = parse(encode(FULL), 0)
    assert (read_back.belongs, read_back.missing, read_back.epoch) == ("new", (2, 3), 2**52)
    assert read_back.voters.places == ((1, "tcp://a:1"), (2, "tcp://[::1]:2"), (3, "tcp://c:3"), (10, "tcp://d:4"))
    assert (read_back.voters.cluster_id, read_back.voters.epochs) == (2**53 - 1, (5, 0, 2**52))
    assert read_back.peers[0].problem == "term_jump: this node's term is 4"


def test_times_and_defaults() -> None:
    table = plain(PeerStatus(2, True, False, False, 1_234))
    assert table == {"id": 2, "linked": True, "dead": False, "offline": False, "heard_ago_ms": 1.234}
    assert read(PeerStatus, table | {"of_a_later_release": 1}) == PeerStatus(2, True, False, False, 1_234)


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"id": "1"}, "id is '1'"),
        ({"id": True}, "id is True"),
        ({"id": 1 << 63}, "id is 9223372036854775808"),
        ({"active": 1}, "active is 1"),
        ({"lease_left_ms": "1"}, "lease_left_ms is '1'"),
        ({"lease_left_ms": float("inf")}, "lease_left_ms is inf"),
        ({"lease_left_ms": float("nan")}, "lease_left_ms is nan"),
        ({"voters": {}}, "voters.cluster_id is missing"),
        ({"missing": [True]}, "missing is True"),
        ({"belongs": None}, "belongs is None"),
        ({"voters": plain(FULL.voters) | {"addresses": {"1": 5}}}, "voters.addresses.1 is 5"),
        ({"voters": plain(FULL.voters) | {"epochs": [1.5]}}, "voters.epochs is 1.5"),
        ({"voters": []}, r"voters is \[\]"),
        ({"succession": [1, None]}, "succession is None"),
        ({"counters": {"received": 1.5}}, "counters.received is 1.5"),
        ({"peers": [7]}, "peers is 7"),
    ],
)
def test_what_has_another_shape_is_refused_by_name(changes: dict[str, Any], where: str) -> None:
    table = plain(FULL)
    with pytest.raises(WrongShape, match=f"^{where}$"):
        read(NodeReport, table | changes)
    text = json.dumps(table | changes)
    with pytest.raises(MalformedMessage, match="is no JSON" if "Infinity" in text or "NaN" in text else where):
        parse(text, 0)


@pytest.mark.parametrize("text", ["", "[]", "7", "null", "[" * 100_000, "{}"])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(MalformedMessage):
        parse(text, 0)


@example("controller_heard_ago_ms", 72_057_594_037_929)
@given(
    st.sampled_from(sorted(plain(FULL))), st.recursive(st.none() | st.integers() | st.floats() | st.text(), st.lists)
)
def test_no_value_of_a_key_breaks_the_reader(key: str, value: object) -> None:
    text = json.dumps(plain(FULL) | {key: value})
    try:
        made = parse(text, 0)
    except MalformedMessage:
        return
    assert parse(encode(made), 0) == made, "what is accepted can be passed on"


def test_what_others_say_does_nothing_to_a_terminal() -> None:
    hostile = "\x1b]0;owned\x07\x1b[2J\u202e\ntwo"
    made = parse(json.dumps(plain(FULL) | {"address": hostile, "version": hostile, "reload_problem": hostile}), 0)
    for text in (made.address, made.version, made.reload_problem):
        assert text.isprintable()
        assert text.startswith("\\x1b]0;owned")


def test_all_that_the_machine_knows_is_in_the_report() -> None:
    world = World(3)
    world.start()
    world.run_until(lambda: world.controller() == 1)
    machine = world.processes[1].machine
    status: NodeStatus = machine.status(world.now_us)
    made = report_of(
        status,
        cluster="demo",
        address="tcp://127.0.0.1:7101",
        redis=RedisReport("", "down", None, ""),
        counters={},
        reload_problem="",
        began_us=0,
    )
    for field in fields(NodeFacts):
        assert getattr(made, field.name) == getattr(status, field.name)
    assert made.election is not None
    assert made.election.votes == status.trace.rounds[-1].votes if status.trace else ()


def test_the_report_of_a_large_cluster_fits_in_one_message() -> None:
    peers = tuple(PeerStatus(node, True, False, False, 123_456_789) for node in range(2, 100))
    votes = tuple(Vote(node, False, "stale_voters") for node in range(100))
    rounds = tuple(replace(ROUND, votes=votes[:20]) for _ in range(20))
    large = replace(FULL, peers=peers, rounds=rounds, succession=tuple(range(2, 100)))
    assert parse(ReportMessage(encode(large)).text, large.at_us) == large
