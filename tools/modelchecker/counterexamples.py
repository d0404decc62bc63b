"""True histories of what stages show, step by step through worlds, and in the protocol's words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from tools.common.violation import Violation
from tools.modelchecker.model import Move, World
from tools.modelchecker.search import described
from tools.modelchecker.stages import Stages

_AT_ONCE = 12
"""Histories followed side by side, from stage to stage."""
_WORLDS = 30_000
"""Worlds looked at where no history led along the stages."""


@dataclass(frozen=True)
class Line:
    """One thing that happened: `heard` is the message's bit (0: none), `added` what was sent,
    `before` the messages in flight before a unit of time passed, `free` whether it only added messages."""

    words: str
    heard: int
    added: int
    before: int = 0
    free: bool = False


History = tuple[Line, ...]


def true_history(stages: Stages, start: World, name: str) -> list[str] | None:
    """A history at whose end the property "sometimes" called `name` is seen; None when none was found."""
    for index in stages.shown.get(name, ()):
        lines = _along(stages, start, index, name)
        if lines is not None:
            return lines
    return _anyhow(stages, start, name)


def history_of(stages: Stages, start: World, violation: str) -> list[str] | None:
    """A history that ends in the `violation` found last; None when none was found."""
    return _along(stages, start, stages.now, violation) or _anyhow(stages, start, violation)


def _along(stages: Stages, start: World, index: int, wanted: str) -> list[str] | None:
    """A history by the way on which the stage was reached first."""
    path = []
    while index:
        path.append(stages.keys[index])
        index = stages.parents[index]
    campaigned = stages.alike
    beam: list[tuple[World, History]] = [_closed(stages, start, campaigned, ())]
    for key in (*reversed(path), 0):
        following: dict[int, tuple[World, History]] = {}
        after_all = campaigned
        for world, history in beam:
            for line, after, then in _onward(stages, world, campaigned, wanted):
                if after is None:
                    return _needed(stages, (*history, line))
                if key and stages.stage(after, then) == key and after.in_flight not in following:
                    after_all = then
                    following[after.in_flight] = _closed(stages, after, then, (*history, line))
        beam = sorted(following.values(), key=lambda item: -item[0].in_flight.bit_count())[:_AT_ONCE]
        campaigned = after_all
    return None


def _anyhow(stages: Stages, start: World, wanted: str) -> list[str] | None:
    """A history by any way, breadth first through worlds. One whose messages in flight another world of the
    same stage has as well is left out: what it may do that one may."""
    world, history = _closed(stages, start, stages.alike, ())
    known = {stages.stage(world, stages.alike): [world.in_flight]}
    level = [(world, stages.alike, history)]
    left = _WORLDS
    while level and left > 0:
        following = []
        for world, campaigned, history in level:
            for line, after, then in _onward(stages, world, campaigned, wanted):
                if after is None:
                    return _needed(stages, (*history, line))
                bit_sets = known.setdefault(stages.stage(after, then), [])
                if all(after.in_flight & ~bits for bits in bit_sets):
                    after, further = _closed(stages, after, then, (*history, line))
                    bit_sets.append(after.in_flight)
                    following.append((after, then, further))
                    left -= 1
            if left <= 0:
                return None
        level = following
    return None


def _onward(stages: Stages, world: World, campaigned: int, wanted: str) -> Iterator[tuple[Line, World | None, int]]:
    """Each move from `world`; no world after it when what is `wanted` came about with it."""
    universe = stages.universe
    moves: list[Move] = []
    seen, universe.seen, universe.on_move = universe.seen, set(), moves.append
    try:
        for move, after in universe.moves(world):
            if wanted in universe.seen:
                yield _line(stages, move, world, after), None, campaigned
            then = stages.campaigned_after(move, campaigned)
            if then is not None:
                yield _line(stages, move, world, after), after, then
    except Violation as violation:
        last = moves[-1] if moves else Move(-1, "a unit of time passes")
        if str(violation) == wanted:
            yield _line(stages, last, world, world), None, campaigned
    finally:
        universe.seen, universe.on_move = seen, None


def _closed(stages: Stages, world: World, campaigned: int, history: History) -> tuple[World, History]:
    """A world with everything that is sent in answer to its messages in flight by who does not change."""
    stage, more = stages.key(world, campaigned), True
    while more:
        more = False
        for move, after in _quietly(stages, world):
            added = after.in_flight & ~world.in_flight
            if move.heard >= 0 and added and stages.key(after, campaigned) == stage:
                line = Line(described(stages.universe, move), 1 << move.heard, added, free=True)
                world, history, more = world._replace(in_flight=world.in_flight | added), (*history, line), True
                break
    return world, history


def _quietly(stages: Stages, world: World) -> list[tuple[Move, World]]:
    """The moves up to one that breaks a property, which is met again when the world is left."""
    universe = stages.universe
    moves: list[tuple[Move, World]] = []
    seen, on_move, universe.seen, universe.on_move = universe.seen, universe.on_move, set(), None
    with suppress(Violation):
        moves.extend(universe.moves(world))
    universe.seen, universe.on_move = seen, on_move
    return moves


def _line(stages: Stages, move: Move, world: World, after: World) -> Line:
    heard = 1 << move.heard if move.heard >= 0 else 0
    passes = world.in_flight if "time passes" in move.words else 0
    return Line(described(stages.universe, move), heard, after.in_flight & ~world.in_flight, passes)


def _needed(stages: Stages, history: History) -> list[str]:
    """A history in words, without answers that nobody heard afterwards."""
    words: list[str] = []
    need = 0
    for line in reversed(history):
        if line.free and not line.added & need:
            continue
        words.append(line.words)
        if line.before:
            need = _younger(stages, line.before, need)
        need = need & ~line.added | line.heard
    return words[::-1]


def _younger(stages: Stages, before: int, need: int) -> int:
    """The messages in flight among those `before` a unit of time that were to become those of which there is need."""
    young, rest = 0, before
    while rest:
        low = rest & -rest
        rest ^= low
        if stages.universe.model.aged(low.bit_length() - 1) & need:
            young |= low
    return young
