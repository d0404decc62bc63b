"""`lone`: the last but one dies. How soon the survivor is published, elected with the witness."""

from __future__ import annotations

import argparse
import random
from collections.abc import Mapping

from tools.benchmarks.cluster import Cluster, running
from tools.benchmarks.failover import gaps
from tools.benchmarks.faults import one_fault
from tools.benchmarks.figures import columns, header, histogram, row
from tools.benchmarks.floors import Floors, show_floors
from tools.benchmarks.phases import PHASES, phase_spreads
from tools.benchmarks.settling import settle
from tools.common.checkout import JsonDict, progress
from tools.common.statistics import spread

ASKED_MS = 15.0
"""Of the median."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """None of its own."""


def measure(options: argparse.Namespace) -> JsonDict:
    """Trials with the floors between them, which are taken when all nodes live again."""
    rng = random.Random(options.seed)
    trials: list[JsonDict] = []
    with running(options.nodes) as cluster, Floors(cluster) as floors:
        for number in range(1, options.trials + 1):
            progress(number, options.trials, trials[-1]["gap_ms"] if trials else None)
            trials.append(_trial(cluster, rng))
            settle(cluster, whole=True)
            floors.take()
        server = cluster.server_version()
    floor = floors.spreads()
    median = spread(gaps(trials))["p50"]
    return {
        **header(options, server),
        "gap_ms": spread(gaps(trials)),
        "without_successor": len(trials) - len(gaps(trials)),
        "asked_median_ms": ASKED_MS,
        "as_asked": median is not None and median <= ASKED_MS,
        "phases_ms": phase_spreads(trials),
        "floors_ms": floor,
        "sum_of_parts_ms": _sum_of_parts(floor),
        "floor_samples_ms": floors.samples,
        "trials": trials,
    }


def _trial(cluster: Cluster, rng: random.Random) -> JsonDict:
    """Begun when the cluster is whole: nodes die one after the other, each when the voters have
    followed, until two and the witness are left; then the controller of the two."""
    living, first = set(cluster.ids), []
    head = settle(cluster, whole=True)
    while len(living) > 2:
        victim = rng.choice(sorted(living))  # the controller, too
        cluster.kill(victim)
        living.remove(victim)
        first.append(victim)
        head = settle(cluster, living, whole=True)
    trial = one_fault(cluster, head, "kill", rng)
    report = cluster.reports(living - {head}).get(trial.get("successor", 0), {})
    cluster.start(*first, head)
    return {"died_before": first, "voters": report.get("voters"), **trial}


def _sum_of_parts(floor: Mapping[str, JsonDict]) -> float:
    """The medians of what the election is made of: proof, then the witness's scripts for pre-vote,
    vote and PING, two synced writes (vote and record of the one node), and the publication."""
    parts = {name: numbers["p50"] for name, numbers in floor.items()}
    return float(parts["refused"] + 4 * parts["script"] + 2 * parts["sync"])


def show(result: JsonDict) -> None:
    print(columns(f"{len(result['trials'])} trials, ms"))
    print(row("kill to the change", result["gap_ms"]))
    for name, numbers in result["phases_ms"].items():
        print(row(f"  {PHASES[name].replace(', saved twice', ', saved')}", numbers))
    show_floors(result["floors_ms"])
    print(f"  refused + 4 EVALSHA + 2 fdatasyncs = {result['sum_of_parts_ms']:.2f}\n")
    print("\n".join(histogram(gaps(result["trials"]))))
    print(f"\nwithout successor: {result['without_successor']}")
    verdict = "yes" if result["as_asked"] else "NO"
    print(f"median within {result['asked_median_ms']:g} ms: {verdict}")
