"""Break each rule of the election on purpose, one at a time, and see which test notices.

    python tools/mutants.py                         all of them; the table of docs/testing.md
    python tools/mutants.py --only R5 double-vote   those of a rule, or by name
    python tools/mutants.py --jobs 2 --json
    python tools/mutants.py --document              write the table into docs/testing.md

A mutant is a short text of the code that becomes another one (tools/mutation/mutants.toml), on a
copy of the tree, or one of the checker's own, broken between the machine and its world
(tools/modelchecker/mutants.py). The copy is given to the suites that know the changed file until one
fails: tests named after the rule first, then cheapest first. Before that the same suites must pass
on a copy without any mutant.

Exit code 0: each was caught by a deterministic suite; 1: some were noticed by no test; 2: bad usage, a mutant that no
longer applies, or tests that cannot be run.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tools.mutation.mutant import ROOT, NotOnce, mutated
from tools.mutation.suites import SUITES, CannotRun, paths_of, suites_for
from tools.mutation.trial import Case, MutantRunner, Verdict, cases

DOCUMENT = ROOT / "docs" / "testing.md"
BEGIN, END = "<!-- mutants: tools/mutants.py --document -->", "<!-- end of mutants -->"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    options = _options(arguments)
    try:
        chosen = _chosen(options.only)
        for case in chosen:
            if case.mutant is not None:
                mutated(case.mutant)
        began = time.monotonic()
        verdicts = _try(chosen, options.jobs, options.seconds)
    except (NotOnce, CannotRun) as error:
        print(f"mutants: {error}", file=sys.stderr)
        return 2
    took_s = time.monotonic() - began
    alive = [verdict.case.name for verdict in verdicts if not verdict.caught]
    if options.json:
        print(json.dumps([_plain(verdict) for verdict in verdicts], indent=1))
    if options.document and not alive:
        _write(verdicts)
    outcome = f"{len(alive)} NOT NOTICED: {', '.join(alive)}" if alive else "all caught"
    print(f"{len(verdicts)} mutants, {outcome}, {took_s:.0f} s, {options.jobs} at a time", file=sys.stderr)
    return int(bool(alive))


def table(verdicts: Sequence[Verdict]) -> str:
    """The table of docs/testing.md."""
    lines = ["| rule | mutant | what is wrong | caught by | s |", "|---|---|---|---|---|"]
    for verdict in verdicts:
        case, test = verdict.case, verdict.test.removeprefix("tests/")
        row = (case.rule, f"`{case.name}`", case.about, f"{verdict.suite}: `{test}`", f"{verdict.seconds:.0f}")
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


def _chosen(only: Sequence[str]) -> list[Case]:
    known = cases()
    unknown = [word for word in only if not any(word in (case.name, case.rule) for case in known)]
    if unknown:
        raise CannotRun(f"no mutant and no rule is called {', '.join(unknown)}; see tools/mutation/mutants.toml")
    return [case for case in known if not only or case.name in only or case.rule in only]


def _try(chosen: Sequence[Case], jobs: int, seconds: float) -> list[Verdict]:
    """Try `chosen`, printing each verdict as it comes. Raises `NotOnce`, `CannotRun`."""
    runner, verdicts = MutantRunner(seconds=seconds), []
    pool = ThreadPoolExecutor(jobs)
    try:
        asked = {suite for case in chosen if case.mutant for suite in suites_for(case.mutant.path) if not suite.costly}
        print(f"{len(chosen)} mutants; first the suites without any", file=sys.stderr, flush=True)
        runner.control(paths_of([suite for suite in SUITES if suite in asked]))
        for number, verdict in enumerate(pool.map(runner.run, chosen), 1):
            verdicts.append(verdict)
            _show(verdict, f"{number}/{len(chosen)}")
    finally:
        pool.shutdown(cancel_futures=True)
        runner.close()
    return verdicts


def _show(verdict: Verdict, place: str) -> None:
    case = verdict.case
    by = f"{verdict.suite}: {verdict.test.rpartition('::')[2]}" if verdict.caught else "NOT NOTICED"
    line = f"{place:>7} {case.rule:3} {case.name:31} {verdict.seconds:4.0f} s  {by}"
    print(line[: shutil.get_terminal_size().columns], file=sys.stderr, flush=True)


def _plain(verdict: Verdict) -> dict[str, object]:
    case = verdict.case
    return {
        "rule": case.rule,
        "mutant": case.name,
        "about": case.about,
        "suite": verdict.suite,
        "test": verdict.test,
        "seconds": round(verdict.seconds, 1),
    }


def _write(verdicts: Sequence[Verdict]) -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, mark, after = rest.partition(END)
    if not mark:
        raise CannotRun(f"{DOCUMENT} has no marks for the table: {BEGIN} … {END}")
    DOCUMENT.write_text(f"{before}{BEGIN}\n\n{table(verdicts)}\n\n{END}{after}", encoding="utf-8")


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="break each rule on purpose, and see which test notices")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="mutants, or rules such as R5")
    parser.add_argument("--jobs", type=int, default=1, help="how many at a time")
    parser.add_argument("--seconds", type=float, default=1200, help="give up a mutant after so long")
    parser.add_argument("--json", action="store_true", help="all verdicts, as JSON")
    parser.add_argument("--document", action="store_true", help="write the table into docs/testing.md")
    options = parser.parse_args(arguments)
    if options.document and options.only:
        parser.error("--document needs them all: leave out --only")
    return options


if __name__ == "__main__":
    sys.exit(main())
