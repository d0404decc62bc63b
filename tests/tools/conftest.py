"""What tests of the tools share."""

from __future__ import annotations

import pytest

from tools.spec_check import tlc


@pytest.fixture
def java() -> None:
    """Skips the test where TLC cannot run."""
    try:
        tlc.find_java()
        tlc.find_jar()
    except tlc.NoTlc as missing:
        pytest.skip(str(missing))
