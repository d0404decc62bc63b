"""What a person sees of a run: progress while it lasts, and the table of faults."""

from __future__ import annotations

import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tools.chaos_lab.fault import Host
from tools.chaos_lab.fault_table import FAMILIES
from tools.chaos_lab.schedule import PlannedRound

_PLAIN_EVERY_S = 5.0


@contextmanager
def progress(most: int | None, duration_s: float | None) -> Iterator[Callable[[PlannedRound, str], None]]:
    """A bar on a terminal's standard error, else a line every few seconds."""
    try:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
    except ImportError:
        yield _plain(most)
        return
    if not sys.stderr.isatty():
        yield _plain(most)
        return
    from rich.console import Console

    columns = (
        TextColumn("round"),
        MofNCompleteColumn(),
        BarColumn(20),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("starting", total=most)

        def show(round_: PlannedRound, doing: str) -> None:
            bar.update(task, completed=round_.number, description=doing)

        yield show


def _plain(most: int | None) -> Callable[[PlannedRound, str], None]:
    last = [0.0]

    def show(round_: PlannedRound, doing: str) -> None:
        if time.monotonic() - last[0] >= _PLAIN_EVERY_S:
            last[0] = time.monotonic()
            of = f" of {most}" if most else ""
            print(f"round {round_.number}{of}: {doing}", file=sys.stderr, flush=True)

    return show


def print_faults(host: Host, nodes: int) -> None:
    """Print the table of faults."""
    for family, faults in FAMILIES.items():
        print(f"{family}:")
        for fault in faults:
            missing = fault.missing(host, nodes)
            text = fault.text + (f" (not here: {missing})" if missing else "")
            print(textwrap.fill(text, 80, initial_indent=f"  {fault.name:<18}", subsequent_indent=" " * 20))
