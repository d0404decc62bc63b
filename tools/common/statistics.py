"""Percentiles, one way for all tools: the nearest rank."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

RANKS = {"min": 0, "p50": 50, "p90": 90, "p99": 99, "max": 100}


def percentile(ordered: Sequence[float], rank: int) -> float:
    """The smallest value that `rank` of 100 do not exceed."""
    return ordered[max(0, math.ceil(rank * len(ordered) / 100) - 1)]


def spread(samples: Sequence[float]) -> dict[str, Any]:
    """min, p50, p90, p99 and max, to a thousandth; None where there is nothing."""
    if not samples:
        return dict.fromkeys(RANKS)
    ordered = sorted(samples)
    return {name: round(percentile(ordered, rank), 3) for name, rank in RANKS.items()}
