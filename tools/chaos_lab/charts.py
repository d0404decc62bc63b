"""Distributions as inline SVG: a row for each kind, a dot for each value, marks at p50 and p99."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

from tools.chaos_lab.gaps import figures

_WIDTH, _LEFT, _PERMISSION, _ROW, _TOP, _FOOT = 1100, 190, 270, 26, 24, 30
_MOST_DOTS = 300
_TICKS = (1, 2, 5)


def spread_chart(values_ms: Mapping[str, Sequence[float]], name: str, log: bool = True) -> str:
    """The chart of durations in milliseconds by kind, with the figures at the right of each row. `log`:
    on a logarithmic axis; otherwise zero is marked."""
    values_ms = {kind: values for kind, values in values_ms.items() if values}
    if not values_ms:
        return '<p class="hint">There were none.</p>'
    every = [value for values in values_ms.values() for value in values]
    at, ticks = _logarithmic(every) if log else _linear(every)
    height = _TOP + _ROW * len(values_ms) + _FOOT
    parts = [
        f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{html.escape(_words(values_ms, name))}">',
        f'<text class="dim" x="{_WIDTH - _PERMISSION + 24}" y="16">times</text>',
        *(
            f'<text class="dim" x="{_WIDTH - 148 + 68 * place}" y="16" text-anchor="end">{word}</text>'
            for place, word in enumerate(("p50", "p99", "max"))
        ),
    ]
    for tick in ticks:
        x = at(tick)
        style = "zero" if tick == 0 and not log else "grid"
        parts.append(f'<line class="{style}" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{height - _FOOT}"/>')
        parts.append(f'<text class="dim" x="{x:.1f}" y="{height - 12}" text-anchor="middle">{_short(tick)}</text>')
    parts.append(f'<text class="dim" x="{_WIDTH - _PERMISSION + 24}" y="{height - 12}">ms</text>')
    for row, (kind, values) in enumerate(values_ms.items()):
        parts += _row(kind, values, _TOP + _ROW * row + _ROW / 2, at)
    return "\n".join([*parts, "</svg>"])


def _row(kind: str, values: Sequence[float], y: float, at: Callable[[float], float]) -> list[str]:
    spread = figures(values)
    parts = [f'<text x="{_LEFT - 16}" y="{y + 4:.1f}" text-anchor="end">{html.escape(kind)}</text>']
    ordered = sorted(values)
    step = max(1, len(ordered) // _MOST_DOTS)
    shown = ordered[::step] if ordered[-1] in ordered[::step] else [*ordered[::step], ordered[-1]]
    for place, value in enumerate(shown):
        lift = (place * 7 % 5 - 2) * 2.2  # so that equal values don't hide each other
        parts.append(f'<circle class="dot" cx="{at(value):.1f}" cy="{y + lift:.1f}" r="3"/>')
    for style, value in (("p", spread.p50), ("p99", spread.p99)):
        parts.append(
            f'<line class="{style}" x1="{at(value):.1f}" x2="{at(value):.1f}" y1="{y - 9:.1f}" y2="{y + 9:.1f}"/>'
        )
    parts.append(f'<text x="{_WIDTH - _PERMISSION + 58}" y="{y + 4:.1f}" text-anchor="end">{spread.count}</text>')
    for place, value in enumerate((spread.p50, spread.p99, spread.max)):
        x = _WIDTH - 148 + 68 * place
        parts.append(f'<text x="{x}" y="{y + 4:.1f}" text-anchor="end">{_short(round(value, 1))}</text>')
    return parts


def _words(values_ms: Mapping[str, Sequence[float]], name: str) -> str:
    said = []
    for kind, values in values_ms.items():
        spread = figures(values)
        said.append(
            f"{kind}: {spread.count}, p50 {spread.p50:.1f} ms, p99 {spread.p99:.1f} ms, max {spread.max:.1f} ms"
        )
    return f"{name} by kind of fault. " + "; ".join(said)


def _logarithmic(values: Sequence[float]) -> tuple[Callable[[float], float], list[float]]:
    least = max(0.01, min(values) * 0.8)
    most = max(least * 10, max(values) * 1.25)
    low, high = math.log10(least), math.log10(most)

    def at(value: float) -> float:
        share = (math.log10(max(value, least)) - low) / (high - low)
        return _LEFT + share * (_WIDTH - _LEFT - _PERMISSION)

    ticks = [one * 10.0**power for power in range(math.floor(low), math.ceil(high) + 1) for one in _TICKS]
    return at, _apart([tick for tick in ticks if least <= tick <= most], at)


def _linear(values: Sequence[float]) -> tuple[Callable[[float], float], list[float]]:
    least, most = min(0.0, *values), max(1.0, *values)
    slack = (most - least) * 0.04
    low, high = least - slack, most + slack

    def at(value: float) -> float:
        return _LEFT + (value - low) / (high - low) * (_WIDTH - _LEFT - _PERMISSION)

    rough = (high - low) / 7
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(one * power for one in (1, 2, 5, 10) if one * power >= rough)
    return at, [step * count for count in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _apart(ticks: Sequence[float], at: Callable[[float], float]) -> list[float]:
    """Only the powers of ten when all would stand too close."""
    if all(at(b) - at(a) > 34 for a, b in pairwise(ticks)):
        return list(ticks)
    return [tick for tick in ticks if math.log10(tick).is_integer()]


def _short(value: float) -> str:
    return f"{value:g}" if abs(value) < 1e6 else f"{value:.3g}"
