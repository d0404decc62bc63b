"""A node's own history on disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.support.records import made_record
from zelect.core.effects import Effects, Fact, Saved
from zelect.core.lease import Lease
from zelect.node.history_recorder import HISTORY, HistoryRecorder
from zelect.system.clock import now_us

SAVED = Saved(term=4, voted_for=2, incarnation=77, record=made_record(3, 9, (1, 2, 3)), epoch=70)


def lines(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / "node1.jsonl").read_text().splitlines()]


def test_every_line_says_when_who_and_in_which_term(tmp_path: Path) -> None:
    before_us = now_us()
    recorder = HistoryRecorder(tmp_path, 1, SAVED)
    recorder.before(None, 5)
    recorder.after(None, Effects(facts=(Fact("peer_online", (("peer", 2), ("incarnation", 8))),)))
    recorder.close()
    found = lines(tmp_path)
    assert [line["event"] for line in found] == ["node_started", "saved", "peer_online", "node_ended"]
    assert [line["term"] for line in found] == [4, 4, 5, 5]
    assert all((line["node"], line["incarnation"]) == (1, 77) for line in found)
    assert sorted([before_us, *(line["us"] for line in found), now_us()])[1:-1] == [line["us"] for line in found]
    assert (found[1]["voted_for"], found[1]["record"], found[1]["epoch"]) == (2, [0, 3, 9], 70)
    assert (found[2]["peer"], found[2]["about_incarnation"]) == (2, 8)


def test_an_end_of_leadership_is_written_before_the_effects_and_a_beginning_after_them(tmp_path: Path) -> None:
    recorder = HistoryRecorder(tmp_path, 1, SAVED)
    lease = Lease(term=5, active_since_us=10, lapses_us=20)
    recorder.before(lease, 5)
    assert lines(tmp_path)[-1]["event"] == "saved", "its effects are not carried out yet"
    recorder.after(lease, Effects())
    told = lines(tmp_path)[-1]
    assert (told["event"], told["term"], told["active_since_us"], told["lapses_us"]) == ("lease", 5, 10, 20)
    recorder.before(lease, 5)
    recorder.after(lease, Effects())
    assert len(lines(tmp_path)) == 3, "nothing has changed"
    recorder.before(None, 6)
    assert (lines(tmp_path)[-1]["event"], lines(tmp_path)[-1]["term"]) == ("lease_ended", 6)
    recorder.after(None, Effects())
    recorder.close()


def test_a_later_process_goes_on_where_the_one_before_it_ended(tmp_path: Path) -> None:
    HistoryRecorder(tmp_path, 1, SAVED).write("half", detail=object())
    HistoryRecorder(tmp_path, 1, SAVED).close()
    assert [line["event"] for line in lines(tmp_path)] == [
        *("node_started", "saved", "half"),
        *("node_started", "saved", "node_ended"),
    ]


def test_nothing_is_recorded_unless_it_is_asked_for() -> None:
    assert HistoryRecorder.from_environment(1, SAVED) is None, f"{HISTORY} is not set in tests"
