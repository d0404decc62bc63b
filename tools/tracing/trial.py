"""Kills the controller of a recorded cluster a few times, and collects what the nodes recorded."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from tools.benchmarks.cluster import Cluster
from tools.common.checkout import KEYS, THIS, ToolError, Tree

KINDS = {
    "vote": "a voter answers a vote request: from the ROUTER's receive to the sent VOT_RESP",
    "takeover": "the next controller: from a link going down to the script in Redis",
}
"""The two ways that are recorded."""

Found = TypeVar("Found")
_RECORDER = Path(__file__).resolve().parent / "recorder.py"
# Calm: a recorded node is some times slower, and the first candidate should win before the second asks.
_TIMING = {"heartbeat_ms": 100, "lease_ms": 800, "election_timeout_ms": 1000, "stagger_ms": 400}
_SETTLED_S = 1.5 * _TIMING["election_timeout_ms"] / 1000  # a restarted node votes after one timeout (R4)


@dataclass(frozen=True, slots=True)
class Course:
    """One way through the code, as it was in one or more trials. `files`, `functions`: in the order of the
    first call, those of all trials together; `always`: the files that every trial ran through."""

    trials: int
    files: tuple[str, ...]
    functions: tuple[tuple[str, str], ...]
    always: frozenset[str]
    counts: tuple[tuple[int, int], ...]
    """Files and functions of each trial."""

    @staticmethod
    def of(recordings: list[list[tuple[str, str]]]) -> Course:
        functions = tuple(dict.fromkeys(call for calls in recordings for call in calls))
        seen = Counter(file for calls in recordings for file in {file for file, _ in calls})
        return Course(
            trials=len(recordings),
            files=tuple(dict.fromkeys(file for file, _ in functions)),
            functions=functions,
            always=frozenset(file for file, times in seen.items() if times == len(recordings)),
            counts=tuple((len({file for file, _ in calls}), len(calls)) for calls in recordings),
        )


def record(directory: Path, root: Path = THIS.root, trials: int = 3, nodes: int = 3) -> dict[str, Course]:
    """Both ways through the checkout at `root`, by kind. `directory`: empty, for the nodes' files. Raises
    ToolError when the cluster does not elect."""
    recordings = directory / "recordings"
    recordings.mkdir()
    tree = Tree(root, program=(str(_RECORDER), str(recordings)))
    replace(tree, program=()).check()
    taken: dict[str, list[list[tuple[str, str]]]] = {kind: [] for kind in KINDS}
    with Cluster(directory, nodes, tree=tree, timing=_TIMING) as cluster:
        _next_round(recordings, 0)
        cluster.start()
        for trial in range(1, trials + 1):
            old, term = _settled(cluster)
            _next_round(recordings, trial)
            cluster.kill(old)
            new, _ = _published(cluster, term)
            voters = set(cluster.ids) - {old, new}
            taken["takeover"].append(_read(cluster, recordings, f"takeover-{trial}-{new}.json"))
            taken["vote"] += [_read(cluster, recordings, f"vote-{trial}-{node}.json") for node in sorted(voters)[:1]]
            cluster.start(old)
    return {kind: Course.of(found) for kind, found in taken.items()}


def _next_round(recordings: Path, number: int) -> None:
    (recordings / "round.part").write_text(str(number))
    (recordings / "round.part").rename(recordings / "round")


def _published(cluster: Cluster, above: int) -> tuple[int, int]:
    """Id and term of the published controller, of a term above `above`."""
    return _wait(cluster, "no controller is published", lambda: r if (r := cluster.record())[1] > above else None)


def _settled(cluster: Cluster) -> tuple[int, int]:
    """The controller and its term, after it was the same for a while and every node was running."""
    record, since = (0, 0), time.monotonic()

    def settled() -> tuple[int, int] | None:
        nonlocal record, since
        entries = cluster.control.call("HVALS", KEYS.nodes)
        running = sum(json.loads(entry)["status"] == "running" for entry in entries)
        if (now := cluster.record()) != record or not now[0] or running < len(cluster.ids):
            record, since = now, time.monotonic()
        return record if time.monotonic() - since > _SETTLED_S else None

    return _wait(cluster, "the nodes do not settle", settled)


def _read(cluster: Cluster, recordings: Path, name: str) -> list[tuple[str, str]]:
    path = recordings / name
    _wait(cluster, f"{name} was not recorded", lambda: path.exists() or None)
    return [(file, function) for file, function in json.loads(path.read_text())]


def _wait(cluster: Cluster, what: str, condition: Callable[[], Found | None], within_s: float = 30) -> Found:
    end = time.monotonic() + within_s
    while (found := condition()) is None:
        if time.monotonic() > end:
            raise ToolError(f"{what} within {within_s} s\n{cluster.tails()}")
        time.sleep(0.02)
    return found
