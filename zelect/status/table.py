"""One way to draw a table: columns are declared once, as plain text of at most 80 columns.

`zelect cluster up` builds its live tables from the same declarations (`zelect.devcluster.live_view`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

WIDTH = 80
Row = TypeVar("Row")


@dataclass(frozen=True)  # not slots: typing notes the type argument on the instance
class Column(Generic[Row]):
    """`value`: what a row shows in it, an empty string for nothing. `right`: aligned to the right."""

    header: str
    value: Callable[[Row], object]
    right: bool = False


def table(columns: Sequence[Column[Row]], rows: Iterable[Row], width: int = WIDTH) -> list[str]:
    """The lines of a table. The widest column is shortened, with an ellipsis, until a line fits in `width`."""
    lines = [[column.header for column in columns]]
    lines += [[str(column.value(row)) for column in columns] for row in rows]
    sizes = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    while sum(sizes) + 2 * (len(sizes) - 1) > width and max(sizes) > 1:
        sizes[sizes.index(max(sizes))] -= 1
    return ["  ".join(map(_cell, columns, sizes, line)).rstrip() for line in lines]


def _cell(column: Column[Row], size: int, text: str) -> str:
    short = text if len(text) <= size else text[: size - 1] + "…"
    return short.rjust(size) if column.right else short.ljust(size)


def duration(seconds: float) -> str:
    """A time in one unit, for people."""
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"
