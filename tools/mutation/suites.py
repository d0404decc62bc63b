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

from tools.mutation import rule_first_plugin


class CannotRun(Exception):
    """Tests could not be run at all: that proves nothing about the mutant."""


@dataclass(frozen=True)
class Suite:
    """Test files that belong together (paths below `tests`), and the files of `zelect` (or their beginnings) that they
    are asked about. `costly`: takes minutes."""

    name: str
    tests: tuple[str, ...]
    about: tuple[str, ...]
    costly: bool = False


_PURE = ("zelect/core/",)
_SOCKETS = (
    "zelect/security/zap_authenticator.py",
    "zelect/node/transport/router.py",
    "zelect/node/transport/transport.py",
    "zelect/node/transport/peer_link.py",
)
_HEARING = (
    "zelect/node/loop.py",
    "zelect/node/reload.py",
    "zelect/node/transport/router.py",
)

SUITES = (
    Suite(
        "units",
        (
            "unit/core/test_quorum.py",
            "unit/core/test_timing.py",
            "unit/core/test_lease.py",
            "unit/core/test_voters.py",
            "unit/core/test_machine.py",
            "unit/core/actors/test_small_cases.py",
            "unit/node/leadership/test_handle.py",
        ),
        _PURE,
    ),
    Suite(
        "rules",
        (
            "rules/test_rules.py",
            "rules/test_rules_voters.py",
            "rules/test_matrix.py",
            "rules/test_rules_founding.py",
            "rules/test_rules_members.py",
        ),
        _PURE,
    ),
    Suite("scenarios", ("scenarios/test_scenarios.py",), _PURE),
    Suite("belonging", ("simulation/test_belonging.py",), _PURE),
    Suite("disk", ("unit/node/storage/test_vote_store.py",), ("zelect/node/storage/vote_store.py",)),
    Suite("disk", ("unit/node/test_startup.py",), ("zelect/node/startup.py",)),
    Suite("disk", ("unit/node/storage/test_data_dir.py",), ("zelect/node/storage/data_dir.py",)),
    Suite("disk", ("unit/node/storage/test_peer_locks.py",), ("zelect/node/storage/peer_locks.py",)),
    Suite("clock", ("unit/system/test_clock.py",), ("zelect/system/clock.py",)),
    Suite("leadership", ("unit/node/leadership/test_handle.py",), ("zelect/node/leadership/handle.py",)),
    Suite("probe", ("unit/node/transport/test_death_probe.py",), ("zelect/node/transport/death_probe.py",)),
    Suite("links", ("unit/node/transport/test_peer_link.py",), ("zelect/node/transport/peer_link.py",)),
    Suite(
        "registry",
        ("unit/redis/test_registry.py",),
        tuple(f"zelect/redis/{part}" for part in ("registry", "publisher", "worker", "connection", "scripts")),
    ),
    Suite("witness", ("unit/redis/test_witness.py",), ("zelect/redis/witness", "zelect/redis/worker")),
    Suite("authorization", ("unit/security/test_authorization.py",), ("zelect/security/authorization.py",)),
    Suite("keys", ("unit/security/test_key_files.py",), ("zelect/security/key",)),
    Suite("configuration", ("unit/config/test_loading.py",), ("zelect/config/",)),
    Suite("heard", ("integration/test_heard.py",), _HEARING),
    Suite("secure", ("integration/test_secure_links.py",), _SOCKETS),
    Suite(
        "shape",
        ("integration/test_transport_faults.py",),
        ("zelect/node/transport/router.py", "zelect/node/transport/connection_limits.py"),
    ),
    Suite("router", ("unit/node/transport/test_router.py",), ("zelect/node/transport/router.py",)),
    Suite(
        "connections",
        ("unit/node/transport/test_peer_connections.py",),
        ("zelect/node/transport/peer_connections.py",),
    ),
    Suite(
        "connections",
        ("unit/node/transport/test_connection_limits.py",),
        ("zelect/node/transport/connection_limits.py", "zelect/node/transport/router.py"),
    ),
    Suite("node", ("integration/test_node.py", "unit/node/test_loop.py"), ("zelect/node/loop.py",)),
    Suite("checker", ("model/test_modelcheck.py",), _PURE, costly=True),
    Suite("simulator", ("simulation/test_simulated.py",), _PURE, costly=True),
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
    path = test.partition("::")[0].removeprefix("tests/")
    return next(suite.name for suite in SUITES if path in suite.tests)


def paths_of(suites: Sequence[Suite]) -> list[str]:
    """The test files of `suites`, in their order."""
    return list(dict.fromkeys(f"tests/{path}" for suite in suites for path in suite.tests))


def run_tests(tree: Path, tests: Sequence[str], seconds: float, rule: str = "") -> Ran:
    """Run `tests` (files, or single ones) in `tree`, those that are named after `rule` before all
    others, up to the first failure, which a test that takes too long is as well. Raises `CannotRun`
    when they could not be run, or took longer than `seconds` together."""
    options = [
        "-x",
        "-q",
        "-rfE",
        "--tb=line",
        "-p",
        "no:cacheprovider",
        "--hypothesis-seed=0",
        "--timeout=60",
        "-m",
        "",
    ]
    began = time.monotonic()
    code, output = _run(tree, ["-m", "pytest", "-p", rule_first_plugin.__name__, *options, *tests], seconds, rule)
    took_s = time.monotonic() - began
    if code == 0:
        return Ran("", took_s, output)
    found = re.search(r"^(?:FAILED|ERROR) (\S+?::[^\s\[]+)", output, re.MULTILINE)
    if code != 1 or found is None:
        raise CannotRun(f"pytest ended with {code}:\n{output[-2000:]}")
    return Ran(found[1], took_s, output)


def run_check(tree: Path, name: str, seconds: float) -> Ran:
    """Run the exhaustive checker with one of its own mutants, broken at a seam between the machine
    and its world (tools/modelchecker/mutants.py). `failed`: how, when it was noticed."""
    began = time.monotonic()
    code, output = _run(tree, ["tools/modelcheck.py", "--mutant", name], seconds)
    took_s = time.monotonic() - began
    if code not in (0, 1):
        raise CannotRun(f"the checker ended with {code}:\n{output[-2000:]}")
    return Ran(f"tools/modelcheck.py --mutant {name}" if code == 0 else "", took_s, output)


def _run(tree: Path, arguments: Sequence[str], seconds: float, rule: str = "") -> tuple[int, str]:
    """Exit code and output of Python in `tree`, which is where it imports from."""
    environment = {**os.environ, "PYTHONPATH": str(tree), "PYTHONHASHSEED": "0", rule_first_plugin.RULE: rule}
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
            raise CannotRun(f"not done within {seconds:.0f} s:\n{output[-2000:]}") from None
        except BaseException:
            process.send_signal(signal.SIGINT)
            raise
    return process.returncode, output
