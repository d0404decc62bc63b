"""The simulator: the machine that ships, under virtual time and faults that follow from a seed.

    python tools/sim.py --nodes 3 --seed 42
    python tools/sim.py --seeds 1-2000 --jobs 2 --faults kill,crash,freeze,oneway,witness

A run is a *safety phase* with faults, after each event of which `tools.simulator.properties` checks
everything. Then some nodes are back, and all is well among them: if they can elect anybody, somebody must be
active within the bound. Then all is healed: within `BOUND_MS` of virtual time a controller must be active and stay so,
and within `GROWN_MS` every member must be a voter again.
Runs in which too many voters have lost their state by then are exempt from the second phase, and
counted. The seed is printed first; a seed that fails is shrunk, and its
shortest history is printed in the words of the protocol.
"""

from __future__ import annotations

import argparse
import gc
import random
import sys
import time
import traceback
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tools.common.violation import Violation
from tools.simulator.faults import FAULTS, Fault, apply, heal_all, heal_some, make_plan, tell_member
from tools.simulator.properties import Forbidden
from tools.simulator.simulated_world import SimWorld
from zelect.core.messages import MemberAction, MemberChange
from zelect.core.timing import Proof, Timing

BOUND_MS = 6000
"""Within this virtual time after the last fault somebody is active."""
GROWN_MS = 20_000
"""Within this virtual time after that, everybody is a member again."""
_KEPT_MS = 2000
_TOLD_RUNS = 1000
"""After so many runs a line says how far it is."""

_TIMINGS = (
    Timing(),
    Timing(),
    Timing(lease_ms=428, drift_ppm=50_000),
    Timing(heartbeat_ms=20, election_timeout_ms=120, lease_ms=100, stagger_ms=5, down_after_ms=300),
    Timing(down_after_ms=500),
)


@dataclass(frozen=True)
class Scene:
    """All that a run depends on. `founders`: the nodes whose cluster exists at the start; where that is not all, the
    others are new, and have all nodes in their configuration. `save_us`: how long a save takes. `back`: the
    nodes that come back first once the faults are over."""

    seed: int
    nodes: int
    quorum: str
    timing: Timing
    priorities: dict[int, int]
    skews_us: dict[int, int]
    ppm: dict[int, int]
    same_host: bool
    clocks_agree: bool
    guarded: bool
    plan: list[Fault]
    founders: tuple[int, ...]
    save_us: dict[int, int]
    back: tuple[int, ...]


@dataclass
class Outcome:
    """What a run showed. `rule` is empty when every property held. `few_lost`, `lost`: by which row of the price tables
    nobody could be elected while some were missing, and once all were back."""

    seed: int
    rule: str = ""
    text: str = ""
    timeline: str = ""
    events: int = 0
    messages: int = 0
    trace: int = 0
    lost: str = ""
    forbidden: bool = False
    few_lost: str = ""
    few_in_ms: float = 0.0
    healed_in_ms: float = 0.0
    failed_at_us: int = 0
    sometimes: dict[str, int] = field(default_factory=dict)


def scene_of(seed: int, nodes: int = 0, steps: int = 60, faults: Collection[str] = FAULTS, wild: bool = False) -> Scene:
    """The scene of `seed`. `nodes` 0: the seed chooses. `wild`: clocks outside the configured drift."""
    dice, more = random.Random(seed), random.Random(seed ^ 0x15)
    count = nodes or dice.choice((2, 3, 3, 3, 3, 4, 5, 5, 7))
    proof = dice.choice((Proof.REFUSED, Proof.REFUSED, Proof.REFUSED, Proof.PROCESS, Proof.NONE))
    timing = replace(dice.choice(_TIMINGS), proof=proof)
    ids = range(1, count + 1)
    most = 200_000 if wild else timing.drift_ppm
    return Scene(
        seed=seed,
        nodes=count,
        quorum=dice.choice(("dynamic", "dynamic", "dynamic", "static")),
        timing=timing,
        priorities={n: dice.choice((0, 0, 0, 5, 10)) for n in ids},
        skews_us={n: dice.choice((0, dice.randrange(10**12))) for n in ids},
        ppm={n: dice.choice((-most, 0, most, dice.randint(-most, most))) for n in ids},
        same_host=dice.random() < 0.3,
        clocks_agree=not wild,
        guarded=random.Random(seed ^ 0x6A2D).random() < 0.4,
        plan=make_plan(dice, steps, faults),
        founders=_founders(more, count),
        save_us=_disks(more, count),
        back=tuple(sorted(more.sample(ids, more.randint(count // 2, count)))),
    )


def _founders(dice: random.Random, count: int) -> tuple[int, ...]:
    """Mostly all; sometimes some, which the others are to join; sometimes none."""
    if dice.random() < 0.7:
        return tuple(range(1, count + 1))
    return tuple(range(1, dice.randrange(count) + 1))


def _disks(dice: random.Random, count: int) -> dict[int, int]:
    """How long a save takes on each node, in microseconds: mostly no time at all."""
    usual_ms = dice.choice((0, 0, 0, 0, 0, 5, 20, 50, 100, 500))
    return {n: usual_ms * dice.choice((200, 1000, 1000)) for n in range(1, count + 1)} if usual_ms else {}


class Run:
    """One run of one scene."""

    def __init__(self, scene: Scene, kind: type[SimWorld] = SimWorld) -> None:
        self.scene = scene
        self.outcome = Outcome(scene.seed)
        self.world = world = kind(
            scene.nodes,
            seed=scene.seed,
            skews_us=scene.skews_us,
            ppm=scene.ppm,
            timing=scene.timing,
            priorities=scene.priorities,
            quorum=scene.quorum,
            guarded=scene.guarded,
            founded=scene.founders,
            lists=dict.fromkeys(scene.founders, scene.founders),
        )
        world.save_us, world.usual_save_us = dict(scene.save_us), dict(scene.save_us)
        world.same_host = scene.same_host
        world.properties.clocks_agree = scene.clocks_agree

    def run(self) -> Outcome:
        """Both phases; whatever goes wrong is in the outcome."""
        outcome, world = self.outcome, self.world
        try:
            self._with_faults()
            self._partly_healed()
            self._healed()
        except Forbidden:
            outcome.forbidden = True
        except Violation as broken:
            outcome.rule, outcome.text = broken.rule, str(broken)
        except Exception as error:  # of the machine: also RuleBroken
            last = traceback.extract_tb(error.__traceback__)[-1]
            outcome.rule, outcome.text = type(error).__name__, f"{error} ({last.name}, line {last.lineno})"
        if outcome.rule:
            outcome.failed_at_us = world.now_us
            outcome.timeline = world.timeline(last=120)
        outcome.events, outcome.messages, outcome.trace = world.events, world.messages, world.trace
        outcome.sometimes = dict(world.properties.sometimes)
        return outcome

    def _with_faults(self) -> None:
        world, began_us = self.world, self.world.now_us
        world.start()
        for fault in self.scene.plan:
            world.run((began_us + fault.at_us - world.now_us) / 1000)
            apply(world, fault)
        world.run(200)

    def _partly_healed(self) -> None:
        """Only some nodes are back. Where they can elect somebody, they must (L1)."""
        world, back = self.world, self.scene.back
        for _ in range(2):
            heal_some(world, back)
            world.run(250)
        self.outcome.few_lost = world.properties.unavailable()
        if not self.outcome.few_lost:
            said = f"nobody is active although only {back} of {self.scene.nodes} are back and can elect"
            self.outcome.few_in_ms = self._wait(lambda: world.controller() is not None, self._bound_ms(), said)
        world.healed = False

    def _bound_ms(self) -> int:
        """The bound, and what slow disks need: some rounds, and a few saves in each."""
        return BOUND_MS + 40 * max(self.scene.save_us.values(), default=0) // 1000

    def _healed(self) -> None:
        world = self.world
        heal_all(world)
        world.run(250)
        heal_all(world)  # those that were about to leave have gone by now, and come back too
        world.run(50)
        self.outcome.lost = world.properties.unavailable()
        if self.outcome.lost:
            return
        bound_ms = self._bound_ms()
        self.outcome.healed_in_ms = self._wait(lambda: world.controller() is not None, bound_ms, "nobody is active")
        if max(self.scene.save_us.values(), default=0) > self.scene.timing.lease_us // 2:
            return  # where a save outlasts the lease each change of the voters may cost the leadership
        self._wait(self._whole, GROWN_MS + 2 * bound_ms, "not every member is a voter again")
        world.run(_KEPT_MS)  # a lease that lost its quorum before may end now
        kept = world.controller()
        world.run(_KEPT_MS)
        if world.controller() != kept:
            raise Violation("L1", f"n{kept} did not keep its leadership: now {world.controller()}")

    def _whole(self) -> bool:
        """Whether all nodes that belong to the cluster are voters, and know it."""
        world = self.world
        controller = world.controller()
        if controller is None:
            return False
        record = world.state(controller).record
        for n, address in record.addresses:
            if address != world.addresses[n]:  # it moved, and the operator was not heard, or not in time
                tell_member(world, controller, MemberChange(MemberAction.REPLACE, n, world.addresses[n]))
                return False
        states = [world.state(n) for n in record.nodes]
        return record.members == record.nodes and all(state.may_vote(state.record) for state in states)

    def _wait(self, condition: object, within_ms: int, text: str) -> float:
        world = self.world
        began_us = world.now_us
        assert callable(condition)
        while not condition():
            if world.now_us - began_us > within_ms * 1000:
                raise Violation("L1", f"{text} within {within_ms} ms")
            world.run(10)
        return (world.now_us - began_us) / 1000


def run(scene: Scene) -> Outcome:
    return Run(scene).run()


def shrunk(scene: Scene, outcome: Outcome, tries: int = 150) -> tuple[Scene, Outcome]:
    """A shorter scene that breaks the same rule: faults are left out in ever smaller groups."""
    best, found = scene, outcome
    if found.failed_at_us and outcome.rule != "L1":
        shorter = replace(best, plan=[f for f in best.plan if f.at_us <= found.failed_at_us - 1_000_000])
        result = run(shorter)
        if result.rule == outcome.rule:
            best, found = shorter, result
    group = max(1, len(best.plan) // 2)
    while tries > 0:
        at = 0
        while at < len(best.plan) and tries > 0:
            candidate = replace(best, plan=best.plan[:at] + best.plan[at + group :])
            tries -= 1
            result = run(candidate)
            if result.rule == outcome.rule:
                best, found = candidate, result
            else:
                at += group
        if group == 1:
            break
        group = max(1, group // 2)
    return best, run(best)


def _trace(scene: Scene, outcome: Outcome) -> str:
    lines = [
        f"seed {scene.seed}: {outcome.text}",
        f"{scene.nodes} nodes, quorum {scene.quorum}, {scene.timing}, rates {scene.ppm}, same host {scene.same_host}",
        "faults:",
        *(f"  {fault}" for fault in scene.plan),
        "history:",
        outcome.timeline,
    ]
    return "\n".join(lines)


def _collect_seldom() -> None:
    """A run leaves few cycles behind, and looking for them takes a fifth of its time."""
    gc.freeze()
    gc.set_threshold(200_000, 20, 20)


def _outcomes(scenes: Iterable[Scene], jobs: int) -> Iterator[Outcome]:
    if jobs <= 1:
        _collect_seldom()
        yield from map(run, scenes)
        return
    with ProcessPoolExecutor(jobs, initializer=_collect_seldom) as pool:
        yield from pool.map(run, scenes, chunksize=4)


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Run the shipped election in virtual time, with faults from a seed.")
    parser.add_argument("--nodes", type=int, default=0, help="how many (default: the seed chooses)")
    parser.add_argument("--seed", type=int, default=None, help="one seed (default: a new one)")
    parser.add_argument("--seeds", default="", metavar="A-B", help="a range of seeds, both included")
    parser.add_argument("--steps", type=int, default=60, help="faults in a run")
    parser.add_argument("--faults", default=",".join(FAULTS), help="which ones (default: %(default)s)")
    parser.add_argument("--wild", action="store_true", help="clock rates outside the bound: only S1 and L1 are checked")
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time")
    parser.add_argument("--most", type=int, default=5, help="stop after so many failing seeds")
    parser.add_argument("--whole", action="store_true", help="do not shrink a failing seed")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Exit code 1 when a property was broken."""
    options = _arguments(argv)
    names = options.faults.split(",") if options.faults else []
    if unknown := set(names) - set(FAULTS):
        print(f"unknown faults: {', '.join(sorted(unknown))}; there are {', '.join(FAULTS)}", file=sys.stderr)
        return 2
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(1 << 32)
    first, _, last = options.seeds.partition("-") if options.seeds else (str(seed), "", str(seed))
    print(f"seeds {first} to {last}, {options.steps} faults each", flush=True)
    scenes = (scene_of(s, options.nodes, options.steps, names, options.wild) for s in range(int(first), int(last) + 1))
    began, failed, sometimes, slowest = time.monotonic(), 0, Counter[str](), 0.0
    runs = events = messages = forbidden = 0
    few, lost = Counter[str](), Counter[str]()
    few_slowest = 0.0
    for outcome in _outcomes(scenes, options.jobs):
        runs += 1
        events += outcome.events
        messages += outcome.messages
        lost.update([outcome.lost] if outcome.lost else [])
        few.update([outcome.few_lost] if outcome.few_lost else [])
        forbidden += outcome.forbidden
        few_slowest = max(few_slowest, outcome.few_in_ms)
        slowest = max(slowest, outcome.healed_in_ms)
        sometimes.update(outcome.sometimes)
        if runs % _TOLD_RUNS == 0:
            print(f"{runs} runs, {events} events, {failed} failed; at seed {outcome.seed}", file=sys.stderr, flush=True)
        if outcome.rule:
            failed += 1
            print(f"seed {outcome.seed} broke {outcome.text}", flush=True)
            if not options.whole:
                scene = scene_of(outcome.seed, options.nodes, options.steps, names, options.wild)
                print(_trace(*shrunk(scene, outcome)), flush=True)
            if failed >= options.most:
                break
    took_s = time.monotonic() - began
    print(f"{runs} runs, {events} events, {messages} messages in {took_s:.1f} s: {events / took_s:.0f} events/s")
    slowest_of = f"the slowest of the others took {few_slowest:.0f} ms"
    print(f"{few.total()} runs could elect nobody while some were missing; {slowest_of}")
    _show(few)
    print(
        f"{forbidden} runs ended with what is forbidden: a copy of a disk that nobody noticed, all of an old list lost"
    )
    print(f"{lost.total()} runs lost their voters for good; the slowest of the others healed in {slowest:.0f} ms")
    _show(lost)
    print("seen: " + ", ".join(f"{name} {count}" for name, count in sorted(sometimes.items())))
    if runs == 1:
        print(f"trace {outcome.trace:08x}")
    return 1 if failed else 0


def _show(rows: Counter[str]) -> None:
    """Each row of the price tables (docs/protocol.md), and how often it was met."""
    for row, count in rows.most_common():
        print(f"  {count:5} {row}")


if __name__ == "__main__":
    sys.exit(main())
