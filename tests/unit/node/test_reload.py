"""What a running node takes over from its changed configuration, and what it refuses (all of it, then)."""

from __future__ import annotations

import contextlib
import select
import socket
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path

import pytest

from tests.support.ports import free_ports
from tests.support.waiting import wait_until
from tools.common.founded import founded_record
from zelect.config.loading import Config, load
from zelect.config.rendering import render
from zelect.core.events import PriorityChanged
from zelect.core.invariants import RuleBroken
from zelect.node.loop import NodeLoop
from zelect.node.reload import MAY_CHANGE, changes
from zelect.system.log import setup
from zelect.system.sockets import parse_endpoint


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    ports = dict(zip((1, 2, 3), free_ports(3), strict=True))
    path = tmp_path / "n1.toml"
    path.write_text(render("reload", 1, "127.0.0.1", ports, "", {1: str(tmp_path / "data")}))
    return path


@pytest.fixture
def node(conf: Path, tmp_path: Path) -> Iterator[NodeLoop]:
    """Node 1 of three, bound and without its loop."""
    made = NodeLoop(load(conf), setup("info", "text", str(tmp_path / "log"), 1, "reload"))
    yield made
    made.close()


def edit(conf: Path, old: str, new: str) -> None:
    text = conf.read_text()
    assert text.count(old) == 1
    conf.write_text(text.replace(old, new))


def reload(node: NodeLoop) -> PriorityChanged | None:
    return node.running.reload(node.transport, node.log, node.counters, new=node.machine.state.is_new)


def test_a_changed_priority_is_for_the_machine(node: NodeLoop, conf: Path, tmp_path: Path) -> None:
    edit(conf, "[node]\n", "[node]\npriority = 7\n")
    assert reload(node) == PriorityChanged(7)
    assert node.running.config.node.priority == 7
    assert "reloaded" in (tmp_path / "log").read_text()


def test_the_log_file_is_opened_again_even_where_nothing_else_is_taken_over(
    node: NodeLoop, conf: Path, tmp_path: Path
) -> None:
    log, old = tmp_path / "log", tmp_path / "log.1"
    for change, said in (
        (("[node]\n", "[node]\npriority = 7\n"), "reloaded"),
        (('"reload"', '"other"'), "reload_refused"),
    ):
        log.rename(old)
        edit(conf, *change)
        reload(node)
        assert said in log.read_text()


def test_a_relative_path_is_read_again_after_the_program_has_changed_its_directory(conf: Path, tmp_path: Path) -> None:
    edit(conf, str(tmp_path / "data"), "data")
    (tmp_path / "elsewhere").mkdir()
    with contextlib.chdir(tmp_path):
        made = NodeLoop(load(Path("n1.toml")), setup("info", "text", "", 1, "reload"))
    try:
        with contextlib.chdir(tmp_path / "elsewhere"):
            edit(conf, "[node]\n", "[node]\npriority = 7\n")
            assert reload(made) == PriorityChanged(7), made.running.problem
    finally:
        made.close()
    assert (tmp_path / "data" / "vote").exists()


def test_what_did_not_change_is_no_event(node: NodeLoop) -> None:
    assert reload(node) is None
    assert (node.counters["reloaded"], node.running.problem) == (1, "")


def test_one_change_that_needs_a_restart_refuses_all_of_them(node: NodeLoop, conf: Path) -> None:
    before = node.running.config
    edit(conf, "[node]\n", "[node]\npriority = 7\n")
    edit(conf, 'name = "reload"', 'name = "other"')
    assert reload(node) is None
    assert node.running.config is before
    assert "cluster.name cannot change without a restart" in node.running.problem
    assert (node.counters["reloaded"], node.counters["reload_refused"]) == (0, 1)
    edit(conf, 'name = "other"', 'name = "reload"')
    assert reload(node) == PriorityChanged(7)
    assert node.running.problem == "", "the newest reload worked"


def test_a_request_is_carried_out_once(node: NodeLoop) -> None:
    node.handle.reload()
    for _ in range(2):
        node._carry_out_requests()
    assert node.counters["reloaded"] == 1


def belongs(node: NodeLoop) -> None:
    """The node is one of three that founded their cluster."""
    state = node.machine.state
    record = founded_record(node.settings.addresses, dict.fromkeys((1, 2, 3), state.saved.epoch))
    state.saved = replace(state.saved, record=record)


def moved(conf: Path, node: NodeLoop, peer: int) -> str:
    """The entry of `peer` gets another address: this one."""
    (port,) = free_ports(1)
    before = node.settings.addresses[peer]
    edit(conf, f'"{before}"', f'"tcp://127.0.0.1:{port}"')
    return f"tcp://127.0.0.1:{port}"


def test_a_member_looks_for_another_where_its_changed_list_says(node: NodeLoop, conf: Path, tmp_path: Path) -> None:
    belongs(node)
    node._connect(node.machine.state.addresses)
    address = moved(conf, node, 3)
    with socket.create_server(("127.0.0.1", parse_endpoint(address)[1])) as server:
        node.handle.reload()
        node._carry_out_requests()
        assert (node.counters["reloaded"], node.running.problem) == (1, "")
        assert node.settings.addresses[3] == node.machine.settings.addresses[3] == address
        assert node.machine.state.addresses[3] != address, "the record decides"
        assert "configured_peers_differ" in (tmp_path / "log").read_text()
        wait_until(lambda: node.transport.service({}) == [] and bool(select.select([server], [], [], 0)[0]), 20)


def test_members_may_come_into_the_list_and_go(node: NodeLoop, conf: Path) -> None:
    belongs(node)
    conf.write_text(conf.read_text() + f'\n[[peers]]\nid = 4\naddress = "tcp://127.0.0.1:{free_ports(1)[0]}"\n')
    node.handle.reload()
    node._carry_out_requests()
    assert node.running.problem == ""
    assert node.machine.state.founding_members == (1, 2, 3, 4), "should it be new again"
    assert set(node.machine.state.addresses) == {1, 2, 3}


def test_the_own_entry_needs_a_restart(node: NodeLoop, conf: Path) -> None:
    belongs(node)
    moved(conf, node, 1)
    assert reload(node) is None
    assert "[[peers]] of node 1, node.listen cannot change without a restart; nothing was" in node.running.problem


def test_a_new_node_founds_its_cluster_with_the_list_that_it_started_with(node: NodeLoop, conf: Path) -> None:
    moved(conf, node, 3)
    assert reload(node) is None
    assert "[[peers]] of node 3 cannot change without a restart (this node is new, and founds" in node.running.problem
    with pytest.raises(RuleBroken):
        node.machine.list_members({1: node.settings.address})


def test_what_may_change_are_keys_of_the_configuration() -> None:
    sections = {section.name: section for section in fields(Config)}
    for name in MAY_CHANGE:
        assert name.partition(".")[0] in sections


def test_differences_are_named_by_section_and_key(conf: Path) -> None:
    before = load(conf)
    edit(conf, "[node]\n", "[node]\npriority = 7\n")
    edit(conf, 'name = "reload"', 'name = "other"')
    assert changes(before, load(conf)) == {"node.priority", "cluster.name"}
    assert changes(before, before) == set()
