"""Faults of the links between nodes, by the built-in proxy or in network namespaces."""

from __future__ import annotations

import random

from tools.chaos_lab.fault import Fault, Host, Strike
from tools.chaos_lab.links import between
from tools.chaos_lab.namespaces import Spaces
from tools.chaos_lab.proxy import Pair
from tools.chaos_lab.target import World


class _Links(Fault):
    """Links blocked for a while. Once they are healed, what was held arrives late; or, every other
    time, the connections are reset first, as TCP gives up after a longer cut."""

    links = True

    def plan(self, rng: random.Random, nodes: int) -> Strike:
        hold_ms = int(100 * 30 ** rng.random())
        return self.strike(rng, self.chosen(rng, nodes), hold_ms, reset=rng.randrange(2))

    def chosen(self, rng: random.Random, nodes: int) -> tuple[int, ...]:
        return (rng.choice((0, *range(nodes))),)

    def begin(self, world: World, strike: Strike) -> None:
        assert world.links is not None
        nodes = self.nodes(world, strike)
        pairs = self.pairs(world, nodes)
        self.tell(world, nodes, hold_ms=strike.hold_ms, pairs=sorted(pairs), reset=strike.detail.get("reset", 0))
        world.links.block(self.name, pairs)

    def pairs(self, world: World, nodes: list[int]) -> set[Pair]:
        """The directions that are blocked when the strike meets `nodes`."""
        raise NotImplementedError

    def end(self, world: World, strike: Strike) -> None:
        assert world.links is not None
        if strike.detail.get("reset"):
            world.links.reset({(a, b) for a in world.ids for b in world.ids if a != b})
        world.links.release(self.name)


def _no_queue(host: Host) -> str:
    """Why packets can't be queued here; empty when they can, or need not be."""
    fine = not host.spaces or "iptables-restore" in host.tools
    return "" if fine else "iptables-restore is not installed"


class Cut(_Links):
    name = "cut"
    text = "a clean partition: the links between two halves are dead, connections stay open"

    def chosen(self, rng: random.Random, nodes: int) -> tuple[int, ...]:
        size = rng.randint(1, max(1, nodes // 2))
        if rng.random() < 0.5:
            return (0, *rng.sample(range(1, nodes), size - 1))
        return tuple(rng.sample(range(nodes), size))

    def pairs(self, world: World, nodes: list[int]) -> set[Pair]:
        return between(nodes, set(world.ids) - set(nodes))


class OneWay(_Links):
    name = "one_way"
    text = "one direction is dead: a node hears and is not heard, or the reverse"

    def plan(self, rng: random.Random, nodes: int) -> Strike:
        hold_ms = int(100 * 30 ** rng.random())
        detail = {"reset": rng.randrange(2), "deaf": rng.randrange(2)}
        return self.strike(rng, self.chosen(rng, nodes), hold_ms, **detail)

    def begin(self, world: World, strike: Strike) -> None:
        assert world.links is not None
        (node,) = self.nodes(world, strike)
        others = set(world.ids) - {node}
        deaf = bool(strike.detail["deaf"])
        pairs = {(other, node) if deaf else (node, other) for other in others}
        self.tell(world, [node], hold_ms=strike.hold_ms, pairs=sorted(pairs), deaf=deaf)
        world.links.block(self.name, pairs)


class Bridge(_Links):
    name = "bridge"
    text = "two halves are joined by one node alone"

    def missing(self, host: Host, nodes: int) -> str:
        return super().missing(host, nodes) or ("" if nodes > 2 else "needs three nodes")

    def pairs(self, world: World, nodes: list[int]) -> set[Pair]:
        rest = [node for node in world.ids if node not in nodes]
        half = len(rest) // 2
        return between(rest[:half], rest[half:])


class Ring(_Links):
    name = "ring"
    text = "a ring of majorities: each node reaches just enough of its neighbours for a majority, and no two the same"

    def missing(self, host: Host, nodes: int) -> str:
        return super().missing(host, nodes) or ("" if nodes > 3 else "needs four nodes")

    def chosen(self, rng: random.Random, nodes: int) -> tuple[int, ...]:
        order = list(range(nodes))
        rng.shuffle(order)
        return tuple(order)

    def pairs(self, world: World, nodes: list[int]) -> set[Pair]:
        count, reach = len(nodes), len(nodes) // 4 + (len(nodes) % 4 > 1) or 1
        near = {(at, (at + step) % count) for at in range(count) for step in range(1, reach + 1)}
        near |= {(b, a) for a, b in near}
        return {(nodes[a], nodes[b]) for a in range(count) for b in range(count) if a != b and (a, b) not in near}


class Flap(_Links):
    name = "flap"
    text = "the links of one node come and go every 20 to 400 ms"

    def plan(self, rng: random.Random, nodes: int) -> Strike:
        detail = {"times": rng.randint(3, 8), "seed": rng.getrandbits(32)}
        return self.strike(rng, self.chosen(rng, nodes), 0, **detail)

    def begin(self, world: World, strike: Strike) -> None:
        assert world.links is not None
        rng = random.Random(strike.detail["seed"])
        (node,) = self.nodes(world, strike)
        pairs = between([node], set(world.ids) - {node})
        self.tell(world, [node], times=strike.detail["times"], pairs=sorted(pairs))
        for _ in range(strike.detail["times"]):
            world.links.block(self.name, pairs)
            world.wait(rng.uniform(20, 400))
            world.links.block(self.name, ())
            world.wait(rng.uniform(20, 400))


class Delay(_Links):
    name = "delay"
    text = "the links of one node take 5 to 300 ms longer, in one direction or both"

    def missing(self, host: Host, nodes: int) -> str:
        return super().missing(host, nodes) or _no_queue(host)

    def plan(self, rng: random.Random, nodes: int) -> Strike:
        detail = {"ms": int(5 * 60 ** rng.random()), "way": rng.randrange(3)}
        return self.strike(rng, self.chosen(rng, nodes), rng.randint(300, 1500), **detail)

    def begin(self, world: World, strike: Strike) -> None:
        assert world.links is not None
        (node,) = self.nodes(world, strike)
        pairs = between([node], set(world.ids) - {node})
        if strike.detail["way"] < 2:
            pairs = {pair for pair in pairs if pair[strike.detail["way"]] == node}
        self.tell(world, [node], hold_ms=strike.hold_ms, ms=strike.detail["ms"], pairs=sorted(pairs))
        world.links.delay(self.name, pairs, strike.detail["ms"])


class Reset(_Links):
    name = "reset"
    text = "the connections of one node, or of all, are reset"

    def plan(self, rng: random.Random, nodes: int) -> Strike:
        ranks = tuple(range(nodes)) if rng.random() < 0.3 else self.chosen(rng, nodes)
        return self.strike(rng, ranks, rng.randint(50, 400))

    def begin(self, world: World, strike: Strike) -> None:
        assert world.links is not None
        nodes = self.nodes(world, strike)
        pairs = between(nodes, world.ids)
        self.tell(world, nodes, pairs=sorted(pairs))
        world.links.reset(pairs)


class RefuseAlive(_Links):
    name = "refuse_alive"
    text = "connections to a living node are refused, as a firewall's reset does: outside of what S2 is promised under"

    def plan(self, rng: random.Random, nodes: int) -> Strike:
        return self.strike(rng, self.chosen(rng, nodes), rng.randint(100, 1500))

    def begin(self, world: World, strike: Strike) -> None:
        assert world.links is not None
        (node,) = self.nodes(world, strike)
        pairs = {(other, node) for other in world.ids if other != node}
        self.tell(world, [node], hold_ms=strike.hold_ms, pairs=sorted(pairs), forged=True)
        world.links.refuse(self.name, pairs)


class _Packets(_Links):
    """What only real packets can meet."""

    links = True

    def missing(self, host: Host, nodes: int) -> str:
        return "" if host.spaces else "needs --namespaces"

    def met(self, world: World, strike: Strike) -> tuple[Spaces, list[int], set[Pair]]:
        """The namespaces, and the node and the directions that the strike meets."""
        assert isinstance(world.links, Spaces)
        nodes = self.nodes(world, strike)
        return world.links, nodes, between(nodes, set(world.ids) - set(nodes))


class Loss(_Packets):
    name = "loss"
    text = "5 to 40 of 100 packets from and to one node are lost"

    def plan(self, rng: random.Random, nodes: int) -> Strike:
        return self.strike(rng, self.chosen(rng, nodes), rng.randint(500, 3000), percent=rng.randint(5, 40))

    def begin(self, world: World, strike: Strike) -> None:
        spaces, nodes, pairs = self.met(world, strike)
        percent = strike.detail["percent"]
        self.tell(world, nodes, hold_ms=strike.hold_ms, percent=percent, pairs=sorted(pairs))
        spaces.lose(self.name, pairs, percent)


class Reorder(_Packets):
    name = "reorder"
    text = "packets from and to one node take 0 to 80 ms longer, each its own time, and overtake each other"

    def missing(self, host: Host, nodes: int) -> str:
        return super().missing(host, nodes) or _no_queue(host)

    def plan(self, rng: random.Random, nodes: int) -> Strike:
        return self.strike(rng, self.chosen(rng, nodes), rng.randint(500, 3000), ms=rng.randint(5, 80))

    def begin(self, world: World, strike: Strike) -> None:
        spaces, nodes, pairs = self.met(world, strike)
        ms = strike.detail["ms"]
        self.tell(world, nodes, hold_ms=strike.hold_ms, ms=ms, pairs=sorted(pairs))
        spaces.reorder(self.name, pairs, 0, ms)


FAULTS: tuple[Fault, ...] = (
    Cut(),
    OneWay(),
    Bridge(),
    Ring(),
    Flap(),
    Delay(),
    Reset(),
    RefuseAlive(),
    Loss(),
    Reorder(),
)
