"""The benchmark runs and tells what it says it tells. How fast anything is, is not asked here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from zelect.cluster.server import NoServer, find_server

BENCH = Path(__file__).parent.parent / "tools" / "bench.py"
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


@pytest.mark.parametrize("fault", ["kill", "freeze", "term"])
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


def test_failover_with_redis_killed_too_fits_a_terminal() -> None:
    text = bench("failover", "--trials", "1", "--redis-kill")
    assert "kill to logged" in text
    assert "without successor: 0" in text
    assert max(map(len, text.splitlines())) <= 80


def test_idle_tells_of_every_process() -> None:
    result = json.loads(bench("idle", "--seconds", "1", "--json"))
    check_header(result, "idle")
    rows = result["processes"]
    assert sorted(row["role"] for row in rows) == ["controller", "follower", "follower", "redis"]
    assert all(row["cpu_percent"] >= 0 and row["rss_mb"] > 0 for row in rows)
    assert all(row["sent_per_s"] > 0 for row in rows if row["role"] != "redis")


def test_start_tells_of_both_ways() -> None:
    result = json.loads(bench("start", "--trials", "1", "--json"))
    check_header(result, "start")
    assert set(result["ms"]) == {"up", "office", "bare", "imports"}
    assert all(list(spread) == SPREAD for spread in result["ms"].values())


def test_too_few_nodes_are_refused() -> None:
    assert "at least --nodes 3" in bench("failover", "--nodes", "2", code=2)
