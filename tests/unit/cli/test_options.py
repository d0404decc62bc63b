"""The cluster that the options name: who belongs to it, where the configuration lags behind the voter record."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import pytest

from tests.integration.test_cli import answering, run, three_ports, write_conf
from tests.support.reports import said
from zelect.cli.support.options import Target


@contextmanager
def cluster(ports: dict[int, int], recorded: dict[int, int] | None = None) -> Iterator[None]:
    """Nodes 1 to 3 answer at `ports`, and have them in their record, or `recorded`; node 1 is active."""
    nodes: dict[int, Any] = {node: said(node, port, active=node == 1) for node, port in ports.items()}
    for node in nodes.values():
        node["voters"]["addresses"] = {str(at): f"tcp://127.0.0.1:{port}" for at, port in (recorded or ports).items()}
        peers = [{"id": peer, "linked": True, "dead": False, "offline": False, "heard_ago_ms": 3.0} for peer in (2, 3)]
        node["peers"] = peers if node["active"] else []
    with answering(nodes, ports):
        yield


@pytest.mark.parametrize(
    ("words", "exit_code", "said"),
    [
        (("check", "--down", "3"), 0, "If node 3 went down"),
        (("transfer", "--to", "3", "--dry-run"), 0, "would hand over to node 3"),
        (("members", "reset", "3", "--yes-i-know"), 1, "node 1 is active (term 4): nothing is lost"),
        (("check", "--down", "9"), 2, "node 9 is not in the voter record; the members are 1, 2, 3"),
    ],
)
def test_commands_know_the_nodes_of_the_record_that_the_configuration_lacks(
    tmp_path: Path, words: tuple[str, ...], exit_code: int, said: str
) -> None:
    ports = three_ports()
    conf = write_conf(tmp_path / "n1.toml", {1: ports[1]})
    place = 1 if words[0] == "members" else len(words)
    with cluster(ports):
        done = run(*words[:place], "-c", conf, *words[place:])
    assert said in done.output
    assert done.exit_code == exit_code


def test_where_no_node_answers_the_configuration_says_who_belongs(tmp_path: Path) -> None:
    conf = write_conf(tmp_path / "n1.toml", {1: three_ports()[1]})
    with pytest.raises(click.UsageError, match="node 3 is not in the configuration; the members are 1"):
        Target.of(str(conf), None, None).known([3])


@pytest.mark.parametrize("lags", ["configuration", "record"])
def test_a_node_that_moved_is_asked_where_it_answers(tmp_path: Path, lags: str) -> None:
    ports, elsewhere = three_ports(), three_ports()
    moved = {**ports, 2: elsewhere[2]}
    conf = write_conf(tmp_path / "n1.toml", ports if lags == "configuration" else moved)
    with cluster(moved, moved if lags == "configuration" else ports):
        target = Target.of(str(conf), None, None)
        assert set(target.ask().reports) == {1, 2, 3}
    assert target.addresses[2] == f"tcp://127.0.0.1:{elsewhere[2]}"
