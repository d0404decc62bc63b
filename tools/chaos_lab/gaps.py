"""How long nobody was active, by the kind of fault behind it, and which elections had none.

A gap ends when the next leadership begins. It begins with what ended the one before: the death
of its process, its leave, or else the fault, but not before the lease was renewed for the last
time: a controller that a later flap cuts off was in touch until then.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from tools.chaos_lab.active_periods import ActivePeriod
from tools.chaos_lab.histories import History, Line
from tools.chaos_lab.rounds import QUIET, Round, behind, kind_behind, kind_of
from tools.common.statistics import percentile


@dataclass(frozen=True, slots=True)
class Gap:
    """From `began_us` to `ended_us`, when `after` was active again; `vacant_us` of it nobody held the
    leadership. `published_us`: when Redis' subscribers heard of it (None: they did not); `worked_us`: when the job of
    that leadership wrote that it began (None: it did not, or it is one that never says so)."""

    kind: str
    round: int
    before: ActivePeriod
    after: ActivePeriod
    began_us: int
    ended_us: int
    published_us: int | None
    worked_us: int | None = None

    @property
    def ms(self) -> float:
        return (self.ended_us - self.began_us) / 1000

    @property
    def vacant_ms(self) -> float:
        return (self.ended_us - self.before.until_us) / 1000


def gaps_of(history: History, leaderships: Sequence[ActivePeriod], rounds: Sequence[Round]) -> list[Gap]:
    """Every gap, in its order."""
    lease_us = int(history.timing.get("lease_ms", 400)) * 1000
    published: dict[int, int] = {}
    for line in history.of("published"):
        if not line.get("id"):
            continue  # nobody is controller
        published.setdefault(line.term, line.us)
    worked: dict[tuple[int, int], int] = {}
    for line in history.work:
        if line.event == "work_began":
            worked.setdefault((line.node, line.term), line.us)
    found: list[Gap] = []
    last: ActivePeriod | None = None
    for leadership in leaderships:
        if last is not None and leadership.active_since_us >= last.until_us:
            heard_us = published.get(leadership.term) if leadership.term != last.term else None
            gap = _gap(last, leadership, rounds, lease_us, heard_us)
            # One that was suspended and resumed goes on with the job that it has.
            worked_us = worked.get((leadership.node, leadership.term)) if leadership.term != last.term else None
            found.append(replace(gap, worked_us=worked_us))
        if last is None or leadership.until_us > last.until_us:
            last = leadership
    return found


def _gap(
    before: ActivePeriod, after: ActivePeriod, rounds: Sequence[Round], lease_us: int, heard_us: int | None
) -> Gap:
    # A fault that came after leadership was over is not behind it, unless nobody had followed by then.
    faults = behind(rounds, before.until_us, before.until_us) or behind(rounds, before.until_us, after.active_since_us)
    began_us = before.until_us
    if faults and before.why != "died":
        mine = [fault for fault in faults if before.node in fault.nodes] or faults
        in_touch_us = max(before.active_since_us, before.lapses_us - lease_us)
        if before.why == "lapsed" or before.until_us > in_touch_us + lease_us // 2:
            began_us = min(began_us, max(min(fault.began_us for fault in mine), in_touch_us))
    number = faults[-1].round if faults else -1
    kind = kind_of(faults) if faults else kind_behind(rounds, before.until_us, after.active_since_us)
    return Gap(kind, number, before, after, began_us, after.active_since_us, heard_us)


def false_elections(history: History, rounds: Sequence[Round]) -> list[Line]:
    """Elections with no fault and no change behind them. The first of a run has none, of course: what happens before
    anything has settled is no false one."""
    settled = history.of("settled")
    if not settled:
        return []
    since_us = settled[0].us
    return [
        line
        for line in history.facts("elected")
        if line.us > since_us and kind_behind(rounds, line.us, line.us) == QUIET
    ]


@dataclass(frozen=True, slots=True)
class Figures:
    """How some durations are spread, in milliseconds."""

    count: int
    p50: float
    p99: float
    max: float


def figures(durations_ms: Iterable[float]) -> Figures:
    """Of at least one duration."""
    ordered = sorted(durations_ms)
    return Figures(len(ordered), percentile(ordered, 50), percentile(ordered, 99), ordered[-1])


def by_kind(gaps: Iterable[Gap]) -> Mapping[str, list[Gap]]:
    """Gaps of each kind, kinds by name."""
    found: dict[str, list[Gap]] = {}
    for gap in gaps:
        found.setdefault(gap.kind, []).append(gap)
    return dict(sorted(found.items()))
