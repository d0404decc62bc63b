"""`flood`: an election among unknown clients that knock and talk as fast as they can."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tools.benchmarks.cluster import Cluster, running
from tools.benchmarks.failover import gaps
from tools.benchmarks.faults import one_fault
from tools.benchmarks.figures import columns, header, histogram, ratio, row, show_ratio
from tools.benchmarks.settling import settle
from tools.common.checkout import THIS, JsonDict, ToolError, Tree, positive, progress
from tools.common.statistics import spread

_COUNTED = ("link_", "malformed_", "refused_")
_MORE_S = 5.0


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--secure", action="store_true", help="encrypt all links; the connections reach the authenticator only"
    )
    parser.add_argument("--connections", type=positive, default=10_000, help="at least (default: %(default)s)")
    parser.add_argument("--frames", type=positive, default=1_000_000, help="at least (default: %(default)s)")
    parser.add_argument("--rate", type=positive, default=500, help="connections a second (default: %(default)s)")


class _Flood:
    """The flooding process, which is stopped unless it is let loose."""

    def __init__(self, cluster: Cluster, options: argparse.Namespace) -> None:
        words = [
            "curve" if options.secure else "null",
            str(options.rate),
            *(str(port) for port in cluster.ports.values()),
        ]
        command = [sys.executable, "-m", "tools.benchmarks.flooder", *words]
        self._child = subprocess.Popen(
            command, cwd=THIS.root, env=THIS.environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._child.stdout is not None
        if self._child.stdout.readline() != "on\n":
            raise ToolError("the flooding process did not connect")
        self._child.send_signal(signal.SIGSTOP)

    @contextlib.contextmanager
    def loose(self) -> Iterator[None]:
        self._child.send_signal(signal.SIGCONT)
        try:
            yield
        finally:
            self._child.send_signal(signal.SIGSTOP)

    def end(self) -> JsonDict:
        """What it did."""
        self._child.send_signal(signal.SIGCONT)
        text, _ = self._child.communicate(timeout=60)
        done: JsonDict = json.loads(text)
        return done

    def kill(self) -> None:
        self._child.kill()
        self._child.communicate()


def measure(options: argparse.Namespace) -> JsonDict:
    """Kills of the controller in two clusters, in turns: one that is flooded, one that is left in peace. In
    the end the flood goes on until it has sent what was asked for."""
    rng = random.Random(options.seed)
    quiet: list[JsonDict] = []
    flooded: list[JsonDict] = []
    rss: dict[str, list[float]] = {"quiet": [], "flooded": []}
    counted: Counter[str] = Counter()
    tree = Tree(THIS.root, secure=options.secure)
    with running(options.nodes, tree=tree) as cluster, running(options.nodes, tree=tree) as unknown:
        settle(cluster)
        flood = _Flood(cluster, options)
        try:
            for number in range(1, options.trials + 1):
                progress(number, options.trials, flooded[-1]["gap_ms"] if flooded else None)
                quiet.append(_trial(unknown, rng))
                rss["quiet"].append(_most_rss_mb(unknown))
                before = _counters(cluster)
                with flood.loose():
                    flooded.append(_trial(cluster, rng))
                rss["flooded"].append(_most_rss_mb(cluster))
                counted += _grown(before, _counters(cluster))
            controller = settle(cluster)
            before = _counters(cluster)
            done = flood.end()
        finally:
            flood.kill()
        extra = _rest(cluster, options, done)
        rss["flooded"].append(_most_rss_mb(cluster))
        counted += _grown(before, _counters(cluster))
        same = settle(cluster) == controller
        server = cluster.server_version()
    return {
        **header(options, server),
        "secure": options.secure,
        "quiet_ms": spread(gaps(quiet)),
        "flooded_ms": spread(gaps(flooded)),
        "ratio_of_medians": ratio(gaps(flooded), gaps(quiet), options.seed),
        "without_successor": len(quiet) + len(flooded) - len(gaps(quiet)) - len(gaps(flooded)),
        "rss_mb": {name: spread(samples) for name, samples in rss.items()},
        "connections": done["connections"] + extra["connections"],
        "frames": done["frames"] + extra["frames"],
        "counted": dict(sorted(counted.items())),
        "kept_its_leadership": same,
        "samples": {"quiet": gaps(quiet), "flooded": gaps(flooded)},
    }


def _trial(cluster: Cluster, rng: random.Random) -> JsonDict:
    old = settle(cluster)
    trial = one_fault(cluster, old, "kill", rng, redis_kill=False)
    cluster.start(old)
    settle(cluster)
    return trial


def _rest(cluster: Cluster, options: argparse.Namespace, done: JsonDict) -> JsonDict:
    """More of the flood, for as long as connections or frames are missing."""
    total = {"connections": 0, "frames": 0}
    for _ in range(100):
        if (
            done["connections"] + total["connections"] >= options.connections
            and done["frames"] + total["frames"] >= options.frames
        ):
            break
        flood = _Flood(cluster, options)
        try:
            with flood.loose():
                time.sleep(_MORE_S)
            more = flood.end()
        finally:
            flood.kill()
        for name in total:
            total[name] += more[name]
    return total


def _most_rss_mb(cluster: Cluster) -> float:
    """Resident memory of the largest node."""
    page = os.sysconf("SC_PAGE_SIZE")
    pids = [child.pid for child in cluster.processes.values()]
    return max(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * page / 2**20 for pid in pids)


def _counters(cluster: Cluster) -> dict[int, JsonDict]:
    return {node: report["counters"] for node, report in cluster.reports().items()}


def _grown(before: dict[int, JsonDict], after: dict[int, JsonDict]) -> Counter[str]:
    """What the nodes have counted since; one that was started since has counted from nothing."""
    grown: Counter[str] = Counter()
    for node, counters in after.items():
        for name, value in counters.items():
            if name.startswith(_COUNTED):
                earlier = before.get(node, {}).get(name, 0)
                grown[name] += value - earlier if value >= earlier else value
    return +grown


def show(result: JsonDict) -> None:
    print(f"{result['connections']} hostile connections, {result['frames']} frames, ", end="")
    print("at the authenticator (CURVE)\n" if result["secure"] else "in plain text\n")
    print(columns(f"{len(result['samples']['quiet'])} kills each, ms"))
    print(row("kill to the change, quiet", result["quiet_ms"]))
    print(row("kill to the change, flooded", result["flooded_ms"]))
    show_ratio("ratio of medians, flooded to quiet", result["ratio_of_medians"])
    print(row("RSS of largest node, MB, quiet", result["rss_mb"]["quiet"]))
    print(row("RSS of largest node, MB, flooded", result["rss_mb"]["flooded"]))
    print("\n" + "\n".join(histogram(result["samples"]["flooded"])))
    print(f"\nwithout successor: {result['without_successor']}")
    print(f"a controller that was not killed stayed active: {'yes' if result['kept_its_leadership'] else 'NO'}")
    for name, count in result["counted"].items():
        print(f"counted {name:<40}{count:>12}")
