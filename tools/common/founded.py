"""A cluster that was founded already, for worlds whose subject is not its founding (R15)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from zelect.core.effects import Saved
from zelect.core.machine import first_state
from zelect.core.quorum import Record
from zelect.core.settings import Settings

CLUSTER_ID = 7


def founded_record(addresses: Mapping[int, str], epochs: Mapping[int, int]) -> Record:
    """The record of a cluster of all nodes of `addresses` that never had a controller."""
    members = tuple(sorted(addresses))
    return Record(
        config_term=0,
        version=1,
        members=members,
        epochs=tuple(epochs[node] for node in members),
        cluster_id=CLUSTER_ID,
        addresses=tuple(sorted(addresses.items())),
    )


def founded_state(settings: Settings, incarnation: int, epochs: Mapping[int, int] | None = None) -> Saved:
    """What a node of such a cluster has saved. Without `epochs` each node's storage epoch is 1."""
    known = epochs or dict.fromkeys(settings.addresses, 1)
    record = founded_record(settings.addresses, known)
    return replace(first_state(settings, incarnation), record=record, epoch=known[settings.node])
