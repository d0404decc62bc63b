"""Recorded histories against the specification: how they become traces, and what TLC says to good and to bad ones."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tools import spec
from tools.sim import scene_of
from tools.spec_check import acceptance
from tools.spec_check.planted import PLANTS
from tools.spec_check.recorded import history_of, read_nodes
from tools.spec_check.traces import Line, NoTrace, configuration, module_of, trace_of

EPOCHS = {1: 1_790_000_000_111, 2: 1_790_000_000_222, 3: 1_790_000_000_333}
VOTERS = [[node, epoch] for node, epoch in EPOCHS.items()]


def line(us: int, node: int, event: str, **fields: Any) -> dict[str, Any]:
    return {"us": us, "node": node, "incarnation": 10 * node, "term": 0, "event": event, **fields}


def saved(us: int, node: int, term: int, vote: int = 0, **more: Any) -> dict[str, Any]:
    """A line `saved` of a node of a cluster of three whose record is that of term 0."""
    fields = {
        "voted_for": vote,
        "voted_epoch": EPOCHS.get(vote, 0),
        "record": [0, 0, 1],
        "cluster_id": 77,
        "voters": VOTERS,
        "witness": "",
        "epoch": EPOCHS[node],
        "founding": [],
        "role": "follower",
        "acknowledges": 0,
    }
    return {**line(us, node, "saved", **{**fields, **more}), "term": term}


def begun() -> list[dict[str, Any]]:
    """Three nodes start."""
    return [one for node in EPOCHS for one in (line(node, node, "node_started"), saved(node, node, 0))]


def election() -> list[dict[str, Any]]:
    """Node 1 campaigns, node 2 votes for it, it wins, node 2 acknowledges, and node 1 is active until 900."""
    won = {"record": [0, 1, 2]}
    return [
        *begun(),
        saved(100, 1, 1, vote=1, role="candidate"),
        saved(200, 2, 1, vote=1),
        saved(300, 1, 1, vote=1, role="elected", **won),
        saved(400, 2, 1, vote=1, acknowledges=1, **won),
        line(500, 1, "lease", lapses_us=900, active_since_us=500, rests_on=[1, 2]),
    ]


def done(lines: Sequence[Line]) -> list[str]:
    """What each step of the trace does."""
    return [step.text.split('"')[1] for step in trace_of(lines).steps]


def test_lines_become_steps_in_the_order_of_their_times() -> None:
    assert done(election()) == ["save", "save", "save", "save", "lease"]
    assert done(list(reversed(election()))) != [], "each file is in order; the files are merged by their times"


def test_large_numbers_become_small_ones_in_the_same_order() -> None:
    again = [
        line(600, 2, "node_started"),
        saved(600, 2, 0, epoch=EPOCHS[2] + 5, cluster_id=0, record=[0, 0, 0], voters=[]),
    ]
    trace = trace_of([*election(), *again])
    assert 'voters |-> {<<"n1", 1>>, <<"n2", 1>>, <<"n3", 1>>}' in trace.first[1]
    assert "epoch |-> 2" in trace.steps[-1].text
    assert "record |-> NoRecord" in trace.steps[-1].text


def test_a_lease_ends_when_it_lapses_is_given_up_or_its_process_is_dead() -> None:
    later = saved(1000, 3, 1)
    assert done([*election(), later])[-3:] == ["lease", "end", "save"]
    assert done([*election(), line(600, 1, "lease_ended")])[-2:] == ["lease", "end"]
    assert done([*election(), line(600, 2, "peer_died", peer=1)])[-2:] == ["lease", "end"]
    still = [
        line(600, 2, "peer_died", peer=1),
        line(650, 1, "lease", lapses_us=950, active_since_us=500, rests_on=[1, 2]),
    ]
    assert done([*election(), *still]).count("end") == 0, "what speaks is not dead"
    assert done([*election(), line(600, 1, "node_started"), saved(600, 1, 1, vote=1, record=[0, 1, 2])])[-2:] == [
        "end",
        "start",
    ]


def test_of_a_lease_that_was_over_before_it_was_written_only_its_beginning_is_left() -> None:
    """The disk took so long with what became of it: a change of the voters, which only an active controller makes."""
    late = line(600, 1, "lease", lapses_us=550, active_since_us=500, rests_on=[1, 2])
    assert done([*election()[:-1], late]) == [*["save"] * 4, "active"]
    assert done([*election()[:-1], shrunk(600, 1, role="elected"), late])[-2:] == ["active", "save"]
    killed = [*election()[:-1], shrunk(600, 1, role="elected")]
    assert done(killed)[-2:] == ["active", "save"], "it could not even note that it had become active"


def shrunk(us: int, node: int, **more: Any) -> dict[str, Any]:
    """Node 3 is no voter any more."""
    return saved(us, node, 1, vote=1, **{"record": [0, 1, 3], "voters": VOTERS[:2], **more})


def test_a_lease_comes_before_the_change_of_the_record_that_it_allowed() -> None:
    change = shrunk(600, 1, role="elected")
    renewed = line(600, 1, "lease", lapses_us=1000, active_since_us=500, rests_on=[1, 3])
    assert done([*election(), change, renewed])[-2:] == ["lease", "save"]
    assert done([*election(), change, saved(600, 2, 1, vote=1, record=[0, 1, 2]), renewed])[-2:] == ["lease", "save"]
    later = done([*election(), change, line(600, 1, "voters_changed"), renewed])
    assert later[-2:] == ["save", "lease"], "a fact ends a step"


def test_what_changes_nothing_is_no_step() -> None:
    assert done([*election(), saved(600, 3, 0)]) == done(election())


def test_an_answer_without_a_save_is_a_step_of_its_own() -> None:
    won = [*election(), saved(510, 3, 1, record=[0, 1, 2])]
    assert done([*won, line(520, 3, "acknowledged", acknowledges=1)])[-1] == "ack"
    new = saved(600, 3, 1, cluster_id=0, record=[0, 0, 0], voters=[], epoch=EPOCHS[3] + 1)
    assert done([*won, new, line(700, 3, "acknowledged", acknowledges=1)])[-2:] == ["lost", "promise"]


def test_what_redis_is_asked_and_tells_is_matched() -> None:
    asked = {"what": "VOTING", "number": 4, "identity": "key run replid"}
    lines = [*begun(), line(50, 1, "witness_asked", **asked), line(60, 1, "witness_told", **asked)]
    assert [step.text.partition(", ")[2] for step in trace_of(lines).steps] == [
        'node |-> "n1", kind |-> "VOTING", identity |-> 1]',
        "number |-> 1]",
    ]
    with pytest.raises(NoTrace, match="had not asked"):
        trace_of([*begun(), line(60, 1, "witness_told", **asked)])


def test_what_is_no_history_is_said(tmp_path: Path) -> None:
    with pytest.raises(NoTrace, match="no node has saved anything"):
        trace_of([line(1, 1, "node_started")])
    with pytest.raises(NoTrace, match="more than TLC can count"):
        trace_of([*begun(), saved(9, 1, 2**40)])
    with pytest.raises(NoTrace, match="no node has written"):
        read_nodes(tmp_path)


def test_the_files_of_all_nodes_are_read_whole_lines_only(tmp_path: Path) -> None:
    (tmp_path / "history").mkdir()
    for node in EPOCHS:
        mine = [json.dumps(one) for one in election() if one["node"] == node]
        (tmp_path / "history" / f"node{node}.jsonl").write_text("\n".join(mine) + '\n{"us": 5, "no')
    assert done(read_nodes(tmp_path)) == done(election())


def test_a_simulated_history_has_the_format_of_real_nodes() -> None:
    lines, rule = history_of(scene_of(7, nodes=3, steps=20))
    assert not rule
    assert {"node_started", "saved", "lease"} <= {one["event"] for one in lines}
    trace = trace_of(lines)
    assert trace.steps
    assert "History1 ==" in module_of([trace])
    assert "Traces <- Everything" in configuration([trace])


def test_each_violation_finds_a_place_in_some_history() -> None:
    histories = [history_of(scene_of(seed, nodes=3, steps=40))[0] for seed in range(20, 30)]
    found = {name for name, plant in PLANTS.items() for lines in histories if plant(lines, random.Random(1))}
    assert found == PLANTS.keys()


@pytest.mark.usefixtures("java")
def test_tlc_accepts_a_history_and_says_where_it_stops() -> None:
    third = saved(600, 3, 1, vote=3, role="candidate")
    good, late = trace_of([*election(), third]), trace_of([*election(), third, saved(700, 2, 1, vote=3)])
    accepted, rejected = acceptance.check([good, late])
    assert accepted.accepted
    assert not rejected.accepted, "the vote of node 2 in term 1 was given"
    assert rejected.step == len(late.steps)
    assert rejected.line is not None
    assert rejected.line["us"] == 700


@pytest.mark.usefixtures("java")
def test_simulated_histories_are_accepted_and_planted_violations_rejected(capsys: pytest.CaptureFixture[str]) -> None:
    assert spec.main(["simulated", "20-24", "--nodes", "3", "--steps", "40", "--planted"]) == 0
    said = capsys.readouterr().out
    assert "5 of 5 histories accepted" in said
    assert all(f"{name} " in said for name in PLANTS)


@pytest.mark.usefixtures("java")
def test_histories_that_the_translation_got_wrong_once_are_accepted() -> None:
    """A lease over before it was noted; a voter that lost its data and answers the same controller again; a controller
    that was killed between a change of the voters and the note that it had become active; a witness that is asked in
    the step in which it ceases to be a voter."""
    traces = [trace_of(history_of(scene_of(seed))[0]) for seed in (1040, 1335, 1870, 2000)]
    assert [verdict.accepted for verdict in acceptance.check(traces)] == [True] * 4


@pytest.mark.usefixtures("java")
def test_an_answer_counts_that_was_on_its_way_when_its_voter_started_again() -> None:
    *before, lease = election()
    again = [line(450, 2, "node_started"), saved(450, 2, 1, vote=1, record=[0, 1, 2])]
    lost = [
        line(450, 2, "node_started"),
        saved(450, 2, 0, epoch=EPOCHS[2] + 5, cluster_id=0, record=[0, 0, 0], voters=[]),
    ]
    other = [saved(470, 3, 2, vote=3, role="candidate"), saved(480, 2, 2, vote=3, record=[0, 1, 2])]
    on_another = {**lease, "rests_on": [1, 3]}
    verdicts = acceptance.check(
        [
            trace_of([*before, *again, lease]),
            trace_of([*before, *lost, lease]),
            trace_of([*before, *again, on_another]),
            trace_of([*before, *again, *other, lease]),
        ]
    )
    assert [verdict.accepted for verdict in verdicts] == [True, True, False, False]


@pytest.mark.usefixtures("java")
def test_only_who_is_active_changes_the_voters() -> None:
    *before, lease = election()
    change = [shrunk(450, 1, role="elected"), line(450, 1, "voters_changed")]
    after = [shrunk(600, 1, role="elected"), line(600, 1, "voters_changed")]
    verdicts = acceptance.check([trace_of([*before, lease, *after]), trace_of([*before, *change, lease])])
    assert [verdict.accepted for verdict in verdicts] == [True, False]


@pytest.mark.usefixtures("java")
def test_an_older_copy_is_what_the_node_had_saved() -> None:
    new = [
        line(600, 2, "node_started"),
        saved(600, 2, 0, epoch=EPOCHS[2] + 5, cluster_id=0, record=[0, 0, 0], voters=[]),
    ]
    copy, invented = saved(700, 2, 1, vote=1, record=[0, 1, 2]), saved(700, 2, 1, vote=3, record=[0, 1, 2])
    lines = [*election(), *new, line(700, 2, "node_started")]
    verdicts = acceptance.check([trace_of([*lines, copy]), trace_of([*lines, invented])])
    assert [verdict.accepted for verdict in verdicts] == [True, False]
