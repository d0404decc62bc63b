"""Bad configurations, taken ports, bad files: each is refused with a clear message and its own exit code,
and changes nothing. What running nodes are sent is in test_unknown_clients.py and test_impostors.py."""

from __future__ import annotations

import os
import random
import shutil
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.clusters import CALM, Cluster, Fleet, zelect
from tests.support.marks import long_but
from tests.support.ports import free_port
from zelect.node.storage.vote_store import SLOT_BYTES


def files_under(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


# -- configuration: exit code 2 -----------------------------------------------------------------

# What is done to a good file, and what the message must hold besides the file's name.
CONFIGURATIONS: dict[str, tuple[Callable[[str], str], tuple[str, ...]]] = {
    "unknown key": (lambda text: text.replace("[node]", "[node]\ndata_dirr = 'x'"), ("node.data_dirr", "data_dir")),
    "unknown section": (lambda text: text + "\n[timings]\nlease_ms = 1\n", ("timings", "unknown", "[timing]")),
    "wrong type": (lambda text: text.replace("\nid = 1\n", "\nid = true\n", 1), ("node.id", "integer")),
    "impossible timing": (
        lambda text: text + "\n[timing]\nlease_ms = 600\n",
        ("timing.lease_ms", "600", "lower lease_ms or raise election_timeout_ms"),
    ),
    "self missing": (
        lambda text: text.replace("\nid = 1\n", "\nid = 4\n", 1).replace("data1", "data4", 1),
        ("node.id", "4", "list every member"),
    ),
    "self twice": (
        lambda text: text + '\n[[peers]]\nid = 1\naddress = "tcp://127.0.0.1:1999"\n',
        ("node.id", "2 [[peers]] entries", "keep one"),
    ),
    "duplicate id": (
        lambda text: text + '\n[[peers]]\nid = 3\naddress = "tcp://127.0.0.1:1999"\n',
        ("peers.id", "3", "every member needs its own"),
    ),
    "duplicate address": (
        lambda text: text + '\n[[peers]]\nid = 4\naddress = "tcp://127.0.0.1:20003"\n',
        ("peers.address", "20003", "every member needs its own"),
    ),
    "ephemeral port": (lambda text: text.replace(":20002", ":40002"), ("peers[2].address", "40002", "32767")),
    "no address": (lambda text: text.replace("tcp://127.0.0.1:20002", "n2:20002"), ("peers[2].address", "tcp://")),
    "no toml": (lambda text: text.replace("[node]", "[node"), ("TOML", "line")),
}


@pytest.mark.parametrize("kind", CONFIGURATIONS)
def test_a_bad_configuration_is_refused_with_2(fleet: Fleet, kind: str) -> None:
    change, words = CONFIGURATIONS[kind]
    cluster = fleet.cluster()
    cluster.ports.update({1: 20001, 2: 20002, 3: 20003})
    good = cluster.text(1)
    bad = change(good)
    assert bad != good
    cluster.conf(1).write_text(bad)
    before = files_under(cluster.directory)
    done = zelect("node", "-c", cluster.conf(1))
    assert done.returncode == 2, done.stderr
    for word in (str(cluster.conf(1)), *words):
        assert word in done.stderr, f"{word!r} is not in: {done.stderr}"
    assert "Traceback" not in done.stderr
    assert files_under(cluster.directory) == before
    assert not cluster.data_dirs[1].exists()


def test_a_missing_configuration_is_refused_with_2(tmp_path: Path) -> None:
    done = zelect("node", "-c", tmp_path / "absent.toml")
    assert done.returncode == 2
    assert str(tmp_path / "absent.toml") in done.stderr
    assert "name an existing file" in done.stderr


def test_a_taken_port_is_refused_with_4(fleet: Fleet) -> None:
    cluster = fleet.cluster((1,))
    cluster.start()
    cluster.term(cluster.settled().id)
    assert cluster.exit_code(1) == 0
    before = cluster.saved(1)
    with socket.create_server(("127.0.0.1", cluster.ports[1])):
        done = zelect("node", "-c", cluster.conf(1))
    assert done.returncode == 4, done.stderr
    for word in (str(cluster.ports[1]), "taken", "node.listen"):
        assert word in done.stderr
    assert replace(cluster.saved(1), incarnation=0) == replace(before, incarnation=0)
    cluster.start()
    assert cluster.settled().term > before.term, "and it starts as before once the port is free"


def test_a_node_that_runs_already_is_named(fleet: Fleet) -> None:
    cluster = fleet.cluster((1,))
    cluster.start()
    cluster.settled()
    done = zelect("node", "-c", cluster.conf(1))
    assert done.returncode == 4, done.stderr
    assert f"node 1 is already running, as process {cluster.processes[1].pid}" in done.stderr
    cluster.settled()


# -- durable state: exit code 3 -----------------------------------------------------------------


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster of one node, ended, with a vote file in which both slots have been written."""
    cluster = Cluster(tmp_path_factory.mktemp("alone"), "alone", (1,))
    try:
        cluster.start()
        cluster.settled()
        cluster.term(1)
        assert cluster.exit_code(1) == 0
        yield cluster
    finally:
        cluster.end()


def flipped(bit: int) -> Callable[[bytes], bytes]:
    def flip(content: bytes) -> bytes:
        return content[: bit // 8] + bytes([content[bit // 8] ^ 1 << bit % 8]) + content[bit // 8 + 1 :]

    return flip


SLOT = 8 * SLOT_BYTES
BLOCK = 8 * 4096
VOTE_FILES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda content: b"", "truncated"),
    "one slot": (lambda content: content[:SLOT_BYTES], "truncated"),
    "a byte short": (lambda content: content[:-1], "truncated"),
    "a byte long": (lambda content: content + b"\0", "too long"),
    "zeros": (lambda content: bytes(len(content)), "damaged"),
    "slots swapped": (lambda content: content[SLOT_BYTES:] + content[:SLOT_BYTES], "damaged"),
    "noise": (lambda content: random.Random(1).randbytes(len(content)), "damaged"),
    "bit in the magic": (flipped(3), "damaged"),
    "bit in the payload": (flipped(8 * 20 + 2), "damaged"),
    "bit in the padding": (flipped(8 * 2000), "damaged"),
    "bit in the checksum": (flipped(BLOCK - 1), "damaged"),
    "bit in the other payload": (flipped(SLOT + 8 * 24 + 5), "damaged"),
    "last bit that was written": (flipped(SLOT + BLOCK - 1), "damaged"),
}


@pytest.mark.parametrize("kind", long_but(VOTE_FILES, "empty", "bit in the checksum", "last bit that was written"))
def test_a_bad_vote_file_is_refused_with_3(alone: Cluster, tmp_path: Path, kind: str) -> None:
    change, word = VOTE_FILES[kind]
    data_dir = tmp_path / "data"
    shutil.copytree(alone.data_dirs[1], data_dir)
    vote_store = data_dir / "vote"
    vote_store.write_bytes(change(vote_store.read_bytes()))
    before = files_under(data_dir)
    done = zelect("node", "-c", _conf_with(alone, tmp_path, data_dir))
    assert done.returncode == 3, done.stderr
    for expected in (str(vote_store), word, "move this file away"):
        assert expected in done.stderr
    assert "Traceback" not in done.stderr
    assert files_under(data_dir) == before


def _conf_with(cluster: Cluster, directory: Path, data_dir: Path, listen: int | None = None) -> Path:
    """Node 1's file with another data_dir, and perhaps another port to listen on."""
    text = cluster.text(1).replace(str(cluster.data_dirs[1]), str(data_dir))
    if listen is not None:
        text = text.replace("[node]", f'[node]\nlisten = "tcp://127.0.0.1:{listen}"')
    conf = directory / "other.toml"
    conf.write_text(text)
    return conf


def test_a_read_only_vote_store_is_refused_with_3(alone: Cluster, tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    shutil.copytree(alone.data_dirs[1], data_dir)
    (data_dir / "vote").chmod(0o444)
    before = files_under(data_dir)
    prefix: tuple[str, ...] = ()
    if os.geteuid() == 0:  # root may write to any file, unless it gives that privilege up
        if shutil.which("setpriv") is None:
            pytest.skip("runs as root, and setpriv is not there to take root's privilege to write any file")
        prefix = ("setpriv", "--bounding-set", "-dac_override", "--inh-caps", "-dac_override", "--")
    done = zelect("node", "-c", _conf_with(alone, tmp_path, data_dir), prefix=prefix)
    assert done.returncode == 3, done.stderr
    assert str(data_dir / "vote") in done.stderr
    assert "Permission denied" in done.stderr
    assert files_under(data_dir) == before


def test_a_vote_store_of_another_node_is_refused_with_3(alone: Cluster, fleet: Fleet) -> None:
    cluster = fleet.cluster((1,))
    shutil.copytree(alone.data_dirs[1], cluster.data_dirs[1])
    before = files_under(cluster.data_dirs[1])
    done = zelect("node", "-c", cluster.conf(1))
    assert done.returncode == 3, done.stderr
    assert "belongs to node 1 of cluster alone" in done.stderr
    assert files_under(cluster.data_dirs[1]) == before


def test_a_data_dir_in_use_is_refused_with_3(fleet: Fleet, tmp_path: Path) -> None:
    cluster = fleet.cluster((1,), timing=CALM)
    cluster.start()
    head = cluster.settled()
    before = files_under(cluster.data_dirs[1])
    done = zelect("node", "-c", _conf_with(cluster, tmp_path, cluster.data_dirs[1], listen=free_port()))
    assert done.returncode == 3, done.stderr
    for word in (str(cluster.data_dirs[1]), f"process {head.pid}", "node.data_dir"):
        assert word in done.stderr
    assert files_under(cluster.data_dirs[1]) == before
    again = cluster.settled()
    assert (again.pid, again.term) == (head.pid, head.term)
