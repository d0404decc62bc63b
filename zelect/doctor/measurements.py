"""The figures of `zelect doctor`: round trips, lag, disk, clock, Redis. Changes nothing."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zelect.config.loading import Config
    from zelect.redis.diagnostics import Own
    from zelect.security.keys import Keyring
    from zelect.status.cluster import ClusterStatus
    from zelect.status.report import NodeReport

_ROUNDS = 30
_MOST = 1 << 62
_SOURCE = Path("/sys/devices/system/clocksource/clocksource0/current_clocksource")


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Half of what was measured took no longer than `p50_ms`, 99 per cent no longer than `p99_ms`."""

    p50_ms: float
    p99_ms: float
    most_ms: float

    def __str__(self) -> str:
        return f"{self.p50_ms:.2f} ms, p99 {self.p99_ms:.2f}, most {self.most_ms:.2f}"


@dataclass(frozen=True, slots=True)
class Clock:
    """`rate_ppm`: by how much the system's clock is sped up or slowed down against the bare hardware."""

    source: str
    read_ns: int
    rate_ppm: float


@dataclass(frozen=True, slots=True)
class RedisFigures:
    """`problem`: why there are no figures; empty when there are. `persistence` is "unknown" where the user may not ask;
    `mode`: standalone or cluster; `lacks`: which permissions the user lacks, and how to grant them; `others`: traces of
    another cluster with these keys."""

    problem: str
    round_trip: Percentiles
    timeout_ms: int
    eviction: str = ""
    persistence: str = ""
    role: str = ""
    mode: str = "standalone"
    lacks: str = ""
    others: str = ""


def percentiles_of(times_us: list[float]) -> Percentiles:
    """Of at least one time."""
    ordered = sorted(times_us)

    def at(share: float) -> float:
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] / 1000

    return Percentiles(at(0.5), at(0.99), ordered[-1] / 1000)


def round_trips_of(
    cluster: str, addresses: Mapping[int, str], keyring: Keyring | None
) -> tuple[dict[int, Percentiles | None], dict[int, int], ClusterStatus]:
    """Round trips of queries to each node, None where one gave no answer; how often the loops of those that
    did answer were late during the measurement; and what the nodes said."""
    import zmq

    from zelect.client.query import Asker
    from zelect.system.clock import now_us

    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    asker = Asker(cluster, addresses, context, keyring)
    poller = zmq.Poller()
    asker.register(poller)
    times: dict[int, list[float]] = {}
    first: dict[int, NodeReport] = {}
    end_us = now_us() + 3_000_000
    try:
        while asker.pending and now_us() < end_us - 2_000_000:  # connections are made first
            asker.ask()
            poller.poll(5)
            asker.collect()
        first |= asker.reports
        for _ in range(_ROUNDS if first else 0):
            asked_us = now_us()
            asker.ask(at_once=True)
            open_ = set(first)
            wait_us = 500_000 if times else 1_000_000
            while open_ and now_us() < asked_us + wait_us and (now_us() < end_us or not times):
                poller.poll(5)
                asker.collect()
                for node in [node for node in open_ if asker.reports[node].at_us > asked_us]:
                    times.setdefault(node, []).append(asker.reports[node].at_us - asked_us)
                    open_.discard(node)
        late = {node: _late(asker.reports[node]) - _late(first[node]) for node in first}
        round_trips = {node: percentiles_of(times[node]) if node in times else None for node in addresses}
        return round_trips, late, asker.status
    finally:
        asker.close()
        context.destroy(linger=0)


def _late(report: NodeReport) -> int:
    return report.counters.get("loop_late", 0)


def lag_of() -> Percentiles:
    """How much later than asked this process is woken."""
    lags = []
    for _ in range(200):
        began = time.monotonic_ns()
        time.sleep(0.002)
        lags.append((time.monotonic_ns() - began) / 1000 - 2000)
    return percentiles_of(lags)


def sync_of(data_dir: Path) -> Percentiles | None:
    """How long a save in `data_dir` takes, or where it will be made; None where nothing can be written."""
    place = data_dir
    while not place.exists() and place != place.parent:
        place = place.parent
    times = []
    with contextlib.suppress(OSError), tempfile.TemporaryFile(dir=place) as file:
        os.pwrite(file.fileno(), bytes(4096), 0)
        os.fsync(file.fileno())
        for turn in range(50):
            began = time.monotonic_ns()
            os.pwrite(file.fileno(), turn.to_bytes(1, "little") * 512, 512 * (turn % 2))
            os.fdatasync(file.fileno())
            times.append((time.monotonic_ns() - began) / 1000)
    return percentiles_of(times) if times else None


def clock_of() -> Clock:
    """The clock that elections use."""
    source = "unknown"
    with contextlib.suppress(OSError):
        source = _SOURCE.read_text().strip()
    began = time.perf_counter_ns()
    for _ in range(1000):
        time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    read_ns = (time.perf_counter_ns() - began) // 1000
    boot, raw = _both()
    time.sleep(1.0)
    later_boot, later_raw = _both()
    return Clock(source, read_ns, ((later_boot - boot) / (later_raw - raw) - 1) * 1e6)


def _both() -> tuple[int, int]:
    """The election's clock and the raw one at one moment: of many reads the least interrupted."""
    reads = []
    for _ in range(50):
        before = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        raw = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
        after = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        reads.append((after - before, (before + after) // 2, raw))
    _, boot, raw = min(reads)
    return boot, raw


def redis_of(config: Config, state: ClusterStatus) -> RedisFigures | None:
    """How fast Redis answers, how it is set up, and whether the user may do there what a node does; None where none is
    configured. `state`: what the nodes said."""
    settings = config.redis
    if not settings.url:
        return None
    import redis

    from zelect.redis.connection import RedisConnection
    from zelect.redis.credentials import credentials_of
    from zelect.redis.diagnostics import AUDIT, audit_words, parse_findings
    from zelect.redis.errors import explain, safe_url
    from zelect.redis.registry_scripts import Keys

    key, times, saves = Keys.of(config.cluster.name).identity, [], {}
    try:
        connection = RedisConnection(settings.url, settings.timeout_ms, credentials_of(config))
        client = connection.client()
        info = client.info()
        if (mode := str(info.get("redis_mode", "standalone"))) == "sentinel":
            what = f"{safe_url(settings.url)} is a Sentinel, which keeps no data: point redis.url at the primary"
            return RedisFigures(what, Percentiles(0, 0, 0), settings.timeout_ms)
        for _ in range(50):  # what a node may do too: it needs no permission for PING
            began = time.monotonic_ns()
            client.get(key)
            times.append((time.monotonic_ns() - began) / 1000)
        found = parse_findings(connection.run(AUDIT, 0, audit_words(config.cluster.name)))
        with contextlib.suppress(redis.ResponseError):  # forbidden at hosting services, and to a node's own user
            saves = client.config_get("save")
        connection.drop()
    except Exception as error:  # whatever it does or answers
        problem = explain(error, settings.url, settings.timeout_ms).problem
        return RedisFigures(problem, Percentiles(0, 0, 0), settings.timeout_ms)
    own = _own(config, state)
    return RedisFigures(
        "",
        percentiles_of(times),
        settings.timeout_ms,
        eviction=str(info.get("maxmemory_policy", "unknown")),
        persistence=_persistence(info, saves),
        role=str(info.get("role")),
        mode=mode,
        lacks=found.missing(own),
        others=found.other_cluster(own),
    )


def _persistence(info: Mapping[str, object], saves: Mapping[Any, object]) -> str:
    """`saves`: the setting of that name; empty where the user may not see it."""
    kinds = ["aof"] if info.get("aof_enabled") else []
    kinds += ["rdb"] if saves.get("save") else []
    return ", ".join(kinds) or ("none" if saves else "unknown")


def _own(config: Config, state: ClusterStatus) -> Own:
    """This cluster, as far as its nodes or the configuration tell."""
    from urllib.parse import urlsplit

    from zelect.redis.credentials import credentials_of
    from zelect.redis.diagnostics import Own

    cluster_id = state.newest.voters.cluster_id if state.newest is not None else 0
    return Own(
        cluster=config.cluster.name,
        cluster_id=f"{cluster_id:x}" if cluster_id else "",
        node=config.node.id,
        incarnation=_MOST,  # a running process of this node is no other one
        user=credentials_of(config).username or urlsplit(config.redis.url).username or "default",
        members={**config.settings().addresses, **state.recorded},
        wrote=False,
        left_before_ms=0,
    )
