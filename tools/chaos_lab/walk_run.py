"""A walk under faults: change after change of the members, each with faults meanwhile, everything noted."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from tools.chaos_lab.fault import Fault, Misbehaved, PlannedFault
from tools.chaos_lab.fault_table import this_host
from tools.chaos_lab.run import Done, Plan, Show, attempt, carried_out, end_round, strike
from tools.chaos_lab.schedule import PlannedRound, draw
from tools.chaos_lab.walked_cluster import WalkedCluster
from tools.chaos_lab.walks import Change, Walk

_DONE_WITHIN_MS = 240_000
_SPREAD_MS = 1500
"""A fault comes at any moment of a change, or soon after it."""
_SOON_MS = 400
_CHANGES_WITHIN_MS = 30_000


def walk_under_faults(walk: Walk, times: int, plan: Plan, show: Show) -> Done:
    """Go through `walk` so many times, with `plan.faults` meanwhile. Raises as `tools.chaos_lab.run.run` does."""
    return carried_out(
        plan,
        lambda scene, log: WalkedCluster(scene, log, walk.first),
        partial(_changes, walk, times, plan, show),
    )


def _changes(walk: Walk, times: int, plan: Plan, show: Show, cluster: WalkedCluster, done: Done) -> None:
    names = ",".join(fault.name for fault in plan.faults)
    rng = random.Random(f"{plan.seed}/{walk.name}/{names}")
    hand: list[Fault] = []
    for number in range(1, times + 1):
        for change in walk.changes(cluster, rng):
            nodes = len({*cluster.ids, *change.nodes})
            faults = _planned(rng, hand, plan.faults, nodes, change.faults)
            round_ = PlannedRound(done.rounds, faults, rng.randint(20, 250))
            wait_ms = rng.choice((None, rng.randint(0, _SOON_MS)))
            act = partial(_change, cluster, number, change, round_, wait_ms, done, show)
            try:
                if not attempt(cluster, round_, done, act):
                    return
            finally:
                change.work.close()  # its command, if the run is over


def _planned(
    rng: random.Random, hand: list[Fault], faults: Sequence[Fault], nodes: int, count: int
) -> tuple[PlannedFault, ...]:
    """The faults during one change of a cluster of `nodes`: every kind comes before any comes again."""
    host = this_host(links=True)
    able = [fault for fault in faults if not fault.missing(host, nodes)]
    planned: list[PlannedFault] = []
    while able and len(planned) < count:
        fault = draw(rng, hand, faults)
        if fault in able:
            planned.append(replace(fault.plan(rng, nodes), after_ms=rng.randint(0, _SPREAD_MS)))
    return tuple(planned)


def _change(
    cluster: WalkedCluster,
    number: int,
    change: Change,
    round_: PlannedRound,
    wait_ms: int | None,
    done: Done,
    show: Show,
) -> None:
    """One change, and its faults one after the other. `wait_ms`: the first comes so long after the voter record
    has changed; None: at any moment."""
    log, before = cluster.log, cluster.newest_record()
    log.round = round_.number
    words = f"{change.kind} {' '.join(map(str, change.nodes))}"
    show(round_, f"walk {number}: {' + '.join([words, *(planned.fault for planned in round_.faults)])}")
    log.write("round_began", round=round_.number)
    log.write("change_began", round=round_.number, walk=number, change=change.kind, nodes=change.nodes)
    cluster.work = change.work
    for place, planned in enumerate(round_.faults):
        if not place and wait_ms is not None:
            cluster.wait(_CHANGES_WITHIN_MS, lambda: cluster.work is None or cluster.newest_record() != before)
            planned = replace(planned, after_ms=wait_ms)
        strike(cluster, [planned])
    if not cluster.wait(_DONE_WITHIN_MS, lambda: cluster.work is None):
        raise Misbehaved(f"{words} was not done within {_DONE_WITHIN_MS // 1000} s")
    ended_us = log.write("change_ended", round=round_.number)
    # Healed is what runs: where the only member was killed, the start of its process is none of the election's time.
    cluster.wait(_CHANGES_WITHIN_MS, lambda: len(cluster.look(ended_us)) == len(cluster.ids))
    end_round(cluster, round_, log.write("healed", round=round_.number), done)
