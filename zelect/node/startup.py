"""The start of a process: its sockets, what it remembers, and a new incarnation."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from zelect import __version__
from zelect.config.loading import Config
from zelect.core.machine import founding
from zelect.core.settings import Settings
from zelect.node.storage.data_dir import DataDir
from zelect.node.storage.vote_store import Ballot, BallotError
from zelect.node.transport.descriptor_limit import bounds_of
from zelect.node.transport.peer_link import Context
from zelect.node.transport.transport import Transport
from zelect.redis.errors import safe_url
from zelect.security.keys import Keyring
from zelect.system.clock import unix_ms
from zelect.system.log import Log
from zelect.system.poller import Poller

if TYPE_CHECKING:
    from zelect.node.loop import Node

__all__ = ["be_born", "tell_start", "transport_of"]


def be_born(path: Path, settings: Settings) -> tuple[DataDir, Ballot]:
    """Open in `path` what must never be forgotten, and take a new incarnation, which is durable
    before anything is said in its name (R1). Raises `BallotError` and `DataDirError`."""
    data_dir = DataDir.open(path, settings.cluster, settings.node)
    first = founding(settings, incarnation=unix_ms())
    ballot = Ballot.open(data_dir, settings.cluster, settings.node, first)
    _check_roster(ballot, settings)
    saved = ballot.saved
    if not ballot.fresh:
        # The wall clock may have been set back; no number may be used again.
        last = max(saved.incarnation, data_dir.last_incarnation)
        saved = replace(saved, incarnation=max(last + 1, unix_ms()))
        ballot.save(saved)
    data_dir.announce(saved.incarnation)
    return data_dir, ballot


def _check_roster(ballot: Ballot, settings: Settings) -> None:
    missing = sorted(set(ballot.saved.record.members) - set(settings.roster))
    if missing:
        raise BallotError(
            f"node {missing[0]} votes in the saved electorate, but [[peers]] does not list it",
            "list it, stop it and wait until the electorate is without it ('zelect electorate'), then remove it",
        )


def transport_of(
    context: Context, poller: Poller, config: Config, keyring: Keyring | None, dial: Mapping[int, str], log: Log
) -> Transport:
    """The transport that `config` asks for. `dial`: where to connect to a peer when not at its address."""
    settings = config.settings()
    return Transport(
        context,
        listen=config.node.listen,
        peers={peer: dial.get(peer, settings.addresses[peer]) for peer in settings.peers},
        max_message_bytes=config.limits.max_message_bytes,
        poller=poller,
        proof=settings.timing.proof,
        keyring=keyring,
        bounds=bounds_of(config.limits, len(settings.peers), log),
    )


def tell_start(node: Node) -> None:
    """Log that the node has started, as what, and what is odd about it."""
    node.log.event(
        "info",
        "node_started",
        version=__version__,
        pid=os.getpid(),
        listen=node.config.node.listen,
        advertise=node.config.node.advertise,
        data_dir=node.config.node.data_dir,
        encrypted=node.directory is not None,
        redis=safe_url(node.config.redis.url),
    )
    node.redis.tell_start()
    if was_open := node.data_dir.was_open:
        node.log.event("warning", "data_dir_tightened", mode_before=f"{was_open:04o}", mode="0700")
    if node.ballot.saved.amnesia:
        mend = "this node votes again once a controller has taken it out of the electorate and in again"
        node.log.event("warning", "memory_lost", mend=mend)
