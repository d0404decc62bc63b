"""The directory of a local cluster: its plan, its ports, its one supervisor."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from tests.support.ports import free_ports
from zelect.devcluster.layout import ChildMark, ClusterError, ClusterPlan, Control, Layout, find_port, port_is_free


def test_the_plan_of_before_holds_where_nothing_else_is_asked(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    base = free_ports(3)[0]
    plan = layout.plan(3, base, "redis://user:secret@127.0.0.1:6390/1", "mine")
    layout.prepare(plan)
    assert layout.read_plan() == plan
    assert layout.plan(3, None, None, None) == plan
    with pytest.raises(ClusterError, match="holds cluster 'mine' of 3 nodes"):
        layout.plan(3, None, None, "other")
    assert plan.ports == {1: base, 2: base + 1, 3: base + 2}
    assert layout.conf_of(1).stat().st_mode & 0o777 == 0o600
    assert layout.plan_file.stat().st_mode & 0o777 == 0o600


def test_ports_lie_below_the_ephemeral_ones() -> None:
    port = find_port()
    assert port < 32_768
    assert port_is_free(port)
    with socket.create_server(("127.0.0.1", port)):
        assert not port_is_free(port)


def test_addresses_follow_the_base_port() -> None:
    assert ClusterPlan("demo", 2, 7101, "", 20_000).addresses == {1: "tcp://127.0.0.1:7101", 2: "tcp://127.0.0.1:7102"}
    assert ClusterPlan("demo", 2, 7101, "", 20_000).url == "redis://127.0.0.1:20000/0"


def test_ports_that_are_taken_or_ephemeral_are_refused(tmp_path: Path) -> None:
    base = free_ports(3)[0]
    with socket.create_server(("127.0.0.1", base + 1)), pytest.raises(ClusterError, match="--base-port") as taken:
        Layout(tmp_path).plan(3, base, None, None)
    assert taken.value.exit_code == 4
    with pytest.raises(ClusterError, match="the highest for 3 nodes is 32765"):
        Layout(tmp_path).plan(3, 32_766, None, None)


def test_what_makes_no_configuration_is_refused_and_leaves_no_plan(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "new")
    plan = ClusterPlan("demo", 3, free_ports(3)[0], "no://url", 20_000)
    with pytest.raises(ClusterError, match="--redis: "):
        layout.prepare(plan)
    assert not layout.directory.exists()
    with pytest.raises(ClusterError, match="no cluster in"):
        layout.read_plan()


HOLDS = """
import sys
from zelect.devcluster.layout import Layout
lock = Layout(sys.argv[1]).hold()
print("held", flush=True)
sys.stdin.read()
"""


def test_one_supervisor_holds_a_directory_and_others_learn_its_pid(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    assert layout.supervisor_pid() is None
    with subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(tmp_path)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        assert layout.supervisor_pid() == other.pid
        with pytest.raises(ClusterError, match=rf"\(supervisor pid {other.pid}\)"):
            layout.hold()
        other.kill()
    assert layout.supervisor_pid() is None
    os.close(layout.hold())


def test_what_a_supervisor_left_is_read_or_ignored(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    assert layout.read_control() is None
    control = Control(1, "77", 16_384, "secret", (ChildMark(2, "78"),))
    layout.write_control(control)
    assert layout.control_file.stat().st_mode & 0o777 == 0o600
    assert layout.read_control() == control
    for text in ("", "[]", json.dumps("x"), '{"pid": 1}', "[" * 60_000, '{"pid": 1e999}'):
        layout.control_file.write_text(text)
        assert layout.read_control() is None
