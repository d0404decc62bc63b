"""The inequalities between durations: each refusal names the key and the fix."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zelect.core.timing import MAX_TERM, MAX_TERM_HEARD, MAX_TERM_JUMP, Timing


def test_the_defaults_hold() -> None:
    assert Timing().problems() == []


@pytest.mark.parametrize(
    ("changes", "key", "fix"),
    [
        ({"lease_ms": 500}, "lease_ms", "lower lease_ms or raise election_timeout_ms"),
        ({"lease_ms": 475}, "lease_ms", "the most is 474"),
        ({"election_timeout_ms": 400}, "lease_ms", "must end before the voters' promises do"),
        ({"drift_ppm": 100_000}, "lease_ms", "drift_ppm = 100000"),
        ({"heartbeat_ms": 201}, "heartbeat_ms", "at most lease_ms / 2 = 200"),
        ({"stagger_ms": 500}, "stagger_ms", "must be below election_timeout_ms = 500"),
        ({"down_after_ms": 499}, "down_after_ms", "must be at least election_timeout_ms = 500"),
    ],
)
def test_a_broken_inequality_names_its_key_and_the_fix(changes: dict[str, Any], key: str, fix: str) -> None:
    ((found, text),) = replace(Timing(), **changes).problems()
    assert found == key
    assert fix in text
    assert f"is {getattr(replace(Timing(), **changes), key)}" in text


@pytest.mark.parametrize(
    "changes",
    [
        {"lease_ms": 474},
        {"heartbeat_ms": 200},
        {"stagger_ms": 499},
        {"down_after_ms": 500},
        {"heartbeat_ms": 5, "election_timeout_ms": 20, "lease_ms": 18, "stagger_ms": 1, "down_after_ms": 20},
    ],
)
def test_the_ends_of_the_ranges_hold(changes: dict[str, Any]) -> None:
    assert replace(Timing(), **changes).problems() == []


@pytest.mark.parametrize(
    ("key", "least", "most"),
    [
        ("heartbeat_ms", 5, 60_000),
        ("election_timeout_ms", 20, 600_000),
        ("lease_ms", 10, 600_000),
        ("stagger_ms", 1, 60_000),
        ("down_after_ms", 20, 3_600_000),
        ("drift_ppm", 0, 100_000),
    ],
)
def test_a_value_out_of_its_range_names_the_range(key: str, least: int, most: int) -> None:
    changed: Any = replace
    for value in (least - 1, most + 1, -(10**9)):
        text = f"is {value}, but must lie between {least} and {most}"
        assert (key, text) in changed(Timing(), **{key: value}).problems()


def test_the_named_limit_of_the_lease_is_the_exact_limit() -> None:
    for election_timeout_ms in range(40, 3000, 37):
        for drift_ppm in (0, 1000, 20_000, 100_000):
            timing = Timing(5, election_timeout_ms, election_timeout_ms, 1, 3000, drift_ppm)
            ((key, text),) = timing.problems()
            assert key == "lease_ms"
            most = int(text.split("the most is ")[1].split(";")[0])
            assert "lease_ms" not in dict(replace(timing, lease_ms=most).problems())
            assert "lease_ms" in dict(replace(timing, lease_ms=most + 1).problems())


@settings(deadline=None)
@given(st.integers(5, 500), st.integers(20, 3000), st.integers(10, 3000), st.integers(0, 100_000))
def test_with_valid_timings_every_lease_ends_before_the_first_promise(
    heartbeat_ms: int, election_timeout_ms: int, lease_ms: int, drift_ppm: int
) -> None:
    """The controller's clock as slow as may be, a voter's as fast: in true time leadership ends first."""
    timing = Timing(heartbeat_ms, election_timeout_ms, lease_ms, 5, 3000, drift_ppm)
    if timing.problems():
        return
    drift = drift_ppm / 1_000_000
    assert timing.lease_us / (1 - drift) < timing.promise_us / (1 + drift)
    assert timing.lease_us >= 2 * timing.heartbeat_us


def test_terms_stay_where_doubles_are_exact() -> None:
    assert float(MAX_TERM) == MAX_TERM == 2**53 - 1
    assert MAX_TERM_HEARD + MAX_TERM_JUMP == MAX_TERM


def test_durations_are_read_in_microseconds() -> None:
    timing = Timing()
    assert (timing.heartbeat_us, timing.promise_us, timing.lease_us) == (100_000, 500_000, 400_000)
    assert (timing.stagger_us, timing.down_after_us, timing.vote_wait_us) == (20_000, 2_000_000, 100_000)
