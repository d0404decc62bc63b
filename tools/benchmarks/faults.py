"""One fault of the controller and its recovery, as a user of zelect would see them."""

from __future__ import annotations

import contextlib
import random
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping

from tools.benchmarks.cluster import Cluster
from tools.benchmarks.phases import add_facts, add_phases, first, read_until_entered
from tools.common.checkout import TIMING, JsonDict
from zelect.devcluster.layout import HOST
from zelect.system.clock import now_us

FAULTS = {"kill": signal.SIGKILL, "freeze": signal.SIGSTOP, "term": signal.SIGTERM}
SUCCESSOR_WITHIN_S = 20.0
_WATCH_THAWED_US = 500_000


def pause(rng: random.Random, most_s: float = TIMING.heartbeat_ms / 1000) -> None:
    """No favourite moment between two heartbeats, or whatever else comes every `most_s`."""
    time.sleep(rng.uniform(0, most_s))


def watch(looks: Mapping[str, Callable[[], bool]], within_s: float, every_s: float = 0.0005) -> dict[str, int | None]:
    """Look again and again until every look has been true once: when each first was (now_us after
    the look), None: not `within_s`."""
    end_us = now_us() + int(within_s * 1e6)
    seen: dict[str, int | None] = dict.fromkeys(looks)
    while None in seen.values() and now_us() < end_us:
        for name, look in looks.items():
            if seen[name] is None and look():
                seen[name] = now_us()
        time.sleep(every_s)
    return seen


def by_channel(cluster: Cluster) -> Iterator[tuple[int, JsonDict]]:
    """Changes as Redis tells them. Raises TimeoutError when no successor comes for long."""
    end_us = now_us() + int(SUCCESSOR_WITHIN_S * 1e6)
    while True:
        yield cluster.change((end_us - now_us()) / 1e6)


def by_log(cluster: Cluster, logged: list[JsonDict]) -> Iterator[tuple[int, JsonDict]]:
    """Changes as the nodes' logs tell them, for as long; what was read is added to `logged`."""
    end_us = now_us() + int(SUCCESSOR_WITHIN_S * 1e6)
    while now_us() < end_us:
        time.sleep(0.0001)
        for fact in cluster.facts():
            logged.append(fact)
            if fact["event"] == "became_active":
                yield now_us(), {"id": fact["node"], "term": fact["term"], "reason": fact["reason"]}
            elif fact["event"] == "stopped_being_active":
                yield now_us(), {"id": None, "term": fact["term"], "reason": fact["why"]}
    raise TimeoutError


def await_successor(cluster: Cluster, old: int, logs: bool, logged: list[JsonDict]) -> tuple[int | None, int, JsonDict]:
    """When `old` was seen to stop being active (None: not seen), when another became active, and the change
    that says so: by Redis' channel, or with `logs` by the logs. Raises TimeoutError."""
    left_us = None
    for at_us, change in by_log(cluster, logged) if logs else by_channel(cluster):
        if change["id"] is None:
            left_us = at_us
        elif change["id"] != old:
            return left_us, at_us, change
    raise TimeoutError


class Closing(threading.Thread):
    """Sees when the process that listens on `port` closes its connections; `at_us` 0: not yet. Says
    nothing itself, so it serves for less than a second, then it is taken for a stray and cut off."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.at_us = 0
        self._connection = socket.create_connection((HOST, port), timeout=5)
        self.start()

    def run(self) -> None:
        with self._connection, contextlib.suppress(OSError):
            while self._connection.recv(4096):
                pass
        self.at_us = now_us()


def one_fault(
    cluster: Cluster,
    old: int,
    fault: str,
    rng: random.Random,
    *,
    redis_kill: bool = False,
    logs: bool = False,
) -> JsonDict:
    """A fault of `old`, the controller of a settled cluster, and its recovery; a process that ended
    is not started again. With `redis_kill` Redis dies just before, and is started again afterwards;
    then, and with `logs`, the logs tell of the successor. `gap_ms` None: no successor."""
    logs = logs or redis_kill
    if not logs:  # Redis may be away
        cluster.changes_so_far()
    cluster.facts()
    logged: list[JsonDict] = []
    trial: JsonDict = {"old": old, "gap_ms": None, "violations": 0, "exit_code": None}
    closing = Closing(cluster.ports[old])
    pause(rng)
    if redis_kill:
        cluster.redis.kill()
    began_unix_ms, began_us = time.time_ns() / 1e6, now_us()
    cluster.signal(FAULTS[fault], old)
    with contextlib.suppress(TimeoutError):
        left_us, at_us, change = await_successor(cluster, old, logs, logged)
        trial |= {"successor": change["id"], "term": change["term"], "reason": change["reason"]}
        trial["from_fault_ms"] = trial["gap_ms"] = (at_us - began_us) / 1000
        if fault == "term" and not logs:  # a log line may come milliseconds after the fact
            trial["gap_ms"] = (at_us - left_us) / 1000 if left_us is not None else None
    if redis_kill:
        cluster.revive_redis()
    if fault == "freeze":
        trial["violations"] = _thaw_and_watch(cluster, trial)
    else:
        trial["exit_code"] = cluster.processes[old].wait(30)
    read_until_entered(cluster, trial.get("successor"), logged)
    add_facts(trial, logged, began_unix_ms, trial.get("from_fault_ms", SUCCESSOR_WITHIN_S * 1000) + 5)
    if fault == "kill":
        add_phases(trial, (closing.at_us - began_us) / 1000)
    if fault == "term" and trial["gap_ms"] is None and "from_fault_ms" in trial:
        # The successor was published before the withdrawal was; then the log must do.
        left = first(trial, old, "stopped_being_active")
        trial["gap_ms"] = trial["from_fault_ms"] - left["at_ms"] if left else None
    return trial


def _thaw_and_watch(cluster: Cluster, trial: JsonDict) -> int:
    """Let the old controller go on; how often it, or Redis, then said that it is active by a term
    that has passed to another. Its first words answer a question that waited while it was frozen."""
    old, new, term = trial["old"], trial.get("successor", 0), trial.get("term", 0)
    violations: int = 0
    cluster.post(old)
    cluster.signal(signal.SIGCONT, old)
    end_us = now_us() + _WATCH_THAWED_US
    while now_us() < end_us:
        node, recorded = cluster.record()
        violations += 0 < recorded < term or (recorded == term and node != new)
        report = cluster.take(old, 0.005)
        if report is not None:
            violations += int(report["active"] and report["term"] <= term)
            cluster.post(old)
    claims = [change for change in cluster.changes_so_far() if change["id"] == old]
    return violations + sum(int(change["term"] <= term) for change in claims)
