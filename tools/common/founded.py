"""A cluster that was founded already, for worlds whose subject is not its founding (R15)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from zelect.core.effects import Saved
from zelect.core.machine import first_state
from zelect.core.quorum import Record
from zelect.core.settings import Settings

CLUSTER_ID = 7
EPOCH = 1
"""The storage epoch of every node that was there at the founding. One that loses its state begins a higher one."""


def founded_record(addresses: Mapping[int, str]) -> Record:
    """The record of a cluster of all nodes of `addresses` that never had a controller."""
    members = tuple(sorted(addresses))
    places = tuple(sorted(addresses.items()))
    return Record(0, 1, members, epochs=(EPOCH,) * len(members), cluster_id=CLUSTER_ID, addresses=places)


def founded_state(settings: Settings, incarnation: int) -> Saved:
    """What a node of such a cluster has saved."""
    return replace(first_state(settings, incarnation), record=founded_record(settings.addresses), epoch=EPOCH)
