"""`majority`: a majority dies at once. How soon the controller is not active, that nobody is
elected while too few live, and how soon somebody is when one returns."""

from __future__ import annotations

import argparse
import contextlib
import random
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from tools.benchmarks.cluster import Cluster, running
from tools.benchmarks.faults import pause, watch
from tools.benchmarks.figures import columns, header, known, row
from tools.benchmarks.floors import Floors, interpreter, show_floors
from tools.benchmarks.phases import since_ms
from tools.benchmarks.settling import settle
from tools.common.checkout import TIMING, JsonDict, progress
from tools.common.statistics import spread
from zelect.system.clock import now_us

ASKED_MS = 2000.0
"""From the start of the one that returns to somebody active."""
_GONE_WITHIN_S = 20.0
_BACK_WITHIN_S = 30.0
_OUTAGE_S = 3 * TIMING.election_timeout_ms / 1000
_LEAVING = {
    "out": "says it is not active",
    "left": "logged stopped_being_active",
    "none": "Redis shows none",
}
_RETURNING = {
    "process": "its start to somebody active",
    "line": "its first log line to that",
    "published": "its start to the change",
}


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--quorum", choices=("static", "dynamic", "both"), default="both")


def check(options: argparse.Namespace) -> str:
    """What is wrong with the options, empty when nothing."""
    return "" if options.nodes % 2 else f"--nodes {options.nodes}: an even number has another majority; give an odd one"


@dataclass
class _Side:
    """One cluster, by its quorum."""

    cluster: Cluster
    leavings: list[JsonDict] = field(default_factory=list)
    returns: list[JsonDict] = field(default_factory=list)


def measure(options: argparse.Namespace) -> JsonDict:
    """Trials of both parts, with the floors between them. Two kinds of quorum have a cluster each."""
    rng = random.Random(options.seed)
    chosen = ("static", "dynamic") if options.quorum == "both" else (options.quorum,)
    starts: dict[str, list[float]] = {"bare": [], "imports": []}
    with contextlib.ExitStack() as stack:
        sides = {quorum: _Side(stack.enter_context(running(options.nodes, quorum))) for quorum in chosen}
        first = sides[chosen[0]].cluster
        floors = stack.enter_context(Floors(first))
        for number in range(1, options.trials + 1):
            for side in sides.values():
                progress(number, options.trials, side.returns[-1]["process_ms"] if side.returns else None)
                side.leavings.append(_leaving(side.cluster, rng))
                side.returns.append(_return(side.cluster, rng))
            floors.take()
            for name, sample in zip(starts, interpreter(), strict=True):
                starts[name].append(sample)
        server = first.server_version()
    return {
        **header(options, server),
        "asked_ms": ASKED_MS,
        "outage_ms": _OUTAGE_S * 1000,
        "quorums": {quorum: _figures(side.leavings, side.returns) for quorum, side in sides.items()},
        "floors_ms": floors.spreads() | {name: spread(samples) for name, samples in starts.items()},
        "floor_samples_ms": floors.samples | starts,
        "trials": {q: {"leaving": side.leavings, "returning": side.returns} for q, side in sides.items()},
    }


def _figures(leavings: Sequence[JsonDict], returns: Sequence[JsonDict]) -> JsonDict:
    names = ("process_ms", "line_ms")
    return {
        "leaving_ms": {name: spread(known(leavings, f"{name}_ms")) for name in _LEAVING},
        "beyond_lease": sum(t["out_ms"] is None or t["out_ms"] > TIMING.lease_ms for t in leavings),
        "never_left": sum(None in (t["out_ms"], t["left_ms"], t["none_ms"]) for t in leavings),
        "active_again": sum(trial["active_again"] for trial in leavings),
        "elected_by_too_few": sum(trial["elected_by_too_few"] for trial in returns),
        "returning_ms": {name: spread(known(returns, f"{name}_ms")) for name in _RETURNING},
        "beyond_asked": sum(any(t[name] is None or t[name] > ASKED_MS for name in names) for t in returns),
        "nobody_came": sum(trial["process_ms"] is None for trial in returns),
    }


def _leaving(cluster: Cluster, rng: random.Random) -> JsonDict:
    """All followers die at once. What the controller says when asked is true at the moment of
    asking (R5); its log and Redis come after that."""
    head = settle(cluster, whole=True)
    followers = [node for node in cluster.ids if node != head]
    cluster.facts()
    logged: list[JsonDict] = []
    pause(rng)
    asked_us = []  # when it was asked and was active still

    def out() -> bool:
        posted_us = now_us()
        cluster.post(head)
        report = cluster.take(head, 0.1)
        if report is not None and report["active"]:
            asked_us.append(posted_us)
        return report is not None and not report["active"]

    def left() -> bool:
        logged.extend(cluster.facts())
        return any((fact["node"], fact["event"]) == (head, "stopped_being_active") for fact in logged)

    began_unix_ms, began_us = time.time_ns() / 1e6, now_us()
    cluster.signal(signal.SIGKILL, *followers)  # reaped only afterwards: that takes milliseconds
    looks = {"out": out, "left": left, "none": lambda: cluster.record() == (0, 0)}
    seen = watch(looks, _GONE_WITHIN_S)
    events = ("leadership_suspended", "leadership_resumed", "stopped_being_active", "became_active", "voters_changed")
    facts = [fact for fact in logged if fact["event"] in events]
    trial = {
        "controller": head,
        **{f"{name}_ms": None if at_us is None else (at_us - began_us) / 1000 for name, at_us in seen.items()},
        "active_until_ms": (asked_us[-1] - began_us) / 1000 if asked_us else None,
        "active_again": sum(fact["event"] in ("leadership_resumed", "became_active") for fact in facts),
        "facts": [{"at_ms": round(since_ms(fact, began_unix_ms), 2), **_bare(fact)} for fact in facts],
    }
    cluster.kill(*followers)
    cluster.start(*followers)
    return trial


def _bare(fact: JsonDict) -> JsonDict:
    return {key: value for key, value in fact.items() if key not in ("time", "level", "cluster")}


def _return(cluster: Cluster, rng: random.Random) -> JsonDict:
    """A majority, the controller among it, dies at once. After three election timeouts in which
    nobody may be elected, one of them returns, and makes a majority again."""
    head = settle(cluster, whole=True)
    others = [node for node in cluster.ids if node != head]
    survivors = rng.sample(others, len(cluster.ids) // 2)
    dead = [node for node in cluster.ids if node not in survivors]
    cluster.changes_so_far()
    cluster.facts()
    pause(rng)
    cluster.kill(*dead)
    logged = _during_outage(cluster)
    won = [fact for fact in logged if fact["event"] in ("elected", "became_active") and fact["node"] != head]
    claims = [change for change in cluster.changes_so_far() if change["id"] is not None]
    claims += [report for report in cluster.reports(survivors).values() if report["active"]]
    returned = rng.choice(dead)
    after: list[JsonDict] = []

    def line() -> bool:
        after.extend(cluster.facts())
        return any(fact["node"] == returned for fact in after)

    def leadership() -> bool:
        after.extend(cluster.facts())
        return any(fact["event"] == "became_active" for fact in after)

    def published() -> bool:
        return any(change["id"] is not None for change in cluster.changes_so_far())

    began_us = now_us()
    cluster.start(returned)
    seen = watch({"line": line, "leadership": leadership, "published": published}, _BACK_WITHIN_S)
    cluster.start(*(node for node in dead if node != returned))
    return {
        "old": head,
        "dead": dead,
        "elected_by_too_few": len(won) + len(claims),
        "campaigns": sum(fact["event"] == "campaign_began" for fact in logged),
        "returned": returned,
        "process_ms": _between(began_us, seen["leadership"]),
        "line_ms": _between(seen["line"], seen["leadership"]),
        "published_ms": _between(began_us, seen["published"]),
        "facts": [_bare(fact) for fact in won + [one for one in after if one["event"] in ("elected", "became_active")]],
    }


def _during_outage(cluster: Cluster) -> list[JsonDict]:
    """What was logged in three election timeouts."""
    end, logged = time.monotonic() + _OUTAGE_S, []
    while time.monotonic() < end:
        time.sleep(0.01)
        logged += cluster.facts()
    return logged


def _between(from_us: int | None, to_us: int | None) -> float | None:
    return None if from_us is None or to_us is None else (to_us - from_us) / 1000


def show(result: JsonDict) -> None:
    trials = max(len(parts["leaving"]) for parts in result["trials"].values())
    print(columns(f"{trials} trials, ms"))
    for quorum, figures in result["quorums"].items():
        print(f"{quorum}: all followers killed, the controller")
        for name, label in _LEAVING.items():
            print(row(f"  {label}", figures["leaving_ms"][name]))
        print(f"{quorum}: a majority killed, one returns")
        for name, label in _RETURNING.items():
            print(row(f"  {label}", figures["returning_ms"][name]))
    show_floors(result["floors_ms"])
    print(row("  python alone", result["floors_ms"]["bare"]))
    print(row("  python -c 'import zmq, msgpack'", result["floors_ms"]["imports"]))
    silent_ms = result["timing"]["election_timeout_ms"]
    print(f"  a restarted node votes for nobody during {silent_ms} ms\n")
    for quorum, figures in result["quorums"].items():
        beyond = f"active beyond the lease of {result['timing']['lease_ms']} ms: {figures['beyond_lease']}"
        print(f"{quorum}: {beyond}, never left: {figures['never_left']}, again: {figures['active_again']}")
        print(f"  elected by too few in {result['outage_ms']:g} ms: {figures['elected_by_too_few']}")
        late = f"nobody active within {result['asked_ms']:g} ms of the return: {figures['beyond_asked']}"
        print(f"  {late}, never: {figures['nobody_came']}")
