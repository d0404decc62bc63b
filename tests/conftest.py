"""Options and helpers shared by all tests."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Recorded scenarios are compared exactly, or written anew."""
    parser.addoption(
        "--rewrite-scenarios", action="store_true", help="record tests/scenarios/*.txt anew instead of comparing"
    )
