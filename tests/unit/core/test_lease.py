"""How long the answers of voters keep a controller active, against a dumb twin."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zelect.core.lease import renewed_us


@pytest.mark.parametrize(
    ("voters", "answered", "renewed"),
    [
        ((1,), {1: 50}, 50),
        ((1,), {}, None),
        ((1, 2), {1: 50}, None),
        ((1, 2), {1: 50, 2: 40}, 40),
        ((1, 2, 3), {1: 50}, None),
        ((1, 2, 3), {1: 50, 2: 40}, 40),
        ((1, 2, 3), {1: 50, 2: 40, 3: 10}, 40),
        ((1, 2, 3), {1: 50, 3: 45, 2: 40}, 45),
        ((0, 1, 2), {1: 50, 0: 30}, 30),
        ((0, 1, 2, 3), {1: 50, 2: 40}, None),
        ((0, 1, 2, 3), {1: 50, 2: 40, 3: 5}, 5),
        ((1, 2, 3, 4, 5), {1: 50, 2: 40, 3: 30, 4: 20, 5: 10}, 30),
        ((1, 2, 3), {1: 50, 4: 49, 5: 48}, None),
        ((1, 2), {1: 50, 0: 49}, None),
    ],
)
def test_the_newest_ping_that_a_quorum_answered(
    voters: tuple[int, ...], answered: dict[int, int], renewed: int | None
) -> None:
    assert renewed_us(voters, answered) == renewed


@settings(deadline=None)
@given(st.sets(st.integers(0, 7), min_size=1), st.dictionaries(st.integers(0, 9), st.integers(0, 1000)))
def test_it_is_the_latest_time_since_which_more_than_half_answered(voters: set[int], answered: dict[int, int]) -> None:
    def quorum_since(at_us: int) -> bool:
        return 2 * sum(1 for v, sent_us in answered.items() if v in voters and sent_us >= at_us) > len(voters)

    times = [at_us for at_us in answered.values() if quorum_since(at_us)]
    assert renewed_us(voters, answered) == (max(times) if times else None)


@settings(deadline=None)
@given(
    st.sets(st.integers(0, 7), min_size=1),
    st.dictionaries(st.integers(0, 7), st.integers(0, 1000)),
    st.integers(0, 7),
    st.integers(0, 1000),
)
def test_another_answer_never_shortens_a_lease(
    voters: set[int], answered: dict[int, int], voter: int, sent_us: int
) -> None:
    before = renewed_us(voters, answered)
    after = renewed_us(voters, {**answered, voter: max(answered.get(voter, 0), sent_us)})
    assert before is None or (after is not None and after >= before)
