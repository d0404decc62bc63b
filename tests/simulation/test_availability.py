"""Where `quorum = "dynamic"` is as available as "static", and where it is less so: the rows of the tables in
docs/protocol.md that the machine decides (L1, R11, R12)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tools.simulator.small_world import World
from zelect.core.events import Leave

NOTICED_MS = 4000
"""Long enough for a death or a leave to be noticed, and for the voters to follow."""


def _settled(quorum: str, nodes: int = 3) -> World:
    world = World(nodes, quorum=quorum)
    world.start()
    world.run_until(lambda: world.controller() is not None)
    world.run(3000)
    return world


def _next_to_go(world: World) -> int:
    """The controller; without one any node that is up."""
    return world.controller() or min(world.processes)


def _one_after_the_other(world: World, end: Callable[[int], None], many: int) -> list[int]:
    gone = []
    for _ in range(many):
        gone.append(_next_to_go(world))
        end(gone[-1])
        world.run(NOTICED_MS)
    return gone


def _redis_is(world: World, what: str) -> None:
    match what:
        case "flushed":
            world.redis.flush()
            world.registry = (0, 0)
        case "down":
            world.registry_up = world.redis.up = False
    world.run(3000)


def _returns(world: World, *nodes: int) -> bool:
    """Whether a node becomes active once these are back."""
    world.start(*nodes)
    world.run(8000)
    return world.controller() is not None


def _last_survivor(world: World, redis: str, returns: int) -> bool:
    gone = _one_after_the_other(world, world.kill, 2)
    _redis_is(world, redis)
    return _returns(world, gone[returns])


def _all_go(world: World, redis: str, leaves: bool) -> bool:
    gone = _one_after_the_other(world, world.leave if leaves else world.kill, 3)
    _redis_is(world, redis)
    return _returns(world, gone[0], gone[1])


def _redis_goes_in_between(world: World) -> bool:
    follower = max(set(world.processes) - {_next_to_go(world)})
    world.kill(follower)
    world.run(NOTICED_MS)
    _redis_is(world, "down")
    world.kill(max(set(world.processes) - {_next_to_go(world)}))
    world.run(NOTICED_MS)
    return _returns(world, follower)


def _redis_goes_first(world: World) -> bool:
    _redis_is(world, "down")
    return _returns(world, _one_after_the_other(world, world.kill, 2)[0])


def _planned_stop(world: World) -> bool:
    for node in tuple(world.processes):
        world.feed(node, Leave(True))
        world.run(50)
        world.kill(node)
        world.run(NOTICED_MS)
    _redis_is(world, "flushed")
    return _returns(world, 1, 2)


def _two_at_once(world: World) -> bool:
    world.kill(1, 2)
    world.run(NOTICED_MS)
    assert world.controller() is None
    return _returns(world, 2)


def _two_lose_their_data_at_once(world: World) -> bool:
    world.kill(2, 3)
    world.start(2, 3, forget=True)
    world.run(8000)
    return world.controller() is not None


AS_AVAILABLE = {
    "two die at once, one returns": (_two_at_once, True),
    "Redis is down first, then two die, the first returns": (_redis_goes_first, True),
    "all die one after the other, the first two return": (lambda world: _all_go(world, "up", False), True),
    "all are stopped one after the other, the first two return": (lambda world: _all_go(world, "up", True), True),
    "a planned stop of all, Redis is flushed, two return": (_planned_stop, True),
    "Redis is flushed while one is left, the second returns": (lambda w: _last_survivor(w, "flushed", 1), True),
    "Redis is down while one is left, the second returns": (lambda w: _last_survivor(w, "down", 1), True),
    "two lose their data at once": (_two_lose_their_data_at_once, False),
}
LESS_AVAILABLE: dict[str, Callable[[World], bool]] = {
    "Redis is flushed while one is left, the first returns": lambda world: _last_survivor(world, "flushed", 0),
    "Redis is down while one is left, the first returns": lambda world: _last_survivor(world, "down", 0),
    "one dies, Redis goes, a second dies, the first returns": _redis_goes_in_between,
    "all die, Redis is flushed, the first two return": lambda world: _all_go(world, "flushed", False),
    "all are stopped, Redis is down, the first two return": lambda world: _all_go(world, "down", True),
}


@pytest.mark.parametrize("quorum", ["static", "dynamic"])
@pytest.mark.parametrize("case", AS_AVAILABLE)
def test_l1_dynamic_is_as_available_as_static(case: str, quorum: str) -> None:
    happens, active = AS_AVAILABLE[case]
    assert happens(_settled(quorum)) is active


@pytest.mark.parametrize("case", LESS_AVAILABLE)
def test_l1_dynamic_is_less_available_where_the_table_says_so(case: str) -> None:
    happens = LESS_AVAILABLE[case]
    assert happens(_settled("static"))
    assert not happens(_settled("dynamic"))


def test_l1_five_shrunk_to_the_floor_need_one_of_the_last_two() -> None:
    for quorum in ("static", "dynamic"):
        world = _settled(quorum, 5)
        gone = _one_after_the_other(world, world.kill, 5)
        assert _returns(world, *gone[:3]) is (quorum == "static")
        assert _returns(world, gone[3])


def test_l1_one_after_the_other_is_survived_by_dynamic_alone() -> None:
    for quorum in ("static", "dynamic"):
        world = _settled(quorum)
        _one_after_the_other(world, world.kill, 2)
        assert (world.controller() is not None) is (quorum == "dynamic")
