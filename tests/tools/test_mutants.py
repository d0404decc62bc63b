"""The mutants of tools/mutants.py: each still applies, each stands in the documents, and the tool
tells one that is caught from one that lives."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tools.mutants import DOCUMENT, main, table
from tools.mutation.mutant import MUTANTS, ROOT, Mutant, NotOnce, copy_tree, mutated
from tools.mutation.suites import SUITES, CannotRun, Suite, paths_of, suites_for
from tools.mutation.trial import Case, MutantRunner, Verdict, cases

RULES = [*(f"R{number}" for number in range(1, 17)), *(f"K{number}" for number in range(1, 5))]
BY_NAME = {case.name: case for case in cases()}


def named(mutant: Mutant) -> str:
    return mutant.name


@pytest.mark.parametrize("mutant", MUTANTS, ids=named)
def test_each_mutant_applies_to_the_code_as_it_is_and_compiles(mutant: Mutant) -> None:
    text = mutated(mutant)
    assert text != (ROOT / mutant.path).read_text()
    compile(text, mutant.path, "exec")


def test_each_rule_is_broken_in_several_ways() -> None:
    count = Counter(mutant.rule for mutant in MUTANTS)
    assert sorted(count) == sorted(RULES)
    assert min(count.values()) >= 4
    assert len(BY_NAME) == len(cases()), "two have one name"


@pytest.mark.parametrize("mutant", MUTANTS, ids=named)
def test_some_suite_knows_each_changed_file(mutant: Mutant) -> None:
    assert suites_for(mutant.path)


def test_the_suites_are_there() -> None:
    assert [path for path in paths_of(SUITES) if not (ROOT / path).exists()] == []


def test_the_documents_show_each_mutant_and_no_other() -> None:
    rows = re.findall(r"^\| ([RK]\d+) \| `([\w-]+)` \| (.+?) \| \w+: `", DOCUMENT.read_text(), re.MULTILINE)
    assert rows == [(case.rule, case.name, case.about) for case in cases()]


@pytest.mark.parametrize("old", ["no such text", "import"])
def test_a_text_that_does_not_stand_there_once_is_refused(old: str, tmp_path: Path) -> None:
    mutant = replace(MUTANTS[0], old=old)
    with pytest.raises(NotOnce, match=r"stands \d+ times in zelect/core/actors/vote.py"):
        copy_tree(ROOT, tmp_path / "tree", mutant)


def test_what_is_called_by_no_name_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--only", "R99"]) == 2
    assert "R99" in capsys.readouterr().err


@pytest.fixture(scope="module")
def runner() -> Iterator[MutantRunner]:
    made = MutantRunner(seconds=100)
    yield made
    made.close()


@pytest.mark.parametrize(
    ("name", "by"),
    [
        ("half-is-a-quorum", "tests/rules/test_rules.py::test_r2_"),
        pytest.param("drift-left-out", "tests/unit/core/test_timing.py::", marks=pytest.mark.long),
        pytest.param("second-vote-checked", "tools/modelcheck.py --mutant second-vote", marks=pytest.mark.long),
    ],
)
def test_a_mutant_is_caught_and_the_tree_left_alone(runner: MutantRunner, name: str, by: str) -> None:
    case = BY_NAME[name]
    before = (ROOT / "zelect/core/quorum.py").read_bytes()
    verdict = runner.run(case)
    assert verdict.caught
    assert verdict.test.startswith(by)
    assert (ROOT / "zelect/core/quorum.py").read_bytes() == before
    assert f"| {case.rule} | `{name}` | {case.about} | {verdict.suite}: `" in table([verdict])


ONE = [Suite("lease", ("unit/core/test_lease.py",), ())]


def in_lease(old: str, new: str) -> Case:
    return Case("made-up", "R5", "nothing", Mutant("R5", "made-up", "nothing", "core/lease", old, new))


@pytest.mark.long
def test_a_mutant_that_changes_nothing_lives(runner: MutantRunner) -> None:
    verdict = runner.run(in_lease("Send time of the newest", "When the newest was sent"), ONE)
    assert (verdict.suite, verdict.test, verdict.caught) == ("", "", False)


@pytest.mark.long
def test_a_mutant_that_cannot_be_imported_proves_nothing(runner: MutantRunner) -> None:
    with pytest.raises(CannotRun, match="pytest ended with"):
        runner.run(in_lease("NEVER_US = 2**62", "NEVER_US = nobody"), ONE)


@pytest.mark.long
def test_suites_that_fail_without_a_mutant_prove_nothing(tmp_path: Path) -> None:
    tree = copy_tree(ROOT, tmp_path / "tree")
    test = tree / "tests" / "unit" / "core" / "test_lease.py"
    test.write_text(test.read_text() + "\n\ndef test_never() -> None:\n    raise AssertionError\n")
    failing = MutantRunner(tree, seconds=100)
    try:
        with pytest.raises(CannotRun, match="test_never fails without any mutant"):
            failing.control(paths_of(ONE))
    finally:
        failing.close()


def test_the_table_says_who_noticed() -> None:
    verdict = Verdict(BY_NAME["double-vote"], "rules", "tests/rules/test_rules.py::test_r2_x", 3.4)
    assert table([verdict]).splitlines()[-1].endswith("| rules: `rules/test_rules.py::test_r2_x` | 3 |")
