"""Peers that send a message without an end, each a process of its own, so that they are as fast as can be."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from tests.support.paths import ROOT
from tools.fuzzer.zmtp import GREETING, MORE, frame, ready

_CHUNK_BYTES = 256 * 1024


def peak_mb(pid: int) -> int:
    """The most memory that process `pid` ever took."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) // 1024


@contextlib.contextmanager
def endless_messages(how: str, port: int, part_bytes: int) -> Iterator[None]:
    """Meanwhile somebody sends a message without an end, in parts of `part_bytes`, on every connection that it can
    get: it connects to `port` of loopback (`how`: "connect"), or listens there ("listen")."""
    command = (sys.executable, "-m", "tests.support.floods", how, str(port), str(part_bytes))
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == b"ready\n"
        yield
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def _flood(connection: socket.socket, kind: bytes, part_bytes: int) -> None:
    with connection, contextlib.suppress(OSError):
        connection.settimeout(5)
        connection.sendall(GREETING)
        heard = b""
        while len(heard) < len(GREETING):
            heard += connection.recv(len(GREETING) - len(heard)) or _gone()
        connection.sendall(ready(kind))
        connection.recv(4096)
        part = frame(b"x" * part_bytes, MORE)
        chunk = part * (_CHUNK_BYTES // len(part))
        while True:
            connection.sendall(chunk)


def _gone() -> bytes:
    raise ConnectionResetError


def main(how: str, port: int, part_bytes: int) -> None:
    if how == "connect":
        print("ready", flush=True)
        while True:
            with contextlib.suppress(OSError):
                _flood(socket.create_connection(("127.0.0.1", port), 5), b"DEALER", part_bytes)
    with socket.create_server(("127.0.0.1", port)) as listener:
        print("ready", flush=True)
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=_flood, args=(connection, b"ROUTER", part_bytes), daemon=True).start()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
