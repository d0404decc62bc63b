"""The benchmark runs and tells what it says it tells. How fast anything is, is not asked here."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.marks import long_but
from tests.support.paths import ROOT
from tools.benchmarks import failover, flood, idle, last_survivor, majority, recover, slow_disks
from tools.common.slow_saves import missing
from zelect.devcluster.bundled_server import NoServer, find_server

BENCH = ROOT / "tools" / "bench.py"
SPREAD = ["min", "p50", "p90", "p99", "max"]


def bench(*arguments: str, code: int = 0) -> str:
    try:
        find_server()
    except NoServer as error:
        pytest.skip(str(error))
    done = subprocess.run([sys.executable, str(BENCH), *arguments], capture_output=True, text=True, timeout=170)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout if code == 0 else done.stderr


def check_header(result: dict[str, Any], name: str) -> None:
    assert result["bench"] == name
    assert result["nodes"] == 3
    assert result["cpus"] >= 1
    assert isinstance(result["seed"], int)
    assert {"zelect", "python", "pyzmq", "libzmq", "redis"} <= result["versions"].keys()


@pytest.mark.parametrize("fault", long_but(["kill", "freeze", "term"], "kill"))
def test_failover_tells_every_trial(fault: str) -> None:
    result = json.loads(bench("failover", "--fault", fault, "--trials", "2", "--seed", "7", "--json"))
    check_header(result, "failover")
    assert (result["fault"], result["seed"]) == (fault, 7)
    assert (result["violations"], result["bad_exits"], result["without_successor"]) == (0, 0, 0)
    assert len(result["trials"]) == 2
    for trial in result["trials"]:
        assert trial["successor"] != trial["old"]
        assert trial["gap_ms"] >= 0
        assert trial["from_fault_ms"] > 0
        assert {"node", "event", "at_ms"} <= trial["facts"][0].keys()
    assert [trial["exit_code"] for trial in result["trials"]] == [{"kill": -9, "freeze": None, "term": 0}[fault]] * 2
    assert list(result["gap_ms"]) == SPREAD
    assert result["gap_ms"]["min"] == round(min(trial["gap_ms"] for trial in result["trials"]), 3)
    assert set(result["floors_ms"]) == {"closed", "refused", "zeromq", "sync", "script"}
    assert all(floor["min"] > 0 for floor in result["floors_ms"].values())
    assert len(result["floor_samples_ms"]["refused"]) == 2
    assert result["sum_of_parts_ms"] > 0


@pytest.mark.long
def test_failover_with_redis_killed_too_fits_a_terminal() -> None:
    text = bench("failover", "--trials", "1", "--redis-kill")
    assert "kill to logged" in text
    assert "without successor: 0" in text
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.long
def test_idle_tells_of_every_process() -> None:
    result = json.loads(bench("idle", "--seconds", "1", "--json"))
    check_header(result, "idle")
    rows = result["processes"]
    assert sorted(row["role"] for row in rows) == ["controller", "follower", "follower", "redis"]
    assert all(row["cpu_percent"] >= 0 and row["rss_mb"] > 0 for row in rows)
    assert all(row["sent_per_s"] > 0 for row in rows if row["role"] != "redis")


@pytest.mark.long
def test_start_tells_of_both_ways() -> None:
    result = json.loads(bench("start", "--trials", "1", "--json"))
    check_header(result, "start")
    assert set(result["ms"]) == {"up", "leadership", "bare", "imports"}
    assert all(list(spread) == SPREAD for spread in result["ms"].values())


@pytest.mark.long
@pytest.mark.skipif(bool(missing()), reason=missing())
def test_disk_tells_of_each_latency(capsys: pytest.CaptureFixture[str]) -> None:
    result = json.loads(bench("disk", "--trials", "1", "--sync", "0,120", "--json"))
    check_header(result, "disk")
    assert [trial["sync_ms"] for trial in result["trials"]] == [0, 120]
    assert result["without_successor"] == 0
    for spreads in result["ms"].values():
        assert set(spreads) == {"start_ms", "founding_ms", "gap_ms"}
        assert spreads["start_ms"]["p50"] > spreads["founding_ms"]["p50"] > 0
    slow = result["ms"]["120"]
    assert slow["gap_ms"]["min"] >= 120, "a vote is saved before it is given"
    assert slow["founding_ms"]["min"] >= 120
    assert "each save takes 120 ms longer" in check_width(slow_disks.show, result, capsys)


def test_too_few_nodes_are_refused() -> None:
    assert "at least --nodes 3" in bench("failover", "--nodes", "2", code=2)


def check_width(
    show: Callable[[dict[str, Any]], None], result: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> str:
    show(result)
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    return text


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """Another checkout, which says so."""
    tree = tmp_path / "other"
    shutil.copytree(ROOT / "zelect", tree / "zelect", ignore=shutil.ignore_patterns("__pycache__"))
    init = tree / "zelect" / "version.py"
    init.write_text(re.sub(r'__version__ = ".*"', '__version__ = "9.8.7"', init.read_text()))
    return tree


@pytest.mark.long
def test_failover_against_another_checkout(other: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = json.loads(bench("failover", "--trials", "1", "--seed", "7", "--json", "--against", str(other)))
    check_header(result, "failover")
    against = result["against"]
    assert (against["dir"], against["version"]) == (str(other), "9.8.7"), "its nodes run its zelect"
    assert result["versions"]["zelect"] != "9.8.7"
    for side in (result, against):
        assert (len(side["trials"]), side["without_successor"]) == (1, 0)
        assert list(side["gap_ms"]) == SPREAD
    compared = result["ratio_of_medians"]
    assert compared["low"] <= compared["ratio"] <= compared["high"]
    failover.show(result)
    text = capsys.readouterr().out
    assert "kill to the change, this" in text
    assert "kill to the change, other" in text
    assert "ratio of medians" in text


@pytest.mark.long
def test_idle_against_another_checkout(other: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = json.loads(bench("idle", "--seconds", "2", "--json", "--against", str(other)))
    check_header(result, "idle")
    assert (result["against"]["dir"], result["against"]["version"]) == (str(other), "9.8.7")
    for side in (result, result["against"]):
        assert len(side["processes"]) == 4
        assert len(side["nodes_cpu_percent_samples"]) == 2
        assert list(side["nodes_cpu_percent"]) == SPREAD
    assert result["ratio_of_medians"].keys() == {"ratio", "low", "high"}
    idle.show(result)
    assert "ratio of medians" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["failover", "idle"])
@pytest.mark.long
def test_encrypted_links_are_compared_with_plain_text(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    effort = ("--trials", "1") if name == "failover" else ("--seconds", "1")
    result = json.loads(bench(name, *effort, "--secure", "--json"))
    check_header(result, name)
    assert (result["secure"], result["against"]["secure"]) == (True, False)
    assert result["versions"]["zelect"] == result["against"]["version"], "the same code"
    compared = result["ratio_of_medians"]
    assert compared["low"] <= compared["ratio"] <= compared["high"]
    for side in (result, result["against"]):
        if name == "failover":
            assert (len(side["trials"]), side["without_successor"]) == (1, 0)
        else:
            assert len(side["processes"]) == 4
    {"failover": failover, "idle": idle}[name].show(result)
    text = capsys.readouterr().out
    assert "links encrypted" in text
    assert "plain text" in text


def test_against_needs_a_checkout(tmp_path: Path) -> None:
    assert "name a checkout of zelect" in bench("idle", "--against", str(tmp_path), code=2)


@pytest.mark.long
def test_recover_tells_of_each_trouble(capsys: pytest.CaptureFixture[str]) -> None:
    result = json.loads(bench("recover", "--trials", "1", "--json"))
    check_header(result, "recover")
    assert [trial["redis"] for trial in result["trials"]] == ["up", "killed", "hung", "flushed"]
    assert list(result["record_ms"]) == ["killed", "hung", "flushed"]
    assert list(result["election_ms"]) == list(result["lost_to_active_ms"]) == ["up", "killed", "hung"]
    assert set(result["election_ratio_of_medians"]) == {"killed", "hung"}
    assert (result["never_right"], result["without_successor"]) == (0, 0)
    for trial in result["trials"][:3]:
        assert trial["successor"] != trial["old"]
    flushed = result["trials"][3]
    assert flushed["successor"] == flushed["old"]
    assert all(trial["record_ms"] > 0 for trial in result["trials"][1:])
    check_width(recover.show, result, capsys)


@pytest.mark.long
def test_majority_tells_of_both_kinds_of_quorum(capsys: pytest.CaptureFixture[str]) -> None:
    result = json.loads(bench("majority", "--trials", "1", "--json"))
    check_header(result, "majority")
    assert list(result["quorums"]) == list(result["trials"]) == ["static", "dynamic"]
    for figures in result["quorums"].values():
        assert (figures["never_left"], figures["active_again"]) == (0, 0)
        assert (figures["elected_by_too_few"], figures["nobody_came"]) == (0, 0)
        assert list(figures["leaving_ms"]) == ["out", "left", "none"]
        assert list(figures["returning_ms"]) == ["process", "line", "published"]
        assert all(list(numbers) == SPREAD for numbers in figures["leaving_ms"].values())
    for parts in result["trials"].values():
        (returning,) = parts["returning"]
        assert returning["old"] in returning["dead"]
        assert returning["returned"] in returning["dead"]
        assert len(returning["dead"]) == 2
    assert {"bare", "imports"} <= result["floors_ms"].keys()
    check_width(majority.show, result, capsys)


def test_an_even_number_has_another_majority() -> None:
    assert "give an odd one" in bench("majority", "--nodes", "4", code=2)


@pytest.mark.long
def test_nodes_that_answer_over_http_meanwhile() -> None:
    result = json.loads(bench("failover", "--trials", "2", "--http", "200", "--json"))
    assert result["http"] == 200
    assert [len(side["trials"]) for side in (result, result["against"])] == [2, 2]
    assert result["ratio_of_medians"]["ratio"] > 0


@pytest.mark.parametrize("words", [(), ("--secure",)], ids=["plain", "secure"])
@pytest.mark.long
def test_flood_attacks_one_of_two_clusters(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    asked = ("--trials", "1", "--connections", "300", "--frames", "20000", *words)
    result = json.loads(bench("flood", *asked, "--json"))
    check_header(result, "flood")
    assert result["secure"] is bool(words)
    assert result["connections"] >= 300
    assert result["frames"] >= 20_000
    assert result["without_successor"] == 0
    assert [len(samples) for samples in result["samples"].values()] == [1, 1]
    assert result["counted"]["link_connections_accepted"] > 0
    reason = "link_handshakes_failed" if words else "malformed_not_msgpack"
    assert result["counted"][reason] > 0
    assert "hostile connections" in check_width(flood.show, result, capsys)


@pytest.mark.long
def test_lone_shrinks_the_voters_first(capsys: pytest.CaptureFixture[str]) -> None:
    result = json.loads(bench("lone", "--trials", "1", "--json"))
    check_header(result, "lone")
    (trial,) = result["trials"]
    (died,) = trial["died_before"]
    assert {died, trial["old"], trial["successor"]} == {1, 2, 3}
    assert trial["voters"]["members"] == sorted((trial["old"], trial["successor"]))
    assert trial["voters"]["witness"] == "member"
    assert result["without_successor"] == 0
    assert list(result["gap_ms"]) == SPREAD
    assert result["sum_of_parts_ms"] > 0
    assert "median within 15 ms" in check_width(last_survivor.show, result, capsys)
