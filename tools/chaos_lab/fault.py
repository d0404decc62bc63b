"""What a kind of fault is: planned from a seed alone, then done to whatever the cluster is at that moment."""

from __future__ import annotations

import random
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from tools.chaos_lab.cluster import ChaosCluster
from zelect.system.parent_death import prefix

_NUMBERS = ("no", "one", "two", "three", "four")


class Misbehaved(Exception):
    """A node did what it must never do; the text says what."""


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
class PlannedFault:
    """One fault of a round. `ranks`: which nodes; 0 is the one that is active then, 1 and above are the
    others by their ids. It begins `after_ms` after the round, or the fault before it, and lasts
    `hold_ms`, unless its end is a condition."""

    fault: str
    ranks: tuple[int, ...] = ()
    after_ms: int = 0
    hold_ms: int = 0
    detail: Mapping[str, int] = field(default_factory=dict)


def log_uniform(rng: random.Random, least: int, most: int) -> int:
    """From `least` to `most`, short times as often as long ones."""
    return int(least * (most / least) ** rng.random())


def repeatedly(rng: random.Random, least: int, most: int) -> dict[str, int]:
    """The details of a fault that is done several times, at moments that follow from a seed."""
    return {"times": rng.randint(least, most), "seed": rng.getrandbits(32)}


class Fault:
    """A kind of fault; `fault_table.py` lists them all.

    `begin` does it, and announces it right before, so that the log has the right time; `end` undoes it.
    Processes that ended because of it are started again at the end of the round. `alone`: never combined
    with another; `registry`: breaks Redis, `forgets`: a memory is lost that the voters rely on: never
    combined with another of that kind. By default it sends the signal `sends` to one node, for `hold` milliseconds.
    """

    name: ClassVar[str]
    text: ClassVar[str]
    alone: ClassVar[bool] = False
    registry: ClassVar[bool] = False
    forgets: ClassVar[bool] = False
    links: ClassVar[bool] = False
    needs: ClassVar[int] = 1
    hold: ClassVar[tuple[int, int]] = (150, 600)
    sends: ClassVar[signal.Signals] = signal.SIGKILL

    def __init__(self) -> None:
        self._helpers: list[subprocess.Popen[bytes]] = []

    def missing(self, host: Host, nodes: int) -> str:
        """Why it can't be done here; empty when it can."""
        if self.links and not host.links:
            return "the links don't go through the proxy"
        return f"needs {_NUMBERS[self.needs]} nodes" if nodes < self.needs else ""

    # -- the plan, from the seed ----------------------------------------------------------

    def plan(self, rng: random.Random, nodes: int) -> PlannedFault:
        """One such fault of a cluster of `nodes`."""
        ranks, hold_ms, detail = self.ranks(rng, nodes), self.hold_ms(rng), self.details(rng, nodes)
        return PlannedFault(self.name, ranks, rng.randint(0, 250), hold_ms, detail)

    def ranks(self, rng: random.Random, nodes: int) -> tuple[int, ...]:
        """One node, the controller twice as often as any other."""
        return (rng.choice((0, *range(nodes))),)

    def hold_ms(self, rng: random.Random) -> int:
        return rng.randint(*self.hold)

    def details(self, rng: random.Random, nodes: int) -> dict[str, int]:
        """Whatever else is decided beforehand. `kill` 0: no node is affected after all."""
        return {}

    # -- doing it ------------------------------------------------------------------------

    def begin(self, cluster: ChaosCluster, planned: PlannedFault) -> None:
        nodes = self.nodes(cluster, planned)
        self.announce(cluster, nodes, planned)
        self.strike(cluster, planned, nodes)

    def strike(self, cluster: ChaosCluster, planned: PlannedFault, nodes: list[int]) -> None:
        """Do it to `nodes`."""
        for node in nodes:
            cluster.signal(node, self.sends)

    def help(self, *command: str) -> subprocess.Popen[bytes]:
        """Start a process that lasts until the end of the fault."""
        self._helpers.append(subprocess.Popen((*prefix(), *command), stdout=subprocess.PIPE))
        return self._helpers[-1]

    def end(self, cluster: ChaosCluster, planned: PlannedFault) -> None:
        """Undo what time does not undo: here, end the helpers."""
        while self._helpers:
            with self._helpers.pop() as process:
                process.kill()

    def nodes(self, cluster: ChaosCluster, planned: PlannedFault) -> list[int]:
        """The nodes that the ranks mean now. When nobody is active, rank 0 is the first node."""
        if planned.detail.get("kill") == 0:
            return []
        head = cluster.active() or cluster.ids[0]
        order = [head, *(node for node in cluster.ids if node != head)]
        return [order[rank] for rank in planned.ranks if rank < len(order)]

    def announce(self, cluster: ChaosCluster, nodes: list[int], planned: PlannedFault, **more: object) -> None:
        """Write to the log that it happens now."""
        detail = {"hold_ms": planned.hold_ms} if planned.hold_ms else {}
        detail |= {name: value for name, value in planned.detail.items() if name != "seed"}
        cluster.log.write(
            "fault_began", round=cluster.log.round, fault=self.name, nodes=nodes, detail={**detail, **more}
        )
