"""Histories as runs leave them: files of JSON lines, read whole and checked line by line.

DIR/history/node<ID>.jsonl   each node process: every fact of its machine, `saved`, `lease`, `lease_ended`
DIR/history/work<ID>.jsonl   the job in each: `guarded`, `unguarded`, their refusals, `work_failed`
DIR/history/resource.jsonl   what the job's Redis accepted, in its own order
DIR/history/chaos.jsonl      the tool: `run` first, then rounds, faults, healings and what it saw

`us` is CLOCK_BOOTTIME in microseconds, one clock for all processes of the host. A process may be killed in
the middle of a line, so a line that cannot be read is counted by file, and never fatal.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tools.common.violation import Violation

_MOST_LINES = 24
CHAOS = 0
"""The tool itself, as the author of lines; nodes begin at 1."""

_INTEGERS: Mapping[str, tuple[str, ...]] = {
    "lease": ("active_since_us", "lapses_us"),
    "saved": ("voted_for", "epoch"),
    "guarded": ("us_after", "value"),
    "unguarded": ("us_after", "value"),
    "settled": ("round", "controller"),
    "healed": ("round",),
    "round_began": ("round",),
    "round_ended": ("round",),
    "fault_began": ("round",),
    "fault_ended": ("round",),
    "change_began": ("round", "walk"),
    "change_ended": ("round",),
    "resources": ("pid", "rss_kb", "fds", "threads", "cpu_ms"),
    "run": ("seed", "base_us"),
}
"""What must be there, and an integer, for the line to be checked at all."""


class HistoryError(Exception):
    """There is no history to check: the message names the file and what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line. `node` and `incarnation`: the process that it is about (`CHAOS`, 0 when it is the tool's
    own and about none); `term`: 0 where it says none."""

    us: int
    node: int
    incarnation: int
    term: int
    event: str
    fields: Mapping[str, Any] = field(default_factory=dict)

    def get(self, name: str, otherwise: Any = None) -> Any:
        """A field of the event."""
        return self.fields.get(name, otherwise)


@dataclass(frozen=True)
class History:
    """All lines, each kind in the order of their times. `accepted`: for "guarded" and "unguarded" the
    term and node of each effect, in the order in which the resource accepted them; empty where
    that is not known. `bad`: unreadable lines by file."""

    run: Mapping[str, Any]
    nodes: tuple[Line, ...] = ()
    work: tuple[Line, ...] = ()
    chaos: tuple[Line, ...] = ()
    accepted: Mapping[str, Sequence[tuple[int, int]]] = field(default_factory=dict)
    bad: Mapping[str, int] = field(default_factory=dict)

    def of(self, *events: str) -> list[Line]:
        """The lines of the tool called `events`."""
        return [line for line in self.chaos if line.event in events]

    def facts(self, *events: str) -> list[Line]:
        """The lines of nodes called `events`."""
        return [line for line in self.nodes if line.event in events]

    @property
    def ids(self) -> tuple[int, ...]:
        """The nodes, whether they wrote anything or not."""
        count = self.run.get("nodes", 0)
        named = range(1, count + 1) if type(count) is int else count
        return tuple(sorted({*named, *(line.node for line in self.nodes)}))

    @property
    def timing(self) -> Mapping[str, Any]:
        """The durations of the election, in milliseconds by key of the configuration."""
        timing = self.run.get("timing")
        return timing if isinstance(timing, dict) else {}

    def span_us(self) -> tuple[int, int]:
        """The first and the last time in the history."""
        times = [line.us for lines in (self.nodes, self.work, self.chaos) for line in lines]
        return (min(times), max(times)) if times else (0, 0)


def read(directory: Path) -> History:
    """The history in `directory` (or in its subdirectory `history`). Raises `HistoryError` when there is
    none, or when it does not begin with the line about the run."""
    inside = directory / "history"
    directory = inside if inside.is_dir() else directory
    path = directory / "chaos.jsonl"
    if not path.is_file():
        raise HistoryError(f"{path}: not there; name a directory that a run has written")
    try:
        return parse({one.name: one.read_bytes() for one in sorted(directory.glob("*.jsonl"))})
    except ValueError as error:
        raise HistoryError(f"{path}: {error}") from None


def parse(files: Mapping[str, bytes]) -> History:
    """The history in `files`, contents by name. Raises ValueError when it lacks the line about the run."""
    bad: dict[str, int] = {}
    chaos = _lines("chaos.jsonl", files, bad)
    if not chaos or chaos[0].event != "run":
        raise ValueError("does not begin with the line about the run")
    nodes = [line for name in files if name.startswith("node") for line in _lines(name, files, bad)]
    work = [line for name in files if name.startswith("work") for line in _lines(name, files, bad)]
    return History(chaos[0].fields, _in_order(nodes), _in_order(work), _in_order(chaos), _accepted(files, bad), bad)


def _accepted(files: Mapping[str, bytes], bad: dict[str, int]) -> dict[str, list[tuple[int, int]]]:
    found: dict[str, list[tuple[int, int]]] = {}
    for line in _lines("resource.jsonl", files, bad):
        found.setdefault(str(line.get("kind")), []).append((line.term, line.node))
    return found


def _in_order(lines: list[Line]) -> tuple[Line, ...]:
    return tuple(sorted(lines, key=lambda line: line.us))  # stable: a process's own order stays


def _lines(name: str, files: Mapping[str, bytes], bad: dict[str, int]) -> list[Line]:
    found = []
    for text in files.get(name, b"").split(b"\n"):
        if not text:
            continue
        line = _line(text)
        if line is None:
            bad[name] = bad.get(name, 0) + 1
        else:
            found.append(line)
    return found


def _line(text: bytes) -> Line | None:
    try:
        table = json.loads(text)
    except ValueError:
        return None
    if type(table) is not dict:
        return None
    event = table.pop("event", None)
    us = table.pop("us", 0 if event == "accepted" else None)  # the resource has no clock, only an order
    about = [table.pop(name, 0) for name in ("node", "incarnation", "term")]
    wanted = [us, *about, *(table.get(name) for name in _INTEGERS.get(str(event), ()))]
    if type(event) is not str or not all(type(value) is int for value in wanted):
        return None
    if event == "fault_began" and not isinstance(table.get("fault"), str):
        return None
    return Line(us, about[0], about[1], about[2], event, table)


def timeline(lines: Iterable[Line], ids: Collection[int] = (), width: int = 80) -> list[str]:
    """The lines in fixed columns, at most `width` wide: milliseconds since the first, who, the term, what."""
    ordered = sorted(lines, key=lambda line: line.us)
    shown = []
    for line in ordered:
        who = f"n{line.node}" if line.node else "chaos"
        term = str(line.term) if line.term else ""
        after_ms = (line.us - ordered[0].us) / 1000
        said = " ".join(f"{name}={_short(name, value, ordered[0].us)}" for name, value in line.fields.items())
        shown.append(f"{after_ms:12.3f} ms  {who:<5} {term:>5}  {line.event:<16} {said}"[:width].rstrip())
    return shown


def described(violation: Violation, width: int = 80) -> list[str]:
    """A violation of a history, and under it the lines that show it."""
    lines = timeline(violation.lines, width=width - 2)
    if len(lines) > _MOST_LINES:
        left_out = len(lines) - _MOST_LINES
        lines = [*lines[: _MOST_LINES // 2], f"... {left_out} lines ...", *lines[-_MOST_LINES // 2 :]]
    return [str(violation), *(f"  {line}" for line in lines)]


def _short(name: str, value: object, base_us: int) -> str:
    """A field for people; moments count from the first line shown, in milliseconds."""
    if type(value) is int and (name.endswith("_us") or name == "us_after"):
        return f"{(value - base_us) / 1000:.3f}ms"
    return f"{value:.3f}" if type(value) is float else str(value).replace(" ", "")
