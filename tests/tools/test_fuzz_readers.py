"""A seeded share of the fuzzing of what others wrote, and readers with a fault, each of which must be found."""

from __future__ import annotations

import random

import pytest

from tools.fuzz import main
from tools.fuzzer.honest import honest_answers, honest_texts
from tools.fuzzer.readers import JSON_READERS, fuzz_json, fuzz_redis, fuzz_shown


def test_json_of_others_is_taken_or_refused() -> None:
    done = fuzz_json(random.Random(1), 5000, honest_texts())
    assert done.findings == []
    for name in JSON_READERS:
        assert done.outcomes[f"{name}: taken"], "the honest ones are not all spoilt"


def test_answers_of_redis_are_taken_or_refused() -> None:
    done = fuzz_redis(random.Random(1), 3000, honest_answers())
    assert done.findings == []
    assert all(done.outcomes[kind] for kind in ("taken", "refused", "too long"))


def test_whatever_is_shown_is_one_line() -> None:
    done = fuzz_shown(random.Random(1), 3000)
    assert done.findings == []
    assert all(done.outcomes[kind] for kind in ("as it is", "changed"))


@pytest.mark.parametrize("reader", ["json", "redis", "shown"])
def test_the_tool_says_what_it_did(reader: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reader", reader, "--count", "200", "--seed", "7"]) == 0
    assert "200 inputs" in capsys.readouterr().out
