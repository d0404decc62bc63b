"""Options and hooks shared by all tests: long tests are left out unless asked for, and the end of a run says so."""

from __future__ import annotations

import signal
from collections import defaultdict

import hypothesis
import pytest

hypothesis.settings.register_profile("zelect", deadline=None)  # how long an example takes depends on the machine
hypothesis.settings.load_profile("zelect")

LEFT_OUT = "not long"
"""The default of `-m`, in pyproject.toml."""


def pytest_configure(config: pytest.Config) -> None:
    # A shell starts background jobs with Ctrl-C ignored. Every process started here would inherit that,
    # and some tests send it.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # Whoever names a single test wants it, however long it takes.
    if config.option.markexpr == LEFT_OUT and any("::" in argument for argument in config.args):
        config.option.markexpr = ""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--rewrite-scenarios",
        action="store_true",
        help="write tests/scenarios/*.txt again instead of comparing with them",
    )
    parser.addoption(
        "--walks",
        type=int,
        default=1,
        metavar="N",
        help="repeat each case of test_one_after_another.py N times",
    )


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Where the time went, by folder of tests, and how many tests were left out."""
    seconds = defaultdict[str, float](float)
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                _, *folders, _ = report.nodeid.partition("::")[0].split("/")
                seconds[folders[0] if folders else "repository"] += report.duration
    slowest = sorted(seconds.items(), key=lambda item: -item[1])
    spent = ", ".join(f"{name} {took:.0f} s" for name, took in slowest if took >= 0.5)
    if spent:
        terminalreporter.write_line(f"time: {spent}")
    items = terminalreporter.stats.get("deselected", [])
    left_out = sum(item.get_closest_marker("long") is not None for item in items)
    if left_out and config.option.markexpr == LEFT_OUT:
        terminalreporter.write_line(f"{left_out} long tests left out: make long, or pytest -m long")
