"""What `zelect members` shows of who belongs to the cluster, and who votes."""

from __future__ import annotations

from typing import Any, cast

import pytest

from tests.support.reports import report
from zelect.cli.members import _removed, _table, _text, _wait_for_vote, _wait_until_removed
from zelect.cli.support.errors import CommandError
from zelect.cli.support.options import Target
from zelect.core.status import PeerStatus
from zelect.status.cluster import ClusterStatus

ADDRESSES = {node: f"tcp://127.0.0.1:{7100 + node}" for node in (1, 2, 3, 4)}
RECORDED = {str(node): ADDRESSES[node] for node in (1, 2, 3)}
NO_CLUSTER: dict[str, Any] = {
    "cluster_id": 0,
    "addresses": {},
    "members": (),
    "epochs": (),
    "may_vote": (),
    "config_term": 0,
    "version": 0,
}


def state() -> ClusterStatus:
    """Nodes 1 to 3 belong to cluster 7, 3 has no vote now and gives no answer; 4 is no member."""
    voters: dict[str, Any] = {"addresses": RECORDED, "members": (1, 2), "epochs": (11, 12), "may_vote": (1, 2)}
    reports = {1: report(1, active=True, **voters), 2: report(2, **voters), 4: report(4, belongs="removed", **voters)}
    return ClusterStatus("demo", ADDRESSES, reports)


def test_who_belongs_who_votes_and_with_which_epoch() -> None:
    text = _text(state())
    assert text.startswith("demo, cluster id 7: voter record 4.9\n")
    assert text.splitlines()[1:3] == ["  members   1, 2, 3", "  voters    1, 2   (not voting now: 3)"]
    assert [line.split() for line in text.splitlines()[5:10]] == [
        ["id", "address", "belongs", "votes", "epoch"],
        ["1", "127.0.0.1:7101", "yes", "yes", "11"],
        ["2", "127.0.0.1:7102", "yes", "yes", "12"],
        ["3", "127.0.0.1:7103", "yes", "no", "no", "answer"],
        ["4", "127.0.0.1:7104", "no", "no", "14"],
    ]
    assert "node 4: was removed from the cluster: stop it, or zelect members add 4" in text
    assert max(map(len, text.splitlines())) <= 80


def test_json_says_the_same() -> None:
    table = _table(state())
    assert (table["cluster_id"], table["config_term"], table["version"]) == (7, 4, 9)
    assert (table["members"], table["voters"]) == ([1, 2, 3], [1, 2])
    assert [(one["id"], one["belongs"], one["votes"], one["epoch"]) for one in table["nodes"]] == [
        (1, True, True, 11),
        (2, True, True, 12),
        (3, True, False, None),
        (4, False, False, 14),
    ]
    assert [one["address"] for one in table["nodes"]] == list(ADDRESSES.values())
    assert [bool(one["problem"]) for one in table["nodes"]] == [False, False, False, True]


def test_a_cluster_that_is_not_founded_has_no_voters_to_show() -> None:
    asked = ClusterStatus("demo", {1: ADDRESSES[1]}, {1: report(1, belongs="new", missing=(7, 8), **NO_CLUSTER)})
    text = _text(asked, " -c n1.toml")
    assert text.startswith("demo: no cluster is founded yet\n")
    assert "survives" not in text
    assert "zelect bootstrap -c n1.toml --members 1" in " ".join(text.split())


class Answered:
    """Stands for the cluster: always gives the same answers."""

    def __init__(self, *reports: Any) -> None:
        self.state = ClusterStatus("demo", ADDRESSES, {one.id: one for one in reports})

    place = " -c n1.toml"

    def ask(self, *_: Any) -> ClusterStatus:
        return self.state


@pytest.mark.parametrize("linked", [True, False])
def test_a_node_that_was_added_votes_when_the_controller_has_a_link_to_it(
    linked: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    head = report(2, active=True, peers=(PeerStatus(1, linked, False, False, 3000),))
    asked = Answered(report(1, peers=(PeerStatus(2, True, False, False, 3000),)), head)
    _wait_for_vote(cast(Target, asked), head, 1, ADDRESSES[1], 0.05)
    text = "and votes; voters 4.9" if linked else f"it gets its vote when it answers at {ADDRESSES[1]}: start it there"
    assert text in capsys.readouterr().out


def test_a_removal_is_waited_for_until_a_quorum_has_saved_it() -> None:
    after: dict[str, Any] = {"members": (1, 2), "version": 10}
    head = report(1, active=True, **after)
    _wait_until_removed(cast(Target, Answered(head, report(2, **after))), head, 3, 0.05)
    with pytest.raises(CommandError) as refused:
        _wait_until_removed(cast(Target, Answered(head, report(2))), head, 3, 0.05)
    assert "node 1 removed node 3, but no quorum is known to have saved that after 0.05 s" in str(refused.value)
    assert "see 'zelect members -c n1.toml'" in str(refused.value)
    assert refused.value.exit_code == 1


def test_who_was_no_member_was_not_removed() -> None:
    assert _removed(state(), 3) == "node 3 does not belong to the cluster; stop it if it still runs"
    assert _removed(state(), 9) == "node 9 was no member; nothing changed"
