"""Broken rules: what simulated clusters do then, judged by the specification."""

from __future__ import annotations

import pytest

from tools import spec
from tools.mutation.mutant import MUTANTS
from tools.spec_check.mutants import ALLOWED, TRIED, Clusters, Judged, named, simulate, summary

BY_NAME = {mutant.name: mutant for mutant in MUTANTS}


def test_those_of_the_core_are_tried() -> None:
    assert {mutant.name for mutant in TRIED} == {m.name for m in MUTANTS if m.path.startswith("zelect/core/")}
    assert named(["R2", "no-silence"])[-1] is BY_NAME["no-silence"]
    assert named([]) == list(TRIED)


def test_an_unknown_one_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert spec.main(["mutants", "R2", "R99"]) == 2
    assert "no such mutant or rule in zelect/core: 'R99'" in capsys.readouterr().err


def test_what_changed_nothing_is_not_counted() -> None:
    some = BY_NAME["double-vote"]
    judged = [
        Judged(some, 20, 3, "seed 1", ""),
        Judged(some, 20, 3, "", "votes3: VIOLATION"),
        Judged(some, 20, 3, "seed 1", "votes3: VIOLATION"),
        Judged(some, 20, 3, "", ""),
        Judged(some, 20, 0, "", ""),
    ]
    assert [one.by for one in judged] == ["specification", "checker", "both", "nobody", "unchanged"]
    assert summary(judged)["share"] == 3 / 4
    judged.append(Judged(BY_NAME["priority-left-out"], 20, 3, "", ""))
    assert summary(judged)["share"] == 3 / 5
    assert summary(judged)["of_forbidden"] == 3 / 4


def test_what_the_specification_allows_is_a_mutant() -> None:
    assert ALLOWED.keys() <= {mutant.name for mutant in TRIED}


@pytest.mark.parametrize("name", ["half-is-a-quorum", "old-ping-unanswered"], ids=["a function", "a table"])
def test_another_process_runs_the_broken_code(name: str) -> None:
    clusters = Clusters(4000, 4001)
    usual, broken = simulate(None, clusters), simulate(BY_NAME[name], clusters)
    assert [one.seed for one in broken] == [4000, 4001]
    assert [one.shown for one in broken] != [one.shown for one in usual]
    assert [one.shown for one in simulate(None, clusters)] == [one.shown for one in usual], "this one does not"


def test_what_takes_too_long_is_left_out() -> None:
    assert len(simulate(None, Clusters(4000, 4001, nodes=7, steps=2000), seconds=1)) < 2


@pytest.mark.usefixtures("java")
def test_the_specification_rejects_what_a_broken_rule_does(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--seeds", "4000-4001", "--nodes", "3", "--steps", "20"]
    assert spec.main(["mutants", "half-is-a-quorum", *options]) == 0
    assert "half-is-a-quorum" in (said := capsys.readouterr().out)
    assert "specification 1" in said
