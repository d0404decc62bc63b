"""Faults of Redis. Every other time the controller is killed meanwhile: no election waits for Redis."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable

from tools.benchmarks.common import BenchError
from tools.chaos_lab.fault import Fault, Strike
from tools.chaos_lab.links import REGISTRY
from tools.chaos_lab.sentinel import Sentinel
from tools.chaos_lab.target import World
from tools.common.raw_redis import Wire
from zelect.devcluster.layout import HOST

_NOBODY = 1
"""A port that no server listens on."""


class _Board(Fault):
    """Something happens to Redis for a while."""

    registry = True

    def plan(self, rng: random.Random, nodes: int) -> Strike:
        return self.strike(rng, (0,), int(100 * 30 ** rng.random()), kill=rng.randrange(2))

    def begin(self, world: World, strike: Strike) -> None:
        nodes = self.nodes(world, strike) if strike.detail["kill"] else []
        self.prepare(world)
        self.tell(world, nodes, hold_ms=strike.hold_ms, kill=bool(nodes))
        self.trouble(world, strike)
        for node in nodes:
            world.signal(node, signal.SIGKILL)

    def prepare(self, world: World) -> None:
        """What has to be done before anything happens."""

    def trouble(self, world: World, strike: Strike) -> None:
        """Do it."""
        raise NotImplementedError


class RedisKilled(_Board):
    name = "redis_killed"
    text = "Redis is killed, and comes back empty"
    forgets = True

    def trouble(self, world: World, strike: Strike) -> None:
        world.registry.server.kill()

    def end(self, world: World, strike: Strike) -> None:
        world.registry.revive()


class RedisFrozen(_Board):
    name = "redis_frozen"
    text = "Redis hangs (SIGSTOP), then carries out what it was asked"

    def trouble(self, world: World, strike: Strike) -> None:
        world.registry.server.freeze()

    def end(self, world: World, strike: Strike) -> None:
        world.registry.server.thaw()


class RedisSlow(_Board):
    name = "redis_slow"
    text = "every request to Redis takes 20 to 400 ms longer"
    links = True

    def trouble(self, world: World, strike: Strike) -> None:
        assert world.links is not None
        pairs = {(node, REGISTRY) for node in world.ids}
        world.links.delay(self.name, pairs, 20 + strike.hold_ms % 380)

    def end(self, world: World, strike: Strike) -> None:
        assert world.links is not None
        world.links.release(self.name)


class RedisCut(_Board):
    name = "redis_cut"
    text = "one node can't reach Redis, the others can"
    links = True

    def plan(self, rng: random.Random, nodes: int) -> Strike:
        detail = {"kill": rng.randrange(2), "node": rng.randrange(nodes)}
        return self.strike(rng, (0,), int(100 * 30 ** rng.random()), **detail)

    def trouble(self, world: World, strike: Strike) -> None:
        assert world.links is not None
        node = world.ids[strike.detail["node"]]
        world.links.block(self.name, {(node, REGISTRY), (REGISTRY, node)})

    def end(self, world: World, strike: Strike) -> None:
        assert world.links is not None
        world.links.release(self.name)


class RedisFlushed(_Board):
    name = "redis_flushed"
    text = "FLUSHALL: everything in Redis is gone, once or again and again"
    forgets = True

    def trouble(self, world: World, strike: Strike) -> None:
        for _ in range(1 + strike.hold_ms % 3):
            world.registry.call("FLUSHALL")
            world.wait(20)


class RedisReadOnly(_Board):
    name = "redis_read_only"
    text = "Redis becomes a replica of nobody: it refuses all writes"
    forgets = True

    def trouble(self, world: World, strike: Strike) -> None:
        world.registry.call("REPLICAOF", HOST, _NOBODY)

    def end(self, world: World, strike: Strike) -> None:
        world.registry.call("REPLICAOF", "NO", "ONE")


class RedisFull(_Board):
    name = "redis_full"
    text = "Redis is out of memory: it refuses what would need more"

    def trouble(self, world: World, strike: Strike) -> None:
        world.registry.call("CONFIG", "SET", "maxmemory", 1)

    def end(self, world: World, strike: Strike) -> None:
        world.registry.call("CONFIG", "SET", "maxmemory", 0)


class RedisRestored(_Board):
    name = "redis_restored"
    text = "Redis is killed and comes back with an older dump"
    forgets = True

    def prepare(self, world: World) -> None:
        world.registry.call("SAVE")

    def trouble(self, world: World, strike: Strike) -> None:
        world.wait(strike.hold_ms)  # so that the dump is old
        world.registry.server.kill()

    def end(self, world: World, strike: Strike) -> None:
        world.registry.revive()
        world.registry.forget_dump()


class RedisFailedOver(Fault):
    name = "redis_failed_over"
    text = "Redis is killed and Sentinel promotes a replica that has not heard the last writes"
    registry = True
    forgets = True
    links = True

    def plan(self, rng: random.Random, nodes: int) -> Strike:
        return self.strike(rng, (), 0, lag_ms=rng.randint(50, 900))

    def begin(self, world: World, strike: Strike) -> None:
        assert world.links is not None
        registry = world.registry
        registry.call("CONFIG", "SET", "repl-diskless-sync-delay", 0)
        replica = registry.spare()
        _call(replica.port, "REPLICAOF", HOST, registry.port)
        with Sentinel(registry.directory / "sentinel", registry.port) as sentinel:
            _until(lambda: b"master_link_status:up" in _info(replica.port), "the replica never synchronized")
            _until(lambda: sentinel.knows(replica.port), "Sentinel never saw the replica")
            # With a password that the master does not want, the replica's next connection fails.
            _call(replica.port, "CONFIG", "SET", "masterauth", "wrong")
            _call(replica.port, "CLIENT", "KILL", "TYPE", "master")
            world.wait(strike.detail["lag_ms"])
            self.tell(world, [], lag_ms=strike.detail["lag_ms"])
            registry.server.kill()
            _until(lambda: sentinel.master() == replica.port, "Sentinel promoted nobody")
            _until(lambda: b"role:master" in _info(replica.port), "the replica was not promoted")
        _call(replica.port, "CONFIG", "SET", "masterauth", "")
        registry.server = replica
        world.links.point(HOST, replica.port)


def _until(condition: Callable[[], bool], complaint: str, within_s: float = 15.0) -> None:
    end = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > end:
            raise BenchError(f"failover: {complaint} within {within_s:.0f} s")
        time.sleep(0.02)


def _call(port: int, *words: str | int) -> object:
    wire = Wire(port)
    try:
        return wire.call(*words)
    finally:
        wire.close()


def _info(port: int) -> bytes:
    answer = _call(port, "INFO", "replication")
    return answer if isinstance(answer, bytes) else b""


FAULTS: tuple[Fault, ...] = (
    RedisKilled(),
    RedisFrozen(),
    RedisSlow(),
    RedisCut(),
    RedisFlushed(),
    RedisReadOnly(),
    RedisFull(),
    RedisRestored(),
    RedisFailedOver(),
)
