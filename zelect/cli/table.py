"""The state of a cluster as a text of at most 80 columns."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Mapping, Sequence
from typing import Any

from zelect.client.query import NodeReport, controller_of

__all__ = ["WIDTH", "columns", "draw", "who_leads"]

WIDTH = 80
_HEAD = ("", "id", "address", "pid", "role", "status", "term", "lease", "links", "MB")
_PERMISSION = {"id", "pid", "term", "lease", "links", "MB"}


def columns(head: Sequence[str], rows: Sequence[Sequence[str]], right: set[str], width: int = WIDTH) -> list[str]:
    """Lay `rows` out under `head`, the columns in `right` to the right. The widest column gives
    way, with an ellipsis, until a line fits in `width`."""
    sizes = [max(len(row[at]) for row in (head, *rows)) for at in range(len(head))]
    while sum(sizes) + 2 * (len(sizes) - 1) > width and max(sizes) > 1:
        sizes[sizes.index(max(sizes))] -= 1
    lines = []
    for row in (head, *rows):
        cells = []
        for name, size, text in zip(head, sizes, row, strict=True):
            short = text if len(text) <= size else text[: size - 1] + "…"
            cells.append(short.rjust(size) if name in right else short.ljust(size))
        lines.append("  ".join(cells).rstrip())
    return lines


def who_leads(reports: Mapping[int, NodeReport]) -> str:
    """One sentence about leadership."""
    head = controller_of(reports)
    if head is not None:
        return f"node {head.id} is active, term {head.term}"
    return "nobody is active" if reports else "nobody answered"


def _row(
    node: int, address: str, report: NodeReport | None, leads: bool, unresponsive: tuple[str, str]
) -> tuple[str, ...]:
    place = address.removeprefix("tcp://")
    if report is None:
        return ("", str(node), place, "", *unresponsive, "", "", "", "")
    return (
        "*" if leads else "",
        str(node),
        place,
        str(report.pid),
        report.role,
        report.status,
        str(report.term),
        f"{report.lease_left_ms:.0f} ms" if leads else "",
        f"{report.links}/{report.peers}",
        str(report.rss_kb // 1024),
    )


def draw(
    state: Mapping[str, Any],
    reports: Mapping[int, NodeReport],
    unresponsive: Mapping[int, tuple[str, str]] | None = None,
) -> str:
    """The text for `state` (see `zelect.client.query.summary`); `silent`: what to
    say of a silent node under role and status."""
    head, voters, redis = state["controller"], state["voters"], state["redis"]
    if not reports:
        first = f"{state['cluster']}: nobody answered"
    elif head is None:
        first = f"{state['cluster']}: nobody is active, term {state['term']}"
    else:
        first = f"{state['cluster']}: controller {head['id']}, term {head['term']}"
        if head["since_ms"] is not None:
            first += f", for {_span(time.time() - head['since_ms'] / 1000)}"
    if redis is not None:
        first += f"; Redis {redis['state']}"
        if redis["published_term"] is not None:
            seen = "has" if redis["state"] == "up" else "had"
            first += f" ({seen} term {redis['published_term']})"
    lines = [first]
    if voters is not None:
        members = ", ".join(map(str, voters["members"]))
        witness = voters["witness"]
        lines.append(f"voters {voters['config_term']}.{voters['version']}: {members}; witness {witness}")
    if state["pause"] is not None:
        left = _span(state["pause"]["left_ms"] / 1000)
        lines += textwrap.wrap(f"no planned transfers for {left}: {state['pause']['asked']}", WIDTH)
    if redis is not None and redis["problem"]:
        lines += textwrap.wrap(f"Redis: {redis['problem']}", WIDTH)
    rows = []
    for entry in state["nodes"]:
        node = entry["id"]
        leads = head is not None and head["id"] == node
        rows.append(
            _row(node, entry["address"], reports.get(node), leads, (unresponsive or {}).get(node, ("", "no answer")))
        )
    lines = [line if len(line) <= WIDTH else line[: WIDTH - 1] + "…" for line in lines]
    return "\n".join([*lines, "", *columns(_HEAD, rows, _PERMISSION)])


def _span(seconds: float) -> str:
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"
