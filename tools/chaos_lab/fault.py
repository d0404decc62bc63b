"""What a fault is: planned from a seed alone, then done to whatever the cluster is at that moment."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from tools.chaos_lab.target import World


class Broken(Exception):
    """A node did what it never may; the text says what."""


@dataclass(frozen=True, slots=True)
class Host:
    """What this machine can do. `tools`: commands found on PATH; `links`: the links go through the
    proxy, or, as `spaces` says, through network namespaces."""

    root: bool
    linux: bool
    tools: frozenset[str]
    links: bool
    spaces: bool = False


@dataclass(frozen=True, slots=True)
class Strike:
    """One fault of a round. `ranks`: whom it meets; 0 is who is active then, 1 and above are the
    others by their ids. It begins `after_ms` after the round, or the fault before it, and lasts
    `hold_ms`, unless its end is a condition."""

    fault: str
    ranks: tuple[int, ...] = ()
    after_ms: int = 0
    hold_ms: int = 0
    detail: Mapping[str, int] = field(default_factory=dict)


class Fault:
    """A kind of fault. Each has one entry in the table of `faults.py`.

    `begin` does it, and says so by `tell` right before, so that the note's time is that of the
    deed; `end` undoes it. What ended because of it is started again by whoever ends the round.
    `alone`: never combined with another; `registry`: breaks Redis, `forgets`: a memory is lost that the
    voters rests on: never combined with another of the kind.
    """

    name: ClassVar[str]
    text: ClassVar[str]
    alone: ClassVar[bool] = False
    registry: ClassVar[bool] = False
    forgets: ClassVar[bool] = False
    links: ClassVar[bool] = False

    def missing(self, host: Host, nodes: int) -> str:
        """Why it can't be done here; empty when it can."""
        return "the links don't go through the proxy" if self.links and not host.links else ""

    def plan(self, rng: random.Random, nodes: int) -> Strike:
        """One such fault of a cluster of `nodes`: by default one node, the controller twice as often
        as any other, for 150 to 600 ms."""
        return self.strike(rng, (rng.choice((0, *range(nodes))),), rng.randint(150, 600))

    def strike(self, rng: random.Random, ranks: tuple[int, ...], hold_ms: int, **detail: int) -> Strike:
        """A strike at a time of its own."""
        return Strike(self.name, ranks, rng.randint(0, 250), hold_ms, detail)

    def begin(self, world: World, strike: Strike) -> None:
        """Do it."""
        raise NotImplementedError

    def end(self, world: World, strike: Strike) -> None:
        """Undo what time does not undo."""

    def nodes(self, world: World, strike: Strike) -> list[int]:
        """Whom the ranks mean now. When nobody is active, rank 0 is the first node."""
        head = world.active() or world.ids[0]
        order = [head, *(node for node in world.ids if node != head)]
        return [order[rank] for rank in strike.ranks if rank < len(order)]

    def tell(self, world: World, nodes: list[int], **detail: object) -> None:
        """Note that it happens now."""
        world.notes.write("fault_began", round=world.notes.round, fault=self.name, nodes=nodes, detail=detail)
