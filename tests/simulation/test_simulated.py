"""The shipped machine in the simulator: fixed seeds, and histories that once broke a property."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import pytest

from tests.support.marks import long_but
from tools.modelchecker.mutants import MUTANTS
from tools.sim import Outcome, Scene, run, scene_of
from tools.simulator.small_world import World
from zelect.core.effects import WitnessIntent
from zelect.core.events import LinkDown

SEEDS = range(1, 901)
LEAST_EVENTS = 1_000_000
SOMETIMES = (
    "elected",
    "leadership entered",
    "elected with the witness",
    "shrunk",
    "at the floor",
    "grown",
    "handed over",
    "admitted again",
)


def _of(seed: int) -> Outcome:
    return run(scene_of(seed))


def test_twenty_histories_break_no_property() -> None:
    for seed in range(901, 921):
        outcome = _of(seed)
        assert not outcome.rule, f"python -m tools.sim --seed {seed}\n{outcome.text}\n{outcome.timeline}"


@pytest.mark.timeout(1800)  # two minutes and a half of CPU time, and who knows how busy the machine is
@pytest.mark.long
def test_a_million_events_break_no_property_and_see_what_they_should() -> None:
    events, seen = 0, Counter[str]()
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for outcome in pool.map(_of, SEEDS, chunksize=10):
            assert not outcome.rule, f"python -m tools.sim --seed {outcome.seed}\n{outcome.text}\n{outcome.timeline}"
            events += outcome.events
            seen.update(outcome.sometimes)
    assert events >= LEAST_EVENTS
    assert [name for name in SOMETIMES if not seen[name]] == [], "a run that never sees them shows nothing"


@pytest.mark.parametrize("nodes", long_but([2, 4, 6, 9], 2))
def test_other_sizes(nodes: int) -> None:
    for seed in range(40):
        outcome = run(scene_of(seed, nodes))
        said = f"{outcome.text}\n{outcome.timeline}"
        assert not outcome.rule, f"python -m tools.sim --nodes {nodes} --seed {seed}\n{said}"


@pytest.mark.long
def test_s1_holds_and_l1_too_with_clocks_far_outside_the_bound() -> None:
    for seed in range(60):
        outcome = run(scene_of(seed, wild=True))
        assert not outcome.rule, f"python -m tools.sim --wild --seed {seed}\n{outcome.text}\n{outcome.timeline}"


def test_a_seed_replays_bit_for_bit() -> None:
    """Also in another process, where texts hash otherwise."""
    command = [sys.executable, "-m", "tools.sim", "--seed", "7"]
    said = set()
    for salt in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": salt, "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True, timeout=120)
        said.add(done.stdout.splitlines()[-1])
    assert len(said) == 1
    assert said.pop() == f"trace {run(scene_of(7)).trace:08x}"


def test_another_seed_is_another_history() -> None:
    assert run(scene_of(7)).trace != run(scene_of(8)).trace


def _without_faults(nodes: int) -> Scene:
    return scene_of(5, nodes, steps=0)


@pytest.mark.long
def test_a_hundred_and_one_nodes_elect_in_the_simulator() -> None:
    outcome = run(_without_faults(101))
    assert not outcome.rule, outcome.text
    assert outcome.sometimes["leadership entered"] == 1


def _first_broken(seeds: range) -> str:
    outcomes = (run(scene_of(seed, faults=("kill", "start", "freeze", "isolate", "front", "lie"))) for seed in seeds)
    return next((outcome.rule for outcome in outcomes if outcome.rule), "")


def test_r9_who_refuses_for_a_living_node_breaks_nothing_but_where_only_one_side_is_looked_at() -> None:
    assert not _first_broken(range(12))
    with MUTANTS["front-is-proof"].broken():
        assert _first_broken(range(12)) == "S2"


def _break_link(world: World, a: int, b: int) -> None:
    """Both ends see the connection close, and it does not come back; both processes live."""
    world.cut(a, b)
    for x, y in ((a, b), (b, a)):
        world.processes[x].linked.discard(y)
        world.feed(x, LinkDown(y))


def test_r7_a_promise_outlives_a_winner_that_was_still_waiting_for_its_end() -> None:
    """Node 1 of six is active by 4, 6 and the witness. One of 2, 3 and 5 wins by their votes and
    the witness's, so it waits; it is heard by 4 and 6, and dies. The five that are left need no
    witness, but the lease of node 1, which hears nothing of all this, still runs."""
    world = World(6)
    world.redis.tells_time = False  # else the witness would refuse: node 1 lives
    world.start()
    world.run_until(lambda: world.controller() == 1 and world.state(1).record.witness is not None)
    world.run(600)
    for n in (2, 3, 5):
        _break_link(world, 1, n)
    world.run_until(lambda: world.happened("elected")[-1].node != 1)
    winner = world.happened("elected")[-1].node
    world.cut(1, 4)
    world.cut(1, 6)
    world._ask_witness = partial(_but_node_1, world._ask_witness)  # type: ignore[method-assign]
    world.run(1)
    assert world.controller() == 1
    world.kill(winner)
    world.run(1000)  # the world asserts S2 after every event
    assert world.controller() in {2, 3, 4, 5, 6} - {winner}


def _but_node_1(ask: object, n: int, intent: WitnessIntent) -> None:
    if n != 1:
        assert callable(ask)
        ask(n, intent)
