"""Faults of Redis. Every other time the controller is killed meanwhile: no election waits for Redis."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from tools.chaos_lab.cluster import ChaosCluster
from tools.chaos_lab.fault import Fault, PlannedFault, log_uniform
from tools.chaos_lab.links import REGISTRY
from tools.chaos_lab.sentinel import Sentinel
from tools.common.checkout import ToolError
from tools.common.raw_redis import call
from zelect.devcluster.layout import HOST

_NOBODY = 1
"""A port that no server listens on."""


class _RedisFault(Fault):
    """Something happens to Redis for a while; every other time the controller is killed meanwhile."""

    registry = True

    def ranks(self, rng: random.Random, nodes: int) -> tuple[int, ...]:
        return (0,)

    def hold_ms(self, rng: random.Random) -> int:
        return log_uniform(rng, 100, 3000)

    def details(self, rng: random.Random, nodes: int) -> dict[str, int]:
        return {"kill": rng.randrange(2)}

    def strike(self, cluster: ChaosCluster, planned: PlannedFault, nodes: list[int]) -> None:
        self.trouble(cluster, planned)
        super().strike(cluster, planned, nodes)

    def trouble(self, cluster: ChaosCluster, planned: PlannedFault) -> None:
        """Do it."""
        raise NotImplementedError


class RedisKilled(_RedisFault):
    name = "redis_killed"
    text = "Redis is killed, and comes back empty"
    forgets = True

    def trouble(self, cluster: ChaosCluster, planned: PlannedFault) -> None:
        cluster.registry.server.kill()

    def end(self, cluster: ChaosCluster, planned: PlannedFault) -> None:
        cluster.registry.revive()


class RedisFrozen(_RedisFault):
    name = "redis_frozen"
    text = "Redis hangs (SIGSTOP), then carries out what it was asked"

    def trouble(self, cluster: ChaosCluster, planned: PlannedFault) -> None:
        cluster.registry.server.freeze()

    def end(self, cluster: ChaosCluster, planned: PlannedFault) -> None:
        cluster.registry.server.thaw()


class RedisSlow(_RedisFault):
    name = "redis_slow"
    text = "every request to Redis takes 20 to 400 ms longer"
    links = True

    def trouble(self, cluster: ChaosCluster, planned: PlannedFault) -> None:
        pairs = {(node, REGISTRY) for node in cluster.ids}
        cluster.links.delay(self.name, pairs, 20 + planned.hold_ms % 380)

    def end(self, cluster: ChaosCluster, planned: PlannedFault) -> None:
        cluster.links.release(self.name)


class RedisCut(_RedisFault):
    name = "redis_cut"
    text = "one node can't reach Redis, the others can"
    links = True

    def details(self, rng: random.Random, nodes: int) -> dict[str, int]:
        return {"kill": rng.randrange(2), "node": rng.randrange(nodes)}

    def trouble(self, cluster: ChaosCluster, planned: PlannedFault) -> None:
        node = cluster.ids[planned.detail["node"]]
        cluster.links.block(self.name, {(node, REGISTRY), (REGISTRY, node)})

    def end(self, cluster: ChaosCluster, planned: PlannedFault) -> None:
        cluster.links.release(self.name)


class RedisFlushed(_RedisFault):
    name = "redis_flushed"
    text = "FLUSHALL: everything in Redis is gone, once or again and again"
    forgets = True

    def trouble(self, cluster: ChaosCluster, planned: PlannedFault) -> None:
        for _ in range(1 + planned.hold_ms % 3):
            cluster.registry.call("FLUSHALL")
            cluster.wait(20)


class RedisReadOnly(_RedisFault):
    name = "redis_read_only"
    text = "Redis becomes a replica of a server that doesn't exist: it refuses all writes"
    forgets = True

    def trouble(self, cluster: ChaosCluster, planned: PlannedFault) -> None:
        cluster.registry.call("REPLICAOF", HOST, _NOBODY)

    def end(self, cluster: ChaosCluster, planned: PlannedFault) -> None:
        cluster.registry.call("REPLICAOF", "NO", "ONE")


class RedisFull(_RedisFault):
    name = "redis_full"
    text = "Redis is out of memory: it refuses what would need more"

    def trouble(self, cluster: ChaosCluster, planned: PlannedFault) -> None:
        cluster.registry.call("CONFIG", "SET", "maxmemory", 1)

    def end(self, cluster: ChaosCluster, planned: PlannedFault) -> None:
        cluster.registry.call("CONFIG", "SET", "maxmemory", 0)


class RedisRestored(_RedisFault):
    name = "redis_restored"
    text = "Redis is killed and comes back with an older dump"
    forgets = True

    def begin(self, cluster: ChaosCluster, planned: PlannedFault) -> None:
        cluster.registry.call("SAVE")
        super().begin(cluster, planned)

    def trouble(self, cluster: ChaosCluster, planned: PlannedFault) -> None:
        cluster.wait(planned.hold_ms)  # so that the dump is old
        cluster.registry.server.kill()

    def end(self, cluster: ChaosCluster, planned: PlannedFault) -> None:
        cluster.registry.revive()
        cluster.registry.forget_dump()


class RedisFailedOver(Fault):
    name = "redis_failed_over"
    text = "Redis is killed and Sentinel promotes a replica that has not received the last writes"
    registry = True
    forgets = True
    links = True

    hold = (0, 0)

    def ranks(self, rng: random.Random, nodes: int) -> tuple[int, ...]:
        return ()

    def details(self, rng: random.Random, nodes: int) -> dict[str, int]:
        return {"lag_ms": rng.randint(50, 900)}

    def begin(self, cluster: ChaosCluster, planned: PlannedFault) -> None:
        registry = cluster.registry
        registry.call("CONFIG", "SET", "repl-diskless-sync-delay", 0)
        replica = registry.spare()
        call(replica.port, "REPLICAOF", HOST, registry.port)
        with Sentinel(registry.directory / "sentinel", registry.port) as sentinel:
            _until(lambda: b"master_link_status:up" in _info(replica.port), "the replica never synchronized")
            _until(lambda: sentinel.knows(replica.port), "Sentinel never saw the replica")
            # With a password that the master does not want, the replica's next connection fails.
            call(replica.port, "CONFIG", "SET", "masterauth", "wrong")
            call(replica.port, "CLIENT", "KILL", "TYPE", "master")
            cluster.wait(planned.detail["lag_ms"])
            self.announce(cluster, [], planned)
            registry.server.kill()
            _until(lambda: sentinel.master() == replica.port, "Sentinel promoted nobody")
            _until(lambda: b"role:master" in _info(replica.port), "the replica was not promoted")
        call(replica.port, "CONFIG", "SET", "masterauth", "")
        registry.server = replica
        cluster.links.point(HOST, replica.port)


def _until(condition: Callable[[], bool], complaint: str, within_s: float = 15.0) -> None:
    end = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > end:
            raise ToolError(f"failover: {complaint} within {within_s:.0f} s")
        time.sleep(0.02)


def _info(port: int) -> bytes:
    answer = call(port, "INFO", "replication")
    return answer if isinstance(answer, bytes) else b""


FAULTS: tuple[Fault, ...] = (
    *(RedisKilled(), RedisFrozen(), RedisSlow(), RedisCut(), RedisFlushed(), RedisReadOnly(), RedisFull()),
    *(RedisRestored(), RedisFailedOver()),
)
