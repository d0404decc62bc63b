"""Rounds, faults and changes of a run, and which of them stands behind what."""

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
class RecordedChange:
    """One change of the members in a walk: the number of the `walk`, its `kind` and `nodes`; `commands`:
    how often the operator gave a command for it; `named`: whether a difference of settings was said by name."""

    walk: int
    kind: str
    nodes: tuple[int, ...]
    began_us: int
    ended_us: int
    commands: int = 0
    named: bool = False


@dataclass(frozen=True, slots=True)
class Round:
    """One round. `change`: None where the members stay. `healed_us`, `settled_us`: None when that never came;
    `until_us`: when its faults can't be behind anything any more."""

    number: int
    began_us: int
    until_us: int
    healed_us: int | None
    settled_us: int | None
    controller: int
    term: int
    faults: tuple[RecordedFault, ...]
    change: RecordedChange | None = None

    @property
    def kind(self) -> str:
        """The names of its change and its faults."""
        changes = () if self.change is None else (self.change.kind,)
        return " + ".join(dict.fromkeys([*changes, *(fault.fault for fault in self.faults)])) or QUIET

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
                _change(of, until_us),
            )
        )
    return found


def _change(lines: Sequence[Line], until_us: int) -> RecordedChange | None:
    """The change that was made in a round of these lines."""
    began = next((line for line in lines if line.event == "change_began"), None)
    if began is None:
        return None
    return RecordedChange(
        int(began.get("walk")),
        str(began.get("change")),
        tuple(began.get("nodes") or ()),
        began.us,
        next((line.us for line in lines if line.event == "change_ended"), until_us),
        sum(line.event == "command" for line in lines),
        any(line.event == "difference_named" for line in lines),
    )


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


def kind_behind(rounds: Sequence[Round], from_us: int, to_us: int) -> str:
    """One word for what is behind what happened between two moments: of the faults, or else the change."""
    kind = kind_of(behind(rounds, from_us, to_us))
    changes = [one.change for one in rounds if one.change and one.began_us <= to_us and one.until_us >= from_us]
    return changes[-1].kind if kind == QUIET and changes else kind


def kind_of(faults: Iterable[RecordedFault]) -> str:
    """One word for the faults behind something: `QUIET`, the fault's name, or "combined"."""
    names = sorted({fault.fault for fault in faults})
    return QUIET if not names else names[0] if len(names) == 1 else "combined"
