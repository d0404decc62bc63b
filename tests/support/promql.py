"""As much of PromQL as docs/alerts.yml uses, at one moment: for hosts without promtool."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

Labels = tuple[tuple[str, str], ...]
Vector = dict[Labels, float]
_TOKEN = re.compile(r"\s*(\w+|[()\[\],]|==|<|>)")
_LOOKS_BACK_S = 300
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_AGGREGATE: Mapping[str, Callable[[list[float]], float]] = {"max": max, "sum": sum, "count": len}
_COMPARE: Mapping[str, Callable[[float, float], bool]] = {
    "<": lambda a, b: a < b,
    ">": lambda a, b: a > b,
    "==": lambda a, b: a == b,
}


class Samples:
    """Samples of one metric and more. A series that ends with None is stale, as after a scrape that failed."""

    def __init__(self) -> None:
        self._series: dict[tuple[str, Labels], list[tuple[float, float | None]]] = {}

    def add(self, at_s: float, name: str, value: float | None, **labels: str) -> None:
        self._series.setdefault((name, tuple(sorted(labels.items()))), []).append((at_s, value))

    def at(self, name: str, now_s: float) -> Vector:
        found = {key[1]: some for key, some in self._series.items() if key[0] == name}
        last = {labels: max(s for s in some if s[0] <= now_s) for labels, some in found.items() if some[0][0] <= now_s}
        return {at: value for at, (s, value) in last.items() if value is not None and s > now_s - _LOOKS_BACK_S}

    def within(self, name: str, now_s: float, span_s: float) -> dict[Labels, list[float]]:
        """The values of each series that has any in the last `span_s`."""
        found = {}
        for (of, labels), some in self._series.items():
            values = [value for s, value in some if now_s - span_s < s <= now_s and value is not None]
            if of == name and values:
                found[labels] = values
        return found


def evaluate(expression: str, samples: Samples, now_s: float) -> Vector:
    """What `expression` gives. Raises ValueError on what is not known here."""
    tokens = [*_TOKEN.findall(expression), ""]
    if "".join(tokens) != re.sub(r"\s", "", expression):
        raise ValueError(f"not understood: {expression}")
    reader = _Reader(tokens, samples, now_s)
    found = reader.either()
    if reader.tokens[0]:
        raise ValueError(f"not understood: {' '.join(reader.tokens)}")
    return found


class _Reader:
    def __init__(self, tokens: list[str], samples: Samples, now_s: float) -> None:
        self.tokens, self._samples, self._now_s = tokens, samples, now_s

    def _take(self, *wanted: str) -> str:
        token = self.tokens.pop(0)
        if wanted and token not in wanted:
            raise ValueError(f"{token!r} where {wanted} is expected")
        return token

    def either(self) -> Vector:
        found = self._matched()
        while self.tokens[0] == "or":
            self._take()
            found = {**self._matched(), **found}
        return found

    def _matched(self) -> Vector:
        found = self._compared()
        while self.tokens[0] in ("and", "unless"):
            keep = self._take() == "and"
            self._take("on")
            names = self._names()
            others = {_only(labels, names) for labels in self._compared()}
            found = {labels: value for labels, value in found.items() if (_only(labels, names) in others) is keep}
        return found

    def _compared(self) -> Vector:
        found = self._one()
        if self.tokens[0] in _COMPARE:
            compare, number = _COMPARE[self._take()], float(self._take())
            found = {labels: value for labels, value in found.items() if compare(value, number)}
        return found

    def _one(self) -> Vector:
        token = self._take()
        if token == "(":
            found = self.either()
            self._take(")")
            return found
        if token in _AGGREGATE:
            self._take("by")
            names = self._names()
            self._take("(")
            groups: dict[Labels, list[float]] = {}
            for labels, value in self.either().items():
                groups.setdefault(_only(labels, names), []).append(value)
            self._take(")")
            return {labels: _AGGREGATE[token](some) for labels, some in groups.items()}
        if token in ("last_over_time", "increase"):
            self._take("(")
            name = self._take()
            self._take("[")
            span = self._take()
            self._take("]")
            self._take(")")
            values = self._samples.within(name, self._now_s, int(span[:-1]) * _SECONDS[span[-1]])
            return {at: some[-1] - (some[0] if token == "increase" else 0) for at, some in values.items()}
        return self._samples.at(token, self._now_s)

    def _names(self) -> set[str]:
        self._take("(")
        names = set()
        while (token := self._take()) != ")":
            names |= {token} - {","}
        return names


def _only(labels: Labels, names: Iterable[str]) -> Labels:
    return tuple(pair for pair in labels if pair[0] in names)
