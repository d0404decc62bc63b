"""The jobs in the leaderships of a simulated run's guarded nodes: each takes a while to end (R6).

A job begins when its node becomes active. When the leadership is lost, the job ends some time later, at the
latest with the lease, and only then the node hears `JobEnded`. Nobody may become active while another
node's job runs.
"""

from __future__ import annotations

import random

from tools.common.violation import Violation
from tools.simulator.properties import Properties
from tools.simulator.small_world import MS, SimulatedProcess, World
from zelect.core.events import JobEnded

_MOST_US = 300 * MS


class Jobs:
    """The jobs of one world. `stepped` is called after every step."""

    def __init__(self, world: World, properties: Properties, seed: int) -> None:
        self._world = world
        self._properties = properties
        self._noise = random.Random(seed ^ 0x10B)
        self._running: dict[int, SimulatedProcess] = {}
        self._ends_us: dict[int, int] = {}
        self._ending: set[int] = set()

    def stepped(self, n: int, process: SimulatedProcess) -> None:
        """After a step of `n` and its effects."""
        world, lease = self._world, process.machine.lease
        if self._running.get(n) not in (None, process) or (process.machine.state.leaving and n in self._running):
            self._forget(n)  # it died with its process, or was ended before the node was told to leave
        if lease is not None and world.local_us(n) < lease.lapses_us:
            if n not in self._running:
                self._begin(n, process)
            if n not in self._ending:
                self._ends_us[n] = world.true_us(n, lease.lapses_us)
        elif n in self._running and n not in self._ending:
            self._ending.add(n)
            left_us = max(0, self._ends_us[n] - world.now_us)
            self._ends_us[n] = world.now_us + min(left_us, int(self._noise.random() * _MOST_US))
            world.at(self._ends_us[n] - world.now_us, lambda: self._end(n, process))
        elif process.machine.pending_handover_term and n not in self._running and process.frozen is None:
            world.at(0, lambda: self._end_job(n, process))

    def _begin(self, n: int, process: SimulatedProcess) -> None:
        world = self._world
        for other, theirs in self._running.items():
            if (
                world.processes.get(other) is theirs
                and self._ends_us[other] > world.now_us
                and self._properties.clocks_agree
            ):
                left_us = self._ends_us[other] - world.now_us
                raise Violation("S2", f"n{n} is active while the job of n{other} runs for another {left_us} us")
        self._running[n] = process

    def _end(self, n: int, process: SimulatedProcess) -> None:
        if self._running.get(n) is process:
            self._forget(n)
            self._end_job(n, process)

    def _end_job(self, n: int, process: SimulatedProcess) -> None:
        if self._world.processes.get(n) is process and n not in self._running and process.machine.pending_handover_term:
            self._properties.count("job_ended")
            self._world.feed(n, JobEnded())

    def _forget(self, n: int) -> None:
        del self._running[n]
        del self._ends_us[n]
        self._ending.discard(n)
