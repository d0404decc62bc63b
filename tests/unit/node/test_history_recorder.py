"""A node's own history on disk."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.records import made_record
from zelect.core.effects import Effects, Fact, Saved, WitnessPing, WitnessVote
from zelect.core.events import Tick, WitnessAnswered, WitnessCreated, WitnessVoted
from zelect.core.messages import Envelope, Pong, Reason, Refusal
from zelect.core.quorum import Witness
from zelect.core.state import LeaderState, Role, State
from zelect.node.history_recorder import HISTORY, HistoryRecorder, open_history
from zelect.system.clock import now_us

WITNESS = Witness("key", "run", "history")
RECORD = replace(made_record(3, 9, (1, 2, 3)), witness=WITNESS)
SAVED = Saved(term=4, voted_for=2, incarnation=77, record=RECORD, epoch=70, voted_epoch=60)


class Lines:
    """What a recorder wrote."""

    def __init__(self) -> None:
        self.written: list[dict[str, Any]] = []

    def append(self, line: bytes) -> None:
        assert line.endswith(b"\n")
        self.written.append(json.loads(line))

    @property
    def events(self) -> list[str]:
        return [line["event"] for line in self.written]


@pytest.fixture
def lines() -> Lines:
    return Lines()


def state(term: int = 5, lapses_us: int = 0) -> State:
    """A node in `term`; with `lapses_us` its lease runs until then."""
    leads = LeaderState(term, 1, 0, False, Reason.START, None, -1, -1, ())
    leads.active_since_us, leads.lease_lapses_us, leads.renewed_us = 10, lapses_us, 8
    leads.answered_us = {1: 9, 2: 8, 3: 7}
    role = Role.ELECTED if lapses_us else Role.FOLLOWER
    made = replace(SAVED, term=term)
    return State(saved=made, peers={}, addresses={}, node=1, role=role, leader_state=leads if lapses_us else None)


def pong(number: int, of_term: int, version: int, to: int = 2) -> tuple[int, Envelope]:
    return to, Envelope("demo", 1, 77, 0, 5, Pong(number, of_term, (0, 4, version), 0, 70))


def test_every_line_says_when_who_and_in_which_term(lines: Lines) -> None:
    before_us = now_us()
    recorder = HistoryRecorder(lines.append, 1, SAVED)
    recorder.before(Tick(), state(5))
    effects = Effects(facts=(Fact("peer_online", (("peer", 2), ("incarnation", 8))),))
    recorder.saved(effects, state(5))
    recorder.after(effects, state(5))
    recorder.close()
    found = lines.written
    assert lines.events == ["node_started", "saved", "peer_online", "node_ended"]
    assert [line["term"] for line in found] == [4, 4, 5, 5]
    assert all((line["node"], line["incarnation"]) == (1, 77) for line in found)
    assert sorted([before_us, *(line["us"] for line in found), now_us()])[1:-1] == [line["us"] for line in found]
    assert (found[2]["peer"], found[2]["about_incarnation"]) == (2, 8)


def test_saved_has_all_that_the_specification_knows_of_a_node(lines: Lines) -> None:
    recorder = HistoryRecorder(lines.append, 1, SAVED)
    recorder.saved(Effects(save=replace(SAVED, founding=((1, 70),))), replace(state(), role=Role.CANDIDATE))
    started, saved = lines.written[1:]
    assert (saved["voted_for"], saved["voted_epoch"], saved["record"], saved["epoch"]) == (2, 60, [0, 3, 9], 70)
    assert saved["voters"] == [list(pair) for pair in RECORD.named().items()]
    assert (saved["cluster_id"], saved["witness"]) == (RECORD.cluster_id, "key run history")
    assert (started["founding"], saved["founding"]) == ([], [[1, 70]])
    assert (started["role"], saved["role"]) == ("follower", "candidate")


def test_an_answer_to_a_ping_is_written_with_what_is_saved_and_once(lines: Lines) -> None:
    recorder = HistoryRecorder(lines.append, 1, SAVED)
    recorder.saved(Effects(save=SAVED, send=(pong(1, 5, 1),)), state())
    recorder.saved(Effects(send=(pong(2, 5, 1),)), state())
    recorder.saved(Effects(send=(pong(3, 5, 2),)), state())
    recorder.saved(Effects(send=(pong(0, 5, 3), pong(9, 4, 3))), state())
    assert [(line["event"], line["acknowledges"]) for line in lines.written[2:]] == [("saved", 2), ("acknowledged", 2)]


def test_what_the_witness_is_asked_and_grants_is_written(lines: Lines) -> None:
    recorder = HistoryRecorder(lines.append, 1, SAVED)
    vote = WitnessVote(WITNESS, False, 7, 5, RECORD)
    ping = WitnessPing(WITNESS, 5, 3, RECORD)
    recorder.saved(Effects(witness=(replace(vote, pre=True), vote, ping)), state())
    recorder.before(WitnessVoted(True, 7, None, 5), state())
    recorder.before(WitnessVoted(False, 7, Refusal.VOTED, 5), state())
    recorder.before(WitnessVoted(False, 7, None, 5), state())
    recorder.before(WitnessAnswered(3, 5, (0, 3, 9), None, 5), state())
    recorder.before(WitnessCreated(WITNESS), state())
    told = [(line["event"], line["what"], line.get("number")) for line in lines.written[2:]]
    assert told == [
        *(("witness_asked", "VOTING", 7), ("witness_asked", "PING", 3)),
        *(("witness_told", "VOTING", 7), ("witness_told", "PING", 3), ("witness_told", "CREATE", None)),
    ]
    assert lines.written[-1]["identity"] == lines.written[2]["identity"] == "key run history"


def test_an_end_of_leadership_is_written_before_the_effects_and_a_beginning_after_them(lines: Lines) -> None:
    recorder = HistoryRecorder(lines.append, 1, SAVED)
    recorder.before(Tick(), state(5, lapses_us=20))
    recorder.saved(Effects(), state(5, lapses_us=20))
    assert lines.events[-1] == "saved", "its effects are not carried out yet"
    recorder.after(Effects(), state(5, lapses_us=20))
    told = lines.written[-1]
    assert (told["event"], told["term"], told["active_since_us"], told["lapses_us"]) == ("lease", 5, 10, 20)
    assert told["rests_on"] == [1, 2], "whose answers are as new as the lease"
    recorder.before(Tick(), state(5, lapses_us=20))
    recorder.after(Effects(), state(5, lapses_us=20))
    assert len(lines.written) == 3, "nothing has changed"
    recorder.before(Tick(), state(6))
    assert (lines.events[-1], lines.written[-1]["term"]) == ("lease_ended", 6)
    recorder.after(Effects(), state(6))
    recorder.close()
    assert lines.events.count("lease_ended") == 1


def test_a_node_that_ends_while_active_says_so(lines: Lines) -> None:
    recorder = HistoryRecorder(lines.append, 1, SAVED)
    recorder.after(Effects(), state(5, lapses_us=20))
    recorder.close()
    assert lines.events[-2:] == ["lease_ended", "node_ended"]


def test_a_later_process_goes_on_where_the_one_before_it_ended(tmp_path: Path) -> None:
    for _ in range(2):
        with open(open_history(tmp_path, "node1"), "ab", buffering=0) as file:
            HistoryRecorder(file.write, 1, SAVED).close()
    text = (tmp_path / "node1.jsonl").read_text()
    assert [json.loads(line)["event"] for line in text.splitlines()] == ["node_started", "saved", "node_ended"] * 2


def test_nothing_is_recorded_unless_it_is_asked_for() -> None:
    assert HistoryRecorder.from_environment(1, SAVED) is None, f"{HISTORY} is not set in tests"
