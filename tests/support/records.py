"""Voter records for tests, of the cluster that `tools.common.founded` founds."""

from __future__ import annotations

from collections.abc import Sequence

from tools.common.founded import CLUSTER_ID
from zelect.core.quorum import Addresses, Record, Witness


def places(*nodes: int) -> Addresses:
    """An address for each of `nodes`."""
    return tuple((node, f"tcp://127.0.0.1:{7100 + node}") for node in sorted(set(nodes)))


def made_record(
    config_term: int,
    version: int,
    members: tuple[int, ...],
    witness: Witness | None = None,
    generation: int = 0,
    epochs: Sequence[int] | None = None,
    *,
    belong: Sequence[int] = (1, 2, 3),
    cluster_id: int = CLUSTER_ID,
) -> Record:
    """A record in which `members` vote, with the epochs of a simulated world, their ids, unless told otherwise. The
    nodes of `belong` belong to the cluster too."""
    named = members if epochs is None else tuple(epochs)
    return Record(config_term, version, members, witness, generation, named, cluster_id, places(*members, *belong))
