"""The clock of the election (R5), and turns of the loop that come late by it (R14)."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time

import pytest

from zelect.node.loop_delay import BREATH_US, LoopDelay
from zelect.system.clock import now_us

SUSPENDED_S = 86_400

SHOW = """
import time
from zelect.system.clock import now_us
print(now_us() - time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000)
"""


def test_it_goes_on_in_microseconds() -> None:
    before_us = now_us()
    end_ns = time.monotonic_ns() + 2_000_000
    while time.monotonic_ns() < end_ns:
        pass
    assert 2_000 <= now_us() - before_us < 60_000_000


def test_r5_it_counts_the_time_that_the_machine_was_suspended() -> None:
    """In a time namespace whose machine was suspended for a day."""
    if sys.platform != "linux" or shutil.which("unshare") is None:
        pytest.skip("needs Linux with unshare to make a time namespace")
    enter = ["unshare", "--time", "--map-root-user", "--fork", "--boottime", str(SUSPENDED_S)]
    if subprocess.run([*enter, "true"], capture_output=True).returncode != 0:
        pytest.skip("not permitted to make a time namespace")
    shown = subprocess.run([*enter, sys.executable, "-c", SHOW], capture_output=True, text=True, timeout=60, check=True)
    assert int(shown.stdout) >= (SUSPENDED_S - 1) * 1_000_000


@pytest.mark.parametrize(("after_us", "late"), [(0, False), (50_000, False), (50_001, True), (9_000_000, True)])
def test_r14_a_turn_is_late_by_more_than_a_bound(after_us: int, late: bool) -> None:
    assert LoopDelay(50_000).judge(1_000, 1_000 + after_us) is late


def test_r14_the_turn_after_a_late_one_has_a_moment_and_is_judged_by_that() -> None:
    loop_delay = LoopDelay(50_000)
    assert loop_delay.due_us(1_000, 900_000) == 1_000
    assert loop_delay.judge(1_000, 900_000)
    due_us = loop_delay.due_us(1_000, 901_000)
    assert due_us == 901_000 + BREATH_US
    assert not loop_delay.judge(due_us, due_us + 100)
    assert loop_delay.due_us(1_000, 910_000) == 1_000, "only the turn after a late one"
