"""`disk`: how soon there is a controller where every save of every node takes long (R8)."""

from __future__ import annotations

import argparse
import random
from collections.abc import Mapping, Sequence

from tools.benchmarks.cluster import Cluster, directory
from tools.benchmarks.faults import await_successor, one_fault
from tools.benchmarks.figures import columns, header, known, row
from tools.benchmarks.phases import since_ms
from tools.benchmarks.settling import settle
from tools.common.checkout import THIS, JsonDict, ToolError, progress
from tools.common.slow_saves import missing, saving_slowly
from tools.common.statistics import spread
from zelect.system.clock import now_us

_ROWS = {
    "start_ms": "nodes spawned to active",
    "founding_ms": "all of them started to active",
    "gap_ms": "killed to the next active",
}
_SYNCS = (0, 20, 50, 100, 500)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--sync",
        type=_numbers,
        default=_SYNCS,
        metavar="MS,MS",
        help=f"by how much each save takes longer; default: {','.join(map(str, _SYNCS))}",
    )


def _numbers(text: str) -> tuple[int, ...]:
    """Raises ValueError."""
    return tuple(int(part) for part in text.split(","))


def measure(options: argparse.Namespace) -> JsonDict:
    """For each latency in turn, so that no other load meets one of them alone: three nodes without data found a
    cluster; then its controller is killed."""
    if any(options.sync) and (reason := missing()):
        raise ToolError(reason)
    THIS.check()
    rng = random.Random(options.seed)
    trials: list[JsonDict] = []
    server = ""
    for number in range(options.trials * len(options.sync)):
        progress(number + 1, options.trials * len(options.sync), trials[-1]["gap_ms"] if trials else None)
        trial, server = _trial(options.nodes, options.sync[number % len(options.sync)], rng)
        trials.append(trial)
    of = {ms: [trial for trial in trials if trial["sync_ms"] == ms] for ms in options.sync}
    return {
        **header(options, server),
        "ms": {str(ms): {name: spread(known(some, name)) for name in _ROWS} for ms, some in of.items()},
        "highest_term": {str(ms): max(trial["term"] for trial in some) for ms, some in of.items()},
        "without_successor": sum(trial["gap_ms"] is None for trial in trials),
        "trials": trials,
    }


def _trial(nodes: int, sync_ms: int, rng: random.Random) -> tuple[JsonDict, str]:
    with directory() as path, Cluster(path, nodes, wrapped=saving_slowly(sync_ms)) as cluster:
        began_us = now_us()
        cluster.start()
        _, at_us, _ = await_successor(cluster, 0, False, [])
        old = settle(cluster, whole=True)
        founding_ms = _founding_ms(cluster.facts())
        trial = one_fault(cluster, old, "kill", rng)
        kept = {name: trial.get(name) for name in ("gap_ms", "term", "old", "successor")}
        started = {"start_ms": (at_us - began_us) / 1000, "founding_ms": founding_ms}
        return {"sync_ms": sync_ms, **started, **kept}, cluster.server_version()


def _founding_ms(facts: Sequence[JsonDict]) -> float | None:
    """From the start of the last node to the first that is active, by the logs; None: they don't say."""
    at_ms = [(fact["event"], since_ms(fact, 0.0)) for fact in facts]
    active = [ms for event, ms in at_ms if event == "became_active"]
    started = [ms for event, ms in at_ms if event == "node_started" and active and ms < active[0]]
    return active[0] - started[-1] if started else None


def show(result: JsonDict) -> None:
    table: Mapping[str, Mapping[str, JsonDict]] = result["ms"]
    terms: Mapping[str, int] = result["highest_term"]
    for name, label in _ROWS.items():
        print(columns(f"{label}, ms"))
        print("\n".join(_rows(name, table)) + "\n")
    print("highest term: " + ", ".join(f"{term} at {ms} ms" for ms, term in terms.items()))
    print(f"without successor: {result['without_successor']}")


def _rows(name: str, table: Mapping[str, Mapping[str, JsonDict]]) -> Sequence[str]:
    return [row(f"  each save takes {ms} ms longer", spreads[name]) for ms, spreads in table.items()]
