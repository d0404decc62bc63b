"""The walks: which changes of its members a cluster goes through, one after the other."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tools.chaos_lab.member_changes import Work, add, change_durations, remove, replace
from tools.chaos_lab.walked_cluster import WalkedCluster

_DURATIONS = "heartbeat, lease and election timeout are doubled by restarts of one node after the other, then halved"
_SIZES = (3, 5, 7, 5, 3, 1)


@dataclass(frozen=True, slots=True)
class Change:
    """One change, made by `work`, during which so many `faults` happen."""

    kind: str
    nodes: tuple[int, ...]
    work: Work
    faults: int = 1


@dataclass(frozen=True, slots=True)
class Walk:
    """One kind of walk, which begins with `first` nodes and has `most` at most; `length`: how many changes. It ends
    as it began, so that it can be done again."""

    name: str
    text: str
    first: int
    most: int
    length: int
    changes: Callable[[WalkedCluster, random.Random], Iterator[Change]]


def _grow(cluster: WalkedCluster, rng: random.Random) -> Iterator[Change]:
    for size in _SIZES:
        while len(cluster.members) < size:
            node = min(set(cluster.scene.ids) - set(cluster.members))
            yield Change("add", (node,), add(cluster, node))
        while len(cluster.members) > size:
            node = rng.choice(sorted(cluster.members))
            yield Change("remove", (node,), remove(cluster, node))


def _replace(cluster: WalkedCluster, rng: random.Random) -> Iterator[Change]:
    for node in rng.sample(sorted(cluster.members), len(cluster.members)):
        yield Change("replace", (node,), replace(cluster, node))


def _durations(cluster: WalkedCluster, rng: random.Random) -> Iterator[Change]:
    for timing in reversed(cluster.durations):
        yield Change("durations", tuple(cluster.members), change_durations(cluster, timing), faults=3)


WALKS: dict[str, Walk] = {
    walk.name: walk
    for walk in (
        Walk("grow", "members are added and removed, 1→3→5→7→5→3→1", 1, 7, 12, _grow),
        Walk("replace", "each of three hosts is replaced by one at another address, without data", 3, 3, 3, _replace),
        Walk("durations", _DURATIONS, 3, 3, 2, _durations),
    )
}
