"""`zelect check`: its arguments."""

from __future__ import annotations

from typing import Any

from tests.integration.test_cli import run, write_conf
from tests.support.reports import report
from zelect.cli.check import _lines
from zelect.status.cluster import ClusterStatus
from zelect.status.forecast import forecast


def test_wrong_arguments_are_named(tmp_path: Any) -> None:
    conf = write_conf(tmp_path / "n1.toml", {1: 7101, 2: 7102, 3: 7103})
    for down, problem in (("2,x", "'2,x' names no nodes"), ("2,2", "names a node twice"), ("9", "node 9 is not in")):
        done = run("check", "-c", conf, "--down", down)
        assert done.exit_code == 2
        assert problem in done.output


def test_a_cluster_that_is_not_founded_has_nothing_to_survive() -> None:
    new = report(1, belongs="new", cluster_id=0, addresses={}, members=(), epochs=(), may_vote=(), survives=-1)
    found = forecast(ClusterStatus("demo", {1: "tcp://127.0.0.1:7101"}, {1: new}), ())
    assert not found.survives
    assert _lines(found) == ["demo: no cluster is founded yet; 'zelect status' shows what it waits for"]
