"""What the processes take, and what is left of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from tools.chaos_lab.cluster import ChaosCluster
from tools.chaos_lab.worker_setup import CHAOS
from tools.common.checkout import JsonDict

_TICK_MS = 1000 // os.sysconf("SC_CLK_TCK")


def sample(cluster: ChaosCluster) -> Iterator[JsonDict]:
    """Memory, descriptors, threads and processor time of each node's process."""
    for node, pid in cluster.pids.items():
        try:
            status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
            times = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            descriptors = len(os.listdir(f"/proc/{pid}/fd"))
            rss_kb = int(status["VmRSS"].split()[0])
        except (OSError, ValueError, KeyError):  # it is ending, and holds no memory any more
            continue
        yield {
            "node": node,
            "pid": pid,
            "rss_kb": rss_kb,
            "fds": descriptors,
            "threads": int(status["Threads"]),
            "cpu_ms": (int(times[11]) + int(times[12])) * _TICK_MS,
        }


def left_over(cluster: ChaosCluster, zombies: bool) -> list[tuple[int, str]]:
    """Processes that should not be: with `zombies` those that ended and were not reaped, else those
    of this run that still live, known by the environment that it gave them. Nothing where there is
    no /proc."""
    found = []
    mark = f"{CHAOS}={cluster.setups_file}\0".encode()
    for pid in _pids():
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
            command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            ours = mark in Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            continue
        if zombies and state == "Z" and pid in cluster.every_pid:
            found.append((pid, "zombie"))
        elif not zombies and state != "Z" and ours:
            found.append((pid, f"orphan: {command.strip()}"))
    return found


def _pids() -> list[int]:
    try:
        return [int(name) for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return []
