"""How each worker of a run is set up, in a file that `ZELECT_CHAOS` names."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

NAME = "chaos"
"""The cluster's name."""
CHAOS = "ZELECT_CHAOS"
"""Name of the environment variable."""


@dataclass(frozen=True, slots=True)
class WorkerSetup:
    """What one worker finds where. `dial`: where to connect to instead of an address; `registry`: URL of the
    registry; `job`: host and port of the job's Redis; `history`: directory; `hog`: file whose appearance makes a
    thread hold the interpreter lock. In a network namespace: `namespace` is its path, `listen` the node's address
    there; the peers then count as other hosts, whose locks can't be looked at. `command`: runs in every leadership,
    as `zelect run` runs it, in place of the job in the node's process; `interface`: the job runs through that part
    of the Python interface instead, "threads" or "asyncio"."""

    dial: dict[str, str]
    registry: str
    job: tuple[str, int]
    history: str
    hog: str
    namespace: str = ""
    listen: str = ""
    command: tuple[str, ...] = ()
    interface: str = ""


def write_setups(path: Path, setups: dict[int, WorkerSetup]) -> None:
    path.write_text(json.dumps({node: asdict(setup) for node, setup in setups.items()}), encoding="utf-8")


def read_setups(path: Path) -> dict[int, WorkerSetup]:
    """What `write_setups` wrote."""
    table: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    setups = {}
    for node, entry in table.items():
        host, port = entry.pop("job")
        command = tuple(entry.pop("command"))
        setups[int(node)] = WorkerSetup(job=(host, port), command=command, **entry)
    return setups
