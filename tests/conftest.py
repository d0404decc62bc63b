"""Options and helpers shared by all tests."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Recorded scenarios are compared exactly, or written anew; a walk is taken once, or N times in a row."""
    parser.addoption(
        "--rewrite-scenarios", action="store_true", help="record tests/scenarios/*.txt anew instead of comparing"
    )
    parser.addoption("--walks", type=int, default=1, metavar="N", help="take each form of tests/test_walk.py N times")
