"""One run: rounds of faults against a cluster, everything noted."""

from __future__ import annotations

import contextlib
import os
import platform
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import zmq

from tools.chaos_lab.chaos_log import ChaosLog
from tools.chaos_lab.cluster import ChaosCluster, Scene
from tools.chaos_lab.fault import Fault, Misbehaved, PlannedFault
from tools.chaos_lab.fault_table import TABLE
from tools.chaos_lab.resources import left_over, sample
from tools.chaos_lab.schedule import PlannedRound
from tools.common.checkout import JsonDict, ToolError
from zelect import __version__
from zelect.devcluster.bundled_server import ServerFailed
from zelect.devcluster.layout import ClusterError
from zelect.status.report import NodeReport
from zelect.system.clock import now_us, unix_ms

AnyCluster = TypeVar("AnyCluster", bound=ChaosCluster)
Show = Callable[[PlannedRound, str], None]

SETTLED_WITHIN_MS = 30_000
"""A healed cluster that has not settled by then never will."""
_ITEMS = 500
_IN_FLIGHT_US = 10_000
"""An answer heard sooner may tell how it was before."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run does: `rounds` from `seed`, at most `most` of them and for `duration_s`. `skipped`:
    kinds that can't be done here, with the reason."""

    scene: Scene
    seed: int
    faults: Sequence[Fault]
    rounds: Iterable[PlannedRound]
    most: int | None
    duration_s: float | None
    skipped: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Done:
    """What came of it. `settled`: whether the last healing led to a controller; `broken`: what a node
    did that it must never do, besides what the history is checked for; `failed`: why the run could not
    go on."""

    rounds: int = 0
    settled: bool = True
    broken: str = ""
    failed: str = ""
    interrupted: bool = False


def run(plan: Plan, show: Show) -> Done:
    """Carry out `plan`; `show` is called for each round with what is being done. Raises
    ToolError, ClusterError, NoServer, ServerFailed where the cluster can't be run at all."""
    return carried_out(plan, ChaosCluster, partial(_rounds, plan, show))


def carried_out(
    plan: Plan, make: Callable[[Scene, ChaosLog], AnyCluster], go: Callable[[AnyCluster, Done], None]
) -> Done:
    """What came of `go`, which is called with the cluster of `make` once that has settled. Raises as `run` does."""
    log = ChaosLog(plan.scene.directory / "history")
    done = Done()
    cluster = None
    try:
        cluster = make(plan.scene, log)
        _begin(plan, cluster)
        cluster.open()
        settle(cluster, now_us(), done)
        if done.settled:
            go(cluster, done)
    except KeyboardInterrupt:
        done.interrupted = True
    finally:
        if cluster is not None:
            _end(cluster)
        log.close()
    return done


def _rounds(plan: Plan, show: Show, cluster: ChaosCluster, done: Done) -> None:
    """PlannedRound after round, until it is enough or something is broken: what came after that would be
    checked against a cluster that is already broken."""
    end = None if plan.duration_s is None else time.monotonic() + plan.duration_s
    for round_ in plan.rounds:
        if (plan.most is not None and done.rounds >= plan.most) or (end is not None and time.monotonic() > end):
            return
        if not attempt(cluster, round_, done, partial(_round, cluster, round_, done, show)):
            return


def attempt(cluster: ChaosCluster, round_: PlannedRound, done: Done, action: Callable[[], None]) -> bool:
    """Do `action`, which is one round; whether more may follow."""
    try:
        action()
    except Misbehaved as error:
        done.broken = f"round {round_.number}: {error}"
        cluster.log.write("broken", round=round_.number, text=str(error))
    except (ToolError, ClusterError, ServerFailed, OSError) as error:
        done.failed = f"round {round_.number}: {error}"
    return not done.broken and not done.failed and done.settled


def _begin(plan: Plan, cluster: ChaosCluster) -> None:
    cluster.log.write(
        "run",
        seed=plan.seed,
        nodes=plan.scene.nodes,
        faults=[fault.name for fault in plan.faults],
        versions=_versions(),
        timing={name: getattr(cluster.timing, name) for name in cluster.timing.__dataclass_fields__},
        quorum=plan.scene.quorum,
        base_us=now_us(),
        unix_ms=unix_ms(),
    )
    for fault, reason in plan.skipped.items():
        cluster.log.write("skipped", fault=fault, reason=reason)


def _versions() -> JsonDict:
    return {
        "zelect": __version__,
        "python": platform.python_version(),
        "pyzmq": zmq.__version__,
        "libzmq": zmq.zmq_version(),
        "system": platform.platform(),
        "cpus": os.cpu_count(),
    }


def _round(cluster: ChaosCluster, round_: PlannedRound, done: Done, show: Show) -> None:
    log = cluster.log
    log.round = round_.number
    log.write("round_began", round=round_.number)
    show(round_, " + ".join(planned.fault for planned in round_.faults))
    strike(cluster, round_.faults)
    healed_us = log.write("healed", round=round_.number)
    show(round_, "healing")
    if cluster.spaces and any(TABLE[planned.fault].links for planned in round_.faults):
        # What TCP still repeats, ever more slowly, may be missed for as long again as it was cut off.
        cluster.wait(3 * cluster.timing.election_timeout_ms)
        healed_us = now_us()
    end_round(cluster, round_, healed_us, done)


def strike(cluster: ChaosCluster, faults: Sequence[PlannedFault]) -> None:
    """Do these faults, so that they overlap, and heal them."""
    with contextlib.ExitStack() as undo:  # each is undone, the last one first, whatever goes wrong
        for planned in faults:
            cluster.wait(planned.after_ms)
            undo.callback(_undo, cluster, planned)
            TABLE[planned.fault].begin(cluster, planned)
        cluster.wait(max(planned.hold_ms for planned in faults))
    _heal(cluster)


def end_round(cluster: ChaosCluster, round_: PlannedRound, healed_us: int, done: Done) -> None:
    """Wait until the cluster has settled, and note what its processes take."""
    settle(cluster, healed_us, done)
    for line in sample(cluster):
        cluster.log.write("resources", **line)
    cluster.wait(round_.quiet_ms)
    cluster.log.write("round_ended", round=round_.number)
    done.rounds += 1


def _undo(cluster: ChaosCluster, planned: PlannedFault) -> None:
    TABLE[planned.fault].end(cluster, planned)
    cluster.log.write("fault_ended", round=cluster.log.round, fault=planned.fault)


def _heal(cluster: ChaosCluster) -> None:
    """Whatever the faults' ends left: nobody is frozen, and every node runs."""
    cluster.thaw_all()
    for node in cluster.ids:
        if node in cluster.leaving:
            cluster.await_end(node)
    cluster.leaving.clear()
    cluster.start_all()


def settle(cluster: ChaosCluster, since_us: int, done: Done) -> None:
    """Wait until there is a controller that all follow; note who, or that there is none in time."""
    heads: list[NodeReport] = []

    def settled() -> bool:
        head = cluster.settled(since_us + _IN_FLIGHT_US)
        if head is not None:
            heads.append(head)  # a moment later the voters may be changing once more
        return head is not None

    if not cluster.wait(SETTLED_WITHIN_MS, settled):
        done.settled = False
        said = {node: f"{r.role} {r.status} {r.term} {r.voters.members}" for node, r in cluster.look(since_us).items()}
        cluster.log.write("not_settled", round=cluster.log.round, said=said)
        return
    head, took_ms = heads[-1], (now_us() - since_us) / 1000
    cluster.log.write("settled", round=cluster.log.round, controller=head.id, term=head.term, took_ms=took_ms)


def _end(cluster: ChaosCluster) -> None:
    """End all processes, and note what is left of them, and what the job's Redis accepted."""
    with contextlib.suppress(ClusterError):
        cluster.processes()  # whoever started them learns what has ended
    for pid, words in left_over(cluster, zombies=True):
        cluster.log.write("leftover", pid=pid, what=words)
    cluster.bring_down()
    with contextlib.suppress(OSError, ToolError):
        items = cluster.accepted()
        for at in range(0, len(items), _ITEMS):
            cluster.log.write("accepted", items=items[at : at + _ITEMS])
    cluster.close()
    for pid, words in left_over(cluster, zombies=False):
        cluster.log.write("leftover", pid=pid, what=words)
