"""Prints log files, and what is added to them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import click

from zelect.system.foreign import shown_lines

_LAST_LINES = 20
_EVERY_S = 0.2


def tail(files: Mapping[str, Path], follow: bool) -> None:
    """Print `files` (label to path), each line with its label where there are several. `follow`:
    begin with the last lines, and never return."""
    known: dict[str, int] = {}
    while True:
        for label, path in files.items():
            lines, end = _new_lines(path, known.get(label, 0))
            if follow and label not in known:
                lines = lines[-_LAST_LINES:]
            known[label] = end
            for line in lines:
                click.echo(f"{label} | {line}" if len(files) > 1 else line)
        if not follow:
            return
        time.sleep(_EVERY_S)


def _new_lines(path: Path, start: int) -> tuple[list[str], int]:
    """The whole lines in `path` from byte `start` on, and where they end."""
    try:
        with open(path, "rb") as file:
            file.seek(start)
            text = file.read()
    except FileNotFoundError:  # not started yet
        return [], start
    end = text.rfind(b"\n") + 1
    return [shown_lines(line) for line in text[:end].decode(errors="replace").splitlines()], start + end
