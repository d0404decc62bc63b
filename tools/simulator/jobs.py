"""The jobs in the offices of a simulated run's guarded nodes: each takes a while to end (R6).

A job begins with the office. When the office is lost it ends some time later, by the end of the
lease at the latest, and only then says the shell that the office is vacated. Nobody may enter
office while another node's job runs.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from tools.simulator.properties import Violation
from tools.simulator.small_world import MS
from zelect.core.events import Vacated

if TYPE_CHECKING:
    from tools.simulator.simulated_world import SimWorld
    from tools.simulator.small_world import Life

__all__ = ["Jobs"]

_MOST_US = 300 * MS


class Jobs:
    """The jobs of one world. `stepped` is told of every step."""

    def __init__(self, world: SimWorld, seed: int) -> None:
        self._world = world
        self._noise = random.Random(seed ^ 0x10B)
        self._running: dict[int, Life] = {}
        self._ends_us: dict[int, int] = {}
        self._ending: set[int] = set()

    def stepped(self, n: int, life: Life) -> None:
        """After a step of `n` and its effects."""
        world, tenure = self._world, life.machine.tenure
        if self._running.get(n) not in (None, life) or (life.machine.state.leaving and n in self._running):
            self._forget(n)  # it died with its process, or was ended before the node was told to leave
        if tenure is not None and world.local_us(n) < tenure.lapses_us:
            if n not in self._running:
                self._begin(n, life)
            if n not in self._ending:
                self._ends_us[n] = world.true_us(n, tenure.lapses_us)
        elif n in self._running and n not in self._ending:
            self._ending.add(n)
            left_us = max(0, self._ends_us[n] - world.now_us)
            self._ends_us[n] = world.now_us + min(left_us, int(self._noise.random() * _MOST_US))
            world.at(self._ends_us[n] - world.now_us, lambda: self._end(n, life))
        elif life.machine.owes and n not in self._running and life.frozen is None:
            world.at(0, lambda: self._vacate(n, life))

    def _begin(self, n: int, life: Life) -> None:
        world = self._world
        for other, theirs in self._running.items():
            if (
                world.lives.get(other) is theirs
                and self._ends_us[other] > world.now_us
                and world.properties.clocks_agree
            ):
                left_us = self._ends_us[other] - world.now_us
                raise Violation("S2", f"n{n} is in office while the job of n{other} runs for another {left_us} us")
        self._running[n] = life

    def _end(self, n: int, life: Life) -> None:
        if self._running.get(n) is life:
            self._forget(n)
            self._vacate(n, life)

    def _vacate(self, n: int, life: Life) -> None:
        if self._world.lives.get(n) is life and n not in self._running and life.machine.owes:
            self._world.properties.count("vacated")
            self._world.feed(n, Vacated())

    def _forget(self, n: int) -> None:
        del self._running[n]
        del self._ends_us[n]
        self._ending.discard(n)
