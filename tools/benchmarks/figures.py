"""Samples made into figures, figures into the rows of a table of 80 columns."""

from __future__ import annotations

import argparse
import math
import os
import platform
import random
from collections.abc import Mapping, Sequence

import zmq

from tools.common.checkout import TIMING, JsonDict
from tools.common.statistics import RANKS, percentile, spread
from zelect import __version__

_RESAMPLES = 2000


def ratio(ours: Sequence[float], theirs: Sequence[float], seed: int) -> JsonDict | None:
    """The ratio of the medians, and between what it lies in 95 of 100 resamples of the same
    samples (bootstrap): where 1 lies between, the run shows no difference. None: nothing to compare."""
    if not ours or not theirs or not spread(theirs)["min"]:
        return None
    rng = random.Random(seed)

    def again(samples: Sequence[float]) -> float:
        return percentile(sorted(rng.choices(samples, k=len(samples))), 50)

    found = sorted(again(ours) / again(theirs) for _ in range(_RESAMPLES))
    low, high = found[_RESAMPLES // 40], found[-_RESAMPLES // 40]
    return {
        "ratio": round(percentile(sorted(ours), 50) / percentile(sorted(theirs), 50), 3),
        "low": round(low, 3),
        "high": round(high, 3),
    }


def histogram(samples: Sequence[float], bins: int = 10) -> list[str]:
    """A line a bin; the bins end at the 90th percentile, what lies above has a line of its own."""
    if not samples:
        return []
    least, most = min(samples), spread(samples)["p90"]
    raw = max((most - least) / bins, 0.1)
    step = next(s for e in range(-3, 9) for m in (1, 2, 5) if (s := m * 10.0**e) >= raw)
    counts: dict[int, int] = {}
    last = math.floor(most / step)
    for sample in samples:
        at = min(math.floor(sample / step), last + 1)
        counts[at] = counts.get(at, 0) + 1
    digits = max(0, -math.floor(math.log10(step)))
    lines = []
    for at in range(math.floor(least / step), max(counts) + 1):
        count = counts.get(at, 0)
        to = f"< {(at + 1) * step:.{digits}f}" if at <= last else "above"
        bar = "#" * math.ceil(48 * count / max(counts.values()))
        lines.append(f"{at * step:>11.{digits}f} {to:<11} {count:>3} {bar}")
    return lines


def known(trials: Sequence[JsonDict], name: str) -> list[float]:
    """The figure `name` of the trials that have one."""
    return [trial[name] for trial in trials if trial.get(name) is not None]


def header(options: argparse.Namespace, server: str) -> JsonDict:
    """What was measured, where, and with which versions; `server`: Redis' own."""
    return {
        "bench": options.bench,
        "nodes": options.nodes,
        "seed": options.seed,
        "timing": {"heartbeat_ms": TIMING.heartbeat_ms, "lease_ms": TIMING.lease_ms}
        | {"election_timeout_ms": TIMING.election_timeout_ms, "stagger_ms": TIMING.stagger_ms},
        "versions": {"zelect": __version__, "python": platform.python_version(), "pyzmq": zmq.__version__}
        | {"libzmq": zmq.zmq_version(), "redis": server, "kernel": platform.release()},
        "cpus": os.cpu_count(),
        "load": _load(),
    }


def _load() -> float:
    return round(os.getloadavg()[0], 2)


def show_seed(options: argparse.Namespace) -> None:
    """The first line, printed before anything is measured: a run that fails can be repeated."""
    where = f"{os.cpu_count()} CPUs, load {_load()}"
    print(f"{options.bench}: {options.nodes} nodes, {where}, seed {options.seed}", flush=True)


def show_header(result: JsonDict) -> None:
    """The lines after the first."""
    versions = ", ".join(f"{name} {result['versions'][name]}" for name in ("zelect", "python", "pyzmq", "libzmq"))
    timing = ", ".join(f"{name} {value}" for name, value in result["timing"].items())
    print(f"{versions}, {result['versions']['redis']}\n{timing}\n")


def columns(title: str) -> str:
    """The first line of a table."""
    return f"{title:<35}" + "".join(f"{name:>9}" for name in RANKS)


def row(label: str, numbers: Mapping[str, float | None]) -> str:
    """A line of a table: one spread."""
    return f"{label:<35}" + "".join(f"{'-' if value is None else f'{value:.2f}':>9}" for value in numbers.values())


def show_ratio(label: str, found: JsonDict | None) -> None:
    """Print a ratio of medians with what resampling makes of it."""
    if found is not None:
        print(f"{label:<35}{found['ratio']:>18.2f}  (95 %: {found['low']:.2f} to {found['high']:.2f})")
