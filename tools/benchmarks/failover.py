"""`failover`: how soon a successor is active after one fault of the controller."""

from __future__ import annotations

import argparse
import contextlib
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tools.benchmarks.against import SIDES, add_against, show_against, trees
from tools.benchmarks.cluster import Cluster, running
from tools.benchmarks.faults import FAULTS, one_fault
from tools.benchmarks.figures import columns, header, histogram, ratio, row, show_ratio
from tools.benchmarks.floors import Floors, show_floors
from tools.benchmarks.phases import PHASES, phase_spreads
from tools.benchmarks.settling import settle
from tools.common.checkout import TIMING, JsonDict, Tree, progress
from tools.common.statistics import spread


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--fault", choices=tuple(FAULTS), default="kill")
    parser.add_argument("--redis-kill", action="store_true", help="kill Redis just before the controller")
    add_against(parser)


@dataclass
class _Side:
    """One of the two trees that are compared, or the only one."""

    tree: Tree
    cluster: Cluster
    trials: list[JsonDict] = field(default_factory=list)
    version: str = ""


def measure(options: argparse.Namespace) -> JsonDict:
    """Trials of one fault, with the floors between them. Two trees have a cluster each, both
    running all the time, and take turns at going first."""
    rng = random.Random(options.seed)
    with contextlib.ExitStack() as stack:
        sides = [_Side(tree, stack.enter_context(running(options.nodes, tree=tree))) for tree in trees(options)]
        this = sides[0]
        floors = stack.enter_context(Floors(this.cluster))
        for number in range(1, options.trials + 1):
            progress(number, options.trials, this.trials[-1]["gap_ms"] if this.trials else None)
            for side in sides if number % 2 else reversed(sides):
                side.trials.append(_trial(side.cluster, options.fault, options.redis_kill, rng))
                settle(side.cluster)
            floors.take()
        server = this.cluster.server_version()
        for side in sides:
            side.version = side.cluster.zelect_version()
    floor = floors.spreads()
    result = {
        **header(options, server),
        "fault": options.fault,
        "redis_kill": options.redis_kill,
        "secure": options.secure,
        "http": options.http,
        **_figures(options.fault, this.trials),
        "floors_ms": floor,
        "sum_of_parts_ms": _sum_of_parts(options.fault, options.redis_kill, floor),
        "floor_samples_ms": floors.samples,
        "trials": this.trials,
    }
    for side in sides[1:]:
        figures = _figures(options.fault, side.trials)
        result["against"] = {
            "dir": str(side.tree.root),
            "secure": side.tree.secure,
            "version": side.version,
            **figures,
            "trials": side.trials,
        }
        result["ratio_of_medians"] = ratio(gaps(this.trials), gaps(side.trials), options.seed)
    return result


def _trial(cluster: Cluster, fault: str, redis_kill: bool, rng: random.Random) -> JsonDict:
    old = settle(cluster)
    trial = one_fault(cluster, old, fault, rng, redis_kill=redis_kill)
    if fault != "freeze":
        cluster.start(old)
    return trial


def gaps(trials: Sequence[JsonDict]) -> list[float]:
    """The samples of the trials that had a successor."""
    return [trial["gap_ms"] for trial in trials if trial["gap_ms"] is not None]


def _figures(fault: str, trials: Sequence[JsonDict]) -> JsonDict:
    return {
        "gap_ms": spread(gaps(trials)),
        "from_fault_ms": spread([t["from_fault_ms"] for t in trials if "from_fault_ms" in t]),
        "without_successor": len(trials) - len(gaps(trials)),
        "violations": sum(trial["violations"] for trial in trials),
        "bad_exits": sum(trial["exit_code"] != 0 for trial in trials) if fault == "term" else 0,
        "phases_ms": phase_spreads(trials),
    }


def _sum_of_parts(fault: str, redis_kill: bool, floor: Mapping[str, JsonDict]) -> float:
    """The medians of what one election is made of: three round trips (pre-vote, vote, PING), four
    synced writes (vote of candidate and voter, record of winner and follower), the publication; and
    before it what the fault itself costs."""
    parts = {name: spread_["p50"] for name, spread_ in floor.items()}
    election_ms = 3 * parts["zeromq"] + 4 * parts["sync"]
    if fault == "term":  # from one publication, or log line, to the next: those cancel out
        return float(parts["zeromq"] / 2 + election_ms)
    published_ms = 0 if redis_kill else parts["script"]
    # A promise counts from the last heartbeat, which was half an interval ago on average.
    waited_ms = parts["refused"] if fault == "kill" else TIMING.election_timeout_ms - TIMING.heartbeat_ms / 2
    return float(waited_ms + election_ms + published_ms)


def show(result: JsonDict) -> None:
    fault, redis_kill = result["fault"], result["redis_kill"]
    sides = [result, *filter(None, [result.get("against")])]
    if len(sides) > 1:
        show_against(result)
    print(columns(f"{len(result['trials'])} trials, ms"))
    for name, side in zip(SIDES, sides, strict=False):
        _show_side(result, side, f", {name}" if len(sides) > 1 else "")
    if len(sides) > 1:
        show_ratio("ratio of medians, this to other", result["ratio_of_medians"])
    show_floors(result["floors_ms"])
    first = {"kill": "refused", "freeze": "timeout - heartbeat/2", "term": "half a round trip"}[fault]
    last = "" if fault == "term" or redis_kill else " + 1 EVALSHA"
    print(f"  {first} + 3 round trips + 4 fdatasyncs{last} = {result['sum_of_parts_ms']:.2f}\n")
    for name, side in zip(SIDES, sides, strict=False):
        print("\n".join([name] * (len(sides) > 1) + histogram(gaps(side["trials"]))))
        print(f"\nwithout successor: {side['without_successor']}", end="")
        print(f", claims after a thaw: {side['violations']}" if fault == "freeze" else "", end="")
        print(f", exits other than 0: {side['bad_exits']}" if fault == "term" else "")


def _show_side(result: JsonDict, side: JsonDict, suffix: str) -> None:
    fault, redis_kill = result["fault"], result["redis_kill"]
    news = "logged" if redis_kill else "the change"
    if fault == "term" and not redis_kill:
        print(row(f"nobody active{suffix}", side["gap_ms"]))
    print(row(f"{fault} to {news}{suffix}", side["from_fault_ms"]))
    for name, numbers in side["phases_ms"].items() if fault == "kill" else ():
        print(row(f"  {PHASES[name]}", numbers))
