"""Broken rules, judged by the specification, and by the exhaustive checker.

Tried are the mutants of zelect/core (tools/mutation/mutants.toml), each on a copy of the tree: what they break is the
protocol. Clusters of the broken tree are simulated, and TLC judges their histories. Nodes do not check their own rules
there (zelect.core.invariants): most would end before they did what is wrong. A mutant whose histories are those of the
tree as it is changes no behaviour in these seeds, and nothing is said of it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tools.modelchecker.scenarios import SCENARIOS
from tools.mutation.mutant import MUTANTS, ROOT, Mutant, copy_tree
from tools.spec_check import acceptance
from tools.spec_check.recorded import FORBIDDEN
from tools.spec_check.tlc import TlcFailed
from tools.spec_check.traces import Line, NoTrace, Trace, trace_of

TRIED = tuple(mutant for mutant in MUTANTS if mutant.file.startswith("core/"))
"""Every mutant of the protocol."""


@dataclass(frozen=True, slots=True)
class Clusters:
    """Which clusters are simulated: their seeds, how many nodes (0: the seed chooses), and how many faults."""

    first: int
    last: int
    nodes: int = 0
    steps: int = 60


@dataclass(slots=True)
class Judged:
    """What became of a mutant. `changed`: so many of its histories differed from those of the tree as it is. `spec`:
    where the first one stops that the specification rejected, "" when none was; `checker`: what the checker found."""

    mutant: Mutant
    histories: int = 0
    changed: int = 0
    spec: str = ""
    checker: str = ""

    @property
    def by(self) -> str:
        """Who rejected it."""
        if self.spec:
            return "both" if self.checker else "specification"
        return "checker" if self.checker else "nobody" if self.changed else "unchanged"


@dataclass(frozen=True, slots=True)
class Simulated:
    """One simulated history."""

    seed: int
    rule: str
    lines: Sequence[Line]

    def shown(self) -> str:
        """All of it but for what differs from process to process."""
        return json.dumps([{**line, "pid": 0} for line in self.lines])


def simulate(tree: Path, clusters: Clusters, seconds: int = 0) -> list[Simulated]:
    """The histories that the code of `tree` makes, by nodes that do not check their own rules. `seconds` of CPU time
    for each, if it is not 0; those that are not done by then are left out."""
    seeds = f"{clusters.first}-{clusters.last}"
    command = ["tools/spec.py", "record", seeds, "--nodes", str(clusters.nodes), "--steps", str(clusters.steps)]
    limit = seconds * (1 + clusters.last - clusters.first)
    output = _run(tree, [*command, "--unchecked", "--cpu-seconds", str(limit)]).stdout
    return [Simulated(*json.loads(text)) for text in output.splitlines(keepends=True) if text.endswith("\n")]


def judge_histories(judged: Sequence[Judged], clusters: Clusters, seconds: int) -> Iterator[int]:
    """Ask the specification about each mutant, at first with few clusters, then with ever more where it has rejected
    nothing yet. `seconds`: of CPU time for each cluster. Yields, after each turn, the last seed of it."""
    first, many = clusters.first, 3
    while first <= clusters.last:
        turn = replace(clusters, first=first, last=min(first + many - 1, clusters.last))
        usual = {one.seed: one.shown() for one in simulate(ROOT, turn)}
        traces = list[tuple[Judged, int, Trace]]()
        for one in judged:
            if not one.spec:
                traces += [(one, *found) for found in _changed(one, turn, usual, seconds)]
        _judge(traces)
        yield turn.last
        first, many = turn.last + 1, 3 * many


def _changed(one: Judged, clusters: Clusters, usual: Mapping[int, str], seconds: int) -> Iterator[tuple[int, Trace]]:
    """The histories of a mutant that are not those of the tree as it is."""
    with tempfile.TemporaryDirectory(prefix="zelect-spec-mutant-") as place:
        found = simulate(copy_tree(ROOT, Path(place) / "tree", one.mutant), clusters, seconds)
    one.histories += len(found)
    for history in found:
        if history.shown() != usual[history.seed]:
            one.changed += 1
            if history.rule != FORBIDDEN:
                try:
                    yield history.seed, trace_of(history.lines)
                except NoTrace as wrong:
                    one.spec = one.spec or f"seed {history.seed}: {wrong}"


def _judge(traces: Sequence[tuple[Judged, int, Trace]]) -> None:
    """Ask TLC about all of them at once, or about half of them where it fails over some."""
    if not traces:
        return
    try:
        verdicts = acceptance.check([trace for _, _, trace in traces], seconds=300)
    except TlcFailed as failed:
        if len(traces) > 1:
            _judge(traces[: len(traces) // 2])
            _judge(traces[len(traces) // 2 :])
        elif "not finished" not in str(failed):
            one, seed, _ = traces[0]
            one.spec = one.spec or f"seed {seed}: {failed}"
        return
    for (one, seed, _), verdict in zip(traces, verdicts, strict=True):
        if not verdict.accepted:
            one.spec = one.spec or f"seed {seed}, step {verdict.step} of {verdict.steps}: {verdict.text}"


def ask_checker(one: Judged, seconds: float) -> None:
    """Search the scenarios of the checker, each for `seconds`, up to the first that shows a violation."""
    with tempfile.TemporaryDirectory(prefix="zelect-spec-mutant-") as place:
        tree = copy_tree(ROOT, Path(place) / "tree", one.mutant)
        for name in SCENARIOS:
            ran = _run(tree, ["tools/modelcheck.py", name, "--seconds", str(seconds)])
            found = [line.strip() for line in ran.stdout.splitlines() if "VIOLATION" in line]
            found += ran.stderr.strip().splitlines()[-1:] if "Traceback" in ran.stderr else []
            if found:
                one.checker = f"{name}: {found[0]}"
                return


def _run(tree: Path, arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run Python in `tree`, which is where it imports from."""
    environment = {**os.environ, "PYTHONPATH": str(tree), "PYTHONHASHSEED": "0"}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False)


def named(names: Sequence[str]) -> list[Mutant]:
    """Those with these names or of these rules; all where none is named. Raises KeyError."""
    if missing := {name for name in names if all(name not in (mutant.name, mutant.rule) for mutant in TRIED)}:
        raise KeyError(", ".join(sorted(missing)))
    return [mutant for mutant in TRIED if not names or mutant.name in names or mutant.rule in names]


def summary(judged: Sequence[Judged]) -> dict[str, Any]:
    """How many were rejected by whom, of those that changed what a cluster did."""
    counts = {
        by: sum(one.by == by for one in judged) for by in ("specification", "checker", "both", "nobody", "unchanged")
    }
    moved = len(judged) - counts["unchanged"]
    return {**counts, "share": (moved - counts["nobody"]) / moved if moved else 1.0}
