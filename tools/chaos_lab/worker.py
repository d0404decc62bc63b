"""A node with a job, as a user's process would be: what chaos runs in place of `zelect node`.

    python -m tools.chaos_lab.worker -c conf/n1.toml

Where it stands (see `tools.chaos_lab.places`) says where its peers are to be dialled: through proxies,
or in their own network namespaces. The election's own settings stay those of the configuration file.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import FrameType

from tools.chaos_lab.embedded_job import run_embedded
from tools.chaos_lab.enter_namespace import enter_namespace
from tools.chaos_lab.gil_hog import Hog
from tools.chaos_lab.job import Counters, Job
from tools.chaos_lab.places import CHAOS, NAME, Place, read_places
from zelect.api.node import NodeFailed
from zelect.config.loading import Config, ConfigError, load
from zelect.jobs.runner import Runner, RunPlan
from zelect.node.loop import NodeLoop
from zelect.node.storage.data_dir import DataDirError
from zelect.node.storage.vote_store import VoteStoreError
from zelect.system.log import setup
from zelect.system.sockets import CannotBind

_GRACE_MS = 1000


def _stood(config: Config, place: Place) -> Config:
    """`config` as seen from `place`."""
    redis = replace(config.redis, url=place.registry) if config.redis.url else config.redis
    if not place.listen:
        return replace(config, redis=redis)
    peers = tuple(peer if peer.id == config.node.id else replace(peer, data_dir=None) for peer in config.peers)
    return replace(config, redis=redis, peers=peers, node=replace(config.node, listen=place.listen))


def _work(config: Config, place: Place) -> int:
    """Run the node and its job."""
    if place.command:
        return _ended(lambda: Runner(config, RunPlan(place.command, "always", _GRACE_MS, False), place.dial).run())
    if place.interface:
        return _ended(lambda: run_embedded(config, place))
    log = setup(config.log.level, config.log.format, config.log.file, config.node.id, config.cluster.name)
    node = NodeLoop(config, log, place.dial)
    incarnation = node.machine.state.saved.incarnation
    Job(node.handle, Counters(NAME, config.node.id, incarnation, place.job, Path(place.history))).start()
    return node.run()


def _ended(run: Callable[[], int]) -> int:
    """The exit code of what embeds a node."""
    try:
        return run()
    except NodeFailed as error:
        print(f"worker: {error}", file=sys.stderr)
        return 3 if isinstance(error.__cause__, VoteStoreError | DataDirError) else 1


def _nothing(number: int, frame: FrameType | None) -> None:
    """A handler as a program may have: the storm of signals must interrupt what it can."""


def main(arguments: list[str]) -> int:
    if len(arguments) != 2 or arguments[0] != "-c":
        print("usage: python -m tools.chaos_lab.worker -c FILE", file=sys.stderr)
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
    try:
        Hog(Path(place.hog)).start()
        return _work(config, place)
    except (VoteStoreError, DataDirError) as error:
        print(f"worker: {error}", file=sys.stderr)
        return 3
    except CannotBind as error:
        print(f"worker: {error}", file=sys.stderr)
        return 4


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
