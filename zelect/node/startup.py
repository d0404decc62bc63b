"""The start of a process: its sockets, what it remembers, and a new incarnation."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from zelect.config.loading import Config
from zelect.core.machine import first_state
from zelect.core.settings import Settings
from zelect.node.storage.data_dir import DataDir
from zelect.node.storage.vote_store import VoteStore, VoteStoreError
from zelect.node.transport.descriptor_limit import connection_limits_of
from zelect.node.transport.transport import Transport
from zelect.redis.errors import safe_url
from zelect.security.keys import Keyring
from zelect.system.clock import unix_ms
from zelect.system.log import Log
from zelect.system.poller import Poller
from zelect.system.sockets import Context
from zelect.version import __version__

if TYPE_CHECKING:
    from zelect.node.loop import NodeLoop

__all__ = ["open_state", "tell_start", "transport_of"]


def open_state(path: Path, settings: Settings) -> tuple[DataDir, VoteStore]:
    """Open in `path` what must never be forgotten, and take a new incarnation, which is durable
    before anything is said in its name (R1). Raises `VoteStoreError` and `DataDirError`."""
    data_dir = DataDir.open(path, settings.cluster, settings.node)
    first = first_state(settings, incarnation=unix_ms())
    vote_store = VoteStore.open(data_dir, settings.cluster, settings.node, first)
    _check_members(vote_store, settings)
    saved = vote_store.saved
    if not vote_store.fresh:
        # The wall clock may have been set back; no number may be used again.
        last = max(saved.incarnation, data_dir.last_incarnation)
        saved = replace(saved, incarnation=max(last + 1, unix_ms()))
        vote_store.save(saved)
    data_dir.announce(saved.incarnation)
    return data_dir, vote_store


def _check_members(vote_store: VoteStore, settings: Settings) -> None:
    missing = sorted(set(vote_store.saved.record.members) - set(settings.members))
    if missing:
        raise VoteStoreError(
            f"node {missing[0]} votes in the saved voters, but [[peers]] does not list it",
            "list it, stop it and wait until the voters are without it ('zelect members'), then remove it",
        )


def transport_of(
    context: Context, poller: Poller, config: Config, keyring: Keyring | None, connect_to: Mapping[int, str], log: Log
) -> Transport:
    """The transport that `config` asks for. `connect_to`: where to connect to a peer when not at its address."""
    settings = config.settings()
    return Transport(
        context,
        listen=config.node.listen,
        peers={peer: connect_to.get(peer, settings.addresses[peer]) for peer in settings.peers},
        max_message_bytes=config.limits.max_message_bytes,
        poller=poller,
        proof=settings.timing.proof,
        keyring=keyring,
        bounds=connection_limits_of(config.limits, len(settings.peers), log),
    )


def tell_start(node: NodeLoop) -> None:
    """Log that the node has started, as what, and what is odd about it."""
    node.log.event(
        "info",
        "node_started",
        version=__version__,
        pid=os.getpid(),
        listen=node.config.node.listen,
        address=node.config.address,
        data_dir=node.config.node.data_dir,
        encrypted=node.directory is not None,
        redis=safe_url(node.config.redis.url),
    )
    node.redis_status.log_start()
    if was_open := node.data_dir.was_open:
        node.log.event("warning", "data_dir_tightened", mode_before=f"{was_open:04o}", mode="0700")
    if node.vote_store.saved.lost_state:
        fix = "this node votes again once a controller has taken it out of the voters and in again"
        node.log.event("warning", "memory_lost", fix=fix)
