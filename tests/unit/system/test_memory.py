"""Whether the process has grown, and what it forgets."""

from __future__ import annotations

from zelect.system.memory import MemoryWatch

STEP_BYTES = 8 << 20


def test_growth_is_said_once_and_what_was_given_back_may_come_again() -> None:
    watch = MemoryWatch(STEP_BYTES)
    assert not watch.has_grown()
    much = b"x" * (4 * STEP_BYTES)
    assert watch.has_grown()
    assert not watch.has_grown()
    del much  # given back at once, as it is large
    assert not watch.has_grown()
    again = b"x" * (4 * STEP_BYTES)
    assert watch.has_grown()
    del again
    watch.close()
    watch.close()
    assert not watch.has_grown()
