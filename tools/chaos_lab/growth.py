"""What the processes took: no growth, no busy loop, nothing left over.

A single sample says nothing: a node that has just taken leadership holds more than one that has not. So a
line is laid through all samples of a process (the median of the slopes between pairs of them,
which no outlier can bend), and what it rises from the first to the last is the growth.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from tools.chaos_lab.histories import History, Line
from tools.common.violation import Violation

MOST: Mapping[str, int] = {"fds": 6, "threads": 3, "rss_kb": 16_384}
"""How much a process may rise over its life by the line through its samples."""
_LEAST = 20
_SETTLING = 3
_MOST_POINTS = 150
_BUSY = 0.5
_LEAST_BUSY = 5
_HOGS = ("gil_hog", "hog", "cpu", "starv")


@dataclass(frozen=True, slots=True)
class Growth:
    """What one process rose by, from its first sample that counts to its last. `shown`: a few of them."""

    node: int
    pid: int
    samples: int
    grown: Mapping[str, float]
    busy: float
    shown: tuple[Line, ...]


def growths(history: History) -> list[Growth]:
    """Of every process with enough samples; `busy` is the median share of one processor."""
    series: dict[tuple[int, int], list[Line]] = {}
    for line in history.of("resources"):
        series.setdefault((line.node, line.get("pid")), []).append(line)
    found = []
    for (node, pid), lines in series.items():
        counted = lines[_SETTLING:]
        grown = {}
        if len(counted) >= _LEAST:
            span_us = counted[-1].us - counted[0].us
            grown = {name: _slope(counted, name) * span_us for name in MOST}
        shown = (lines[0], lines[len(lines) // 2], lines[-1])
        found.append(Growth(node, pid, len(lines), grown, _busy(lines), shown))
    return found


def _slope(lines: Sequence[Line], name: str) -> float:
    """Rise for each microsecond (Theil and Sen)."""
    step = max(1, len(lines) // _MOST_POINTS)
    points = [(line.us, int(line.get(name))) for line in lines[::step]]
    slopes = [(y2 - y1) / (x2 - x1) for at, (x1, y1) in enumerate(points) for x2, y2 in points[at + 1 :] if x2 > x1]
    return median(slopes) if slopes else 0.0


def _busy(lines: Sequence[Line]) -> float:
    shares = [1000 * (b.get("cpu_ms") - a.get("cpu_ms")) / (b.us - a.us) for a, b in pairwise(lines) if b.us > a.us]
    return median(shares) if len(shares) >= _LEAST_BUSY else 0.0


def check_resources(history: History) -> Iterator[Violation]:
    """No process grows, and none spins, unless the faults make it spin."""
    hogged = all(any(word in str(line.get("fault")) for word in _HOGS) for line in history.of("fault_began")) and bool(
        history.of("fault_began")
    )
    for one in growths(history):
        for name, grown in one.grown.items():
            if grown > MOST[name]:
                text = f"node {one.node} (pid {one.pid}) grew by {grown:.0f} {name} over {one.samples} samples"
                yield Violation("growth", text, one.shown[-1].us, one.shown)
        if one.busy > _BUSY and not hogged:
            text = f"node {one.node} (pid {one.pid}) takes {100 * one.busy:.0f} % of a processor"
            yield Violation("busy", text, one.shown[-1].us, one.shown)


def check_left_over(history: History) -> Iterator[Violation]:
    """No zombie and no orphan is left."""
    for line in history.of("leftover"):
        what = " ".join(f"{name} {value}" for name, value in line.fields.items())
        yield Violation("leftover", f"a process was left over: {what}", line.us, (line,))
