"""A node with a job, as a user's process would be: what chaos runs in place of `zelect node`.

    python -m tools.chaos_lab.worker -c conf/n1.toml

Its setup (`tools.chaos_lab.worker_setup`) says where to dial its peers: through proxies, or in their own
network namespaces. The election's own settings stay those of the configuration file.
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
from tools.chaos_lab.worker_setup import CHAOS, NAME, WorkerSetup, read_setups
from zelect.api.node import NodeFailed
from zelect.config.loading import Config, ConfigError, load
from zelect.jobs.runner import Runner, RunPlan
from zelect.node.loop import NodeLoop
from zelect.node.storage.data_dir import DataDirError
from zelect.node.storage.vote_store import VoteStoreError
from zelect.system.log import setup as log_setup
from zelect.system.sockets import CannotBind

_GRACE_MS = 1000


def _adapted(config: Config, setup: WorkerSetup) -> Config:
    """`config` as this setup needs it."""
    redis = replace(config.redis, url=setup.registry) if config.redis.url else config.redis
    if not setup.listen:
        return replace(config, redis=redis)
    peers = tuple(peer if peer.id == config.node.id else replace(peer, data_dir=None) for peer in config.peers)
    return replace(config, redis=redis, peers=peers, node=replace(config.node, listen=setup.listen))


def _work(config: Config, setup: WorkerSetup) -> int:
    """Run the node and its job."""
    if setup.command:
        return _ended(lambda: Runner(config, RunPlan(setup.command, "always", _GRACE_MS, False), setup.dial).run())
    if setup.interface:
        return _ended(lambda: run_embedded(config, setup))
    log = log_setup(config.log.level, config.log.format, config.log.file, config.node.id, config.cluster.name)
    node = NodeLoop(config, log, setup.dial)
    incarnation = node.machine.state.saved.incarnation
    Job(node.handle, Counters(NAME, config.node.id, incarnation, setup.job, Path(setup.history))).start()
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
    setup = read_setups(Path(os.environ[CHAOS]))[config.node.id]
    if setup.namespace:
        enter_namespace(setup.namespace)
    config = _adapted(config, setup)
    signal.signal(signal.SIGUSR1, _nothing)
    try:
        Hog(Path(setup.hog)).start()
        return _work(config, setup)
    except (VoteStoreError, DataDirError) as error:
        print(f"worker: {error}", file=sys.stderr)
        return 3
    except CannotBind as error:
        print(f"worker: {error}", file=sys.stderr)
        return 4


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
