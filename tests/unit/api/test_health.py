"""Whether a node is healthy: what its program says, and whether its job is alive."""

from __future__ import annotations

from collections.abc import Iterator
from threading import Event

import pytest

from tests.support.waiting import wait_until
from tests.unit.api.test_leadership import Stand
from zelect.api.health import JobHealth


@pytest.fixture
def release() -> Iterator[Event]:
    made = Event()
    yield made
    made.set()


def test_without_a_check_a_node_is_healthy() -> None:
    health = JobHealth(None, 1.0, 0.0)
    assert health.judge(None)
    assert health.due_us == 0


@pytest.mark.parametrize("kind", ["false", "raises", "hangs"])
def test_a_check_says_no_in_three_ways_and_yes_again(kind: str, release: Event) -> None:
    bad = [True]

    def check() -> bool:
        if bad[0] and kind == "raises":
            raise ZeroDivisionError
        if bad[0] and kind == "hangs":
            release.wait()
        return not bad[0]

    health = JobHealth(check, 0.05, 0.0)
    assert health.judge(None), "not asked yet"
    assert health.due_us > 0
    wait_until(lambda: not health.judge(None))
    bad[0] = False
    release.set()
    wait_until(lambda: health.judge(None))
    health.close()


def test_a_job_that_is_not_seen_alive_is_hung() -> None:
    health, leadership = JobHealth(None, 1.0, 0.05), Stand(60_000).leadership()
    assert health.judge(leadership)
    wait_until(lambda: not health.judge(leadership))
    assert health.judge(None), "no job acts"
    leadership.check()
    assert health.judge(leadership)
