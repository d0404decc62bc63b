"""Which tests are asked about a mutant, in which order, and what they say.

All of them are deterministic: they run on a clock of their own with fixed seeds, or they ask a real
disk, a real process or the bundled server a question whose answer does not depend on how fast
anything is. Tests named after the broken rule come first, then the cheap suites; those that know nothing
of the changed file are left out.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.mutating import first

__all__ = ["SUITES", "Broken", "Ran", "Suite", "paths_of", "run_check", "run_tests", "suite_of", "suites_for"]


class Broken(Exception):
    """Tests could not be run at all: that proves nothing about the mutant."""


@dataclass(frozen=True)
class Suite:
    """Test files that belong together, and the files of `zelect` (or their beginnings) that they
    are asked about. `costly`: takes minutes."""

    name: str
    tests: tuple[str, ...]
    about: tuple[str, ...]
    costly: bool = False


_PURE = ("zelect/core/", "zelect/actors/", "zelect/machine.py")
_SOCKETS = tuple(f"zelect/shell/{name}.py" for name in ("door", "inbox", "transport", "link"))
_HEARING = tuple(f"zelect/shell/{name}.py" for name in ("node", "reload", "answers", "inbox"))

SUITES = (
    Suite("units", ("quorum", "timing", "lease", "electorate", "gate", "office"), _PURE),
    Suite("rules", ("rules", "rules_electorate", "matrix"), _PURE),
    Suite("scenarios", ("scenarios",), _PURE),
    Suite("disk", ("ballot",), ("zelect/shell/ballot.py",)),
    Suite("disk", ("birth",), ("zelect/shell/birth.py",)),
    Suite("disk", ("datadir",), ("zelect/shell/datadir.py",)),
    Suite("clock", ("clock",), ("zelect/shell/clock.py", "zelect/shell/lateness.py")),
    Suite("office", ("office",), ("zelect/shell/office.py",)),
    Suite("probe", ("probe",), ("zelect/shell/probe.py",)),
    Suite("links", ("link",), ("zelect/shell/link.py",)),
    Suite("board", ("store",), ("zelect/shell/scripts.py", "zelect/shell/board.py", "zelect/shell/store.py")),
    Suite("witness", ("witness",), ("zelect/shell/witness",)),
    Suite("rights", ("rights",), ("zelect/shell/rights.py",)),
    Suite("keys", ("keys",), ("zelect/shell/key",)),
    Suite("configuration", ("config",), ("zelect/config.py",)),
    Suite("heard", ("heard",), _HEARING),
    Suite(
        "secure", ("secure_links",), tuple(f"zelect/shell/{name}.py" for name in ("door", "inbox", "transport", "link"))
    ),
    Suite("shape", ("transport_faults",), ("zelect/shell/inbox.py",)),
    Suite("guests", ("guests",), ("zelect/shell/guests.py",)),
    Suite("node", ("node", "drain"), ("zelect/shell/node.py",)),
    Suite("checker", ("modelcheck",), _PURE, costly=True),
    Suite("simulator", ("simulated",), _PURE, costly=True),
)


@dataclass(frozen=True)
class Ran:
    """How tests ended. `failed`: the first that failed, as pytest names it; "" when all passed."""

    failed: str
    seconds: float
    output: str


def suites_for(path: str) -> tuple[Suite, ...]:
    """The suites that are asked when the file at `path` was changed, cheapest first."""
    return tuple(suite for suite in SUITES if path.startswith(suite.about))


def suite_of(test: str) -> str:
    """The name of the suite that a test belongs to."""
    name = Path(test.partition("::")[0]).stem.removeprefix("test_")
    return next(suite.name for suite in SUITES if name in suite.tests)


def paths_of(suites: Sequence[Suite]) -> list[str]:
    """The test files of `suites`, in their order."""
    return list(dict.fromkeys(f"tests/test_{name}.py" for suite in suites for name in suite.tests))


def run_tests(tree: Path, tests: Sequence[str], seconds: float, rule: str = "") -> Ran:
    """Run `tests` (files, or single ones) in `tree`, those that are named after `rule` before all
    others, up to the first failure, which a test that takes too long is as well. Raises `Broken`
    when they could not be run, or took longer than `seconds` together."""
    options = ["-x", "-q", "-rfE", "--tb=line", "-p", "no:cacheprovider", "--hypothesis-seed=0", "--timeout=60"]
    began = time.monotonic()
    code, output = _run(tree, ["-m", "pytest", "-p", first.__name__, *options, *tests], seconds, rule)
    took_s = time.monotonic() - began
    if code == 0:
        return Ran("", took_s, output)
    found = re.search(r"^(?:FAILED|ERROR) (\S+?::[^\s\[]+)", output, re.MULTILINE)
    if code != 1 or found is None:
        raise Broken(f"pytest ended with {code}:\n{output[-2000:]}")
    return Ran(found[1], took_s, output)


def run_check(tree: Path, name: str, seconds: float) -> Ran:
    """Run the exhaustive checker with one of its own mutants, broken at a seam between the machine
    and its world (tools/checking/mutants.py). `failed`: how, when it was noticed."""
    began = time.monotonic()
    code, output = _run(tree, ["tools/modelcheck.py", "--mutant", name], seconds)
    took_s = time.monotonic() - began
    if code not in (0, 1):
        raise Broken(f"the checker ended with {code}:\n{output[-2000:]}")
    return Ran(f"tools/modelcheck.py --mutant {name}" if code == 0 else "", took_s, output)


def _run(tree: Path, arguments: Sequence[str], seconds: float, rule: str = "") -> tuple[int, str]:
    """Exit code and output of Python in `tree`, which is where it imports from."""
    environment = {**os.environ, "PYTHONPATH": str(tree), "PYTHONHASHSEED": "0", first.RULE: rule}
    with subprocess.Popen(
        [sys.executable, *arguments],
        cwd=tree,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        try:
            output, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)  # pytest then ends what its tests have started
            try:
                output, _ = process.communicate(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                output, _ = process.communicate()
            raise Broken(f"not done within {seconds:.0f} s:\n{output[-2000:]}") from None
        except BaseException:
            process.send_signal(signal.SIGINT)
            raise
    return process.returncode, output
