"""One mutant on trial: a copy of the tree with it, the suites, and who noticed."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.modelchecker.mutants import MUTANTS as AT_SEAMS
from tools.mutation.mutant import MUTANTS, ROOT, Mutant, copy_tree
from tools.mutation.suites import CannotRun, Suite, paths_of, run_check, run_tests, suite_of, suites_for


@dataclass(frozen=True)
class Case:
    """A mutant in a list: broken in the text, or (`mutant` is None) at a seam of the checker."""

    name: str
    rule: str
    about: str
    mutant: Mutant | None

    @property
    def order(self) -> tuple[bool, int]:
        """Rules of the election first."""
        return self.rule[0] != "R", int(self.rule[1:])


@dataclass(frozen=True)
class Verdict:
    """`suite` and `test` noticed the mutant, after `seconds`; both empty when nobody did."""

    case: Case
    suite: str
    test: str
    seconds: float

    @property
    def caught(self) -> bool:
        return bool(self.suite)


def cases() -> list[Case]:
    """All mutants, by rule: those of mutants.toml, then those at the seams of the checker."""
    texts = [Case(mutant.name, mutant.rule, mutant.about, mutant) for mutant in MUTANTS]
    seams = [Case(f"{name}-checked", seam.rule, seam.about, None) for name, seam in AT_SEAMS.items()]
    return sorted(texts + seams, key=lambda case: case.order)


class MutantRunner:
    """Tries mutants on copies of `root` in a directory of its own, in any number of threads. What
    notices a mutant must be content without it: the cheap suites are asked first of all, of the
    costly ones the very test that noticed."""

    def __init__(self, root: Path = ROOT, seconds: float = 1200) -> None:
        self._seconds = seconds
        self._directory = tempfile.TemporaryDirectory(prefix="zelect-mutants-")
        self._here = Path(self._directory.name)
        self._unchanged = copy_tree(root, self._here / "unchanged")
        self._lock = threading.Lock()
        self._passed: set[str] = set()

    def close(self) -> None:
        """Remove all copies."""
        self._directory.cleanup()

    def control(self, tests: Sequence[str]) -> None:
        """Run those of `tests` that were not run yet on the tree as it is. Raises `CannotRun` unless
        they pass."""
        with self._lock:
            new = [test for test in tests if test not in self._passed]
            if not new:
                return
            ran = run_tests(self._unchanged, new, 2 * self._seconds)
            if ran.failed:
                raise CannotRun(f"{ran.failed} fails without any mutant:\n{ran.output[-2000:]}")
            self._passed.update(new)

    def run(self, case: Case, suites: Sequence[Suite] | None = None) -> Verdict:
        """Try one. `suites`: other ones than those that know the changed files. Raises `NotOnce`,
        and `CannotRun` when nothing can be said."""
        began = time.monotonic()
        if case.mutant is None:
            name = case.name.removesuffix("-checked")
            ran = run_check(self._unchanged, name, self._seconds)
            return Verdict(case, "checker" if ran.failed else "", ran.failed, time.monotonic() - began)
        asked = suites_for(case.mutant.path) if suites is None else suites
        if not asked:
            raise CannotRun(f"{case.name}: no suite knows {case.mutant.path}")
        with tempfile.TemporaryDirectory(dir=self._here) as place:
            tree = copy_tree(self._unchanged, Path(place) / "tree", case.mutant)
            ran = run_tests(tree, paths_of(asked), self._seconds, case.rule)
        took_s = time.monotonic() - began
        if not ran.failed:
            return Verdict(case, "", "", took_s)
        if ran.failed.partition("::")[0] not in self._passed:
            self.control([ran.failed])
        return Verdict(case, suite_of(ran.failed), ran.failed, took_s)
