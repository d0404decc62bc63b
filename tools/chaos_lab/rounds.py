"""Rounds and faults of a run, and which of them stands behind what."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tools.chaos_lab.histories import History, Line

QUIET = "none"
"""The kind of what happened without any fault."""


@dataclass(frozen=True, slots=True)
class RecordedFault:
    """One fault as it was done: to `nodes`, with `detail`."""

    round: int
    fault: str
    nodes: tuple[int, ...]
    detail: Mapping[str, Any]
    began_us: int
    ended_us: int

    @property
    def forges(self) -> bool:
        """Whether the network forged refusals: S2 is not guaranteed then (R9)."""
        return self.fault.startswith("refuse") or bool(self.detail.get("forged"))


@dataclass(frozen=True, slots=True)
class Round:
    """One round. `healed_us`, `settled_us`: None when that never came; `until_us`: when its faults can't
    be behind anything any more."""

    number: int
    began_us: int
    until_us: int
    healed_us: int | None
    settled_us: int | None
    controller: int
    term: int
    faults: tuple[RecordedFault, ...]

    @property
    def kind(self) -> str:
        """The names of its faults."""
        return " + ".join(dict.fromkeys(fault.fault for fault in self.faults)) or QUIET

    @property
    def forges(self) -> bool:
        """Whether any of its faults forged refusals."""
        return any(fault.forges for fault in self.faults)


def rounds_of(history: History) -> list[Round]:
    """The rounds, in their order."""
    end_us = history.span_us()[1]
    by_number: dict[int, list[Line]] = {}
    for line in history.chaos:
        if type(line.get("round")) is int and line.get("round") >= 0:
            by_number.setdefault(line.get("round"), []).append(line)
    found = []
    for number, of in by_number.items():
        first = {line.event: line for line in reversed(of)}
        settled = first.get("settled")
        until_us = max((line.us for line in of if line.event in ("settled", "round_ended")), default=end_us)
        ended: dict[str, list[int]] = {}
        for line in of:
            if line.event == "fault_ended":
                ended.setdefault(str(line.get("fault")), []).append(line.us)
        faults = tuple(
            RecordedFault(
                number,
                str(line.get("fault")),
                tuple(line.get("nodes") or ()),
                line.get("detail") if isinstance(line.get("detail"), dict) else {},
                line.us,
                min((us for us in ended.get(str(line.get("fault")), ()) if us >= line.us), default=until_us),
            )
            for line in of
            if line.event == "fault_began"
        )
        found.append(
            Round(
                number,
                of[0].us,
                until_us if settled is None else settled.us,
                first["healed"].us if "healed" in first else None,
                None if settled is None else settled.us,
                0 if settled is None else int(settled.get("controller")),
                0 if settled is None else settled.term,
                faults,
            )
        )
    return found


def behind(rounds: Sequence[Round], from_us: int, to_us: int) -> list[RecordedFault]:
    """The faults that may be behind what happened between two moments: begun by then, and their round not
    settled before."""
    return [
        fault
        for one in rounds
        if one.began_us <= to_us and one.until_us >= from_us
        for fault in one.faults
        if fault.began_us <= to_us
    ]


def kind_of(faults: Iterable[RecordedFault]) -> str:
    """One word for the faults behind something: `QUIET`, the fault's name, or "combined"."""
    names = sorted({fault.fault for fault in faults})
    return QUIET if not names else names[0] if len(names) == 1 else "combined"
