"""Broken rules, judged by the specification, and by the exhaustive checker.

Tried are the mutants of zelect/core (tools/mutation/mutants.toml): what they break is the protocol. Clusters whose
nodes run the broken code are simulated, and TLC judges their histories. The nodes do not check their own rules
(zelect.core.invariants): most would end before they did what is wrong. A mutant whose histories are those of the code
as it is changes no behaviour in these seeds, and nothing is said of it.
"""

from __future__ import annotations

import ast
import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path
from types import FunctionType
from typing import Any

from tools.mutation.mutant import MUTANTS, ROOT, Mutant, copy_tree, mutated
from tools.sim import scene_of
from tools.spec_check import acceptance
from tools.spec_check.recorded import FORBIDDEN, history_of, switch_off_invariants
from tools.spec_check.tlc import TlcFailed
from tools.spec_check.traces import Line, NoTrace, Trace, trace_of

TRIED = tuple(mutant for mutant in MUTANTS if mutant.file.startswith("core/"))
"""Every mutant of the protocol."""

_ANY_TIME = "the specification leaves open who campaigns when"
_ANY_TERM = "terms may rise at any time, and by any step"
_ANY_VOTER = "any voter may be added or removed, one at a time"
_LATE = "a message or a record may reach a node late, or never"

ALLOWED: Mapping[str, str] = {
    "answers-of-another-round": "a vote is a vote of its term, whichever question it answers",
    "bound-voter-raises-its-term": _ANY_TERM,
    "term-jump-believed": _ANY_TERM,
    "last-term-believed": _ANY_TERM,
    "campaign-beyond-the-last-term": _ANY_TERM,
    "redis-term-believed": _ANY_TERM,
    "redis-term-told": _ANY_TERM,
    "witness-term-believed": _ANY_TERM,
    "witness-acknowledgement-believed": _ANY_TERM,
    "kept-record-believed": _ANY_TERM,
    "lapsed-controller-heartbeats": "who won may send PINGs, with or without a lease",
    "lapsed-controller-greets": "who won may send PINGs, with or without a lease",
    "majority-lost-in-leadership": "a lease may run to its end",
    "old-ping-unanswered": _LATE,
    "controller-ignores-newer-terms": _LATE,
    "newer-record-kept-back": _LATE,
    "missed-record-refused": _LATE,
    "introduced-once-only": _LATE,
    "handed-out-record-ignored": _LATE,
    "kept-record-not-taken": _LATE,
    "probed-once-only": "a death may go unnoticed",
    "news-before-the-close": "a death may go unnoticed",
    "all-at-once": _ANY_TIME,
    "priority-left-out": _ANY_TIME,
    "highest-id-first": _ANY_TIME,
    "dead-waited-for": _ANY_TIME,
    "luck-before-order": _ANY_TIME,
    "preempting-returner": _ANY_TIME,
    "round-of-fixed-length": _ANY_TIME,
    "turns-as-if-disks-were-fast": _ANY_TIME,
    "pre-vote-winner-not-waited-for": _ANY_TIME,
    "late-turn-campaigns": _ANY_TIME,
    "promised-by-the-witness-for-the-dead": _ANY_TIME,
    "even-without-witness": _ANY_VOTER,
    "member-goes-first": _ANY_VOTER,
    "below-the-floor": _ANY_VOTER,
    "static-shrinks": _ANY_VOTER,
    "unresponsive-member-stays": _ANY_VOTER,
    "flapping-member-joins": _ANY_VOTER,
    "leave-shrinks-at-once": _ANY_VOTER,
    "removal-without-a-quorum-left": _ANY_VOTER,
    "witness-asked-first": "the witness may be asked at any time",
    "witness-asked-always": "the witness may be asked at any time",
    "never-asserted-again": "the entry for readers in Redis is no part of it",
}
"""Mutants that break availability (L1, R8, R11) or cost time, but none of S1 to S3: why the specification allows them.
Rules, simulations and integration tests reject these."""


@dataclass(frozen=True, slots=True)
class Clusters:
    """Which clusters are simulated: their seeds, how many nodes (0: the seed chooses), and how many faults."""

    first: int
    last: int
    nodes: int = 0
    steps: int = 60


@dataclass(slots=True)
class Judged:
    """What became of a mutant. `changed`: so many of its histories differed from those of the code as it is. `spec`:
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
        changed = self.changed or not self.histories  # none: its nodes went round in circles, and no time passed
        return "checker" if self.checker else "nobody" if changed else "unchanged"


@dataclass(frozen=True, slots=True)
class Simulated:
    """What the specification is to know of one simulated history. `shown`: a checksum over all of it. `trace`: None
    where nothing is promised, or where it is no history at all, for the reason `wrong`."""

    seed: int
    shown: int
    trace: Trace | None
    wrong: str = ""


def break_core(mutant: Mutant) -> None:
    """From now on, in this process, the functions of the module that `mutant` changes have the code of the mutant.
    Raises `NotOnce`."""
    module = import_module("zelect." + mutant.file.replace("/", "."))
    broken: dict[str, Any] = {"__name__": module.__name__}
    exec(compile(mutated(mutant), mutant.path, "exec"), broken)
    _take_code(vars(module), broken)
    if not _in_a_function(mutant):
        vars(module).update({name: broken[name] for name in broken if name.isupper()})


def _take_code(old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    for name, value in old.items():
        value, other = _function(value), _function(new.get(name))
        if isinstance(value, FunctionType) and isinstance(other, FunctionType):
            if value.__code__.co_filename.endswith(other.__code__.co_filename):
                value.__code__ = other.__code__
        elif isinstance(value, type) and isinstance(other, type) and value is not other:
            _take_code(vars(value), vars(other))


def _function(value: Any) -> Any:
    """The function behind a property, a method of a class, or a cache."""
    for name in ("fget", "__func__", "__wrapped__"):
        value = getattr(value, name, value)
    return value


def _in_a_function(mutant: Mutant) -> bool:
    text = (ROOT / mutant.path).read_text(encoding="utf-8")
    line = text[: text.index(mutant.old.lstrip())].count("\n") + 1
    functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)]
    return any(node.lineno <= line <= (node.end_lineno or 0) for node in functions)


def simulate(mutant: Mutant | None, clusters: Clusters, seconds: int = 0) -> list[Simulated]:
    """The histories of clusters whose nodes run the code as it is, or `mutant`, made by another process. `seconds` of
    CPU time for each, if it is not 0; when they are used up, the rest is left out. Raises `NotOnce`."""
    here, there = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(target=_simulate, args=(there, mutant, clusters, seconds))
    process.start()
    there.close()
    found = list[Simulated]()
    try:
        while True:
            found.append(here.recv())
    except EOFError:
        return found
    finally:
        process.kill()
        process.join()


def _simulate(told: Connection, mutant: Mutant | None, clusters: Clusters, seconds: int) -> None:
    if seconds:
        limit = seconds * (1 + clusters.last - clusters.first)
        resource.setrlimit(resource.RLIMIT_CPU, (limit, limit))
    switch_off_invariants()
    if mutant is not None:
        break_core(mutant)
    for seed in range(clusters.first, clusters.last + 1):
        told.send(_simulated(seed, *history_of(scene_of(seed, clusters.nodes, clusters.steps))))


def _simulated(seed: int, lines: Sequence[Line], rule: str) -> Simulated:
    shown = zlib.crc32(repr([{**line, "pid": 0} for line in lines]).encode())
    try:
        return Simulated(seed, shown, None if rule == FORBIDDEN else trace_of(lines))
    except NoTrace as wrong:
        return Simulated(seed, shown, None, str(wrong))


def judge_histories(judged: Sequence[Judged], clusters: Clusters, seconds: int) -> Iterator[int]:
    """Ask the specification about each mutant, at first with few clusters, then with ever more where it has rejected
    nothing yet. `seconds`: of CPU time for each cluster. Yields, after each turn, the last seed of it."""
    first, many = clusters.first, 3
    while first <= clusters.last:
        turn = replace(clusters, first=first, last=min(first + many - 1, clusters.last))
        usual = {one.seed: one.shown for one in simulate(None, turn)}
        traces = list[tuple[Judged, int, Trace]]()
        for one in judged:
            if not one.spec:
                traces += [(one, *found) for found in _changed(one, turn, usual, seconds)]
        _judge(traces)
        yield turn.last
        first, many = turn.last + 1, 3 * many


def _changed(one: Judged, clusters: Clusters, usual: Mapping[int, int], seconds: int) -> Iterator[tuple[int, Trace]]:
    """The histories of a mutant that are not those of the code as it is."""
    found = simulate(one.mutant, clusters, seconds)
    one.histories += len(found)
    for history in found:
        if history.shown != usual[history.seed]:
            one.changed += 1
            if history.trace is not None:
                yield history.seed, history.trace
            elif history.wrong:
                one.spec = one.spec or f"seed {history.seed}: {history.wrong}"


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


_SEARCHES: Mapping[str, Sequence[str]] = {
    "R1": ("votes3", "lost3", "slow3", "static3 --restarts 1"),
    "R2": ("votes3", "votes5", "static3"),
    "R3": ("static3 --crashes 0", "guarded3", "votes3", "static3 --late --restarts 1"),
    "R4": ("static3 --restarts 1 --witness-losses 0", "votes3", "lone"),
    "R5": ("static3 --crashes 0", "static3 --crashes 0 --late", "lone", "floor"),
    "R6": ("guarded3", "static3", "static3 --crashes 0 --leaves 1 --late", "floor --leaves 1"),
    "R7": ("lone", "floor", "static3", "cold"),
    "R8": ("static3", "votes3", "slow3"),
    "R9": (
        "static3 --crashes 0 --fronts 2",
        "static3 --restarts 1 --fronts 1",
        "floor --fronts 1",
        "shrink --fronts 1",
    ),
    "R10": ("grow --terms 2 --versions 3", "shrink --terms 2", "remove3 --changes 2", "add3 --changes 2", "floor"),
    "R11": ("shrink --terms 2", "floor --leaves 1", "static3 --leaves 1", "grow"),
    "R12": ("floor --witness-losses 1", "lone --crashes 1 --creations 2", "shrink", "leadership --late", "cold"),
    "R13": ("static3",),
    "R14": ("static3", "lone", "found3"),
    "R15": ("join3", "found3", "found3 --anybody", "add3"),
    "R16": ("lost3", "copied3", "lost3 --anybody", "add3 --losses 1 --restarts 1 --crashes 1"),
}
"""By rule: where the checker may meet what breaks it; each a scenario, and which of its bounds are others."""


def ask_checker(one: Judged, seconds: float) -> None:
    """Search the scenarios in which the rule matters, each for `seconds`, until one finds something."""
    with tempfile.TemporaryDirectory(prefix="zelect-spec-mutant-") as place:
        tree = copy_tree(ROOT, Path(place) / "tree", one.mutant)
        for search in _SEARCHES[one.mutant.rule]:
            if found := _search(tree, search.split(), seconds):
                one.checker = f"{search}: {found}"
                return


def _search(tree: Path, search: Sequence[str], seconds: float) -> str:
    """What the checker finds first in the code of `tree`, "" when it finds nothing."""
    command = [sys.executable, "tools/modelcheck.py", *search, "--seconds", str(seconds)]
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    with subprocess.Popen(command, cwd=tree, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as ran:
        assert ran.stdout is not None
        lines = (line.decode().strip() for line in ran.stdout)
        found = next((line for line in lines if "VIOLATION" in line), "")
        ran.kill()
    return found


def named(names: Sequence[str]) -> list[Mutant]:
    """Those with these names or of these rules; all where none is named. Raises KeyError."""
    if missing := {name for name in names if all(name not in (mutant.name, mutant.rule) for mutant in TRIED)}:
        raise KeyError(", ".join(sorted(missing)))
    return [mutant for mutant in TRIED if not names or mutant.name in names or mutant.rule in names]


def summary(judged: Sequence[Judged]) -> dict[str, Any]:
    """How many were rejected by whom; which share of those that changed what a cluster did, and which share without
    those that the specification allows."""
    counts = {
        by: sum(one.by == by for one in judged) for by in ("specification", "checker", "both", "nobody", "unchanged")
    }
    moved = [one for one in judged if one.by != "unchanged"]
    forbidden = [one for one in moved if one.by != "nobody" or one.mutant.name not in ALLOWED]
    return {**counts, "share": _rejected(moved), "of_forbidden": _rejected(forbidden)}


def _rejected(judged: Sequence[Judged]) -> float:
    return sum(one.by != "nobody" for one in judged) / len(judged) if judged else 1.0
