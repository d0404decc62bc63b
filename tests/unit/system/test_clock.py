"""The clock of the election (R5)."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time

import pytest

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
