"""The operator's last resort, with real nodes: `zelect members reset` forces new voters; nodes of the old
generation are refused until they are told to join, and then they follow and vote (R11)."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.clusters import Cluster, Fleet, holds_for, zelect
from tests.support.waiting import wait_until
from zelect.devcluster.bundled_server import RedisServer
from zelect.status.report import NodeReport

UNHURRIED = {
    "heartbeat_ms": 150,
    "lease_ms": 1200,
    "election_timeout_ms": 1500,
    "stagger_ms": 100,
    "down_after_ms": 1500,
}
SEVERAL_S = 2 * 1.5
"""Two election timeouts: enough for whoever could campaign."""

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(params=["dynamic", "static"])
def cluster(request: pytest.FixtureRequest, fleet: Fleet, server: RedisServer) -> Cluster:
    return fleet.cluster(redis_url=server.url, timing=UNHURRIED, quorum=request.param)


def reset(cluster: Cluster, *arguments: str | int, typed: str = "") -> subprocess.CompletedProcess[str]:
    return zelect("members", "-c", cluster.conf(1), "reset", *arguments, typed=typed)


def voters(cluster: Cluster, node: int) -> dict[str, Any]:
    found: dict[str, Any] = cluster.ask(node).get("voters", {})
    return found


def lost(cluster: Cluster, *left: int) -> NodeReport:
    """Three have a controller, all but `left` are killed at once; returns the last controller."""
    cluster.start()
    head = cluster.settled()
    cluster.kill(*set(cluster.ids) - set(left))
    wait_until(lambda: cluster.active(0.05) is None, 20, what="not active")
    return head


def generation_of(done: subprocess.CompletedProcess[str]) -> int:
    """The generation that a reset printed."""
    assert done.returncode == 0, done.stderr
    said = re.search(r"^reset: generation (\d+) ", done.stdout)
    assert said is not None, done.stdout
    assert f" reset --join {said[1]} NODE..." in done.stdout, "what to tell the others"
    return int(said[1])


def refused(cluster: Cluster, node: int, generation: int) -> None:
    """`node` of the old generation gets nowhere, and its log says how it would."""
    how = f"zelect members reset --join {generation} {node}"
    wait_until(lambda: how in cluster.log_of(node).read_text(), 20, what=f"node {node} is told how")
    holds_for(
        lambda: voters(cluster, node)["generation"] == 0 and not cluster.ask(node)["active"],
        SEVERAL_S,
        "it neither follows nor leads",
    )
    assert cluster.ask(node)["controller"] is None
    assert cluster.counters(node)["refused_other_generation"] > 0


def has(cluster: Cluster, generation: int, *members: int) -> None:
    """All `members` follow one of them in `generation`, and make up its voters."""
    wait_until(
        lambda: all(
            (one.get("generation"), one.get("members")) == (generation, list(members))
            for one in (voters(cluster, node) for node in members)
        ),
        40,
        what=f"generation {generation} has {members}",
    )
    cluster.settled(*members)


@pytest.mark.long
def test_what_was_lost_is_reset_and_the_old_ones_follow_when_told(cluster: Cluster) -> None:
    head = lost(cluster, 3)
    generation = generation_of(reset(cluster, 3, typed=f"{cluster.name}\n"))
    new = cluster.controller(term_above=head.term)
    assert new.id == 3
    assert (new.voters.generation, new.voters.members) == (generation, (3,))

    cluster.start(1)
    refused(cluster, 1, generation)
    assert cluster.controller().term == new.term, "it does not disturb the new voters either"
    assert voters(cluster, 3)["members"] == [3]
    joined = reset(cluster, "--join", generation, "--yes-i-know", 1)
    assert joined.returncode == 0, joined.stderr
    assert f"node 1 joined generation {generation}" in joined.stdout
    has(cluster, generation, 1, 3)

    cluster.start(2)
    refused(cluster, 2, generation)
    assert reset(cluster, "--join", generation, 2, typed=f"{cluster.name}\n").returncode == 0
    has(cluster, generation, 1, 2, 3)

    before = cluster.settled()
    cluster.kill(before.id)
    after = cluster.settled(*set(cluster.ids) - {before.id}, term_above=before.term)
    assert after.voters.generation == generation, "they vote in it"


@pytest.mark.parametrize("quorum", ["dynamic", "static"])
@pytest.mark.long
def test_a_generation_of_two_outlives_their_processes(fleet: Fleet, server: RedisServer, quorum: str) -> None:
    cluster = fleet.cluster(range(1, 6), redis_url=server.url, timing=UNHURRIED, quorum=quorum)
    head = lost(cluster, 4, 5)
    generation = generation_of(reset(cluster, 4, 5, "--yes-i-know"))
    has(cluster, generation, 4, 5)
    term = cluster.settled(4, 5, term_above=head.term).term
    cluster.kill(4, 5)
    cluster.start(1, 4, 5)
    assert cluster.settled(4, 5, term_above=term).voters.generation == generation
    refused(cluster, 1, generation)


@pytest.mark.long
def test_it_says_what_is_at_stake_and_wants_the_name(cluster: Cluster) -> None:
    lost(cluster, 3)
    for typed in ("", "\n", "yes\n", f"{cluster.name}x\n"):
        done = reset(cluster, 3, typed=typed)
        assert done.returncode == 2, (typed, done)
        assert "nothing was changed" in done.stderr
        assert done.stdout == ""
        assert f"forces new voters on {cluster.name}: 3." in done.stderr
        assert "(1, 2) still runs somewhere" in done.stderr, "which nodes to check"
        assert "two controllers may be active at once" in done.stderr
    assert voters(cluster, 3)["generation"] == 0
    assert not cluster.events(3, "voters_reset")


@pytest.mark.long
def test_nothing_is_created_while_somebody_is_active(cluster: Cluster) -> None:
    cluster.start()
    head = cluster.settled()
    done = reset(cluster, 1, 2, 3, "--yes-i-know")
    assert done.returncode == 1
    assert f"node {head.id} is active (term {head.term}): nothing is lost, nothing was changed" in done.stderr
    assert cluster.settled().term == head.term
    assert {voters(cluster, node)["generation"] for node in cluster.ids} == {0}


@pytest.mark.long
def test_a_generation_that_nobody_is_in_is_not_joined_and_to_join_ones_own_changes_nothing(cluster: Cluster) -> None:
    lost(cluster, 3)
    done = reset(cluster, "--join", 7, "--yes-i-know", 3)
    assert done.returncode == 1
    assert "no node that answers is in generation 7" in done.stderr
    assert voters(cluster, 3)["generation"] == 0
    generation = generation_of(reset(cluster, 3, "--yes-i-know"))
    before = voters(cluster, 3)
    again = reset(cluster, "--join", generation, "--yes-i-know", 3)
    assert again.returncode == 0, "it is there already"
    after = voters(cluster, 3)
    same = ("generation", "members", "epochs")
    assert [after[name] for name in same] == [before[name] for name in same], "and nothing was discarded"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "name the nodes; the members are 1, 2, 3"),
        (["--yes-i-know"], "name the nodes"),
        ([4], "node 4 is not in the configuration; the members are 1, 2, 3"),
        ([1, 9], "node 9 is not in the configuration"),
        ([0], "Invalid value"),
        (["one"], "Invalid value"),
        (["--join", 0, 1], "Invalid value for '--join'"),
        (["--join", 5], "name the nodes"),
        (["--force", 1], "No such option"),
    ],
)
def test_bad_usage(fleet: Fleet, arguments: list[str | int], said: str) -> None:
    done = reset(fleet.cluster(), *arguments)
    assert done.returncode == 2
    assert said in done.stderr


def test_without_a_configuration(tmp_path: Path) -> None:
    assert zelect("members", "-c", tmp_path / "none.toml", "reset", "--yes-i-know", 1).returncode == 2
    assert zelect("members", "--dir", tmp_path, "reset", "--yes-i-know", 1).returncode == 2
    assert zelect("members", "-c", "a", "--dir", "b", "reset", 1).returncode == 2


def test_its_help_needs_no_cluster() -> None:
    done = zelect("members", "reset", "--help")
    assert done.returncode == 0
    assert "Force new voters" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


@pytest.mark.parametrize("arguments", [[1], [1, 2, 3], ["--join", 5, 2]])
def test_who_does_not_answer_can_not_be_told(fleet: Fleet, arguments: list[str | int]) -> None:
    done = reset(fleet.cluster(), "--yes-i-know", *arguments)
    assert done.returncode == 5
    assert "does not answer: start it first" in done.stderr


def test_reset_with_one_that_is_down_changes_nobody(fleet: Fleet) -> None:
    cluster = fleet.cluster(timing=UNHURRIED)
    lost(cluster, 3)
    done = reset(cluster, "--yes-i-know", 2, 3)
    assert done.returncode == 5
    assert "node 2 does not answer" in done.stderr
    assert voters(cluster, 3)["generation"] == 0
