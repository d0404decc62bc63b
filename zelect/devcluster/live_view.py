"""What a person sees of a running local cluster.

`PlainView` prints a line for each change; `LiveView` (rich, on a terminal) draws everything four times a
second. Both get the same: a `ClusterSnapshot`, made by the supervisor from what the nodes said of themselves
within the last second.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, TextIO, TypeVar

from zelect.core.timing import Timing
from zelect.devcluster.control import Processes, ProcessState
from zelect.devcluster.history import History
from zelect.devcluster.layout import ClusterPlan
from zelect.status.cluster import ClusterStatus
from zelect.status.cluster_text import NODE_COLUMNS, NodeRow
from zelect.status.election import Election
from zelect.status.election_text import ELECTION_COLUMNS
from zelect.status.report import NodeReport
from zelect.status.table import Column, duration

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table
    from rich.text import Text

Row = TypeVar("Row")

_CLAIM_SLACK_US = 300_000
_SHOWN_ELECTIONS = 5
_BAR = 6
_CHECKS = 4
_HINTS = "Or freeze 2, thaw 2, stop 3, start 3, logs -f, status"


@dataclass(frozen=True, slots=True)
class ClusterSnapshot:
    """The cluster at one moment: its plan and directory, the processes, and the fresh reports."""

    plan: ClusterPlan
    directory: Path
    processes: Processes
    reports: Mapping[int, NodeReport]

    @property
    def status(self) -> ClusterStatus:
        """All fresh reports."""
        return ClusterStatus(self.plan.name, self.plan.addresses, self.reports)

    @property
    def controller(self) -> NodeReport | None:
        """The active node. A report counts for as long as its lease could run, plus the time until the next
        answer may be here: so a frozen controller stops being shown as active."""
        valid = {n: r for n, r in self.reports.items() if r.age_us <= r.lease_left_us + _CLAIM_SLACK_US}
        return ClusterStatus(self.plan.name, self.plan.addresses, valid).controller

    @property
    def redis(self) -> str:
        """Redis in one word, as the controller sees it, else as any node does."""
        redis = self.status.redis
        return redis.state if redis else "unknown"


class ClusterView(Protocol):
    """Shows a cluster."""

    def print(self, text: str) -> None:
        """One line about what the supervisor does."""

    def show(self, snapshot: ClusterSnapshot) -> None:
        """Show the state, about four times a second."""

    def close(self) -> None:
        """The cluster is down."""


def open_view(live: bool) -> ClusterView:
    """The live view where `live` and a terminal and rich allow, else plain lines."""
    if live and sys.stdout.isatty():
        try:
            return LiveView()
        except ImportError:
            print("for the live view: pip install 'zelect[local]'", flush=True)
    return PlainView(sys.stdout)


class PlainView:
    """A line for each change, flushed at once, so that it reads well in a pipe and in a log."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._history = History()
        self._processes: dict[int, tuple[int, str]] = {}
        self._active: tuple[int, int] | None = None
        self._redis = "unknown"
        self._redis_checks = 0

    def print(self, text: str) -> None:
        print(time.strftime("%H:%M:%S"), text, file=self._stream, flush=True)

    def show(self, snapshot: ClusterSnapshot) -> None:
        for process in snapshot.processes.nodes:
            self._show_process(process)
        self._history.update(snapshot.plan, snapshot.controller)
        self._show_leadership(snapshot)
        self._show_redis(snapshot)

    def _show_redis(self, snapshot: ClusterSnapshot) -> None:
        # Checked more than once: a starting node reports Redis as down until it has reached it.
        self._redis_checks = self._redis_checks + 1 if snapshot.redis not in (self._redis, "unknown") else 0
        if self._redis_checks > (0 if snapshot.redis == "up" else _CHECKS):
            self._redis = snapshot.redis
            self.print(f"Redis {snapshot.processes.redis_url} is {self._redis}")

    def _show_process(self, process: ProcessState) -> None:
        known = (process.pid, process.description)
        if self._processes.get(process.id) != known:
            self._processes[process.id] = known
            hint = "; not restarted" if process.state == "ended" and not process.asked else ""
            self.print(f"node {process.id} (pid {process.pid}) {known[1]}{hint}")

    def _show_leadership(self, snapshot: ClusterSnapshot) -> None:
        controller = snapshot.controller
        active = (controller.id, controller.term) if controller else None
        if active == self._active:
            return
        if controller is None:
            self.print("no node is active")
        else:
            election = self._history.of_term(controller.term)
            if election is None:
                return  # its entry in Redis, with the reason and the gap, will be there at the next check
            self.print(f"node {controller.id} is active, term {controller.term}{_how(election)}")
        self._active = active

    def close(self) -> None:
        self.print("all processes have ended")


def _how(election: Election) -> str:
    gap_us = election.inactive_us
    gap = f", after {gap_us / 1000:.1f} ms without an active node" if gap_us is not None else ""
    return f" ({election.reason}{gap})"


class LiveView:
    """Draws the cluster with rich. Raises ImportError without it."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self._console = Console(highlight=False)
        self._history = History()
        # Drawn by the supervisor's own loop: one thread, and nothing shown is older than its data.
        self._live: Live | None = Live(console=self._console, auto_refresh=False)
        self._live.start()

    def print(self, text: str) -> None:
        self._console.print(text, style="dim", markup=False)

    def show(self, snapshot: ClusterSnapshot) -> None:
        from rich.console import Group
        from rich.text import Text

        self._history.update(snapshot.plan, snapshot.controller)
        place = "" if snapshot.directory == Path(".zelect").absolute() else f" --dir {snapshot.directory}"
        down = all(process.state == "ended" for process in snapshot.processes.nodes)
        more = f"Try in another terminal:  zelect cluster kill 1{place}\n{_HINTS}. Ctrl-C stops all."
        hint = "The cluster is down." if down else more
        parts = Group(
            _header(snapshot),
            _voters(snapshot),
            "",
            _nodes(snapshot),
            "",
            Text(_notes(snapshot), style="red", end=""),
            _elections(self._history.last(_SHOWN_ELECTIONS)),
            "",
            Text(hint, style="dim"),
        )
        if self._live is not None:
            self._live.update(parts, refresh=True)

    def close(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None


def _header(snapshot: ClusterSnapshot) -> Text:
    from rich.text import Text

    active = snapshot.controller
    text = Text.assemble(("zelect ", "bold"), (snapshot.plan.name, "bold cyan"), "   ")
    if active is None:
        text.append("no node is active", style="bold red")
    else:
        text.append(f"controller {active.id}", style="bold green")
        since = duration(time.time() - active.since_ms / 1000) if active.since_ms else "?"
        text.append(f"   term {active.term}   for {since}")
    text.append("   Redis ")
    text.append(snapshot.redis, style={"up": "green", "down": "bold red"}.get(snapshot.redis, "dim"))
    return text


def _voters(snapshot: ClusterSnapshot) -> Text:
    from rich.text import Text

    best = snapshot.controller or snapshot.status.newest
    if best is None:
        return Text("")
    voters = best.voters
    names = [str(member) for member in voters.members] + (["the witness"] if voters.witness == "member" else [])
    text = Text("voters: " + ", ".join(names) + "   ", style="dim")
    if voters.survives < 0:
        return text.append("no quorum", style="bold red")
    word = "failure" if voters.survives == 1 else "failures"
    return text.append(f"survives {voters.survives} more {word}", style="" if voters.survives else "yellow")


def _heard(row: NodeRow) -> str:
    heard_us = row.report.controller_heard_ago_us if row.report and not row.active else None
    return "" if heard_us is None else f"{heard_us / 1000:.0f} ms"


def _bar(row: NodeRow) -> str:
    """What is left of the lease."""
    if row.report is None or not row.active:
        return ""
    filled = max(0, min(_BAR, round(row.report.lease_left_us / Timing().lease_us * _BAR)))
    return "█" * filled + "░" * (_BAR - filled)


# Narrow enough that 80 columns hold any row, and of fixed width so that nothing moves.
_NODE_WIDTHS = {"id": 2, "address": 15, "pid": 7, "role": 10, "status": 11, "term": 4}
_NODE_WIDTHS |= {"lease": _BAR, "heard": 6, "links": 5, "MB": 3}
_LIVE = {"lease": Column("lease", _bar), "heard": Column("heard", _heard, right=True)}
_NODE_COLUMNS = [(NODE_COLUMNS | _LIVE)[header] for header in _NODE_WIDTHS]
_ELECTION_WIDTHS = (8, 8, 8, 9, 8, 8)


def _nodes(snapshot: ClusterSnapshot) -> Table:
    rows, styles = [], []
    active = snapshot.controller
    for process in snapshot.processes.nodes:
        up = process.state == "up"
        report = snapshot.reports.get(process.id) if up else None
        role, status = (report.role, report.status) if report else ("", "no answer") if up else process.short
        is_active = report is not None and active is not None and active.id == process.id
        address = snapshot.plan.addresses[process.id]
        rows.append(NodeRow(process.id, address, process.pid, report, is_active, role, status))
        trouble = "" if report else "red" if process.state == "ended" else "yellow"
        styles.append("bold green" if is_active else trouble)
    return _table(_NODE_COLUMNS, _NODE_WIDTHS.values(), rows, styles)


def _notes(snapshot: ClusterSnapshot) -> str:
    return "".join(process.note + "\n" for process in snapshot.processes.nodes if process.note)


def _elections(elections: Sequence[Election]) -> Table:
    return _table(ELECTION_COLUMNS, _ELECTION_WIDTHS, elections, [""] * len(elections))


def _table(columns: Sequence[Column[Row]], widths: Iterable[int], rows: Sequence[Row], styles: Sequence[str]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim")
    for column, width in zip(columns, widths, strict=True):
        justify: Literal["left", "right"] = "right" if column.right else "left"
        table.add_column(column.header, min_width=width, justify=justify, no_wrap=True)
    for row, style in zip(rows, styles, strict=True):
        table.add_row(*(Text(str(column.value(row))) for column in columns), style=style)  # no markup of others
    return table
