"""Chaos while the members change: the walks, what is told of them, and one short run of each."""

from __future__ import annotations

import json
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.support.made_histories import MS, Made
from tests.tools.test_chaos import chaos
from tools.chaos_lab.histories import Line
from tools.chaos_lab.verdict import check_history
from tools.chaos_lab.walk_figures import table, walk_figures
from tools.chaos_lab.walked_cluster import WalkedCluster
from tools.chaos_lab.walks import WALKS, Change

TIMING = ("--timing", "heartbeat_ms=100,election_timeout_ms=1000,lease_ms=800")


def made_by(name: str, seed: int) -> list[tuple[Change, list[int]]]:
    """The changes of one walk, each with the members after it, as they would be if each were done."""
    walk = WALKS[name]
    durations: tuple[dict[str, int], ...] = ({}, {"lease_ms": 800})
    members = list(range(1, walk.first + 1))
    cluster = SimpleNamespace(members=members, scene=SimpleNamespace(ids=range(1, walk.most + 1)), durations=durations)
    done = []
    for change in walk.changes(cast(WalkedCluster, cluster), random.Random(seed)):
        if change.kind == "add":
            members.extend(change.nodes)
        elif change.kind == "remove":
            members.remove(*change.nodes)
        done.append((change, list(members)))
    return done


@pytest.mark.parametrize("seed", range(5))
def test_growing_goes_from_one_to_seven_and_back(seed: int) -> None:
    sizes = [len(members) for _, members in made_by("grow", seed)]
    assert sizes == [2, 3, 4, 5, 6, 7, 6, 5, 4, 3, 2, 1]


@pytest.mark.parametrize("seed", range(5))
def test_each_host_is_replaced_once_in_some_order(seed: int) -> None:
    assert sorted(change.nodes for change, _ in made_by("replace", seed)) == [(1,), (2,), (3,)]


def test_a_walk_has_as_many_changes_as_it_says() -> None:
    for name, walk in WALKS.items():
        assert len(made_by(name, 1)) == walk.length


def with_change(walk: int, kind: str, *, before_the_fault: bool) -> Made:
    """A history of two rounds: a change with a leave of the controller and then a harmless fault, and a kill."""
    run = Made(1)
    run.start(*run.ids)
    run.wait(500 * MS)
    run.elect(1, run.ids, "start")
    run.leading(200 * MS)
    run.chaos("settled", round=-1, controller=run.head, term=run.term, took_ms=250.0)
    run.chaos("round_began", round=0)
    run.chaos("change_began", round=0, walk=walk, change=kind, nodes=[2])
    if not before_the_fault:
        run.strike(0, "gil_hog", 3)
    run.leave("handover")
    run.wait(30 * MS)
    run.elect(2, run.ids, "transfer")
    run.leading(200 * MS)
    if before_the_fault:
        run.strike(0, "gil_hog", 3)
    run.wait(10 * MS)
    run.chaos("fault_ended", round=0, fault="gil_hog")
    run.chaos("command", round=0, words=["replace", "2"], code=1, said="not done within 5 s")
    run.chaos("command", round=0, words=["replace", "2"], code=0, said="done")
    run.chaos("change_ended", round=0)
    run.chaos("healed", round=0)
    run.leading(100 * MS)
    run.chaos("settled", round=0, controller=run.head, term=run.term, took_ms=100.0)
    run.chaos("round_ended", round=0)
    return run.finish()


def test_what_no_fault_came_before_is_the_changes_own() -> None:
    verdict = check_history(with_change(1, "replace", before_the_fault=True).history())
    assert verdict.held, verdict.violations
    assert [gap.kind for gap in verdict.gaps] == ["replace"]
    assert not verdict.false_elections
    (one, every) = walk_figures(verdict)
    assert (one.changes, one.commands, one.faults, one.controllers) == (1, 2, 1, 1)
    assert one.terms_grew
    assert one.by_change_ms == one.longest_ms > 30
    assert one.in_fault_ms == 0
    assert every.number == 0
    assert every.longest_during == "round 0: replace 2"


def test_what_came_after_a_fault_is_not() -> None:
    verdict = check_history(with_change(1, "replace", before_the_fault=False).history())
    assert [gap.kind for gap in verdict.gaps] == ["gil_hog"]
    one = walk_figures(verdict)[0]
    assert one.by_change_ms == 0
    assert one.in_fault_ms == pytest.approx(one.longest_ms)


def test_the_table_fits_a_terminal() -> None:
    verdict = check_history(with_change(10, "durations", before_the_fault=True).history())
    lines = list(table(walk_figures(verdict)))
    assert max(map(len, lines)) <= 80
    assert lines[-2].startswith("all ")


def test_a_term_that_falls_is_found() -> None:
    run = with_change(1, "replace", before_the_fault=True)
    for lines in run.files.values():
        for line in lines:
            if isinstance(line, dict) and line.get("node") == 2 and line["event"] in ("lease", "lease_ended"):
                line["term"] = 0
    verdict = check_history(run.history())
    (found,) = [violation for violation in verdict.violations if violation.rule == "terms"]
    assert found.text == "node 2 was active in term 0 after node 1 in term 1"
    assert all(isinstance(line, Line) for line in found.lines)
    assert not walk_figures(verdict)[0].terms_grew


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--walk", "grow", "--rounds", "3"), "--rounds and --walk don't go together"),
        (("--walk", "grow", "--namespaces"), "--namespaces and --walk don't go together"),
        (("--walk", "grow", "--faults", "data_lost"), "--faults data_lost: not with --walk"),
        (("--faults", "none"), "--faults none: no such fault"),
    ],
)
def test_what_does_not_go_together_is_refused(arguments: tuple[str, ...], words: str) -> None:
    assert words in chaos(*arguments, code=2)


@pytest.mark.long
@pytest.mark.timeout(400)
@pytest.mark.parametrize("walk", WALKS)
def test_a_walk_under_faults_holds_all_promises(tmp_path: Path, walk: str) -> None:
    files = ("--json", tmp_path / "figures.json", "--dir", tmp_path / "run")
    said = chaos("--walk", walk, "--seed", "5", *TIMING, *files, within_s=390)
    assert "every guarantee held" in said
    figures: dict[str, Any] = json.loads((tmp_path / "figures.json").read_text())
    (one, every) = figures["walks"]
    length = WALKS[walk].length
    assert figures["rounds"] == one["changes"] == every["changes"] == length
    assert one["overlap_ms"] == 0
    assert one["terms_grew"]
    assert sum(figures["faults"].values()) == one["faults"] >= length
    assert figures["false_elections"] == 0
    assert one["commands"] >= (0 if walk == "durations" else length)
    if walk == "durations":
        assert one["named"] == length, "each time a node said which settings differ"
    notes = [json.loads(line) for line in (tmp_path / "run" / "history" / "chaos.jsonl").read_text().splitlines()]
    named = [note["text"] for note in notes if note["event"] == "difference_named"]
    assert all("election_timeout_ms is " in text for text in named)
    assert not [note for note in notes if note["event"] in ("leftover", "not_settled")]
