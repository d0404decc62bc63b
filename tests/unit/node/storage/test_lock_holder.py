"""A node whose job is in another process is not dead before that process has let go (R9)."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.clusters import ROOT
from tests.support.ports import free_port
from zelect.node.storage.data_dir import DataDir, DataDirInUse, lock_evidence
from zelect.node.storage.lock_holder import LockHolder, listener_of

HOLDER = """
import os, sys
from zelect.node.storage.lock_holder import LockHolder
hold = LockHolder(int(sys.argv[1]), int(sys.argv[2]))
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def holder(lock: int, listener: int = -1) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds, until the block is left."""
    command = [sys.executable, "-c", HOLDER, str(lock), str(listener)]
    with subprocess.Popen(
        command,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        pass_fds=[fd for fd in (lock, listener) if fd >= 0],
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process


def node(path: Path) -> DataDir:
    made = DataDir.open(path, "demo", 1)
    made.announce(77)
    return made


def test_the_lock_is_held_while_the_job_runs(tmp_path: Path) -> None:
    data_dir = node(tmp_path)
    with holder(data_dir.lock):
        data_dir.close()
        assert not lock_evidence(tmp_path, "demo", 1, 77), "the node is gone, its job is not"
        with pytest.raises(DataDirInUse):
            DataDir.open(tmp_path, "demo", 1)
    assert lock_evidence(tmp_path, "demo", 1, 77)
    DataDir.open(tmp_path, "demo", 1).close()


def test_the_address_accepts_while_the_job_runs(tmp_path: Path) -> None:
    port = free_port()
    server = socket.create_server(("127.0.0.1", port))
    data_dir = node(tmp_path)
    copy = listener_of(port)
    assert copy >= 0
    with holder(data_dir.lock, copy) as process:
        os.close(copy)
        server.close()
        socket.create_connection(("127.0.0.1", port)).close()
        process.kill()
        process.wait()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))
    data_dir.close()


def test_a_listener_is_found_by_its_port_alone() -> None:
    with socket.create_server(("127.0.0.1", free_port())) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            found = listener_of(port)
            assert os.fstat(found).st_ino == os.fstat(server.fileno()).st_ino
            os.close(found)
    assert listener_of(port) == -1


def test_releasing_frees_both(tmp_path: Path) -> None:
    data_dir = node(tmp_path)
    lock = os.dup(data_dir.lock)
    data_dir.close()
    read, write = os.pipe()
    hold = LockHolder(lock, write)
    assert not lock_evidence(tmp_path, "demo", 1, 77), "held by this very process"
    hold.release()
    hold.release()
    assert os.read(read, 1) == b""
    os.close(read)
    assert lock_evidence(tmp_path, "demo", 1, 77)
