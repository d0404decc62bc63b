"""The models of the specification: what they say, and where Java is that TLC finds what it should."""

from __future__ import annotations

import re

import pytest

from tests.support.paths import ROOT
from tools import spec
from tools.spec_check import tlc
from tools.spec_check.models import MODELS, QUICK, Model

SOURCES = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "spec").glob("*.tla")}
README = (ROOT / "spec" / "README.md").read_text(encoding="utf-8")
RULES = set(re.findall(r'On\("(\w+)"\)', "".join(SOURCES.values())))
"""The rules that can be switched off."""

HELD = """Model checking completed. No error has been found.
24175 states generated, 3742 distinct states found, 0 states left on queue.
The depth of the complete state graph search is 20.
"""
VIOLATED = """Error: Invariant S1 is violated.
Error: The behavior up to this point is:
State 1: <Initial predicate>
/\\ term = (n1 :> 0)
/\\ up = {n1}

State 2: <Campaign line 3, col 5 of module Membership>
/\\ term = (n1 :> 1)
/\\ up = {n1}

94 states generated, 61 distinct states found, 7 states left on queue.
"""


def test_what_tlc_says_is_read() -> None:
    found = tlc.judge(HELD)
    assert (found.violated, found.complete, found.states, found.depth) == ("", True, 3742, 20)
    found = tlc.judge(VIOLATED)
    assert (found.violated, found.complete, found.states, found.steps) == ("S1", False, 61, 1)
    found = tlc.judge("Progress(7) at 2026: 94 states generated, 61 distinct states found, 9 states left")
    assert (found.violated, found.complete, found.depth) == ("", False, 7), "stopped before its end"
    with pytest.raises(tlc.TlcFailed, match="Unknown operator"):
        tlc.judge("Error: Unknown operator: `Grnat'.")


def test_a_behaviour_is_shown_as_differences() -> None:
    assert tlc.differences(VIOLATED) == ["1: Initial predicate", "2: Campaign", "      term: (n1 :> 1)"]


def test_only_a_complete_search_shows_that_invariants_hold() -> None:
    assert spec.as_expected(MODELS["base3"], tlc.judge(HELD))
    assert not spec.as_expected(MODELS["base3"], tlc.judge("Progress(7)"))
    assert not spec.as_expected(MODELS["base3"], tlc.judge(VIOLATED))
    assert spec.as_expected(MODELS["m-epoch"], tlc.judge(VIOLATED))
    assert not spec.as_expected(MODELS["m-epoch"], tlc.judge(HELD))


@pytest.mark.parametrize("model", MODELS.values(), ids=lambda model: model.name)
def test_a_model_names_what_the_modules_define(model: Model) -> None:
    defined = set(re.findall(r"^(\w+)(?:\(.*?\))? ==", "".join(SOURCES.values()), re.MULTILINE))
    expected = {model.expect} if model.expect else set()
    assert {model.lists, model.symmetry, *model.invariants} <= defined
    assert set(model.off) <= RULES
    assert expected <= set(model.invariants)
    assert f"Lists <- {model.lists}" in model.configuration()


def test_every_rule_is_switched_off_somewhere() -> None:
    assert {rule for model in MODELS.values() for rule in model.off} == RULES


def test_every_quick_model_is_one() -> None:
    assert set(QUICK) <= MODELS.keys()
    assert len(set(QUICK)) == len(QUICK)


def test_the_readme_has_a_result_of_every_model() -> None:
    found = set(re.findall(r"^([\w+-]+) +(?:holds|violates|no violation|not run)", README, re.MULTILINE))
    assert found == MODELS.keys()


def test_without_tlc_it_says_what_is_missing(capsys: pytest.CaptureFixture[str], tmp_path: object) -> None:
    import os

    before = os.environ.get(tlc.JAR)
    os.environ[tlc.JAR] = f"{tmp_path}/none.jar"
    try:
        assert spec.main(["models", "m-epoch"]) == spec.MISSING
    finally:
        del os.environ[tlc.JAR]
        if before is not None:
            os.environ[tlc.JAR] = before
    said = capsys.readouterr().err
    assert "java" in said or "none.jar" in said


def test_an_unknown_model_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert spec.main(["models", "base4"]) == 2
    assert "no such model: base4" in capsys.readouterr().err


@pytest.mark.usefixtures("java")
def test_tlc_finds_what_breaks_without_a_rule(capsys: pytest.CaptureFixture[str]) -> None:
    assert spec.main(["models", "m-epoch"]) == 0
    assert re.match(r"m-epoch +violates S1 in 7 steps", capsys.readouterr().out)
