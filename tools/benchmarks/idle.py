"""`idle`: what a settled cluster takes while nothing happens."""

from __future__ import annotations

import argparse
import contextlib
import os
import time
from pathlib import Path

from tools.benchmarks.against import SIDES, add_against, show_against, trees
from tools.benchmarks.cluster import Cluster, running
from tools.benchmarks.figures import columns, header, ratio, row, show_ratio
from tools.benchmarks.settling import settle
from tools.common.checkout import JsonDict, positive, progress
from tools.common.statistics import spread
from zelect.system.clock import now_us


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seconds", type=positive, default=30)
    add_against(parser)


def _cpu_s(pid: int) -> float:
    """User and system time that process `pid` has taken, to the nanosecond: by its own clock, whose
    number Linux makes of the pid."""
    return time.clock_gettime((~pid << 3) | 2)


def _rss_mb(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


class _Watched:
    """A settled cluster, from `begin` to `end`; `samples`: CPU per cent of all its nodes together."""

    def __init__(self, cluster: Cluster) -> None:
        self.samples: list[float] = []
        self._cluster = cluster
        self._controller = settle(cluster)
        self._pids: dict[object, int] = {node: child.pid for node, child in cluster.processes.items()}
        self._pids["redis"] = cluster.redis.pid or 0

    def begin(self) -> None:
        self._reports, self._began_us = self._cluster.reports(), now_us()
        self._began_s = self._cpu()
        self._last_us, self._last_s = self._began_us, self._began_s

    def look(self) -> None:
        """Add a sample of the time since the last look."""
        cpu, at_us = self._cpu(), now_us()
        taken_s = sum(cpu[node] - self._last_s[node] for node in self._cluster.ids)
        self.samples.append(100 * taken_s / ((at_us - self._last_us) / 1e6))
        self._last_us, self._last_s = at_us, cpu

    def _cpu(self) -> dict[object, float]:
        return {key: _cpu_s(pid) for key, pid in self._pids.items()}

    def end(self) -> JsonDict:
        taken_s = (now_us() - self._began_us) / 1e6
        cpu = self._cpu()
        after = self._cluster.reports()
        rows = []
        for key, pid in self._pids.items():
            percent = 100 * (cpu[key] - self._began_s[key]) / taken_s
            line: JsonDict = {"id": key, "role": "redis", "cpu_percent": percent, "rss_mb": _rss_mb(pid)}
            if isinstance(key, int):
                line["role"] = "controller" if key == self._controller else "follower"
                before, now = self._reports[key]["counters"], after[key]["counters"]
                # Less the question that asked for this.
                line["received_per_s"] = (now["received"] - before["received"] - 1) / taken_s
                line["sent_per_s"] = (now["sent"] - before["sent"]) / taken_s
            rows.append(line)
        same = settle(self._cluster) == self._controller
        return {
            "version": self._cluster.zelect_version(),
            "seconds": taken_s,
            "same_controller": same,
            "processes": rows,
            "nodes_cpu_percent": spread(self.samples),
            "nodes_cpu_percent_samples": self.samples,
        }


def measure(options: argparse.Namespace) -> JsonDict:
    """Seconds of a quiet day. Two trees have a cluster each and are watched in the very same seconds."""
    with contextlib.ExitStack() as stack:
        chosen = trees(options)
        clusters = [stack.enter_context(running(options.nodes, tree=tree)) for tree in chosen]
        watched = [_Watched(cluster) for cluster in clusters]
        for one in watched:
            one.begin()
        for second in range(options.seconds):
            progress(second + 1, options.seconds, None)
            time.sleep(1)
            for one in watched:
                one.look()
        figures = [one.end() for one in watched]
        result = {
            **header(options, clusters[0].server_version()),
            "secure": options.secure,
            "http": options.http,
            **figures[0],
        }
    for tree, other in zip(chosen[1:], figures[1:], strict=True):
        ours, theirs = figures[0]["nodes_cpu_percent_samples"], other["nodes_cpu_percent_samples"]
        result["against"] = {"dir": str(tree.root), "secure": tree.secure, **other}
        result["ratio_of_medians"] = ratio(ours, theirs, options.seed)
    return result


def show(result: JsonDict) -> None:
    if "against" not in result:
        _show_side(result)
        return
    show_against(result)
    sides = dict(zip(SIDES, (result, result["against"]), strict=True))
    for name, side in sides.items():
        print(f"{name}: ", end="")
        _show_side(side)
        print()
    print(columns("all nodes, per second, CPU %"))
    for name, side in sides.items():
        print(row(name, side["nodes_cpu_percent"]))
    show_ratio("ratio of medians, this to other", result["ratio_of_medians"])


def _show_side(result: JsonDict) -> None:
    same = "one controller throughout" if result["same_controller"] else "the controller CHANGED meanwhile"
    print(f"{result['seconds']:.1f} s, {same}\n")
    print("".join(f"{name:>12}" for name in ("process", "role", "CPU %", "RSS MB", "received/s", "sent/s")))
    for line in result["processes"]:
        numbers = [line.get(name) for name in ("cpu_percent", "rss_mb", "received_per_s", "sent_per_s")]
        cells = "".join(f"{'-' if number is None else f'{number:.2f}':>12}" for number in numbers)
        print(f"{line['id']:>12}{line['role']:>12}{cells}")
    totals = [sum(line.get(name, 0) for line in result["processes"]) for name in ("cpu_percent", "rss_mb")]
    print(f"{'all':>12}{'':>12}{totals[0]:>12.2f}{totals[1]:>12.2f}")
