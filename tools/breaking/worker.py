"""A node with a job, as a user's process would be: what chaos runs in place of `zelect node`.

    python -m tools.breaking.worker -c conf/n1.toml

`ZELECT_CHAOS` names a JSON file that says, for each node, where its peers are to be dialled (through
proxies, or in their own network namespaces), where the board and the job's Redis are, and where the
history goes. The election's own settings stay those of the configuration file.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

from tools.breaking.entering import enter_namespace
from tools.breaking.hog import Hog
from tools.breaking.job import Job
from zelect.config import Config, ConfigError, load
from zelect.log import setup
from zelect.shell.ballot import BallotError
from zelect.shell.datadir import DataDirError
from zelect.shell.node import Node
from zelect.shell.transport import CannotBind

__all__ = ["CHAOS", "Place", "read_places", "write_places"]

CHAOS = "ZELECT_CHAOS"
"""Name of the environment variable."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where one worker stands. `dial`: peer to address; `board`: URL of the notice board; `job`: host
    and port of the job's Redis; `history`: directory; `hog`: file whose appearance makes a thread
    hold the interpreter lock. In a network namespace: `namespace` is its path, `listen` the node's
    address there; the peers then count as other hosts, whose locks can't be looked at."""

    dial: dict[int, str]
    board: str
    job: tuple[str, int]
    history: str
    hog: str
    namespace: str = ""
    listen: str = ""


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
        places[int(node)] = Place(dial=dial, job=(str(host), int(port)), **entry)
    return places


def _stood(config: Config, place: Place) -> Config:
    """`config` as seen from `place`."""
    redis = replace(config.redis, url=place.board) if config.redis.url else config.redis
    if not place.listen:
        return replace(config, redis=redis)
    peers = tuple(peer if peer.id == config.node.id else replace(peer, data_dir=None) for peer in config.peers)
    return replace(config, redis=redis, peers=peers, node=replace(config.node, listen=place.listen))


def _nothing(number: int, frame: FrameType | None) -> None:
    """A handler as a program may have: the storm of signals must interrupt what it can."""


def main(arguments: list[str]) -> int:
    if len(arguments) != 2 or arguments[0] != "-c":
        print("usage: python -m tools.breaking.worker -c FILE", file=sys.stderr)
        return 2
    try:
        config = load(Path(arguments[1]))
    except ConfigError as error:
        print(f"worker: {error}", file=sys.stderr)
        return 2
    place = read_places(Path(os.environ[CHAOS]))[config.node.id]
    if place.namespace:
        enter_namespace(place.namespace)
    config = _stood(config, place)
    signal.signal(signal.SIGUSR1, _nothing)
    log = setup(config.log.level, config.log.format, config.log.file, config.node.id, config.cluster.name)
    try:
        node = Node(config, log, place.dial)
        incarnation = node.machine.state.saved.incarnation
        Job(node.office, config.cluster.name, config.node.id, incarnation, place.job, Path(place.history)).start()
        Hog(Path(place.hog)).start()
        return node.run()
    except (BallotError, DataDirError) as error:
        print(f"worker: {error}", file=sys.stderr)
        return 3
    except CannotBind as error:
        print(f"worker: {error}", file=sys.stderr)
        return 4


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
