"""What a person sees of a running local cluster.

`PlainView` prints a line for each change; `LiveView` (rich, on a terminal) draws everything four
times a second. Both are told the same: a `ClusterSnapshot`, made by the supervisor, that rests on what the
nodes said of themselves within the last second.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TextIO

from zelect.client.query import NodeReport, controller_of
from zelect.core.timing import Timing
from zelect.devcluster.control import Processes, ProcessState
from zelect.devcluster.history import History
from zelect.devcluster.layout import ClusterPlan
from zelect.status.history import Election

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table
    from rich.text import Text

__all__ = ["ClusterSnapshot", "ClusterView", "LiveView", "PlainView", "open_view"]

_CLAIM_SLACK_MS = 300
_SHOWN_ELECTIONS = 5
_BAR = 6
_LOOKS = 4
_HINTS = "Or freeze 2, thaw 2, stop 3, start 3, logs -f, status"


@dataclass(frozen=True, slots=True)
class ClusterSnapshot:
    """The cluster at one moment: its plan and directory, the processes, and the fresh reports."""

    plan: ClusterPlan
    directory: Path
    processes: Processes
    reports: Mapping[int, NodeReport]

    @property
    def controller(self) -> NodeReport | None:
        """Who is active. A claim counts for as long as its lease could run, plus the time
        until the next answer may be here: a frozen controller's claim ends by itself."""
        valid = {n: r for n, r in self.reports.items() if r.age_ms <= r.lease_left_ms + _CLAIM_SLACK_MS}
        return controller_of(valid)

    @property
    def redis(self) -> str:
        """Redis in one word, as the controller sees it, else as any node does."""
        teller = self.controller or next(iter(self.reports.values()), None)
        return teller.redis.state if teller else "unknown"


class ClusterView(Protocol):
    """Shows a cluster."""

    def say(self, text: str) -> None:
        """One line about what the supervisor does."""

    def show(self, picture: ClusterSnapshot) -> None:
        """The state of things, some four times a second."""

    def close(self) -> None:
        """No more is to come."""


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
        self._office: tuple[int, int] | None = None
        self._redis = "unknown"
        self._redis_looks = 0

    def say(self, text: str) -> None:
        print(time.strftime("%H:%M:%S"), text, file=self._stream, flush=True)

    def show(self, picture: ClusterSnapshot) -> None:
        for process in picture.processes.nodes:
            self._show_process(process)
        self._history.look(picture.plan, picture.controller)
        self._show_leadership(picture)
        self._show_redis(picture)

    def _show_redis(self, picture: ClusterSnapshot) -> None:
        # Looked at more than once: a node that starts calls Redis down until it has reached it.
        self._redis_looks = self._redis_looks + 1 if picture.redis not in (self._redis, "unknown") else 0
        if self._redis_looks > (0 if picture.redis == "up" else _LOOKS):
            self._redis = picture.redis
            self.say(f"Redis {picture.processes.redis_url} is {self._redis}")

    def _show_process(self, process: ProcessState) -> None:
        known = (process.pid, process.description)
        if self._processes.get(process.id) != known:
            self._processes[process.id] = known
            hint = "; not started again" if process.state == "ended" and not process.asked else ""
            self.say(f"node {process.id} (pid {process.pid}) {known[1]}{hint}")

    def _show_leadership(self, picture: ClusterSnapshot) -> None:
        head = picture.controller
        leadership = (head.id, head.term) if head else None
        if leadership == self._office:
            return
        if head is None:
            self.say("nobody is active")
        else:
            election = self._history.of_term(head.term)
            if election is None:
                return  # its entry in Redis, with the reason and the gap, is due at the next look
            self.say(f"controller is node {head.id}, term {head.term}{_told(election)}")
        self._office = leadership

    def close(self) -> None:
        self.say("all ended")


def _told(election: Election) -> str:
    gap = f", {_gap(election)} after the last one was heard" if election.gap_ms is not None else ""
    return f" ({election.reason}{gap})"


def _gap(election: Election) -> str:
    return "-" if election.gap_ms is None else f"{election.gap_ms:.1f} ms"


def _ago(seconds: float) -> str:
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


class LiveView:
    """Draws the cluster with rich. Raises ImportError without it."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self._console = Console(highlight=False)
        self._history = History()
        # Drawn from the supervisor's own loop: one thread, and no picture older than its data.
        self._live: Live | None = Live(console=self._console, auto_refresh=False)
        self._live.start()

    def say(self, text: str) -> None:
        self._console.print(text, style="dim")

    def show(self, picture: ClusterSnapshot) -> None:
        from rich.console import Group
        from rich.text import Text

        self._history.look(picture.plan, picture.controller)
        place = "" if picture.directory == Path(".zelect").absolute() else f" --dir {picture.directory}"
        over = all(process.state == "ended" for process in picture.processes.nodes)
        more = f"Try in another terminal:  zelect cluster kill 1{place}\n{_HINTS}. Ctrl-C stops everything."
        hint = "The cluster is down." if over else more
        parts = Group(
            _header(picture),
            _voters(picture),
            "",
            _nodes(picture),
            "",
            Text(_notes(picture), style="red", end=""),
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


def _header(picture: ClusterSnapshot) -> Text:
    from rich.text import Text

    head = picture.controller
    text = Text.assemble(("zelect ", "bold"), (picture.plan.name, "bold cyan"), "   ")
    if head is None:
        text.append("nobody is active", style="bold red")
    else:
        text.append(f"controller {head.id}", style="bold green")
        since = _ago(time.time() - head.since_ms / 1000) if head.since_ms else "?"
        text.append(f"   term {head.term}   for {since}")
    text.append("   Redis ")
    text.append(picture.redis, style={"up": "green", "down": "bold red"}.get(picture.redis, "dim"))
    return text


def _voters(picture: ClusterSnapshot) -> Text:
    from rich.text import Text

    teller = picture.controller or max(
        picture.reports.values(), key=lambda r: (r.generation, r.config_term, r.version), default=None
    )
    if teller is None:
        return Text("")
    names = [str(member) for member in teller.members] + (["the witness"] if teller.witness == "member" else [])
    text = Text("votes: " + ", ".join(names) + "   ", style="dim")
    if teller.survives < 0:
        return text.append("no quorum", style="bold red")
    word = "failure" if teller.survives == 1 else "failures"
    return text.append(f"survives {teller.survives} more {word}", style="" if teller.survives else "yellow")


# Narrow enough that 80 columns hold any row, and of fixed width so that nothing jumps about.
_COLUMNS = (
    ("id", 2, "right"),
    ("address", 15, "left"),
    ("pid", 7, "right"),
    ("role", 10, "left"),
    ("status", 11, "left"),
    ("term", 4, "right"),
    ("lease", _BAR, "left"),
    ("heard", 6, "right"),
    ("links", 5, "right"),
    ("MB", 3, "right"),
)


def _nodes(picture: ClusterSnapshot) -> Table:
    table = _table(_COLUMNS)
    head = picture.controller
    for process in picture.processes.nodes:
        address = picture.plan.addresses[process.id].removeprefix("tcp://")
        report = picture.reports.get(process.id)
        first = (str(process.id), address, str(process.pid))
        if process.state != "up" or report is None:
            short = process.short if process.state != "up" else ("", "no answer")
            table.add_row(*first, *short, style="red" if process.state == "ended" else "yellow")
            continue
        leads = head is not None and head.id == report.id
        heard = "" if leads or report.controller_heard_ms is None else f"{report.controller_heard_ms:.0f} ms"
        lease = _bar(report.lease_left_ms) if leads else ""
        rest = (lease, heard, f"{report.links}/{report.peers}", str(report.rss_kb // 1024))
        table.add_row(*first, report.role, report.status, str(report.term), *rest, style="bold green" if leads else "")
    return table


def _notes(picture: ClusterSnapshot) -> str:
    return "".join(process.note + "\n" for process in picture.processes.nodes if process.note)


def _table(columns: tuple[tuple[str, int, str], ...]) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim")
    for name, width, side in columns:
        table.add_column(name, min_width=width, justify="right" if side == "right" else "left", no_wrap=True)
    return table


def _bar(left_ms: float) -> str:
    filled = max(0, min(_BAR, round(left_ms / Timing().lease_ms * _BAR)))
    return "█" * filled + "░" * (_BAR - filled)


_ELECTION_COLUMNS = (
    ("term", 8, "right"),
    ("elected", 8, "right"),
    ("before", 8, "right"),
    ("reason", 9, "left"),
    ("gap since last heard", 20, "right"),
)


def _elections(elections: list[Election]) -> Table:
    table = _table(_ELECTION_COLUMNS)
    for election in elections:
        before = str(election.previous) if election.previous else "-"
        table.add_row(str(election.term), str(election.id), before, election.reason, _gap(election))
    return table
