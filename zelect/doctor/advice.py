"""What the figures of `zelect doctor` mean: a verdict on each, and timings that suit them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from zelect.core.timing import Timing
from zelect.doctor.measurements import clock_of, lag_of, redis_of, round_trips_of, sync_of
from zelect.security.authorization import OWN_HOST_ONLY
from zelect.status.cluster import ClusterStatus
from zelect.status.cluster_text import controller_text, unasked_text
from zelect.status.problems import address_problems, problems
from zelect.status.table import Column

if TYPE_CHECKING:
    from zelect.config.loading import Config
    from zelect.doctor.measurements import Clock, Percentiles, RedisFigures
    from zelect.security.keys import Keyring

_FAST_CLOCKS = ("tsc", "kvm-clock", "arch_sys_counter", "hyperv_clocksource_tsc_page", "xen", "unknown")
_LEAST_REMOTE_MS = 500
"""TCP repeats a lost segment after 200 ms at the earliest; twice that, and some more, must not cause an election."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One figure and what it means. `verdict`: ok, warn, or bad (the cluster is not reliable)."""

    what: str
    figure: str
    verdict: str
    advice: str = ""


@dataclass(frozen=True, slots=True)
class Advised:
    """The shortest value of one timing that suits the figures. `because`: the reason."""

    key: str
    configured: int
    least: int
    because: str

    @property
    def enough(self) -> bool:
        """Whether the configured value suits too."""
        return self.configured >= self.least


FINDING_COLUMNS = (
    Column[Finding]("", lambda one: one.verdict if one.verdict != "ok" else ""),
    Column[Finding]("what", lambda one: one.what),
    Column[Finding]("figure", lambda one: one.figure),
)
TIMING_COLUMNS = (
    Column[Advised]("timing", lambda one: one.key),
    Column[Advised]("configured", lambda one: one.configured, right=True),
    Column[Advised]("least", lambda one: one.least, right=True),
    Column[Advised]("because", lambda one: one.because),
)


def examine(config: Config, keyring: Keyring | None, place: str = "") -> tuple[list[Finding], list[Advised]]:
    """Measure, and judge the timings of `config`. `keyring`: what to ask nodes with; `place`: the options that name the
    cluster, for commands that are recommended."""
    settings = config.settings()
    timing = settings.timing
    round_trips, late, state = round_trips_of(config.cluster.name, settings.addresses, keyring)
    lag, sync, clock = lag_of(), sync_of(config.node.data_dir), clock_of()
    unasked = {**state.denials, **address_problems(state.reports)}
    redis = redis_of(config, state)
    findings = judge(timing, round_trips, late, lag, sync, clock, redis, unasked) + record_taken(config)
    findings = of_cluster(state, place) + findings
    worst_ms = max((some.p99_ms for some in round_trips.values() if some is not None), default=0.0)
    remote = len({address.rsplit(":", 1)[0] for address in settings.addresses.values()}) > 1
    return findings, advised(timing, worst_ms, lag.p99_ms, sync.p99_ms if sync is not None else 0.0, remote)


def of_cluster(state: ClusterStatus, place: str = "") -> list[Finding]:
    """Whether a node is active, which one or what must return, and what is wrong with nodes; where nodes run."""
    if not state.reports:
        return []
    wrong = [
        _found(f"node {node}", "has a problem", "bad", text) for node, text in problems(state.reports, place).items()
    ]
    if state.named is not None:
        return [_found("controller", controller_text(state), "ok", ""), *wrong]
    if not state.is_known:
        return [_found("controller", "not known", "warn", unasked_text(state)), *wrong]
    advice = state.shortage.text if state.shortage is not None else f"see 'zelect why{place}'"
    return [_found("controller", "no node is active", "bad", advice), *wrong]


def judge(
    timing: Timing,
    round_trips: Mapping[int, Percentiles | None],
    late: Mapping[int, int],
    lag: Percentiles,
    sync: Percentiles | None,
    clock: Clock,
    redis: RedisFigures | None,
    unasked: Mapping[int, str] | None = None,
) -> list[Finding]:
    """All verdicts. `round_trips`: to the nodes, None where one gave no answer; `late`: how often a node's
    loop was late during the measurement; `lag`: how late this process was woken; `unasked`: why a node gave no answer,
    or that another one has its address."""
    why = unasked or {}
    found = [
        _round_trip(timing, node, percentiles, why.get(node, "")) for node, percentiles in sorted(round_trips.items())
    ]
    found += [_late(node, count) for node, count in sorted(late.items())]
    found += [_lag(timing, lag), _sync(timing, sync), _source(clock), _rate(timing, clock)]
    return found + _redis(redis)


def _grade(value: float, warn: float, bad: float) -> str:
    return "bad" if value >= bad else "warn" if value >= warn else "ok"


def _found(what: str, figure: object, verdict: str, advice: str) -> Finding:
    return Finding(what, str(figure), verdict, "" if verdict == "ok" else advice)


def _round_trip(timing: Timing, node: int, percentiles: Percentiles | None, why: str) -> Finding:
    what, heartbeat = f"round trip, node {node}", timing.heartbeat_ms
    if why.endswith(OWN_HOST_ONLY):
        return _found(what, "not measured", "ok", "")
    if why:
        return _found(what, percentiles or "no answer", "bad", why)
    if percentiles is None:
        return _found(what, "no answer", "warn", "start it, or check whether its port can be reached from here")
    verdict = _grade(percentiles.p99_ms, heartbeat / 4, heartbeat)
    return _found(what, percentiles, verdict, f"an election needs answers within heartbeat_ms = {heartbeat}")


def _late(node: int, count: int) -> Finding:
    advice = "its host is short of CPU time, or the process was stopped"
    return _found(
        f"loop, node {node}", f"late {count} time{'s' if count != 1 else ''}", "warn" if count else "ok", advice
    )


def _lag(timing: Timing, lag: Percentiles) -> Finding:
    verdict = _grade(lag.most_ms, timing.heartbeat_ms / 2, timing.election_timeout_ms - timing.lease_ms)
    advice = "processes here are woken too late: give them CPU time, or raise the timings"
    return _found("loop lag, this host", lag, verdict, advice)


def _sync(timing: Timing, sync: Percentiles | None) -> Finding:
    if sync is None:
        advice = "node.data_dir is not writable: run this as the node's user"
        return _found("fdatasync, data_dir", "not measured", "warn", advice)
    verdict = _grade(sync.p99_ms, timing.stagger_ms, timing.heartbeat_ms)
    advice = "a vote waits for the disk: put node.data_dir on a faster one, or raise stagger_ms"
    return _found("fdatasync, data_dir", sync, verdict, advice)


def _source(clock: Clock) -> Finding:
    verdict = "ok" if clock.source in _FAST_CLOCKS and clock.read_ns < 2000 else "warn"
    advice = "reading the clock is slow: see /sys/devices/system/clocksource"
    return _found("clock source", f"{clock.source}, {clock.read_ns} ns a read", verdict, advice)


def _rate(timing: Timing, clock: Clock) -> Finding:
    verdict = _grade(abs(clock.rate_ppm), timing.drift_ppm / 2, timing.drift_ppm)
    advice = f"two clocks may differ by twice that, and drift_ppm is {timing.drift_ppm}"
    return _found("clock rate, corrected by", f"{clock.rate_ppm:+.0f} ppm", verdict, advice)


def _redis(redis: RedisFigures | None) -> list[Finding]:
    if redis is None:
        return [_found("Redis", "not configured", "ok", "")]
    if redis.problem:
        advice = f"{redis.problem}; elections go on, but without the witness and without being published"
        return [_found("Redis", "can't be used", "bad", advice)]
    slow = _grade(redis.round_trip.p99_ms, redis.timeout_ms / 4, redis.timeout_ms)
    safe = "ok" if redis.eviction == "noeviction" else "warn"
    keeps = "warn" if redis.persistence == "none" else "ok"
    leads = "ok" if redis.role == "master" else "bad"
    more = [_found("Redis permissions", "some are missing", "bad", redis.lacks)] if redis.lacks else []
    more += [_found("Redis keys", "used by others", "bad", redis.others)] if redis.others else []
    if redis.mode == "cluster":
        text = (
            "nodes write to one server: once it fails over, or the keys move, nothing is published and there is no "
            "witness: point redis.url at a server that is not part of a Redis Cluster"
        )
        more.append(_found("Redis kind", "Redis Cluster", "bad", text))
    return [
        *more,
        _found("Redis round trip", redis.round_trip, slow, f"it is close to redis.timeout_ms = {redis.timeout_ms}"),
        _found("Redis eviction", redis.eviction, safe, "it may evict the witness: set maxmemory-policy to noeviction"),
        _found("Redis persistence", redis.persistence, keeps, "a restart of Redis loses the history of elections"),
        _found("Redis role", redis.role, leads, "it takes no writes: point redis.url at the primary"),
    ]


def record_taken(config: Config) -> list[Finding]:
    """Whether a node takes the voter record that the witness in Redis hands out (R12)."""
    security, what = config.security, "voter record in Redis"
    if not config.redis.url or not config.settings().dynamic:
        return []
    if security.secret_file:
        return [_found(what, "taken with its MAC", "ok", "")]
    if not security.key_file:
        return [_found(what, "taken: plain text", "ok", "")]
    advice = (
        "when the last survivor of some failures fails too, the others may have to wait for it: name the file "
        "cluster.secret of 'zelect keygen' in security.secret_file on every node"
    )
    return [_found(what, "not taken: no secret", "warn", advice)]


def advised(timing: Timing, round_trip_ms: float, lag_ms: float, sync_ms: float, remote: bool) -> list[Advised]:
    """The shortest timings for the worst round trip, lag and sync that were measured; `remote`: members are
    on other hosts. They keep the proportions of the defaults: lease 4 and election timeout 5 heartbeats."""
    vote_ms = round_trip_ms + 2 * sync_ms
    floors = {
        f"2 rounds of votes of {vote_ms:.2f} ms": 2 * vote_ms,
        f"4 round trips of {round_trip_ms:.2f} ms": 4 * round_trip_ms,
        f"twice the loop lag of {lag_ms:.2f} ms": 2 * lag_ms,
        "25 ms; anything shorter gains nothing": 25.0,
    }
    if remote:
        floors[f"a lost packet costs TCP 200 ms: election_timeout_ms {_LEAST_REMOTE_MS}"] = _LEAST_REMOTE_MS / 5
    because = max(floors, key=lambda reason: floors[reason])
    heartbeat = 5 * math.ceil(floors[because] / 5)
    stagger = max(5, math.ceil(2 * vote_ms))
    return [
        Advised("heartbeat_ms", timing.heartbeat_ms, heartbeat, because),
        Advised("lease_ms", timing.lease_ms, 4 * heartbeat, "4 heartbeats: three may be lost"),
        Advised("election_timeout_ms", timing.election_timeout_ms, 5 * heartbeat, "the lease and a quarter more"),
        Advised("stagger_ms", timing.stagger_ms, stagger, "2 rounds of votes, each saved twice"),
        Advised("down_after_ms", timing.down_after_ms, 5 * heartbeat, "at least election_timeout_ms"),
    ]
