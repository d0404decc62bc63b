"""One run: rounds of faults against a cluster, everything noted."""

from __future__ import annotations

import contextlib
import os
import platform
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import zmq

from tools.benchmarks.common import BenchError, JsonDict
from tools.chaos_lab.fault import Broken, Fault, Strike
from tools.chaos_lab.fault_table import TABLE
from tools.chaos_lab.notes import Notes
from tools.chaos_lab.resources import left_over, sample
from tools.chaos_lab.schedule import Round
from tools.chaos_lab.target import Scene, World
from zelect import __version__
from zelect.devcluster.bundled_server import ServerFailed
from zelect.devcluster.layout import ClusterError
from zelect.system.clock import now_us, unix_ms

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
    rounds: Iterable[Round]
    most: int | None
    duration_s: float | None
    skipped: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Done:
    """What came of it. `settled`: whether the last healing led to a controller; `broken`: what a node
    did that it never may, beside what the history is judged for; `failed`: why the run could not
    go on."""

    rounds: int = 0
    settled: bool = True
    broken: str = ""
    failed: str = ""
    interrupted: bool = False


def run(plan: Plan, show: Callable[[Round, str], None]) -> Done:
    """Carry out `plan`; `show` is told of each round and what is being done to it. Raises
    BenchError, ClusterError, NoServer, ServerFailed where the cluster can't be run at all."""
    notes = Notes(plan.scene.directory / "history")
    done = Done()
    world = None
    try:
        world = World(plan.scene, notes)
        _begin(plan, world)
        world.open()
        _settle(world, now_us(), done)
        if done.settled:
            _rounds(plan, world, done, show)
    except KeyboardInterrupt:
        done.interrupted = True
    finally:
        if world is not None:
            _end(world)
        notes.close()
    return done


def _rounds(plan: Plan, world: World, done: Done, show: Callable[[Round, str], None]) -> None:
    """Round after round, until it is enough or something is broken: what came after that would be
    judged against a cluster that is broken already."""
    end = None if plan.duration_s is None else time.monotonic() + plan.duration_s
    for round_ in plan.rounds:
        if (plan.most is not None and done.rounds >= plan.most) or (end is not None and time.monotonic() > end):
            return
        try:
            _round(world, round_, done, show)
        except Broken as error:
            done.broken = f"round {round_.number}: {error}"
            world.notes.write("broken", round=round_.number, text=str(error))
        except (BenchError, ClusterError, ServerFailed, OSError) as error:
            done.failed = f"round {round_.number}: {error}"
        if done.broken or done.failed or not done.settled:
            return


def _begin(plan: Plan, world: World) -> None:
    world.notes.write(
        "run",
        seed=plan.seed,
        nodes=plan.scene.nodes,
        faults=[fault.name for fault in plan.faults],
        versions=_versions(),
        timing={name: getattr(world.timing, name) for name in world.timing.__dataclass_fields__},
        quorum=plan.scene.quorum,
        base_us=now_us(),
        unix_ms=unix_ms(),
    )
    for fault, reason in plan.skipped.items():
        world.notes.write("skipped", fault=fault, reason=reason)


def _versions() -> JsonDict:
    return {
        "zelect": __version__,
        "python": platform.python_version(),
        "pyzmq": zmq.__version__,
        "libzmq": zmq.zmq_version(),
        "system": platform.platform(),
        "cpus": os.cpu_count(),
    }


def _round(world: World, round_: Round, done: Done, show: Callable[[Round, str], None]) -> None:
    notes = world.notes
    notes.round = round_.number
    notes.write("round_began", round=round_.number)
    show(round_, " + ".join(strike.fault for strike in round_.strikes))
    with contextlib.ExitStack() as undo:  # each is undone, the last one first, whatever goes wrong
        for strike in round_.strikes:
            world.wait(strike.after_ms)
            undo.callback(_undo, world, strike)
            TABLE[strike.fault].begin(world, strike)
        world.wait(max(strike.hold_ms for strike in round_.strikes))
    _heal(world)
    healed_us = notes.write("healed", round=round_.number)
    show(round_, "healing")
    if world.spaces and any(TABLE[strike.fault].links for strike in round_.strikes):
        # What TCP still repeats, ever more slowly, may be missed for as long again as it was cut off.
        world.wait(3 * world.timing.election_timeout_ms)
        healed_us = now_us()
    _settle(world, healed_us, done)
    for line in sample(world):
        notes.write("resources", **line)
    world.wait(round_.quiet_ms)
    notes.write("round_ended", round=round_.number)
    done.rounds += 1


def _undo(world: World, strike: Strike) -> None:
    TABLE[strike.fault].end(world, strike)
    world.notes.write("fault_ended", round=world.notes.round, fault=strike.fault)


def _heal(world: World) -> None:
    """Whatever the faults' ends left: nobody is frozen, and every node runs."""
    world.thaw_all()
    for node in world.ids:
        if node in world.leaving:
            world.await_end(node)
    world.leaving.clear()
    world.start_all()


def _settle(world: World, since_us: int, done: Done) -> None:
    asked_us = since_us + _IN_FLIGHT_US
    world.wait(SETTLED_WITHIN_MS, lambda: world.settled(asked_us) is not None)
    head = world.settled(asked_us)
    if head is None:
        done.settled = False
        said = {node: f"{r.role} {r.status} {r.term} {r.members}" for node, r in world.look(since_us).items()}
        world.notes.write("not_settled", round=world.notes.round, said=said)
        return
    took_ms = (now_us() - since_us) / 1000
    world.notes.write("settled", round=world.notes.round, controller=head.id, term=head.term, took_ms=took_ms)


def _end(world: World) -> None:
    """End all processes, and note what is left of them, and what the job's Redis accepted."""
    for pid, words in left_over(world, zombies=True):
        world.notes.write("leftover", pid=pid, what=words)
    world.bring_down()
    with contextlib.suppress(OSError, BenchError):
        items = world.accepted()
        for at in range(0, len(items), _ITEMS):
            world.notes.write("accepted", items=items[at : at + _ITEMS])
    world.close()
    for pid, words in left_over(world, zombies=False):
        world.notes.write("leftover", pid=pid, what=words)
