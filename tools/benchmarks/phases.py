"""Where the time of a crash went, by what the nodes logged."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime

from tools.benchmarks.cluster import Cluster
from tools.common.checkout import JsonDict
from tools.common.statistics import spread

# Of a crash, as its successor went through them, and what they are called on paper.
PHASES = {
    "closed": "its connections closed",
    "lost": "noticed and proven (+-0.5)",
    "campaign": "until the campaign that won",
    "pre_vote": "pre-vote",
    "vote": "vote, saved twice",
    "leadership": "elected to active, saved twice",
    "published": "until the change (+-0.5)",
}


def since_ms(fact: JsonDict, began_unix_ms: float) -> float:
    """When `fact` was logged, in ms since a moment of the wall clock. Logs tell whole milliseconds,
    so it may be half of one off."""
    return datetime.fromisoformat(fact["time"]).timestamp() * 1000 + 0.5 - began_unix_ms


def read_until_entered(cluster: Cluster, successor: int | None, logged: list[JsonDict]) -> None:
    """Read the logs until they, too, tell of the successor: the news may come first."""
    end = time.monotonic() + 2
    while True:
        logged += cluster.facts()
        entered = [fact["node"] for fact in logged if fact["event"] == "became_active"]
        if successor in entered or successor is None or time.monotonic() > end:
            return
        time.sleep(0.005)


def add_facts(trial: JsonDict, logged: list[JsonDict], began_unix_ms: float, until_ms: float) -> None:
    """Add to `trial` what the nodes logged until `until_ms`. `at_ms`, since the fault, may be half a
    millisecond off; durations within the facts are exact."""
    trial["facts"] = []
    for fact in logged:
        at_ms = since_ms(fact, began_unix_ms)
        if -1 <= at_ms <= until_ms:
            rest = {key: value for key, value in fact.items() if key not in ("time", "level", "cluster")}
            trial["facts"].append({"at_ms": round(at_ms, 2), **rest})


def first(trial: JsonDict, node: int, name: str) -> JsonDict | None:
    """The first fact `name` of `node` in `trial`."""
    facts = (fact for fact in trial["facts"] if (fact["node"], fact["event"]) == (node, name))
    return next(facts, None)


def add_phases(trial: JsonDict, closed_ms: float) -> None:
    """Add to `trial` where the time of a crash went, by what its successor logged."""
    names = ("controller_lost", "pre_vote_won", "elected", "became_active")
    found = [first(trial, trial.get("successor", 0), name) for name in names]
    if None in found:
        return
    lost, asked, elected, entered = (fact for fact in found if fact is not None)
    active_ms = entered["elected_to_active_ms"]
    # Both count from the last heartbeat, so their difference is exact.
    lost_to_active_ms = entered["gap_ms"] - lost["heard_ms"]
    trial["phases_ms"] = {
        "closed": closed_ms,
        "lost": lost["at_ms"] - closed_ms,
        "campaign": lost_to_active_ms - active_ms - elected["took_ms"],
        "pre_vote": asked["took_ms"],
        "vote": elected["took_ms"] - asked["took_ms"],
        "leadership": active_ms,
        "published": trial["from_fault_ms"] - lost["at_ms"] - lost_to_active_ms,
    }


def phase_spreads(trials: Sequence[JsonDict]) -> JsonDict:
    """Phase to its spread over the trials that tell it."""
    return {name: spread([t["phases_ms"][name] for t in trials if "phases_ms" in t]) for name in PHASES}
