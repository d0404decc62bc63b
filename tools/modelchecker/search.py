"""Breadth first through all worlds: each is visited once, the first violation is the shortest."""

from __future__ import annotations

import sys
import time
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field

from tools.common.violation import Violation
from tools.modelchecker.model import Move, World
from tools.modelchecker.pruning import describe
from tools.modelchecker.universe import Universe


@dataclass
class Found:
    """What a search found. `violation` is empty when every world was fine; `complete`: no world
    was left unvisited within the bounds; `seen`: the properties "sometimes"; `trace`: the way to a
    violation, empty when it was found on a stage and no true history of it is known. `universe`
    counts stages where stages were searched."""

    worlds: int = 0
    depth: int = 0
    seconds: float = 0.0
    complete: bool = False
    violation: str = ""
    trace: list[str] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)


def key_of(world: World) -> int:
    """64 bits for a world. The messages in flight' mask goes through the hash of bytes, because Python's hash
    of a large integer is a remainder in which far bits fall together."""
    in_flight = world.in_flight
    packed = in_flight.to_bytes((in_flight.bit_length() + 7) // 8, "little")
    return hash((world.at, world.witness, packed, world.budget, world.elected, world.committed))


def search(
    universe: Universe,
    start: World,
    *,
    most: int,
    depth: int,
    seconds: float,
    progress: bool = False,
    on_move: Callable[[World], object] | None = None,
) -> Found:
    """Visit worlds from `start` until all are seen, a property breaks, or a limit is reached. `on_move`
    is told each world."""
    found = Found(seen=universe.seen)
    began = described = time.monotonic()
    visited = {key_of(start)}
    keys, parents = array("q", [key_of(start)]), array("I", [0])
    level, first = [start], 0
    while level:
        following: list[World] = []
        for offset, world in enumerate(level):
            try:
                for _, after in universe.moves(world):
                    key = key_of(after)
                    if key not in visited:
                        visited.add(key)
                        keys.append(key)
                        parents.append(first + offset)
                        following.append(after)
                        if on_move is not None:
                            on_move(after)
            except Violation as violation:
                found.violation = str(violation)
                found.trace = _trace(universe, start, _path(keys, parents, first + offset))
                found.worlds, found.seconds = len(keys), time.monotonic() - began
                found.depth = len(found.trace)
                return found
            if offset % 1024 == 0 and (now := time.monotonic()) > described + 5:
                described = now
                if progress:
                    _show(len(keys), found.depth, len(level), now - began)
            if offset % 256 == 0 and (len(keys) >= most or time.monotonic() - began > seconds):
                found.worlds, found.seconds = len(keys), time.monotonic() - began
                return found
        first += len(level)
        level = following
        found.depth += bool(level)
        if found.depth >= depth:
            break
    found.complete = not level
    found.worlds, found.seconds = len(keys), time.monotonic() - began
    return found


def _show(worlds: int, depth: int, breadth: int, seconds: float) -> None:
    rate = worlds / max(seconds, 0.001)
    print(f"  {worlds:,} worlds, depth {depth} ({breadth:,} there), {rate:,.0f} a second", file=sys.stderr)


def _path(keys: array[int], parents: array[int], index: int) -> list[int]:
    path = []
    while index:
        path.append(keys[index])
        index = parents[index]
    return path[::-1]


def _trace(universe: Universe, start: World, path: list[int]) -> list[str]:
    """The way to a violation, once more, in words; the last line is the move that breaks it."""
    lines, world = [], start
    for wanted in path:
        for move, after in universe.moves(world):
            if key_of(after) == wanted:
                lines.append(described(universe, move))
                world = after
                break
    last: list[Move] = []
    universe.on_move = last.append
    try:
        for _ in universe.moves(world):
            pass
    except Violation:
        lines += [described(universe, move) for move in last[-1:]]
    finally:
        universe.on_move = None
    return lines


def described(universe: Universe, move: Move) -> str:
    """One line for one move."""
    heard = "" if move.heard < 0 else f" {describe(universe.model.in_flight[move.heard])}"
    who = {-1: "", 0: "witness "}.get(move.who, f"node {move.who} ")
    facts = f"  ->  {move.outcome.facts}" if move.outcome is not None and move.outcome.facts else ""
    return f"{who}{move.words}{heard}{facts}"


def greedy(universe: Universe, world: World, wanted: Callable[[World], bool], allowed: Callable[[Move], bool]) -> World:
    """A good run without misfortune: messages in flight arrive at once, time passes when nothing else happens.
    The worlds of a search may begin there. Raises `LookupError` when it never becomes what is `wanted`."""
    for _ in range(2_000):
        best, idle = None, True
        for move, after in universe.moves(world):
            if after == world or not allowed(move):
                continue
            if move.who >= 0 and "time passes" not in move.words:
                best, idle = after, False
                break
            best = best or after
        if idle and wanted(world):
            return world
        if best is None:
            break
        world = best
    raise LookupError("a good run never came to the wanted start")
