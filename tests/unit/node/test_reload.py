"""What a running node takes over from its changed configuration, and what it refuses (all of it, then)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

from tests.support.ports import free_ports
from zelect.config.loading import Config, load
from zelect.config.rendering import render
from zelect.core.events import PriorityChanged
from zelect.node.loop import NodeLoop
from zelect.node.reload import MAY_CHANGE, changes
from zelect.system.log import setup


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
    return node.running.reload(node.transport, node.log, node.counters)


def test_a_changed_priority_is_for_the_machine(node: NodeLoop, conf: Path, tmp_path: Path) -> None:
    edit(conf, "[node]\n", "[node]\npriority = 7\n")
    assert reload(node) == PriorityChanged(7)
    assert node.running.config.node.priority == 7
    assert "reloaded" in (tmp_path / "log").read_text()


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
