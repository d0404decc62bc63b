"""Faults of the links between nodes, by the built-in proxy or in network namespaces."""

from __future__ import annotations

import random
from typing import ClassVar

from tools.chaos_lab.cluster import ChaosCluster
from tools.chaos_lab.fault import Fault, Host, PlannedFault, log_uniform, repeatedly
from tools.chaos_lab.links import between
from tools.chaos_lab.namespaces import Spaces
from tools.chaos_lab.proxy import Pair


class _LinkFault(Fault):
    """Links are blocked for a while. Once they are healed, what was held arrives late; or, every other
    time, the connections are reset first, as TCP gives up after a longer cut."""

    links = True
    marks: ClassVar[dict[str, object]] = {}

    def hold_ms(self, rng: random.Random) -> int:
        return log_uniform(rng, 100, 3000)

    def details(self, rng: random.Random, nodes: int) -> dict[str, int]:
        return {"reset": rng.randrange(2)}

    def begin(self, cluster: ChaosCluster, planned: PlannedFault) -> None:
        nodes = self.nodes(cluster, planned)
        pairs = self.pairs(cluster, planned, nodes)
        self.announce(cluster, nodes, planned, pairs=sorted(pairs), **self.marks)
        self.affect(cluster, planned, pairs)

    def pairs(self, cluster: ChaosCluster, planned: PlannedFault, nodes: list[int]) -> set[Pair]:
        """The directions that are affected: all between `nodes` and the others."""
        return between(nodes, set(cluster.ids) - set(nodes))

    def affect(self, cluster: ChaosCluster, planned: PlannedFault, pairs: set[Pair]) -> None:
        cluster.links.block(self.name, pairs)

    def end(self, cluster: ChaosCluster, planned: PlannedFault) -> None:
        if planned.detail.get("reset"):
            cluster.links.reset({(a, b) for a in cluster.ids for b in cluster.ids if a != b})
        cluster.links.release(self.name)


def _no_queue(host: Host) -> str:
    """Why packets can't be queued here; empty when they can, or need not be."""
    fine = not host.spaces or "iptables-restore" in host.tools
    return "" if fine else "iptables-restore is not installed"


class Cut(_LinkFault):
    name = "cut"
    text = "a clean partition: the links between two halves are dead, connections stay open"

    def ranks(self, rng: random.Random, nodes: int) -> tuple[int, ...]:
        size = rng.randint(1, max(1, nodes // 2))
        if rng.random() < 0.5:
            return (0, *rng.sample(range(1, nodes), size - 1))
        return tuple(rng.sample(range(nodes), size))


class OneWay(_LinkFault):
    name = "one_way"
    text = "one direction is dead: a node hears and is not heard, or the reverse"

    def details(self, rng: random.Random, nodes: int) -> dict[str, int]:
        return {"reset": rng.randrange(2), "deaf": rng.randrange(2)}

    def pairs(self, cluster: ChaosCluster, planned: PlannedFault, nodes: list[int]) -> set[Pair]:
        place = 1 if planned.detail["deaf"] else 0
        return {pair for pair in super().pairs(cluster, planned, nodes) if pair[place] in nodes}


class Bridge(_LinkFault):
    name = "bridge"
    text = "two halves are joined by one node alone"
    needs = 3

    def pairs(self, cluster: ChaosCluster, planned: PlannedFault, nodes: list[int]) -> set[Pair]:
        rest = [node for node in cluster.ids if node not in nodes]
        half = len(rest) // 2
        return between(rest[:half], rest[half:])


class Ring(_LinkFault):
    name = "ring"
    text = "a ring of majorities: each node reaches just enough of its neighbours for a majority, and no two the same"
    needs = 4

    def ranks(self, rng: random.Random, nodes: int) -> tuple[int, ...]:
        return tuple(rng.sample(range(nodes), nodes))

    def pairs(self, cluster: ChaosCluster, planned: PlannedFault, nodes: list[int]) -> set[Pair]:
        count, reach = len(nodes), len(nodes) // 4 + (len(nodes) % 4 > 1) or 1
        near = {(at, (at + step) % count) for at in range(count) for step in range(1, reach + 1)}
        near |= {(b, a) for a, b in near}
        return {(nodes[a], nodes[b]) for a in range(count) for b in range(count) if a != b and (a, b) not in near}


class Flap(_LinkFault):
    name = "flap"
    text = "the links of one node come and go every 20 to 400 ms"

    def hold_ms(self, rng: random.Random) -> int:
        return 0

    def details(self, rng: random.Random, nodes: int) -> dict[str, int]:
        return repeatedly(rng, 3, 8)

    def affect(self, cluster: ChaosCluster, planned: PlannedFault, pairs: set[Pair]) -> None:
        rng = random.Random(planned.detail["seed"])
        for _ in range(planned.detail["times"]):
            for blocked in (pairs, set[Pair]()):
                cluster.links.block(self.name, blocked)
                cluster.wait(rng.uniform(20, 400))


class Delay(_LinkFault):
    name = "delay"
    text = "the links of one node take 5 to 300 ms longer, in one direction or both"

    def missing(self, host: Host, nodes: int) -> str:
        return super().missing(host, nodes) or _no_queue(host)

    def hold_ms(self, rng: random.Random) -> int:
        return rng.randint(300, 1500)

    def details(self, rng: random.Random, nodes: int) -> dict[str, int]:
        return {"ms": log_uniform(rng, 5, 300), "way": rng.randrange(3)}

    def pairs(self, cluster: ChaosCluster, planned: PlannedFault, nodes: list[int]) -> set[Pair]:
        pairs, way = super().pairs(cluster, planned, nodes), planned.detail["way"]
        return pairs if way == 2 else {pair for pair in pairs if pair[way] in nodes}

    def affect(self, cluster: ChaosCluster, planned: PlannedFault, pairs: set[Pair]) -> None:
        cluster.links.delay(self.name, pairs, planned.detail["ms"])


class Reset(_LinkFault):
    name = "reset"
    text = "the connections of one node, or of all, are reset"

    def ranks(self, rng: random.Random, nodes: int) -> tuple[int, ...]:
        return tuple(range(nodes)) if rng.random() < 0.3 else super().ranks(rng, nodes)

    def hold_ms(self, rng: random.Random) -> int:
        return rng.randint(50, 400)

    def details(self, rng: random.Random, nodes: int) -> dict[str, int]:
        return {}

    def pairs(self, cluster: ChaosCluster, planned: PlannedFault, nodes: list[int]) -> set[Pair]:
        return between(nodes, cluster.ids)

    def affect(self, cluster: ChaosCluster, planned: PlannedFault, pairs: set[Pair]) -> None:
        cluster.links.reset(pairs)


class RefuseAlive(_LinkFault):
    name = "refuse_alive"
    text = "connections to a running node are refused, as by a firewall's reset: S2 is not guaranteed under it"
    marks: ClassVar[dict[str, object]] = {"forged": True}

    def hold_ms(self, rng: random.Random) -> int:
        return rng.randint(100, 1500)

    def details(self, rng: random.Random, nodes: int) -> dict[str, int]:
        return {}

    def pairs(self, cluster: ChaosCluster, planned: PlannedFault, nodes: list[int]) -> set[Pair]:
        return {pair for pair in super().pairs(cluster, planned, nodes) if pair[1] in nodes}

    def affect(self, cluster: ChaosCluster, planned: PlannedFault, pairs: set[Pair]) -> None:
        cluster.links.refuse(self.name, pairs)


class _PacketFault(_LinkFault):
    """What only real packets can meet."""

    def missing(self, host: Host, nodes: int) -> str:
        return "" if host.spaces else "needs --namespaces"

    def hold_ms(self, rng: random.Random) -> int:
        return rng.randint(500, 3000)


class Loss(_PacketFault):
    name = "loss"
    text = "5 to 40 of 100 packets from and to one node are lost"

    def details(self, rng: random.Random, nodes: int) -> dict[str, int]:
        return {"percent": rng.randint(5, 40)}

    def affect(self, cluster: ChaosCluster, planned: PlannedFault, pairs: set[Pair]) -> None:
        assert isinstance(cluster.links, Spaces)
        cluster.links.lose(self.name, pairs, planned.detail["percent"])


class Reorder(_PacketFault):
    name = "reorder"
    text = "packets from and to one node take 0 to 80 ms longer, each its own time, and overtake each other"

    def missing(self, host: Host, nodes: int) -> str:
        return super().missing(host, nodes) or _no_queue(host)

    def details(self, rng: random.Random, nodes: int) -> dict[str, int]:
        return {"ms": rng.randint(5, 80)}

    def affect(self, cluster: ChaosCluster, planned: PlannedFault, pairs: set[Pair]) -> None:
        assert isinstance(cluster.links, Spaces)
        cluster.links.reorder(self.name, pairs, 0, planned.detail["ms"])


FAULTS: tuple[Fault, ...] = (
    *(Cut(), OneWay(), Bridge(), Ring(), Flap(), Delay(), Reset(), RefuseAlive(), Loss(), Reorder()),
)
