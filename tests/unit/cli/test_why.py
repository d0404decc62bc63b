"""What `zelect why` says while no node is active."""

from __future__ import annotations

import json
from typing import Any, cast

import pytest

from tests.support.reports import report
from zelect.cli.support.options import Target
from zelect.cli.why import _print_failing
from zelect.core.status import PeerStatus
from zelect.status.cluster import ClusterStatus

AT = {node: f"tcp://127.0.0.1:{7100 + node}" for node in (1, 2, 3)}


def waiting(node: int) -> Any:
    """A new node of three, which waits for node 3."""
    peers = tuple(PeerStatus(peer, peer != 3, False, False, 3000) for peer in AT if peer != node)
    none: dict[str, Any] = {"cluster_id": 0, "addresses": {}, "members": (), "epochs": (), "may_vote": ()}
    return report(node, belongs="new", missing=(3,), peers=peers, **none)


def test_before_the_cluster_is_founded_it_names_who_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    target = Target("demo", AT, None, cast(Any, None), " -c n1.toml")
    state = ClusterStatus("demo", AT, {1: waiting(1), 2: waiting(2)})
    _print_failing(target, state, False)
    text = " ".join(capsys.readouterr().out.split())
    assert "no cluster is founded yet" in text
    assert "nodes 1, 2: new; waiting for node 3 before founding the cluster" in text
    assert "zelect bootstrap -c n1.toml --members 1,2" in text
    assert "has not requested votes" not in text
    _print_failing(target, state, True)
    table = json.loads(capsys.readouterr().out)
    assert sorted(table["problems"]) == ["1", "2"]
    assert "waiting for node 3" in table["problems"]["1"]
