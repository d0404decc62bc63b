"""Checks a recorded history: did the guarantees hold?

    S1       no term has two winners
    S2       no two nodes are active at once; no unguarded effect of one falls into another's leadership
    S3       the terms that the guarded resource accepts never fall
    terms    each leadership is of a higher term than all before it
    saved    a node's saved term, vote within a term, and voter record never go back, within a life
    counter  every value of the counters once, none missing but what died with its writer
    L1       after each healing somebody is active within the bound, and all agree
    growth   no process's descriptors, threads or memory rise; `busy`: none spins; `leftover`: none stays

Only what the history proves is a violation: ends of leaderships are never taken later than they were, and an
effect is checked by the whole span between the look at the lease and Redis' answer. While a fault forged
refusals of connections S2 is not guaranteed (R9): overlaps in its round are reported separately.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tools.chaos_lab.active_periods import ActivePeriod, leaderships, processes
from tools.chaos_lab.gaps import Figures, Gap, by_kind, false_elections, figures, gaps_of
from tools.chaos_lab.growth import check_left_over, check_resources
from tools.chaos_lab.histories import History, Line, described, read
from tools.chaos_lab.job_effects import check_counters, check_guarded, intrusions, stale_effects
from tools.chaos_lab.rounds import QUIET, Round, behind, kind_of, rounds_of
from tools.common.violation import Violation

_BOUND_TIMEOUTS = 12
"""After a healing somebody is active within so many election timeouts (6 s by default)."""


@dataclass(frozen=True, slots=True)
class Overlap:
    """Two were active at once for `us` microseconds at least, from `began_us`. `effect`: it was
    an unguarded effect that fell into the other's leadership. `forged`: refusals were forged then; `kind`:
    of the faults behind it."""

    first: int
    second: int
    began_us: int
    us: int
    forged: bool
    lines: tuple[Line, ...]
    effect: bool = False
    kind: str = QUIET

    @property
    def ms(self) -> float:
        return self.us / 1000


@dataclass(frozen=True)
class Verdict:
    """What a history shows."""

    violations: tuple[Violation, ...]
    overlaps: tuple[Overlap, ...]
    leaderships: tuple[ActivePeriod, ...]
    rounds: tuple[Round, ...]
    gaps: tuple[Gap, ...]
    false_elections: tuple[Line, ...]
    elections: int
    effects: Mapping[str, int]
    stale_effects: int
    skipped: Mapping[str, str]
    bad_lines: Mapping[str, int] = field(default_factory=dict)

    @property
    def held(self) -> bool:
        """Whether every guarantee held."""
        return not self.violations

    @property
    def worst_overlap_ms(self) -> float:
        """The longest that two were active at once while S2 is guaranteed; 0 is expected."""
        return max((one.ms for one in self.overlaps if not one.forged), default=0.0)

    @property
    def worst_forged_overlap_ms(self) -> float:
        """The longest under forged refusals, when it is not."""
        return max((one.ms for one in self.overlaps if one.forged), default=0.0)

    def fault_counts(self) -> dict[str, int]:
        """How often each kind of fault was done."""
        counts: dict[str, int] = {}
        for one in self.rounds:
            for fault in one.faults:
                counts[fault.fault] = counts.get(fault.fault, 0) + 1
        return dict(sorted(counts.items()))

    def summary(self, width: int = 80) -> list[str]:
        """The summary for people, no line wider than `width` but those that name what is broken."""
        faults = self.fault_counts()
        struck = sum(faults.values())
        effects = ", ".join(f"{count} {name}" for name, count in self.effects.items()) or "none"
        lines = [
            f"{len(self.rounds)} rounds, {struck} faults of {len(faults)} kinds, {self.elections} elections",
            f"effects: {effects}",
            f"worst overlap {self.worst_overlap_ms:.3f} ms, under forged refusals {self.worst_forged_overlap_ms:.3f}",
            f"elections without a fault {len(self.false_elections)}, late unguarded effects {self.stale_effects}",
        ]
        if self.bad_lines:
            torn = ", ".join(f"{count} in {name}" for name, count in self.bad_lines.items())
            lines.append(f"unreadable lines: {torn}")
        lines += self._table(faults)
        lines = [line[:width] for line in lines]
        lines += [f"skipped {fault}: {reason}" for fault, reason in self.skipped.items()]
        for violation in self.violations:
            lines += ["", *described(violation, width)]
        held = "every guarantee held" if self.held else f"{len(self.violations)} violations"
        return [*lines, "", held]

    def _table(self, faults: Mapping[str, int]) -> Iterator[str]:
        """For each kind: how often it was done, how often and how long nobody was active after it,
        and the worst overlap."""
        kinds = by_kind(self.gaps)
        overlaps = self.overlaps_ms()
        yield f"{'':<18} {'done':>5} {'nobody active':>16} {'p50 ms':>8} {'p99 ms':>8} {'max ms':>8} {'overlap':>8}"
        for kind in sorted({*faults, *kinds, *overlaps}):
            done = f"{kind:<18} {faults.get(kind, ''):>5} {len(kinds.get(kind, ())):>16}"
            spread = figures(gap.ms for gap in kinds[kind]) if kind in kinds else None
            gaps = f"{spread.p50:>8.1f} {spread.p99:>8.1f} {spread.max:>8.1f}" if spread else f"{'':>26}"
            yield f"{done} {gaps} {overlaps.get(kind, 0.0):>8.3f}"
        jobs = self.jobs_ms()
        if jobs:
            yield ""
            yield f"{'until the next job began':<40} {'p50 ms':>9} {'p99 ms':>8} {'max ms':>8}"
        for kind, spread in jobs.items():
            yield f"{kind:<18} {'':>5} {spread.count:>16} {spread.p50:>8.1f} {spread.p99:>8.1f} {spread.max:>8.1f}"

    def jobs_ms(self) -> dict[str, Figures]:
        """For each kind, how long no job ran: from the beginning of the gap to the first word of the
        successor's job, where jobs say so."""
        took: dict[str, list[float]] = {}
        for gap in self.gaps:
            if gap.worked_us is not None:
                took.setdefault(gap.kind, []).append((gap.worked_us - gap.began_us) / 1000)
        return {kind: figures(some) for kind, some in sorted(took.items())}

    def overlaps_ms(self) -> dict[str, float]:
        """The worst overlap of each kind that had one."""
        worst: dict[str, float] = {}
        for one in self.overlaps:
            worst[one.kind] = max(one.ms, worst.get(one.kind, 0.0))
        return worst

    def figures(self) -> dict[str, Any]:
        """The same for programs."""
        return {
            "held": self.held,
            "violations": [{"rule": one.rule, "text": one.text, "us": one.us} for one in self.violations],
            "worst_overlap_ms": self.worst_overlap_ms,
            "worst_forged_overlap_ms": self.worst_forged_overlap_ms,
            "overlaps_ms": self.overlaps_ms(),
            "rounds": len(self.rounds),
            "faults": self.fault_counts(),
            "elections": self.elections,
            "false_elections": len(self.false_elections),
            "effects": dict(self.effects),
            "stale_effects": self.stale_effects,
            "gaps_ms": {
                kind: {name: getattr(spread, name) for name in ("count", "p50", "p99", "max")}
                for kind, gaps in by_kind(self.gaps).items()
                for spread in [figures(gap.ms for gap in gaps)]
            },
            "jobs_ms": {
                kind: {name: getattr(spread, name) for name in ("count", "p50", "p99", "max")}
                for kind, spread in self.jobs_ms().items()
            },
            "skipped": dict(self.skipped),
            "bad_lines": dict(self.bad_lines),
        }


def check(directory: Path) -> Verdict:
    """Read the history in `directory` and check it. Raises `HistoryError` when there is none."""
    return check_history(read(directory))


def check_history(history: History) -> Verdict:
    """Judge a history; a pure function of it."""
    held, rounds = leaderships(history), rounds_of(history)
    overlaps = [*_overlaps(held, rounds), *_effects(history, held, rounds)]
    violations = [
        *_winners(history),
        *(_violation(one) for one in overlaps if not one.forged),
        *_terms(held, rounds),
        *check_guarded(history),
        *_saved(history),
        *check_counters(history, processes(history)),
        *_liveness(history, held, rounds),
        *check_resources(history),
        *check_left_over(history),
    ]
    counts: dict[str, int] = {}
    for line in history.work:
        counts[line.event] = counts.get(line.event, 0) + 1
    return Verdict(
        violations=tuple(violations),
        overlaps=tuple(overlaps),
        leaderships=tuple(held),
        rounds=tuple(rounds),
        gaps=tuple(gaps_of(history, held, rounds)),
        false_elections=tuple(false_elections(history, rounds)),
        elections=len(history.facts("elected")),
        effects=dict(sorted(counts.items())),
        stale_effects=stale_effects(history),
        skipped={str(line.get("fault")): str(line.get("reason")) for line in history.of("skipped")},
        bad_lines=history.bad,
    )


def _winners(history: History) -> Iterator[Violation]:
    won: dict[int, Line] = {}
    for line in history.facts("elected"):
        other = won.setdefault(line.term, line)
        if (other.node, other.incarnation) != (line.node, line.incarnation):
            votes = (
                one
                for one in history.facts("saved")
                if one.term == line.term and one.get("voted_for") in (line.node, other.node) and one.us <= line.us
            )
            first = {(one.node, one.get("voted_for")): one for one in reversed(list(votes))}
            text = f"nodes {other.node} and {line.node} were both elected in term {line.term}"
            yield Violation("S1", text, line.us, (*first.values(), other, line))


def _overlaps(held: Sequence[ActivePeriod], rounds: Sequence[Round]) -> Iterator[Overlap]:
    running: list[ActivePeriod] = []
    for leadership in held:
        running = [one for one in running if one.until_us > leadership.active_since_us]
        for one in running:
            if (one.node, one.incarnation) == (leadership.node, leadership.incarnation):
                continue
            until_us = min(one.until_us, leadership.until_us)
            if until_us > leadership.active_since_us:
                faults = behind(rounds, leadership.active_since_us, until_us)
                forged = any(fault.forges for fault in faults)
                lines = (*one.lines, *leadership.lines)
                us, kind = until_us - leadership.active_since_us, kind_of(faults)
                yield Overlap(one.node, leadership.node, leadership.active_since_us, us, forged, lines, kind=kind)
        running.append(leadership)


def _terms(held: Sequence[ActivePeriod], rounds: Sequence[Round]) -> Iterator[Violation]:
    newest: ActivePeriod | None = None
    for one in held:
        if newest is not None and one.term < newest.term:
            faults = behind(rounds, one.active_since_us, one.active_since_us)
            if not any(fault.forges for fault in faults):
                text = f"node {one.node} was active in term {one.term} after node {newest.node} in term {newest.term}"
                yield Violation("terms", text, one.active_since_us, (*newest.lines, *one.lines))
        if newest is None or one.term > newest.term:
            newest = one


def _effects(history: History, held: Sequence[ActivePeriod], rounds: Sequence[Round]) -> Iterator[Overlap]:
    for line, leadership, us in intrusions(history, held):
        faults = behind(rounds, line.us, line.us)
        forged, lines = any(fault.forges for fault in faults), (*leadership.lines, line)
        yield Overlap(line.node, leadership.node, line.us, us, forged, lines, effect=True, kind=kind_of(faults))


def _violation(overlap: Overlap) -> Violation:
    if overlap.effect:
        text = (
            f"node {overlap.first} did unguarded work {overlap.ms:.3f} ms into the leadership of node {overlap.second}"
        )
    else:
        text = f"nodes {overlap.first} and {overlap.second} were active at once for {overlap.ms:.3f} ms"
    return Violation("S2", text, overlap.began_us, overlap.lines)


def _saved(history: History) -> Iterator[Violation]:
    last: dict[tuple[int, int], Line] = {}
    for line in history.facts("saved"):
        key = (line.node, int(line.get("epoch")))
        before = last.get(key)
        last[key] = line
        if before is None:
            continue
        wrong = ""
        if line.term < before.term:
            wrong = f"term {line.term} after term {before.term}"
        elif line.term == before.term and before.get("voted_for") not in (0, line.get("voted_for")):
            wrong = f"a vote for {line.get('voted_for')} after one for {before.get('voted_for')} in term {line.term}"
        elif list(line.get("record") or ()) < list(before.get("record") or ()):
            wrong = f"record {line.get('record')} after record {before.get('record')}"
        if wrong:
            yield Violation("saved", f"node {line.node} saved {wrong}", line.us, (before, line))


def _liveness(history: History, held: Sequence[ActivePeriod], rounds: Sequence[Round]) -> Iterator[Violation]:
    bound_us = _BOUND_TIMEOUTS * int(history.timing.get("election_timeout_ms", 500)) * 1000
    for line in history.of("not_settled"):
        text = f"round {line.get('round')}: the nodes never agreed on a controller after the healing"
        yield Violation("L1", text, line.us, (*_around(history, line.us), line))
    for one, next_us in zip(rounds, _windows(history, rounds), strict=True):
        if one.healed_us is None:
            continue
        since_us, vacant_us = _longest_vacancy(held, one.healed_us, next_us)
        if vacant_us > bound_us:
            text = f"round {one.number} ({one.kind}): nobody active for {vacant_us / 1000:.0f} ms after the healing"
            healed = [line for line in history.of("healed") if line.get("round") == one.number]
            yield Violation("L1", text, since_us, (*healed, *_around(history, since_us + vacant_us)))


def _windows(history: History, rounds: Sequence[Round]) -> list[int]:
    """Until when each round's healing is to be checked: the next round, or the last word of any node."""
    last_us = max((line.us for line in history.nodes if line.event not in ("lease_ended", "node_ended")), default=0)
    over = [line.us for line in history.of("round_ended")]
    return [*(one.began_us for one in rounds[1:]), max(over, default=last_us)] if rounds else []


def _longest_vacancy(held: Sequence[ActivePeriod], from_us: int, to_us: int) -> tuple[int, int]:
    """When the longest stretch without anybody active began, and how long it was."""
    longest, at_us = (from_us, 0), from_us
    for leadership in held:
        if leadership.until_us <= at_us:
            continue
        active_since_us = min(leadership.active_since_us, to_us)
        longest = max(longest, (at_us, active_since_us - at_us), key=lambda one: one[1])
        at_us = max(at_us, leadership.until_us)
        if at_us >= to_us:
            return longest
    return max(longest, (at_us, to_us - at_us), key=lambda one: one[1])


def _around(history: History, us: int) -> tuple[Line, ...]:
    """The last thing of note that each node did before a moment."""
    last = {
        line.node: line
        for line in history.nodes
        if line.us <= us
        and line.event in ("node_started", "campaign_began", "campaign_failed", "elected", "stopped_being_active")
    }
    return tuple(last.values())
