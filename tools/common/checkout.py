"""Which checkout of zelect a tool runs, and the small things that tools share."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zelect.core.timing import Timing
from zelect.redis.registry_scripts import Keys
from zelect.system.clock import now_us

NAME = "bench"
KEYS = Keys.of(NAME)
TIMING = Timing()
JsonDict = dict[str, Any]


class ToolError(Exception):
    """What the tool runs does not do what it must; the text says what, with the ends of its logs."""


@dataclass(frozen=True, slots=True)
class Tree:
    """A checkout of zelect, which spawned processes import whatever is installed. `secure`: its
    clusters encrypt their links; `requests`: how many requests a second their nodes answer over HTTP
    meanwhile (0: they don't speak HTTP); `program`: what of the interpreter runs its command line."""

    root: Path
    secure: bool = False
    requests: int = 0
    program: tuple[str, ...] = ("-m", "zelect")

    def environment(self) -> dict[str, str]:
        """What a process runs in; its command needs `-P`, or its directory would come first."""
        paths = [str(self.root), *filter(None, [os.environ.get("PYTHONPATH")])]
        return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}

    def check(self) -> None:
        """Raises ToolError unless processes run this very zelect."""
        script = "import zelect, pathlib; print(pathlib.Path(zelect.__file__).parent.parent)"
        found = run_python("-c", script, tree=self).strip()
        if Path(found) != self.root:
            raise ToolError(f"processes that should run {self.root} import the zelect of {found}")


THIS = Tree(Path(__file__).resolve().parent.parent.parent)
"""The checkout that this file belongs to."""


def run_python(*arguments: object, tree: Tree = THIS) -> str:
    """Run the interpreter to its end; its output. Raises ToolError when it ends with an error."""
    command = [sys.executable, "-P", *map(str, arguments)]
    done = subprocess.run(command, env=tree.environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise ToolError(f"{' '.join(command[2:])} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def took(action: Callable[[], object]) -> float:
    """How long `action` takes, in milliseconds."""
    began_us = now_us()
    action()
    return (now_us() - began_us) / 1000


def progress(number: int, of: int, last_ms: float | None) -> None:
    """One line on a terminal's standard error, written again each time."""
    if sys.stderr.isatty():
        text = f"{number}/{of}" + (f", the last {last_ms:.1f} ms" if last_ms is not None else "")
        print(f"\r{text:<40}", end="" if number < of else "\n", file=sys.stderr, flush=True)


def positive(text: str) -> int:
    """An option's number. Raises argparse.ArgumentTypeError below 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number
