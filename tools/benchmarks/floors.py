"""Floors: what the parts of an election cost by themselves on this machine, in the same run."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time

import zmq

from tools.benchmarks.cluster import Cluster
from tools.benchmarks.figures import row
from tools.common.checkout import NAME, JsonDict, ToolError, run_python, took
from tools.common.statistics import spread
from zelect.devcluster.layout import HOST, find_port
from zelect.system.clock import now_us
from zelect.system.parent_death import prefix

FLOORS = {
    "closed": "kill, connection closed",
    "refused": "kill, refused",
    "zeromq": "ZeroMQ round trip",
    "sync": "fdatasync of 4 KiB",
    "script": "EVALSHA",
}
_REPEATS = 5
_VICTIM = """
import socket, sys, time
server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
connection, _ = server.accept()
connection.sendall(b"x")
time.sleep(600)
"""
_ECHO = """
import sys, zmq
router = zmq.Context().socket(zmq.ROUTER)
router.bind("tcp://127.0.0.1:" + sys.argv[1])
while True:
    router.send_multipart(router.recv_multipart())
"""
# The write and the news of a publication, without its judgement.
_SCRIPT = "redis.call('HSET', KEYS[1], 'id', ARGV[1]) redis.call('PUBLISH', KEYS[1], ARGV[1]) return 1"


class Floors:
    """Takes them beside `cluster`, in its directory and its Redis; `samples` in ms by name."""

    def __init__(self, cluster: Cluster) -> None:
        self.samples: dict[str, list[float]] = {name: [] for name in FLOORS}
        self._cluster = cluster
        self._file = os.open(cluster.directory / "floor", os.O_RDWR | os.O_CREAT)
        os.pwrite(self._file, os.urandom(8192), 0)
        os.fsync(self._file)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        while (port := find_port()) in cluster.ports.values():  # which its nodes may not listen on yet
            pass
        self._echo = _python(_ECHO, port)
        self._dealer = self._context.socket(zmq.DEALER)
        self._dealer.connect(f"tcp://{HOST}:{port}")
        self._round_trip()

    def __enter__(self) -> Floors:
        return self

    def __exit__(self, *exception: object) -> None:
        self._echo.kill()
        self._echo.wait()
        self._context.destroy(linger=0)
        os.close(self._file)

    def take(self) -> None:
        """One sample of each, of the short ones several, with pauses: elections find caches cold."""
        closed, refused = _death()
        self.samples["closed"].append(closed)
        self.samples["refused"].append(refused)
        sha = self._cluster.control.call("SCRIPT", "LOAD", _SCRIPT).decode()
        script = ("EVALSHA", sha, 1, f"zelect:{{{NAME}}}:floor", "1")
        for _ in range(_REPEATS):
            time.sleep(0.005)
            self.samples["zeromq"].append(took(self._round_trip))
            self.samples["sync"].append(took(self._write))
            self.samples["script"].append(took(lambda: self._cluster.control.call(*script)))

    def spreads(self) -> dict[str, JsonDict]:
        return {name: spread(samples) for name, samples in self.samples.items()}

    def _round_trip(self) -> None:
        self._dealer.send(b"x" * 100)
        if not self._dealer.poll(10_000) and not self._dealer.poll(5000):  # twice: all may have been stopped
            raise ToolError("the echo process does not answer")
        self._dealer.recv()

    def _write(self) -> None:
        os.pwrite(self._file, b"\0" * 4096, 4096)
        getattr(os, "fdatasync", os.fsync)(self._file)


def show_floors(floors: JsonDict) -> None:
    """Print the rows of the table."""
    print("floors, taken between the trials")
    for name, label in FLOORS.items():
        print(row(f"  {label}", floors[name]))


def interpreter() -> tuple[float, float]:
    """What the interpreter takes to start and end, in ms: alone, and with the libraries of a node."""
    return took(lambda: run_python("-c", "pass")), took(lambda: run_python("-c", "import zmq, msgpack"))


def _python(script: str, *arguments: object) -> subprocess.Popen[bytes]:
    command = (*prefix(), sys.executable, "-c", script, *map(str, arguments))
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)


def _death() -> tuple[float, float]:
    """Kill a small listening process: ms until its connection is seen closed, and a new one refused."""
    port = find_port()
    victim = _python(_VICTIM, port)
    try:
        connection = _connected(port)
        connection.recv(1)
        began_us = now_us()
        victim.kill()
        with contextlib.suppress(ConnectionResetError):
            connection.recv(1)
        closed_us = now_us()
        while not _refused(port):
            pass
        refused_us = now_us()
        connection.close()
    finally:
        victim.kill()
        victim.wait()
    return (closed_us - began_us) / 1000, (refused_us - began_us) / 1000


def _connected(port: int) -> socket.socket:
    end = time.monotonic() + 20
    while True:
        try:
            return socket.create_connection((HOST, port), timeout=20)
        except ConnectionRefusedError as error:
            if time.monotonic() > end:
                raise ToolError("the process to be killed does not start") from error
            time.sleep(0.005)


def _refused(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.005)  # the kernel would repeat a SYN that got lost only after a second
        try:
            probe.connect((HOST, port))
        except ConnectionRefusedError:
            return True
        except OSError:  # lost, or reset while the dying process still listens
            return False
    return False
