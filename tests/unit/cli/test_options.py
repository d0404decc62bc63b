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
from zelect.client.observer import Observer
from zelect.core.messages import Bootstrap, Envelope, MemberChange, Query, Reset


@contextmanager
def cluster(ports: dict[int, int], recorded: dict[int, int] | None = None) -> Iterator[list[Envelope]]:
    """Nodes 1 to 3 answer at `ports`, and have them in their record, or `recorded`; node 1 is active."""
    nodes: dict[int, Any] = {node: said(node, port, active=node == 1) for node, port in ports.items()}
    for node in nodes.values():
        node["voters"]["addresses"] = {str(at): f"tcp://127.0.0.1:{port}" for at, port in (recorded or ports).items()}
        peers = [{"id": peer, "linked": True, "dead": False, "offline": False, "heard_ago_ms": 3.0} for peer in (2, 3)]
        node["peers"] = peers if node["active"] else []
    with answering(nodes, ports) as asked:
        yield asked


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


def test_an_observer_finds_the_controller_that_its_configuration_lacks(tmp_path: Path) -> None:
    ports = three_ports()
    conf = write_conf(tmp_path / "n1.toml", {1: ports[1]})
    nodes: dict[int, Any] = {node: said(node, port, active=node == 3) for node, port in ports.items()}
    for node in nodes.values():
        node["voters"]["addresses"] = {str(at): f"tcp://127.0.0.1:{port}" for at, port in ports.items()}
    with answering(nodes, ports), Observer(conf, believe_redis=False) as observer:
        seen = observer.controller(5.0)
        assert seen is not None
        assert seen.id == 3


def test_a_bootstrap_names_each_id(tmp_path: Path) -> None:
    conf = write_conf(tmp_path / "n1.toml", three_ports())
    done = run("bootstrap", "-c", conf, "--members", "1-3")
    assert done.exit_code == 2
    assert "'1-3' is no list of node ids; name each one, like 1,2,3 (ids are 1 to 65535)" in done.output


def test_a_removed_node_does_not_stand_in_the_way_of_a_bootstrap(tmp_path: Path) -> None:
    """It answers that it was removed; the others are new."""
    ports = three_ports()
    conf = write_conf(tmp_path / "n1.toml", ports)
    new: dict[str, Any] = {"cluster_id": 0, "addresses": {}, "members": [], "epochs": [], "may_vote": []}
    nodes: dict[int, Any] = {node: said(node, port, belongs="new") for node, port in ports.items()}
    for node in (1, 2):
        nodes[node]["voters"] |= new | {"config_term": 0, "version": 0}
    nodes[3] |= {"belongs": "removed"}
    nodes[3]["voters"]["addresses"] = {str(at): f"tcp://127.0.0.1:{ports[at]}" for at in (1, 2)}
    with answering(nodes, ports) as asked:
        done = run("bootstrap", "-c", conf, "--members", "1,2", "--timeout", "0.2")
        told = run("status", "-c", conf).output
    assert "node 1 did not answer; run the same command again" in done.output, "it was told"
    assert any(isinstance(one.message, Bootstrap) for one in asked)
    assert "no cluster is founded yet" in told


@pytest.mark.parametrize("what", ["add", "replace"])
def test_an_address_where_another_node_answers_is_not_written_down(tmp_path: Path, what: str) -> None:
    ports = three_ports()
    conf = write_conf(tmp_path / "n1.toml", ports)
    with cluster(ports) as asked:
        done = run("members", "-c", conf, what, "3" if what == "replace" else "4", f"tcp://localhost:{ports[2]}")
    assert (done.exit_code, done.output) == (
        1,
        f"Error: tcp://localhost:{ports[2]}: answers as node 2; nothing was changed\n",
    )
    assert not any(isinstance(one.message, MemberChange) for one in asked)


def test_a_member_that_is_in_the_generation_already_does_not_join_it(tmp_path: Path) -> None:
    ports = three_ports()
    conf = write_conf(tmp_path / "n1.toml", ports)
    nodes: dict[int, Any] = {node: said(node, port) for node, port in ports.items()}
    for node in nodes.values():
        node["voters"] |= {"generation": 7, "addresses": {str(n): f"tcp://127.0.0.1:{at}" for n, at in ports.items()}}
    with answering(nodes, ports) as asked:
        done = run("members", "-c", conf, "reset", "--join", "7", "2", "3")
    assert (done.exit_code, done.output) == (0, "nodes 2, 3 are in generation 7 already; nothing to do\n")
    assert not any(isinstance(one.message, Reset) for one in asked)


def test_the_last_member_is_not_removed(tmp_path: Path) -> None:
    ports = three_ports()
    conf = write_conf(tmp_path / "n1.toml", {1: ports[1]})
    with cluster({1: ports[1]}) as asked:
        done = run("members", "-c", conf, "remove", "1")
    assert (done.exit_code, done.output) == (
        1,
        "Error: node 1 is the only member; to end the cluster, stop it for good\n",
    )
    assert all(isinstance(one.message, Query) for one in asked)
