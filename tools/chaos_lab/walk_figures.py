"""What the walks of a run came to: a row for each, and one for all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tools.chaos_lab.gaps import Gap
from tools.chaos_lab.rounds import RecordedChange, RecordedFault, Round
from tools.chaos_lab.verdict import Verdict


@dataclass(frozen=True, slots=True)
class WalkFigures:
    """One walk, or all (`number` 0). Times are in milliseconds: the worst `overlap_ms` of two controllers; the
    `longest_ms` that nobody was active, and what happened then (`longest_during`), of which a fault stood
    `in_fault_ms`; the longest after a change with which no fault came yet, `by_change_ms`. `terms_grew`: whether
    each leadership was of a higher term than those before."""

    number: int
    changes: int
    commands: int
    faults: int
    controllers: int
    overlap_ms: float
    terms_grew: bool
    longest_ms: float
    in_fault_ms: float
    by_change_ms: float
    named: int
    longest_during: str


def walk_figures(verdict: Verdict) -> list[WalkFigures]:
    """Each walk, in its order, then all together."""
    by_walk: dict[int, list[Round]] = {}
    for one in verdict.rounds:
        if one.change is not None:
            by_walk.setdefault(one.change.walk, []).append(one)
    rows = [_figures(number, rounds, verdict) for number, rounds in sorted(by_walk.items())]
    return [*rows, _figures(0, [one for rounds in by_walk.values() for one in rounds], verdict)] if rows else []


def _figures(number: int, rounds: Sequence[Round], verdict: Verdict) -> WalkFigures:
    from_us, to_us = rounds[0].began_us, max(one.until_us for one in rounds)
    changes = [one.change for one in rounds if one.change is not None]
    faults = [fault for one in rounds for fault in one.faults]
    gaps = [gap for gap in verdict.gaps if from_us <= gap.ended_us <= to_us]
    longest = max(gaps, key=lambda gap: gap.ms, default=None)
    broken = [one for one in verdict.violations if one.rule in ("S1", "terms") and from_us <= one.us <= to_us]
    terms = {one.holder for one in verdict.leaderships if from_us <= one.active_since_us <= to_us}
    return WalkFigures(
        number=number,
        changes=len(changes),
        commands=sum(change.commands for change in changes),
        faults=len(faults),
        controllers=len(terms),
        overlap_ms=max((one.ms for one in verdict.overlaps if from_us <= one.began_us <= to_us), default=0.0),
        terms_grew=not broken,
        longest_ms=0.0 if longest is None else longest.ms,
        in_fault_ms=0.0 if longest is None else _in_faults(longest, faults),
        by_change_ms=max((gap.ms for gap in gaps if gap.kind in _kinds(changes)), default=0.0),
        named=sum(change.named for change in changes),
        longest_during="" if longest is None else _words(longest, rounds),
    )


def _words(gap: Gap, rounds: Sequence[Round]) -> str:
    """What was going on in a gap."""
    one = next((one for one in rounds if one.began_us <= gap.ended_us <= one.until_us), rounds[-1])
    nodes = " ".join(map(str, one.change.nodes)) if one.change is not None else ""
    faults = [
        f"{fault.fault} {' '.join(map(str, fault.nodes))}" for fault in one.faults if fault.began_us <= gap.ended_us
    ]
    return f"round {one.number}: " + ", ".join([f"{one.change.kind} {nodes}" if one.change else "", *faults])


def _kinds(changes: Sequence[RecordedChange]) -> set[str]:
    return {change.kind for change in changes}


def _in_faults(gap: Gap, faults: Sequence[RecordedFault]) -> float:
    """How much of a gap a fault stood."""
    stood = 0
    at_us = gap.began_us
    for fault in sorted(faults, key=lambda one: one.began_us):
        from_us, to_us = max(at_us, fault.began_us), min(gap.ended_us, fault.ended_us)
        stood += max(0, to_us - from_us)
        at_us = max(at_us, to_us)
    return stood / 1000


def table(rows: Sequence[WalkFigures]) -> Iterator[str]:
    """The rows in 80 columns."""
    yield f"{'nobody active, longest, ms':>80}"
    names = f"{'changes':>7} {'commands':>8} {'faults':>6} {'elected':>7} {'overlap':>7} {'terms':>5}"
    yield f"{'walk':<4} {names} {'in all':>9} {'in a fault':>10} {'no fault':>8}"
    for row in rows:
        name = str(row.number or "all")
        counts = f"{row.changes:>7} {row.commands:>8} {row.faults:>6} {row.controllers:>7}"
        held = f"{row.overlap_ms:>7.3f} {'grew' if row.terms_grew else 'FELL':>5}"
        yield f"{name:<4} {counts} {held} {row.longest_ms:>9.1f} {row.in_fault_ms:>10.1f} {row.by_change_ms:>8.1f}"
    if rows and rows[-1].longest_during:
        yield f"longest: {rows[-1].longest_during}"


def as_json(rows: Sequence[WalkFigures]) -> list[dict[str, Any]]:
    """The rows for programs."""
    return [{name: getattr(row, name) for name in WalkFigures.__dataclass_fields__} for row in rows]
