"""Who belongs, with real nodes and the command line: clusters are founded once, and members join, leave, move
and are replaced while it runs (R10, R15, R16)."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.clusters import CALM, Cluster, Fleet, fleet_of, holds_for, zelect
from tests.support.redis_server import running_server
from tests.support.waiting import wait_until
from zelect.devcluster.bundled_server import RedisServer
from zelect.status.report import NodeReport

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with running_server(tmp_path_factory.mktemp("redis")) as running:
        yield running


@pytest.fixture
def fleet(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Fleet]:
    with fleet_of(request, tmp_path) as made:
        yield made


@pytest.fixture(params=["redis", "none"])
def url(request: pytest.FixtureRequest, server: RedisServer) -> str:
    return server.url if request.param == "redis" else ""


def founded(cluster: Cluster, *nodes: int) -> NodeReport:
    """Start `nodes` with configurations that list them alone, and wait for their controller."""
    everybody, ports = cluster.ids, cluster.ports
    cluster.ports = {node: ports[node] for node in nodes}
    for node in nodes:
        cluster.write(node, CALM)
    cluster.ports = ports
    cluster.ids = nodes
    cluster.start(*nodes)
    head = cluster.settled(*nodes)
    cluster.ids = everybody
    return head


def members(cluster: Cluster, *words: str | int, asked: int = 1) -> str:
    """Run `zelect members WORDS`; what it printed."""
    done = zelect("members", "-c", cluster.conf(asked), *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def voting(cluster: Cluster, *nodes: int) -> None:
    """Wait until exactly `nodes` vote, by the record that all of them have."""

    def same() -> bool:
        said = [cluster.ask(node).get("voters", {}) for node in nodes]
        return all(one.get("members") == sorted(nodes) and one["version"] == said[0]["version"] for one in said)

    wait_until(same, 40.0, what=f"{nodes} vote")


def cluster_ids(cluster: Cluster, *nodes: int) -> set[int]:
    return {cluster.ask(node)["voters"]["cluster_id"] for node in nodes}


@pytest.mark.parametrize(("old", "new"), [((1,), (2, 3)), ((1, 2, 3), (4, 5, 6, 7))])
def test_newcomers_found_no_second_cluster(fleet: Fleet, url: str, old: tuple[int, ...], new: tuple[int, ...]) -> None:
    """The newcomers are a majority of their own list, and start first of all with it."""
    cluster = fleet.cluster((*old, *new), redis_url=url, timing=CALM)
    head = founded(cluster, *old)
    cluster.start(*new)
    wait_until(lambda: all(cluster.ask(node).get("belongs") == "joining" for node in new), 40.0, what="they hear of it")
    holds_for(lambda: all(not cluster.ask(node)["active"] for node in new), 2.0, "newcomers stay out")
    still = cluster.controller()
    assert (still.id, still.term) == (head.id, head.term)
    text = " ".join(zelect("status", "-c", cluster.conf(new[0])).stdout.split())
    assert "not a member: zelect members" in text
    assert f" add {new[0]} " in text
    for node in new:
        members(cluster, "add", node, cluster.addresses[node])
    voting(cluster, *old, *new)
    assert len(cluster_ids(cluster, *old, *new)) == 1
    assert cluster.controller().term == head.term  # nobody was inactive
    before = cluster_ids(cluster, new[0])
    for node in old:
        cluster.kill(node)
        shutil.rmtree(cluster.data_dirs[node])
    cluster.start(*old)  # each node that their lists have is new
    voting(cluster, *old, *new)
    assert cluster_ids(cluster, *old, *new) == before


def test_a_missing_founder_is_waited_for_and_may_be_left_out(fleet: Fleet, url: str) -> None:
    cluster = fleet.cluster(redis_url=url, timing=CALM)
    cluster.start(1, 2)
    wait_until(lambda: cluster.ask(1).get("missing") == [3] == cluster.ask(2).get("missing"), 40.0, what="3 is missed")
    holds_for(lambda: not (cluster.ask(1)["active"] or cluster.ask(2)["active"]), 2.0, "nobody founds without 3")
    assert "waiting for node 3" in zelect("status", "-c", cluster.conf(1)).stdout
    done = zelect("bootstrap", "-c", cluster.conf(1), "--members", "1,2")
    assert done.returncode == 0, done.stderr
    term = cluster.controller().term
    cluster.start(3)
    voting(cluster, 1, 2, 3)
    assert len(cluster_ids(cluster, 1, 2, 3)) == 1
    assert cluster.controller().term == term
    assert zelect("bootstrap", "-c", cluster.conf(1), "--members", "1,2").returncode == 1


def test_each_host_of_three_is_replaced_in_turn(fleet: Fleet, url: str) -> None:
    """Another address, and no data: the old vote goes out, the new one comes in."""
    cluster = fleet.cluster(redis_url=url, timing=CALM)
    spare = fleet.cluster(redis_url="")  # its ports are the new addresses
    cluster.start()
    cluster.settled()
    for node in cluster.ids:
        asked = 2 if node == 1 else 1
        before = cluster.ask(node)["epoch"]
        if cluster.controller().id == node:
            assert zelect("transfer", "-c", cluster.conf(asked)).returncode == 0
        cluster.kill(node)
        shutil.rmtree(cluster.data_dirs[node])
        cluster.ports[node] = spare.ports[node]
        cluster.addresses[node] = spare.addresses[node]
        cluster.write(node, CALM)
        cluster.start(node)
        members(cluster, "replace", node, cluster.addresses[node], asked=asked)
        voting(cluster, *cluster.ids)
        assert cluster.ask(node)["epoch"] > before
    assert len(cluster_ids(cluster, *cluster.ids)) == 1


def test_members_are_removed_down_to_one(fleet: Fleet, url: str) -> None:
    cluster = fleet.cluster((1, 2, 3, 4, 5), redis_url=url, timing=CALM)
    cluster.start()
    cluster.settled()
    assert members(cluster, "remove", 9) == "node 9 was no member; nothing changed\n"
    left = [1, 2, 3, 4, 5]
    for node in (5, 4, 1, 3):
        left.remove(node)
        assert "does not belong to the cluster" in members(cluster, "remove", node, asked=left[0])
        wait_until(lambda: cluster.ask(left[0])["voters"]["members"] == left, 40.0, what=f"{left} vote")
        wait_until(lambda: cluster.active() is not None, 40.0, what="somebody is active")
        gone = cluster.ask(node)
        assert not gone["active"]
    assert cluster.controller().id == 2
    holds_for(lambda: cluster.active() is not None and cluster.ask(3)["active"] is False, 2.0, "2 alone")


def test_lost_data_is_noticed_and_the_vote_returns_with_a_new_epoch(fleet: Fleet, url: str) -> None:
    cluster = fleet.cluster(redis_url=url, timing=CALM)
    cluster.start()
    head = cluster.settled()
    follower = next(node for node in cluster.ids if node != head.id)
    before = cluster.ask(follower)["epoch"]
    cluster.kill(follower)
    shutil.rmtree(cluster.data_dirs[follower])
    cluster.start(follower)
    voting(cluster, *cluster.ids)
    assert cluster.ask(follower)["epoch"] > before
    assert cluster.controller().term == head.term


def test_a_copy_of_a_data_dir_does_not_vote_as_the_original(fleet: Fleet) -> None:
    cluster = fleet.cluster(timing=CALM)
    cluster.start()
    head = cluster.settled()
    follower = next(node for node in cluster.ids if node != head.id)
    before = cluster.ask(follower)["epoch"]
    cluster.kill(follower)
    kept = cluster.data_dirs[follower].with_name("original")
    cluster.data_dirs[follower].rename(kept)
    shutil.copytree(kept, cluster.data_dirs[follower])
    cluster.start(follower)
    voting(cluster, *cluster.ids)
    assert cluster.ask(follower)["epoch"] > before
    assert cluster.events(follower, "state_lost")


@pytest.mark.long
def test_a_removed_node_that_still_runs_keeps_nobody_from_founding(fleet: Fleet) -> None:
    cluster = fleet.cluster(redis_url="", timing=CALM)
    cluster.start()
    cluster.settled()
    asked = 2 if cluster.controller().id == 1 else 1
    done = zelect("members", "-c", cluster.conf(1), "replace", asked, "tcp://127.0.0.1:1")
    assert done.returncode == 1
    assert f"node {asked} answers at {cluster.addresses[asked]}; stop that process first" in done.stderr
    members(cluster, "remove", 3)
    voting(cluster, 1, 2)
    wait_until(lambda: cluster.ask(3)["belongs"] == "removed", 20, what="it knows")
    before = cluster_ids(cluster, 1, 2)
    for node in (1, 2):
        cluster.kill(node)
    for node in (1, 2):
        shutil.rmtree(cluster.data_dirs[node])
    founded(cluster, 1, 2)
    assert cluster_ids(cluster, 1, 2).isdisjoint(before)
    assert cluster.ask(3)["belongs"] == "removed"


@pytest.mark.long
def test_a_host_that_founded_a_cluster_of_its_own_has_no_vote_in_the_old_one(fleet: Fleet, tmp_path: Path) -> None:
    """It has the id and the address of node 3, and was started while it reached nobody else."""
    cluster = fleet.cluster(redis_url="", quorum="static", timing=CALM)
    cluster.start()
    cluster.settled()
    before = cluster_ids(cluster, 1)
    cluster.kill(*cluster.ids)
    other = Cluster(tmp_path / "host", cluster.name, (3,), "", CALM, "static", False)
    fleet.clusters.append(other)
    other.ports, other.addresses = {3: cluster.ports[3]}, {3: cluster.addresses[3]}
    founded(other, 3)
    cluster.start(1, 2)
    voting(cluster, 1, 2)
    assert cluster_ids(cluster, 1, 2) == before
    assert not cluster_ids(other, 3) & before
    other.kill(3)
    shutil.rmtree(cluster.data_dirs[3])
    cluster.start(3)
    voting(cluster, 1, 2, 3)
