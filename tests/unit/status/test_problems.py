"""What `zelect status` and `zelect members` say of a node with which something is wrong."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.support.reports import report
from zelect.core.status import PeerStatus
from zelect.status.cluster import ClusterStatus
from zelect.status.cluster_text import cluster_text, problem_lines
from zelect.status.problems import problems
from zelect.status.report import NodeReport

ADDRESSES = {node: f"tcp://127.0.0.1:{7100 + node}" for node in (1, 2, 3, 4)}
NO_CLUSTER = {
    "cluster_id": 0,
    "addresses": {},
    "members": (),
    "epochs": (),
    "may_vote": (),
    "config_term": 0,
    "version": 0,
}


def peer(node: int, problem: str = "") -> PeerStatus:
    return PeerStatus(node, True, False, False, 3000, problem=problem)


def of(node: int, *peers: PeerStatus, **changes: Any) -> NodeReport:
    return report(node, peers=peers, **changes)


def of_new(node: int, *missing: int) -> NodeReport:
    """A new node of three that waits for `missing`."""
    peers = tuple(peer(other) for other in (1, 2, 3) if other != node)
    return of(node, *peers, belongs="new", missing=missing, **NO_CLUSTER)


def only(*reports: NodeReport, place: str = "") -> str:
    """What is wrong with the first of `reports`."""
    return problems({one.id: one for one in reports}, place).get(reports[0].id, "")


def test_nothing_is_wrong_with_members_that_vote_or_have_no_vote_now() -> None:
    well = of(1, peer(2), peer(3)), of(2, peer(1), peer(3)), of(3, belongs="no_vote", members=(1, 2))
    assert problems({one.id: one for one in well}) == {}


@pytest.mark.parametrize(
    ("missing", "text"),
    [
        (
            (2, 3),
            "new; waiting for nodes 2, 3 before founding the cluster; without them: zelect bootstrap --members 1",
        ),
        (
            (3,),
            "new; waiting for node 3 before founding the cluster; without it: zelect bootstrap --members 1,2",
        ),
        ((), "new; the cluster is not founded yet"),
    ],
)
def test_a_new_node_says_who_is_missing_and_how_to_go_on(missing: tuple[int, ...], text: str) -> None:
    assert only(of_new(1, *missing)) == text


def test_a_new_node_is_not_told_to_found_a_cluster_while_there_is_one() -> None:
    assert only(of_new(3, 1, 2), of(1)) == "new; there is a cluster, but none of its nodes has answered this node yet"


def test_a_recommended_command_names_the_cluster() -> None:
    joining = of(4, peer(1, "not_member: "), belongs="joining", **NO_CLUSTER)
    assert only(joining, place=" -c n4.toml").endswith(": zelect members -c n4.toml add 4 tcp://127.0.0.1:7104")
    assert only(of_new(1, 2, 3), place=" -c n1.toml").endswith(": zelect bootstrap -c n1.toml --members 1")


def test_who_is_no_member_is_told_how_to_become_one() -> None:
    told = "not_member: node 4 does not belong to cluster 7: 1, 2, 3"
    asked = of(4, peer(1, told), peer(2, told), belongs="joining", **NO_CLUSTER)
    assert only(asked) == "not a member: zelect members add 4 tcp://127.0.0.1:7104"
    waiting = of(4, peer(1), belongs="joining", **NO_CLUSTER)
    assert only(waiting, of(1)) == "new; the controller has not sent it the voter record yet"
    assert only(waiting) == (
        "new; there is a cluster, but [[peers]] lists none of its members: list them, or "
        "zelect members add 4 tcp://127.0.0.1:7104"
    )


def test_who_was_removed_is_to_be_stopped() -> None:
    gone = of(4, belongs="removed")
    assert only(gone) == "was removed from the cluster: stop it, or zelect members add 4 tcp://127.0.0.1:7104"


def test_who_lost_its_state_waits_for_its_new_epoch() -> None:
    assert only(of(2, belongs="no_vote", epoch=99)) == (
        "lost its state; has no vote until the controller has replaced its storage epoch"
    )


LOWER = "settings_mismatch: lease_ms is 400 here, 300 there"
HIGHER = "settings_mismatch: lease_ms is 300 here, 400 there"


def test_other_settings_are_named_key_and_value_on_both_sides() -> None:
    first, second, third = (
        of(1, peer(2, LOWER), peer(3)),
        of(2, peer(1, HIGHER), peer(3, HIGHER)),
        of(3, peer(2, LOWER)),
    )
    assert problems({1: first, 2: second, 3: third}) == {
        1: "other settings on node 2: lease_ms is 400 here, 300 there",
        2: "other settings on nodes 1, 3: lease_ms is 300 here, 400 there",
        3: "other settings on node 2: lease_ms is 400 here, 300 there",
    }


@pytest.mark.parametrize(
    ("problem", "text"),
    [
        ("other_cluster: this node belongs to cluster 9", "another cluster on node 2: this node belongs to cluster 9"),
        ("id_in_use: 5", "another running process has its id, by node 2: 5"),
        ("term_jump: this node's term is 4", "its messages are refused by node 2: this node's term is 4"),
        ("of_a_later_release: {odd}", "its messages are refused by node 2: {odd}"),
    ],
)
def test_what_a_peer_refuses_is_told_with_its_reason(problem: str, text: str) -> None:
    assert only(of(1, peer(2, problem), peer(3))) == text


def test_who_belongs_to_another_cluster_than_the_majority_is_told_which() -> None:
    assert problems({1: of(1), 2: of(2), 3: of(3, cluster_id=0xC9)}) == {3: "belongs to another cluster, c9"}
    assert problems({1: of(1, cluster_id=0xC8), 2: of(2, cluster_id=0xC9), 3: of_new(3)}) == {
        1: "belongs to another cluster, c8",
        2: "belongs to another cluster, c9",
        3: "new; there is a cluster, but none of its nodes has answered this node yet",
    }
    lines = problem_lines(ClusterStatus("demo", ADDRESSES, {1: of(1, cluster_id=0xC8), 2: of(2, cluster_id=0xC9)}))
    assert lines == ["node 1: belongs to another cluster, c8", "node 2: belongs to another cluster, c9"]


def test_json_has_the_problem_of_each_node() -> None:
    state = ClusterStatus("demo", ADDRESSES, {1: of_new(1, 2, 3), 2: of(2)})
    nodes = {node["id"]: (node["reachable"], node["problem"][:4]) for node in state.as_json()["nodes"]}
    assert nodes == {1: (True, "new;"), 2: (True, ""), 3: (False, ""), 4: (False, "")}


def test_the_text_of_a_cluster_that_is_not_founded_says_so_once_for_all_its_nodes() -> None:
    state = ClusterStatus("demo", ADDRESSES, {1: of_new(1, 3), 2: of_new(2, 3)})
    text = cluster_text(state, place=" --dir here")
    assert "no cluster is founded yet" in text
    assert "voters" not in text
    assert "nodes 1, 2: new; waiting for node 3 before founding the cluster; without it:" in text
    assert " ".join(text.split()).count("zelect bootstrap --dir here --members 1,2") == 1


def test_no_line_is_wider_than_80_columns() -> None:
    long = "term_jump: " + "x" * 500
    state = ClusterStatus(
        "demo", ADDRESSES, {1: of(1, peer(2, long)), 2: replace(of_new(2, 1, 3), address="tcp://" + "h" * 250)}
    )
    assert max(map(len, problem_lines(state, " -c " + "f" * 100))) <= 80
    assert max(map(len, cluster_text(state).splitlines())) <= 80
