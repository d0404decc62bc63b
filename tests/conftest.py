"""Options, hooks and the one fixture that all tests share: long tests are left out unless asked for, and the end of a
run says so."""

from __future__ import annotations

import os
import signal
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from tests.support.clusters import Fleet, fleet_of

hypothesis.settings.register_profile("zelect", deadline=None)  # how long an example takes depends on the machine
hypothesis.settings.load_profile("zelect")

LEFT_OUT = "not long"
"""The default of `-m`, in pyproject.toml."""
LONG = pytest.StashKey[int]()
"""How many long tests were left out."""


def pytest_configure(config: pytest.Config) -> None:
    # A shell starts background jobs with Ctrl-C ignored. Every process started here would inherit that,
    # and some tests send it.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # Where Python may keep nothing that it compiled, each node would compile the package again: a third of its start.
    cache: pytest.Cache | None = getattr(config, "cache", None)  # none with -p no:cacheprovider
    if sys.dont_write_bytecode and cache is not None:
        sys.pycache_prefix = os.environ["PYTHONPYCACHEPREFIX"] = str(cache.mkdir("bytecode"))
        sys.dont_write_bytecode = False
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
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


def pytest_deselected(items: Sequence[pytest.Item]) -> None:
    long = sum(item.get_closest_marker("long") is not None for item in items)
    if long:
        stash = items[0].config.stash
        stash[LONG] = stash.get(LONG, 0) + long


def pytest_sessionfinish(session: pytest.Session) -> None:
    # With several workers (pytest-xdist) each of them collects all tests, and only they know what was left out.
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["long"] = session.config.stash.get(LONG, 0)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    node.config.stash[LONG] = getattr(node, "workeroutput", {}).get("long", 0)


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
    left_out = config.stash.get(LONG, 0)
    if left_out and config.option.markexpr == LEFT_OUT:
        terminalreporter.write_line(f"{left_out} long tests left out: make long, or pytest -m long")


@pytest.fixture
def fleet(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Fleet]:
    """Makes clusters for one test, and ends them."""
    with fleet_of(request, tmp_path) as made:
        yield made
