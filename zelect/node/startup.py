"""The start of a node: its sockets, its durable state, and a new incarnation."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from zelect.config.loading import Config, ConfigError
from zelect.core.machine import first_state
from zelect.core.settings import Settings
from zelect.node.storage.data_dir import DataDir, holder
from zelect.node.storage.vote_store import VoteStore
from zelect.node.transport.connection_limits import connection_limits_of
from zelect.node.transport.router import Router
from zelect.node.transport.transport import Transport
from zelect.redis.errors import safe_url
from zelect.security.keys import Keyring
from zelect.system.clock import unix_ms
from zelect.system.log import Log
from zelect.system.poller import Poller
from zelect.system.sockets import CannotBind, Context
from zelect.version import __version__

if TYPE_CHECKING:
    from zelect.node.http.snapshot import StatusPublisher


def open_state(path: Path, settings: Settings) -> tuple[DataDir, VoteStore]:
    """Open the durable state in `path`, and take a new incarnation, which is durable before any message
    carries it (R1). Raises `VoteStoreError` and `DataDirError`."""
    data_dir = DataDir.open(path, settings.cluster, settings.node)
    # The wall clock may have been set back; neither an incarnation nor a storage epoch may be used again.
    now_ms = max(unix_ms(), data_dir.last_incarnation + 1)
    vote_store = VoteStore.open(data_dir, settings.cluster, settings.node, first_state(settings, now_ms))
    saved = vote_store.saved
    if not (vote_store.fresh or vote_store.lost):
        promise_ms = max(saved.promise_ms, settings.timing.election_timeout_ms)
        incarnation = max(saved.incarnation + 1, saved.epoch + 1, now_ms)
        saved = replace(saved, incarnation=incarnation, promise_ms=promise_ms)
        vote_store.save(saved)
    data_dir.announce(saved.incarnation)
    return data_dir, vote_store


def transport_of(context: Context, poller: Poller, config: Config, keyring: Keyring | None, log: Log) -> Transport:
    """The transport that `config` asks for, with no peers yet."""
    settings = config.settings()
    return Transport(
        context,
        listen=config.node.listen,
        max_message_bytes=config.limits.max_message_bytes,
        poller=poller,
        proof=settings.timing.proof,
        keyring=keyring,
        limits=connection_limits_of(config.limits, len(settings.addresses), log),
    )


def bind(router: Router, config: Config) -> None:
    """Listen. Raises `CannotBind`, which says so where the address is held by this very node, started before."""
    try:
        router.bind()
    except CannotBind as error:
        me = config.node
        pid = holder(me.data_dir, config.cluster.name, me.id)
        if not pid:
            raise
        runs = f"node {me.id} is already running, as process {pid} with data_dir {me.data_dir}; stop that one first"
        raise CannotBind(error.address, error.code, runs) from error


def publisher_of(config: Config) -> StatusPublisher:
    """What publishes the node's status over HTTP; a node without [http] imports nothing of it. Raises `CannotBind`, and
    `ConfigError` without the extra."""
    from zelect.node.http.snapshot import StatusPublisher

    try:
        from zelect.node.http.app import HttpServer
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{config.path}: http.listen: {error.name} is not installed; pip install 'zelect[http]', or set it to \"\""
        ) from error
    return StatusPublisher(config.http.listen, HttpServer)


def log_start(log: Log, config: Config, data_dir: DataDir, *, encrypted: bool, lost: str) -> None:
    """Log that the node has started, with which configuration, and what is unusual about it. `lost`: why what it had
    saved is not there any more."""
    log.event(
        "info",
        "node_started",
        version=__version__,
        pid=os.getpid(),
        listen=config.node.listen,
        address=config.address,
        data_dir=config.node.data_dir,
        encrypted=encrypted,
        redis=safe_url(config.redis.url),
    )
    if was_open := data_dir.was_open:
        log.event("warning", "data_dir_tightened", mode_before=f"{was_open:04o}", mode="0700")
    if lost:
        fix = "nothing: a controller takes the vote of its lost data away, and gives it a new one"
        log.event("warning", "state_lost", why=lost, fix=fix)


def log_old_peers(log: Log, configured: Mapping[int, str], recorded: Mapping[int, str]) -> None:
    """Warn where the configuration names other members, or other addresses, than the voter record, which decides (R10).
    `recorded` is empty in a new node."""
    differ = sorted({node for node, _ in configured.items() ^ recorded.items()}) if recorded else []
    if differ:
        fix = "nothing now: the voter record decides; bring [[peers]] up to date, see 'zelect members'"
        log.event("warning", "configured_peers_differ", nodes=",".join(map(str, differ)), fix=fix)
