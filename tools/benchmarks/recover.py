"""`recover`: how soon Redis' record is right again after trouble, and what elections cost meanwhile."""

from __future__ import annotations

import argparse
import contextlib
import random
import time
from collections.abc import Callable, Mapping

from tools.benchmarks.cluster import Cluster, running
from tools.benchmarks.faults import one_fault, pause, watch
from tools.benchmarks.figures import columns, header, known, ratio, row, show_ratio
from tools.benchmarks.floors import Floors, show_floors
from tools.benchmarks.settling import settle
from tools.common.checkout import TIMING, JsonDict, ToolError, progress
from tools.common.raw_redis import Wire
from tools.common.statistics import spread
from zelect.system.clock import now_us

ASKED_MS = 2000.0
"""Of every recovery."""
_RIGHT_WITHIN_S = 20.0
_KEPT_S = 0.5
# Of the time that Redis stays away after the election: no favourite moment between two refreshes or retries.
_AWAY_S = 1.2
_REFRESH_S = TIMING.refresh_us / 1e6


def add_options(parser: argparse.ArgumentParser) -> None:
    """None of its own."""


# -- how Redis goes, and comes back ----------------------------------------------------------


def _start_again(cluster: Cluster) -> int:
    cluster.redis.start()
    end = time.monotonic() + 20
    while True:
        with contextlib.suppress(OSError, ToolError):  # not there yet, or loading
            wire = Wire(cluster.redis.port)
            with contextlib.closing(wire):
                wire.call("PING")
                at_us = now_us()
                break
        if time.monotonic() > end:
            raise ToolError("Redis does not answer after its new start")
        time.sleep(0.0005)
    cluster.reconnect()
    return at_us


def _thaw(cluster: Cluster) -> int:
    cluster.control.say("PING")
    cluster.redis.thaw()
    cluster.control.reply()
    return now_us()


def _flush(cluster: Cluster) -> int:
    began_us = now_us()
    cluster.control.call("FLUSHALL")
    return began_us


_GO: Mapping[str, Callable[[Cluster], None]] = {
    "killed": lambda cluster: cluster.redis.kill(),
    "hung": lambda cluster: cluster.redis.freeze(),
}
_RETURN: Mapping[str, Callable[[Cluster], int]] = {"killed": _start_again, "hung": _thaw, "flushed": _flush}
"""Each returns when Redis answered PING, or when it was flushed."""


# -- trials ----------------------------------------------------------------------------------


def measure(options: argparse.Namespace) -> JsonDict:
    """Rounds of: an election with Redis up, one while it is dead, one while it is hung, a flush."""
    rng = random.Random(options.seed)
    trials: list[JsonDict] = []
    with running(options.nodes) as cluster, Floors(cluster) as floors:
        for number in range(1, options.trials + 1):
            progress(number, options.trials, trials[-1]["record_ms"] if trials else None)
            trials.append(_election(cluster, settle(cluster, whole=True), "up", rng))
            cluster.start(trials[-1]["old"])
            trials += [_trial(cluster, trouble, rng) for trouble in _RETURN]
            settle(cluster, whole=True)
            floors.take()
        server = cluster.server_version()
    of = {trouble: [t for t in trials if t["redis"] == trouble] for trouble in ("up", *_RETURN)}
    elections = {trouble: known(of[trouble], "election_ms") for trouble in ("up", *_GO)}
    compared = {trouble: ratio(elections[trouble], elections["up"], options.seed) for trouble in _GO}
    restored = [trial for trouble in _RETURN for trial in of[trouble]]
    return {
        **header(options, server),
        "record_ms": {trouble: spread(known(of[trouble], "record_ms")) for trouble in _RETURN},
        "asked_ms": ASKED_MS,
        "beyond_asked": sum(t["record_ms"] is None or t["record_ms"] > ASKED_MS for t in restored),
        "never_right": sum(t["record_ms"] is None for t in restored),
        "wrong_again": sum(trial["wrong_again"] for trial in restored),
        "election_ms": {trouble: spread(samples) for trouble, samples in elections.items()},
        "lost_to_active_ms": {trouble: spread(known(of[trouble], "lost_to_active_ms")) for trouble in elections},
        "without_successor": sum("successor" not in t for trouble in elections for t in of[trouble]),
        "election_ratio_of_medians": compared,
        "floors_ms": floors.spreads(),
        "restart_ms": spread(known(of["killed"], "restart_ms")),
        "refresh_ms": _REFRESH_S * 1000,
        "floor_samples_ms": floors.samples,
        "trials": trials,
    }


def _election(cluster: Cluster, old: int, trouble: str, rng: random.Random) -> JsonDict:
    """Kill the controller: how long until the log tells of a successor, whatever Redis does."""
    trial = one_fault(cluster, old, "kill", rng, logs=True)
    phases = trial.get("phases_ms")
    parts = ("campaign", "pre_vote", "vote", "leadership")
    lost_to_active_ms = sum(phases[name] for name in parts) if phases else None
    elected = {"election_ms": trial["gap_ms"], "lost_to_active_ms": lost_to_active_ms}
    return {"redis": trouble, "record_ms": None, **elected, **trial}


def _trial(cluster: Cluster, trouble: str, rng: random.Random) -> JsonDict:
    """Redis goes, another controller is elected, Redis comes back. A flush finds the same one."""
    old = settle(cluster, whole=True)
    trial: JsonDict = {"redis": trouble, "old": old, "successor": old, "term": cluster.record()[1]}
    cluster.facts()
    if trouble in _GO:
        _GO[trouble](cluster)
        pause(rng, _REFRESH_S)
        trial = _election(cluster, old, trouble, rng)
    pause(rng, _AWAY_S)
    began_us = now_us()
    back_us = _RETURN[trouble](cluster)
    if trouble == "killed":
        trial["restart_ms"] = (back_us - began_us) / 1000
    right = trial.get("successor", 0), trial.get("term", 0)

    def is_right() -> bool:
        nonlocal right
        for fact in cluster.facts():  # another election may have followed
            if fact["event"] == "became_active":
                right = fact["node"], fact["term"]
        return cluster.record() == right

    right_us = watch({"right": is_right}, _RIGHT_WITHIN_S)["right"]
    trial["record_ms"] = (right_us - back_us) / 1000 if right_us is not None else None
    trial["wrong_again"] = 0 if right_us is None else _wrong_looks(is_right)
    if trouble in _GO:
        cluster.start(old)
    return trial


def _wrong_looks(is_right: Callable[[], bool]) -> int:
    """A record that is right stays right: how often it was seen to be another, or none."""
    end, wrong = time.monotonic() + _KEPT_S, 0
    while time.monotonic() < end:
        wrong += not is_right()
        time.sleep(0.001)
    return wrong


# -- telling ---------------------------------------------------------------------------------


def show(result: JsonDict) -> None:
    rounds = sum(trial["redis"] == "up" for trial in result["trials"])
    print(columns(f"{rounds} trials of each, ms"))
    labels = {
        "killed": "Redis killed: PING to the record",
        "hung": "Redis hung: PING to the record",
        "flushed": "Redis flushed: to the record",
    }
    for trouble, label in labels.items():
        print(row(label, result["record_ms"][trouble]))
    print("controller killed meanwhile, to logged")
    for trouble, numbers in result["election_ms"].items():
        print(row(f"  Redis {trouble}", numbers))
        print(row("    lost to active", result["lost_to_active_ms"][trouble]))
    for trouble, found in result["election_ratio_of_medians"].items():
        show_ratio(f"  ratio of medians, {trouble} to up", found)
    show_floors(result["floors_ms"])
    print(row("  Redis started to its PONG", result["restart_ms"]))
    print(f"  the controller refreshes its record every {result['refresh_ms']:g} ms\n")
    beyond = f"not right within {result['asked_ms']:g} ms: {result['beyond_asked']}"
    print(f"{beyond}, never: {result['never_right']}, right and then wrong: {result['wrong_again']}")
    print(f"without successor: {result['without_successor']}")
