"""Check the election exhaustively: `python tools/modelcheck.py`, or with a scenario and wider bounds.

    python tools/modelcheck.py                          all scenarios but the long ones, within their own bounds
    python tools/modelcheck.py leadership --witness-losses 0      one scenario, with other bounds
    python tools/modelcheck.py lone --plain             world by world, where each counts alone
    python tools/modelcheck.py --mutant all             what breaks when a rule is broken, in how many steps

Exit code 0: every property held and was seen; 1: a violation, or something that must happen never did,
or (with --mutant) a mutant that nobody noticed. What is covered and what is not: docs/modelcheck.md.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import fields, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tools.modelchecker.counterexamples import history_of, true_history
from tools.modelchecker.model import Bounds, Seams
from tools.modelchecker.mutants import MUTANTS, Mutant
from tools.modelchecker.scenarios import LONG, SCENARIOS
from tools.modelchecker.search import Found, search
from tools.modelchecker.stages import Stages

_MOST_PLAIN = 400_000
"""Worlds searched for the way to a violation that was found on a stage."""

_HELP = {
    "terms": "highest term",
    "versions": "changes of the voter record after the start",
    "crashes": "processes that may die",
    "restarts": "processes that may start again",
    "witness-losses": "how often the witness loses its data or becomes another",
    "losses": "restarts without the data on disk",
    "leaves": "graceful leaves",
    "fronts": "times that something refuses for a process that lives, and whose own connection stands",
    "changes": "changes of the members that an operator asks for",
    "slow": "saves that take a while",
    "copies": "restarts with the disk as it was at the beginning",
    "skew": "units that clocks may fall behind, all together; R5's margin is 1",
    "creations": "witness memories that one node may create",
}


def check(
    name: str,
    changes: dict[str, object] | None = None,
    mutant: Mutant | None = None,
    *,
    plain: bool = False,
    most: int = 10**9,
    depth: int = 10**6,
    seconds: float = 1e9,
    progress: bool = False,
) -> Found:
    """Search the scenario `name` with some of its bounds changed: through stages, or with `plain`
    through single worlds. Of what a stage showed only that counts as seen of which a true history
    was found."""
    scenario = SCENARIOS[name]
    bounds = replace(scenario.bounds, **(changes or {}))  # type: ignore[arg-type]
    universe, start = scenario.begin(bounds, mutant.seams() if mutant is not None else Seams())
    with mutant.broken() if mutant is not None else nullcontext():
        if plain:
            return search(universe, start, most=most, depth=depth, seconds=seconds, progress=progress)
        alike = scenario.alike if mutant is None and bounds.nameless else scenario.nodes
        stages = Stages(universe, alike)
        found = stages.search(start, most=most, depth=depth, seconds=seconds, progress=progress)
        if found.violation:
            found.trace = history_of(stages, start, found.violation) or []
            if not found.trace:  # no short cut to one: the long way
                found.trace = search(universe, start, most=_MOST_PLAIN, depth=depth, seconds=seconds).trace
        found.seen = {name for name in found.seen & scenario.must if true_history(stages, start, name)}
        return found


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    options = _parser().parse_args(arguments)
    limits = {"most": options.worlds, "depth": options.depth, "seconds": options.seconds}
    if options.mutant:
        names = list(MUTANTS) if options.mutant == "all" else [options.mutant]
        return max(_kill(name, options.trace, limits) for name in names)
    named = {option.replace("-", "_") for option in _HELP}
    changes = {name: getattr(options, name) for name in named if getattr(options, name) is not None}
    changes |= {key: True for key in ("inside", "late", "hello", "unresponsive", "recreate") if getattr(options, key)}
    if options.anybody:
        changes |= {"candidates": (), "victims": ()}
    names = [name for name in SCENARIOS if name not in LONG] if options.scenario == "all" else [options.scenario]
    return max(_examine(name, changes, options.plain, limits) for name in names)


def _examine(name: str, changes: dict[str, object], plain: bool, limits: dict[str, float]) -> int:
    scenario = SCENARIOS[name]
    print(f"{name}: {scenario.about}", flush=True)
    found = check(name, changes, plain=plain, progress=True, **limits)  # type: ignore[arg-type]
    extent = "all of them" if found.complete else "not all of them"
    print(f"  {found.worlds:,} {'worlds' if plain else 'stages'}, {extent}, depth {found.depth}, {found.seconds:.1f} s")
    print(f"  seen: {', '.join(sorted(found.seen)) or 'nothing'}")
    if found.violation:
        print(f"  VIOLATION {found.violation}")
        _show(found)
        if not found.trace:
            print("  on a stage; no true history of it was found: --plain looks for one world by world")
        return 1
    missing = scenario.must - found.seen
    if missing:
        print(f"  NEVER SEEN {', '.join(sorted(missing))}")
    return int(bool(missing))


def _kill(name: str, trace: bool, limits: dict[str, float]) -> int:
    mutant = MUTANTS[name]
    found = check(mutant.scenario, mutant.bounds, mutant, **limits)  # type: ignore[arg-type]
    outcome = f"{len(found.trace) or '?'} steps  {found.violation}" if found.violation else "NOT NOTICED"
    print(f"{mutant.rule:4} {name:20} {found.worlds:7,} stages {found.seconds:5.1f} s  {outcome}", flush=True)
    if trace:
        _show(found)
    return int(not found.violation)


def _show(found: Found) -> None:
    for number, line in enumerate(found.trace, 1):
        print(f"  {number:3}  {line}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="exhaustive check of the election, over the machine that ships")
    parser.add_argument("scenario", nargs="?", default="all", choices=["all", *SCENARIOS])
    parser.add_argument("--mutant", choices=["all", *MUTANTS], help="break a rule on purpose")
    parser.add_argument("--trace", action="store_true", help="with --mutant: print the way to the violation")
    parser.add_argument("--plain", action="store_true", help="look at each world alone, not at shared stages")
    parser.add_argument("--worlds", type=int, default=10**9, help="stop after so many worlds, or stages")
    parser.add_argument("--depth", type=int, default=10**6, help="stop after so many steps")
    parser.add_argument("--seconds", type=float, default=1e9, help="stop each search after so long")
    known = {item.name for item in fields(Bounds)}
    for option, text in _HELP.items():
        assert option.replace("-", "_") in known
        parser.add_argument(f"--{option}", type=int, help=text)
    parser.add_argument(
        "--anybody", action="store_true", help="every node may campaign and die, not only those of the scenario"
    )
    parser.add_argument("--inside", action="store_true", help="processes also die between two effects of one step")
    parser.add_argument("--late", action="store_true", help="messages also arrive in the instant before a due timer")
    parser.add_argument("--hello", action="store_true", help="NODE_ONLINE and its answer, too")
    parser.add_argument("--unresponsive", action="store_true", help="any peer may be unresponsive at any time")
    parser.add_argument(
        "--recreate", action="store_true", help="a request to create the witness may be carried out repeatedly, too"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
