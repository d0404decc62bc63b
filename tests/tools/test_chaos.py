"""Chaos breaks real clusters as it says, the same way for the same seed, and tells what came of it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from tools.chaos_lab.fault import Host
from tools.chaos_lab.fault_table import FAMILIES, TABLE, this_host
from tools.chaos_lab.namespaces import why_not
from tools.chaos_lab.schedule import PlannedRound, rounds
from tools.chaos_lab.walks import WALKS
from zelect.devcluster.bundled_server import NoServer, find_server

BARE = Host(root=False, linux=True, tools=frozenset(), links=False)


def first(count: int, seed: int, nodes: int = 3, kinds: str = "") -> list[PlannedRound]:
    faults = [TABLE[name] for name in kinds.split(",")] if kinds else list(TABLE.values())
    return list(islice(rounds(seed, nodes, faults), count))


def chaos(*arguments: str | Path, code: int = 0, root: Path = ROOT, within_s: int = 170) -> str:
    try:
        find_server()
    except NoServer as error:
        pytest.skip(str(error))
    command = [sys.executable, str(root / "tools" / "chaos.py"), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=within_s)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout if code < 2 else done.stderr


def test_the_schedule_is_a_function_of_seed_nodes_and_faults() -> None:
    assert first(300, 7) == first(300, 7)
    assert first(300, 7) != first(300, 8)
    assert first(300, 7) != first(300, 7, nodes=5)
    assert first(5, 7) == first(300, 7)[:5], "how many rounds are run changes none of them"


def test_every_kind_comes_before_any_comes_again() -> None:
    for seed in range(20):
        dealt = [one.faults[0].fault for one in first(len(TABLE), seed)]
        assert sorted(dealt) == sorted(TABLE)


def test_some_rounds_combine_two_kinds_that_may_meet() -> None:
    made = first(2000, 1)
    pairs = [one.faults for one in made if len(one.faults) == 2]
    assert len(made) / 8 < len(pairs) < len(made) / 3
    for one, other in pairs:
        kinds = TABLE[one.fault], TABLE[other.fault]
        assert one.fault != other.fault
        assert not any(kind.alone for kind in kinds)
        assert not all(kind.forgets for kind in kinds), "two losses of memory may lose the voters for good"
        assert not all(kind.registry for kind in kinds), "a frozen Redis can't be flushed"
    assert max(len(one.faults) for one in made) == 2


def test_freezes_last_from_ten_milliseconds_to_a_minute() -> None:
    holds = sorted(one.faults[0].hold_ms for one in first(5000, 3, kinds="freeze"))
    assert holds[0] < 12
    assert 55_000 < holds[-1] <= 60_000
    assert holds[len(holds) * 9 // 10] < 3000, "most are short, or an hour would not hold many"


def test_faults_meet_whoever_is_active_most_often_and_each_of_the_others() -> None:
    for nodes in (3, 5):
        met = Counter(one.faults[0].ranks[0] for one in first(2000, 5, nodes, kinds="kill"))
        assert set(met) == set(range(nodes))
        assert met[0] == max(met.values())


def test_what_a_host_cannot_do_is_said_with_its_reason() -> None:
    reasons = {name: fault.missing(BARE, 3) for name, fault in TABLE.items()}
    assert reasons["disk_full"] == "mounting a tmpfs needs root"
    assert reasons["sync_fails"] == "strace is not installed"
    assert reasons["cut"] == "the links don't go through the proxy"
    assert not reasons["kill"]
    assert TABLE["kill_two"].missing(BARE, 2) == "needs three nodes"


def test_the_document_lists_every_fault_and_walk_as_the_tool_does() -> None:
    document = (ROOT / "docs" / "chaos.md").read_text()
    listed = dict(re.findall(r"^\| `(\w+)` \| (.+?) \|$", document, re.MULTILINE))
    walks = {name: walk.text for name, walk in WALKS.items()}
    assert listed == {name: fault.text for name, fault in TABLE.items()} | walks
    assert sum(len(family) for family in FAMILIES.values()) == len(TABLE), "each name once"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--faults", "kil"), "--faults kil: no such fault"),
        (("--timing", "heartbeat=5"), "--timing heartbeat: unknown key"),
        (("--timing", "lease_ms=600"), "--timing lease_ms: is 600, but a lease must end before"),
        (("--nodes", "1", "--faults", "kill_two"), "kill_two: needs three nodes"),
        (("--conf", "absent.toml"), "absent.toml: cannot be read"),
        (("--job", "/absent/command"), "--job /absent/command: no such command"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_runs(arguments: tuple[str, ...], words: str) -> None:
    assert words in chaos(*arguments, code=2)


def test_a_history_is_not_written_into_another(tmp_path: Path) -> None:
    (tmp_path / "history").mkdir()
    assert "holds the history of a run already" in chaos("--dir", tmp_path, code=2)


def test_a_short_run_holds_all_promises_and_leaves_what_it_was_asked_for(tmp_path: Path) -> None:
    wanted = "kill,freeze,gil_hog,cut,redis_killed"
    files = ("--json", tmp_path / "figures.json", "--report", tmp_path / "report.html", "--dir", tmp_path / "run")
    timing = ("--timing", "heartbeat_ms=100,election_timeout_ms=1000,lease_ms=800")
    said = chaos("--seed", "11", "--rounds", "6", "--faults", wanted, *timing, *files)
    assert said.startswith("seed 11, 3 nodes, 5 kinds of faults")
    assert "every guarantee held" in said
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["held"]
    assert figures["rounds"] == 6
    assert set(figures["faults"]) == set(wanted.split(",")), "six rounds deal each of five kinds"
    assert figures["effects"]["guarded"] > 0
    assert figures["effects"]["unguarded"] > 0
    assert not figures["bad_lines"]
    assert "<html" in (tmp_path / "report.html").read_text()
    notes = [json.loads(line) for line in (tmp_path / "run" / "history" / "chaos.jsonl").read_text().splitlines()]
    assert notes[0]["event"] == "run"
    assert (notes[0]["seed"], notes[0]["timing"]["lease_ms"]) == (11, 800)
    struck = [note["fault"] for note in notes if note["event"] == "fault_began"]
    planned = [strike.fault for one in first(6, 11, kinds=wanted) for strike in one.faults]
    assert struck == planned, "the rounds are those of the seed"
    assert not [note for note in notes if note["event"] in ("leftover", "not_settled")]


@pytest.mark.long
def test_a_build_whose_leases_outlive_the_promises_is_found_out(tmp_path: Path) -> None:
    for part in ("zelect", "tools"):
        shutil.copytree(ROOT / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__"))
    timing = tmp_path / "zelect" / "core" / "timing.py"
    right, wrong = "return self.lease_ms * 1000", "return self.lease_ms * 8000"
    assert timing.read_text().count(right) == 1
    timing.write_text(timing.read_text().replace(right, wrong))
    faults = ("--rounds", "4", "--seed", "3", "--faults", "cut,freeze", "--dir", tmp_path / "run")
    said = chaos(*faults, code=1, root=tmp_path)
    assert re.search(r"^S2: nodes \d and \d were active at once for \d", said, re.MULTILINE)
    assert re.search(r"^ +0\.000 ms  n\d +\d+  lease ", said, re.MULTILINE), "the slice of history that shows it"


@pytest.mark.long
def test_what_cannot_be_done_is_skipped_and_said_so(tmp_path: Path) -> None:
    said = chaos("--seed", "3", "--rounds", "1", "--faults", "signal_storm,ring", "--dir", tmp_path)
    assert "skipped ring: needs four nodes" in said


@pytest.mark.long
def test_each_node_in_a_namespace_of_its_own(tmp_path: Path) -> None:
    reason = why_not(this_host(links=True).root, this_host(links=True).tools)
    if reason:
        pytest.skip(reason)
    timing = ("--timing", "heartbeat_ms=100,election_timeout_ms=1000,lease_ms=800")
    kinds = "kill,cut,loss"
    said = chaos("--namespaces", "--seed", "2", "--rounds", "3", "--faults", kinds, *timing, "--dir", tmp_path)
    assert "every guarantee held" in said
    facts = [json.loads(line) for path in tmp_path.glob("history/node*.jsonl") for line in path.open()]
    proofs = {fact["evidence"] for fact in facts if fact["event"] == "peer_died"}
    assert "refused" in proofs, "no node can look at another host's lock"
    assert "lock" not in proofs
    spaces = subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True).stdout
    links = subprocess.run(["ip", "link"], capture_output=True, text=True, check=True).stdout
    used = set(re.findall(r"zc\d+-\d", (tmp_path / "workers.json").read_text()))
    assert len(used) == 3
    assert not [name for name in used if name in spaces or name.split("-")[0] in links], "all are removed"


@pytest.mark.parametrize("job", ["counters", "threads", "asyncio"])
@pytest.mark.long
def test_the_job_as_users_run_it(tmp_path: Path, job: str) -> None:
    """A command and a coroutine that look at no lease, and a function that does."""
    timing = ("--timing", "heartbeat_ms=100,election_timeout_ms=1000,lease_ms=800")
    where = ("--dir", tmp_path, "--json", tmp_path / "figures.json")
    said = chaos("--job", job, "--seed", "3", "--rounds", "4", "--faults", "kill,freeze,cut", *timing, *where)
    assert "every guarantee held" in said
    figures = json.loads((tmp_path / "figures.json").read_text())
    effects = figures["effects"]
    assert {"kill", "freeze", "cut"} == set(figures["faults"])
    assert all(spread["p50"] > 0 for spread in figures["jobs_ms"].values())
    assert effects["unguarded"] > 0
    assert effects["work_began"] > 0
