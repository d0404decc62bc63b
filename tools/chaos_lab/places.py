"""Where each worker of a run stands, in a file that `ZELECT_CHAOS` names."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NAME = "chaos"
"""The cluster's name."""
CHAOS = "ZELECT_CHAOS"
"""Name of the environment variable."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where one worker stands. `dial`: peer to address; `registry`: URL of the registry; `job`: host
    and port of the job's Redis; `history`: directory; `hog`: file whose appearance makes a thread
    hold the interpreter lock. In a network namespace: `namespace` is its path, `listen` the node's
    address there; the peers then count as other hosts, whose locks can't be looked at. `command`: runs
    in every leadership, as `zelect run` runs it, in place of the job in the node's process; `interface`: the
    job runs through that part of the Python interface instead, "threads" or "asyncio"."""

    dial: dict[int, str]
    registry: str
    job: tuple[str, int]
    history: str
    hog: str
    namespace: str = ""
    listen: str = ""
    command: tuple[str, ...] = ()
    interface: str = ""


def write_places(path: Path, places: dict[int, Place]) -> None:
    """Tell the workers where they stand."""
    table = {node: {key: getattr(place, key) for key in Place.__dataclass_fields__} for node, place in places.items()}
    path.write_text(json.dumps(table), encoding="utf-8")


def read_places(path: Path) -> dict[int, Place]:
    """What `write_places` wrote."""
    table: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    places = {}
    for node, entry in table.items():
        dial = {int(peer): str(address) for peer, address in entry.pop("dial").items()}
        host, port = entry.pop("job")
        command = tuple(entry.pop("command"))
        places[int(node)] = Place(dial=dial, job=(str(host), int(port)), command=command, **entry)
    return places
