"""Histories as they are recorded: those of real nodes are read, those of simulated clusters are made."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from tools.common.violation import Violation
from tools.sim import Run, Scene
from tools.simulator.properties import Properties
from tools.simulator.simulated_world import SimWorld
from tools.simulator.small_world import SimulatedProcess
from tools.spec_check.traces import NoTrace
from zelect.core import machine, transitions
from zelect.core.effects import Effects, Saved
from zelect.core.events import Event
from zelect.node.history_recorder import HistoryRecorder


def read_nodes(directory: Path) -> list[dict[str, Any]]:
    """What all nodes wrote into `directory`, or into `history` in it. A line that was not written whole, because its
    process was killed, is left out. Raises `NoTrace`."""
    inside = directory / "history"
    files = sorted((inside if inside.is_dir() else directory).glob("node*.jsonl"))
    if not files:
        raise NoTrace(f"{directory}: no node has written a history there")
    found = []
    for file in files:
        for text in file.read_bytes().splitlines():
            try:
                found.append(json.loads(text))
            except ValueError:
                continue
    return found


def switch_off_invariants() -> None:
    """From now on no machine in this process checks its own rules: others are to judge what it does without them."""
    vars(machine)["check"] = lambda step: None
    for module in (machine, transitions):
        vars(module)["require"] = lambda holds, rule, text: None


class _Unjudged(Properties):
    """Looks on, and does not complain: a recorded history is judged by the specification alone."""

    def saving(self, n: int, saved: Saved) -> None:
        with suppress(Violation, KeyError):
            super().saving(n, saved)

    def stepped(self, n: int, process: SimulatedProcess) -> None:
        with suppress(Violation, KeyError):
            super().stepped(n, process)

    def noted(self, n: int, name: str, details: dict[str, Any]) -> None:
        with suppress(Violation, KeyError):
            super().noted(n, name, details)

    def witness_changed(self) -> None:
        with suppress(Violation, KeyError):
            super().witness_changed()

    def published(self, n: int, term: int) -> None:
        with suppress(Violation, KeyError):
            super().published(n, term)


class RecordedWorld(SimWorld):
    """A world whose nodes record what they do; `lines` is all of it, in order. Times are true ones, not those of the
    nodes' clocks."""

    def __init__(self, nodes: int, **options: Any) -> None:
        super().__init__(nodes, **options)
        self.properties = _Unjudged(self)
        self.lines: list[dict[str, Any]] = []
        self._recorders: dict[int, HistoryRecorder] = {}

    def start(self, *nodes: int, forget: bool = False) -> None:
        for n in nodes or tuple(self.settings):
            if n not in self.processes:
                super().start(n, forget=forget)
                self._recorders[n] = HistoryRecorder(self._append, n, self.disks[n])

    def decided(self, n: int, event: Event) -> None:
        self._recorders[n].before(event, self.state(n))

    def kept(self, n: int, effects: Effects) -> None:
        self._recorders[n].saved(effects, self.state(n))

    def done(self, n: int, effects: Effects) -> None:
        self._recorders[n].after(effects, self.state(n))

    def _append(self, text: bytes) -> None:
        line = json.loads(text)
        line["us"] = self.now_us
        for name in ("lapses_us", "active_since_us"):
            if name in line:
                line[name] = self.true_us(line["node"], line[name])
        self.lines.append(line)


FORBIDDEN = "forbidden"
"""An older copy of a node's data acted before anybody noticed: what nobody promises anything about (R16)."""


def history_of(scene: Scene) -> tuple[list[dict[str, Any]], str]:
    """The history of a simulated run, and which property of the simulator it broke: "" when none; `FORBIDDEN`."""
    run = Run(scene, RecordedWorld)
    outcome = run.run()
    assert isinstance(run.world, RecordedWorld)
    return run.world.lines, FORBIDDEN if outcome.forbidden else outcome.rule
