"""Options and helpers shared by all tests."""

from __future__ import annotations

import signal

import pytest


def pytest_configure() -> None:
    """A shell starts what runs in its background with Ctrl-C ignored, which every process started from here
    would inherit: there are tests that send it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Recorded scenarios are compared exactly, or written again; a walk is taken once, or N times in a row."""
    parser.addoption(
        "--rewrite-scenarios", action="store_true", help="record tests/scenarios/*.txt again instead of comparing"
    )
    parser.addoption(
        "--walks",
        type=int,
        default=1,
        metavar="N",
        help="take each form of test_one_after_another.py N times",
    )
