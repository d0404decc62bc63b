"""`zelect doctor`: what its figures mean, and the timings that it advises."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.integration.test_cli import run, write_conf
from tests.support.ports import free_ports
from tests.support.reports import report
from zelect.config.loading import load
from zelect.config.rendering import render
from zelect.core.status import PeerStatus
from zelect.core.timing import Timing
from zelect.doctor.advice import Finding, advised, judge, of_cluster, record_taken
from zelect.doctor.measurements import Clock, Percentiles, RedisFigures, percentiles_of, sync_of
from zelect.status.cluster import ClusterStatus
from zelect.status.report import NodeReport

TIMING = Timing()
GOOD = Percentiles(0.2, 0.4, 0.5)
CLOCK = Clock("tsc", 50, 1.0)
REDIS = RedisFigures("", GOOD, 200, "noeviction", "aof", "master")


def slow(ms: float) -> Percentiles:
    return Percentiles(ms / 2, ms, ms)


def found(**changes: object) -> dict[str, Finding]:
    """The verdicts on a place where all is well but for `changes`."""
    figures: dict[str, object] = {
        "round_trips": {1: GOOD, 2: GOOD},
        "late": {1: 0, 2: 0},
        "lag": GOOD,
        "sync": GOOD,
        "clock": CLOCK,
        "redis": REDIS,
        **changes,
    }
    return {one.what: one for one in judge(TIMING, **figures)}  # type: ignore[arg-type]


def test_where_all_is_well_nothing_is_advised() -> None:
    assert {(one.verdict, one.advice) for one in found().values()} == {("ok", "")}
    assert found(redis=None)["Redis"].verdict == "ok", "it is not needed"


@pytest.mark.parametrize(
    ("security", "verdict"),
    [
        ({}, "ok"),
        ({"key_file": "k", "directory_file": "d"}, "warn"),
        ({"key_file": "k", "directory_file": "d", "secret_file": "s"}, "ok"),
        ({"secret_file": "s"}, "ok"),
    ],
)
def test_keys_without_a_secret_are_told_what_the_witness_cannot_do(
    tmp_path: Path, security: dict[str, str], verdict: str
) -> None:
    conf = tmp_path / "n1.toml"
    ports = {1: 7101, 2: 7102}
    conf.write_text(render("demo", 1, "127.0.0.1", ports, "redis://127.0.0.1:1/0", {}, security=security))
    (one,) = record_taken(load(conf))
    assert (one.verdict, "security.secret_file" in one.advice) == (verdict, verdict == "warn")
    conf.write_text(render("demo", 1, "127.0.0.1", ports, "", {}, security=security))
    assert record_taken(load(conf)) == []


@pytest.mark.parametrize(
    ("what", "changes", "verdict"),
    [
        ("round trip, node 2", {"round_trips": {2: None}}, "warn"),
        ("round trip, node 2", {"round_trips": {2: slow(30)}}, "warn"),
        ("round trip, node 2", {"round_trips": {2: slow(100)}}, "bad"),
        ("loop, node 2", {"late": {2: 1}}, "warn"),
        ("loop lag, this host", {"lag": slow(50)}, "warn"),
        ("Redis kind", {"redis": replace(REDIS, mode="cluster")}, "bad"),
        ("Redis permissions", {"redis": replace(REDIS, lacks="ACL SETUSER u +hset")}, "bad"),
        ("Redis keys", {"redis": replace(REDIS, others="another cluster")}, "bad"),
        ("loop lag, this host", {"lag": slow(100)}, "bad"),
        ("fdatasync, data_dir", {"sync": None}, "warn"),
        ("fdatasync, data_dir", {"sync": slow(20)}, "warn"),
        ("fdatasync, data_dir", {"sync": slow(100)}, "bad"),
        ("clock source", {"clock": replace(CLOCK, source="hpet")}, "warn"),
        ("clock source", {"clock": replace(CLOCK, read_ns=3000)}, "warn"),
        ("clock rate, corrected by", {"clock": replace(CLOCK, rate_ppm=-500.0)}, "warn"),
        ("clock rate, corrected by", {"clock": replace(CLOCK, rate_ppm=1000.0)}, "bad"),
        ("Redis", {"redis": RedisFigures("refused", GOOD, 200)}, "bad"),
        ("Redis round trip", {"redis": replace(REDIS, round_trip=slow(50))}, "warn"),
        ("Redis round trip", {"redis": replace(REDIS, round_trip=slow(200))}, "bad"),
        ("Redis eviction", {"redis": replace(REDIS, eviction="allkeys-lru")}, "warn"),
        ("Redis persistence", {"redis": replace(REDIS, persistence="none")}, "warn"),
        ("Redis role", {"redis": replace(REDIS, role="slave")}, "bad"),
    ],
)
def test_what_is_not_well_is_named_with_a_fix(what: str, changes: dict[str, object], verdict: str) -> None:
    one = found(**changes)[what]
    assert one.verdict == verdict
    assert one.advice


@pytest.mark.parametrize("remote", [False, True])
@pytest.mark.parametrize(("trip", "lag", "sync"), [(0.2, 0.1, 0.2), (40, 0.1, 3), (1, 300, 3), (2, 2, 90)])
def test_what_is_advised_is_a_sound_configuration(trip: float, lag: float, sync: float, remote: bool) -> None:
    chosen: dict[str, Any] = {one.key: one.least for one in advised(TIMING, trip, lag, sync, remote)}
    assert Timing(**chosen).problems() == []
    assert chosen["heartbeat_ms"] >= 4 * trip
    assert chosen["election_timeout_ms"] - chosen["lease_ms"] >= lag, "the margin of the lease outlasts a late turn"
    assert chosen["stagger_ms"] >= trip + 2 * sync, "the second in line waits for the first one's votes"
    assert chosen["election_timeout_ms"] >= (500 if remote else 0)


def test_what_is_configured_may_be_enough() -> None:
    assert all(one.enough for one in advised(TIMING, 0.3, 0.2, 0.5, True))
    short = [one.key for one in advised(TIMING, 60, 0.2, 0.5, True) if not one.enough]
    assert short == ["heartbeat_ms", "lease_ms", "election_timeout_ms", "stagger_ms"]


AT = {node: f"tcp://127.0.0.1:{7100 + node}" for node in (1, 2, 3)}


def verdicts(*reports: NodeReport, refused: tuple[int, ...] = ()) -> dict[str, Finding]:
    state = ClusterStatus("demo", AT, {one.id: one for one in reports}, {}, refused)
    return {one.what: one for one in of_cluster(state, " -c n1.toml")}


def test_where_no_node_is_active_the_one_to_start_is_named() -> None:
    """Of three that were stopped, node 3 last: only it is missing."""
    one = report(1, controller=None, members=(1, 3), may_vote=(1,))
    assert verdicts(one, refused=(2, 3))["controller"] == Finding(
        "controller", "no node is active", "bad", "no quorum: node 3 must return"
    )
    unknown = verdicts(replace(one, voters=replace(one.voters, members=(1, 2, 3))))["controller"]
    assert (unknown.verdict, unknown.advice) == ("warn", "no answer from nodes 2, 3")
    followed = verdicts(replace(one, controller=2))["controller"]
    assert (followed.verdict, followed.figure[:17]) == ("ok", "node 2 is active,")
    assert verdicts() == {}, "no node needs to run"


def test_in_plain_text_a_node_on_another_host_is_not_bad_because_it_may_not_be_asked() -> None:
    told = found(round_trips={2: None}, unasked={2: "reading is allowed from the node's own host only"})
    assert told["round trip, node 2"] == Finding("round trip, node 2", "not measured", "ok")
    told = found(round_trips={2: None}, unasked={2: "does not accept this key"})
    assert told["round trip, node 2"].verdict == "bad"


def test_settings_that_differ_are_named() -> None:
    differs = "settings_mismatch: lease_ms is 500 here, 400 there"
    one = report(2, peers=(PeerStatus(1, True, False, False, 3000, problem=differs),))
    told = verdicts(report(1, active=True), one)
    assert told["controller"].verdict == "ok"
    assert (told["node 2"].verdict, told["node 2"].advice) == (
        "bad",
        "other settings on node 1: lease_ms is 500 here, 400 there",
    )


def test_percentiles_name_the_worst() -> None:
    assert percentiles_of([1000.0 * n for n in range(100)]) == Percentiles(50, 99, 99)
    assert percentiles_of([7000.0]) == Percentiles(7, 7, 7)


def test_a_save_is_measured_where_it_will_be_made(tmp_path: Path) -> None:
    place = tmp_path
    percentiles = sync_of(place / "not" / "yet")
    assert percentiles is not None
    assert percentiles.p50_ms > 0
    assert list(place.iterdir()) == [], "and leaves nothing behind"


def test_it_works_with_no_node_running(tmp_path: Path) -> None:
    place = tmp_path
    conf = write_conf(place / "n1.toml", dict(enumerate(free_ports(3), 1)))
    done = run("doctor", "-c", conf)
    assert done.exit_code in (0, 1)  # this machine may be busy
    assert done.output.count("no answer") == 3
    assert run("doctor", "-c", conf, "--dir", place).exit_code == 2
