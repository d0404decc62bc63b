"""One configuration for all nodes: the id comes from elsewhere, and commands find the file themselves."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import zelect
from tests.support.paths import ROOT
from tests.support.ports import free_ports
from tests.support.waiting import wait_until

ENVIRONMENT = {name: text for name, text in os.environ.items() if not name.startswith("ZELECT_")}


def run(directory: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """A command in `directory`, which names no file."""
    return subprocess.run(
        [sys.executable, "-m", "zelect", *arguments],
        cwd=directory,
        env={**ENVIRONMENT, "PYTHONPATH": str(ROOT), **variables},
        capture_output=True,
        text=True,
        timeout=60,
    )


@contextmanager
def started(directory: Path, *arguments: str, **variables: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "zelect", *arguments],
        cwd=directory,
        env={**ENVIRONMENT, "PYTHONPATH": str(ROOT), **variables},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """One with a zelect.toml that names three members and no node."""
    members = "".join(
        f'[[peers]]\nid = {node}\naddress = "tcp://127.0.0.1:{port}"\n' for node, port in enumerate(free_ports(3), 1)
    )
    text = f'[cluster]\nname = "one"\n{members}[redis]\nurl = ""\n'
    (tmp_path / "zelect.toml").write_text(text, encoding="utf-8")
    return tmp_path


def test_three_nodes_of_one_file_and_commands_that_name_none(directory: Path) -> None:
    with (
        started(directory, "node", "--id", "1"),
        started(directory, "node", ZELECT_NODE_ID="2"),
        started(directory, "run", "--id", "3", "--", "sleep", "600"),
    ):
        assert run(directory, "wait", "--timeout", "30").returncode == 0
        first = run(directory, "who")
        wait_until(lambda: run(directory, "status").stdout.count("follower") == 2)
        assert run(directory / "..", "who", ZELECT_CONFIG=str(directory / "zelect.toml")).stdout == first.stdout
        assert run(directory, "members").stdout.count("127.0.0.1") == 3
        reloaded = run(directory, "reload", "--id", "2")
        assert (reloaded.returncode, reloaded.stdout) == (0, "node 2: reloaded\n"), reloaded.stderr
        with zelect.Observer(directory / "zelect.toml") as observer:
            seen = observer.controller()
            assert seen is not None
            assert f"{seen.id}\n" == first.stdout


def test_without_an_id_a_node_says_how_to_name_it(directory: Path) -> None:
    done = run(directory, "node")
    assert done.returncode == 2
    assert done.stderr == (
        "Error: zelect.toml: node.id: is missing; add a line id = ... to [node], or give --id N or ZELECT_NODE_ID=N\n"
    )
    assert "--id N" in run(directory, "doctor").stderr


def test_nothing_at_all_says_what_to_name(tmp_path: Path) -> None:
    assert "-c FILE or ZELECT_CONFIG" in run(tmp_path, "node").stderr
    assert "zelect cluster up 3" in run(tmp_path, "status").stderr


def test_a_node_in_a_program_by_its_id(directory: Path) -> None:
    """Alone among three it elects nobody; it answers as the one that it is."""
    for node, process in ((1, False), (2, True)):
        with zelect.Node(directory / "zelect.toml", node_id=node, process=process) as made:
            assert made.config.node.id == node
            assert f"{node}  127" in wait_until(lambda: run(directory, "status").stdout)


def test_a_local_cluster_is_not_changed_by_the_environment(tmp_path: Path) -> None:
    """The variables are those of another cluster, on the host where somebody tries out a local one."""
    other = {"ZELECT_NODE_ID": "1", "ZELECT_TIMING__LEASE_MS": "7", "ZELECT_PEERS": "1=tcp://127.0.0.1:1"}
    up = run(tmp_path, "cluster", "up", "2", "--detach", "--redis", "", **other)
    try:
        assert up.returncode == 0, up.stderr
        assert run(tmp_path, "wait", "--dir", ".zelect", "--timeout", "30", **other).returncode == 0
    finally:
        down = run(tmp_path, "cluster", "down", **other)
    assert down.returncode == 0, down.stderr


def test_a_reload_reads_the_file_for_the_id_that_was_given(directory: Path) -> None:
    file = directory / "zelect.toml"
    with started(directory, "node", "--id", "2"):
        wait_until(lambda: run(directory, "status").stdout.count("no answer") == 2)
        with file.open("a", encoding="utf-8") as more:
            more.write("[node]\npriority = 7\n")
        reloaded = run(directory, "reload", "--id", "2")
        assert reloaded.stdout == "node 2: reloaded\n", reloaded.stderr
        with file.open("a", encoding="utf-8") as more:
            more.write("[timing]\nlease_ms = 300\n")
        assert "timing.lease_ms cannot change without a restart" in run(directory, "reload", "--id", "2").stderr
