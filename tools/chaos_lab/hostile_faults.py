"""Faults from unknown clients on the network: hostile bytes, slow connections, floods, during an election.

python -m tools.chaos_lab.hostile_faults KIND SEED HOST:PORT ...      until it is killed
"""

from __future__ import annotations

import contextlib
import random
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import zmq

from tools.chaos_lab.fault import Fault, Strike
from tools.chaos_lab.places import NAME
from tools.chaos_lab.target import World
from zelect.core.messages import Envelope, Query
from zelect.system.parent_death import prefix
from zelect.wire import encode

Address = tuple[str, int]
_GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + b"\0" + bytes(31)
_READY = b"\x04\x29\x05READY\x0bSocket-Type\x00\x00\x00\x06DEALER\x08Identity\x00\x00\x00\x00"
_WORDS = (
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"*1\r\n$4\r\nPING\r\n",
)


class _Strangers(Fault):
    """Unknown clients beset all nodes; in the midst of it the controller is killed."""

    def __init__(self) -> None:
        self._strangers: list[subprocess.Popen[bytes]] = []

    def plan(self, rng: random.Random, nodes: int) -> Strike:
        return self.strike(rng, (0,), rng.randint(400, 1500), seed=rng.getrandbits(32))

    def begin(self, world: World, strike: Strike) -> None:
        nodes = self.nodes(world, strike)
        targets = [address.removeprefix("tcp://") for address in world.addresses.values()]
        command = (sys.executable, "-P", "-m", "tools.chaos_lab.hostile_faults", self.name, str(strike.detail["seed"]))
        process = subprocess.Popen((*prefix(), *command, *targets), stdout=subprocess.PIPE)
        self._strangers.append(process)
        assert process.stdout is not None
        process.stdout.readline()  # it is at it
        world.wait(200)
        self.tell(world, nodes, hold_ms=strike.hold_ms, kill=True)
        for node in nodes:
            world.signal(node, signal.SIGKILL)

    def end(self, world: World, strike: Strike) -> None:
        while self._strangers:
            process = self._strangers.pop()
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()


class Garbage(_Strangers):
    name = "garbage"
    text = "hostile bytes on every node's port: other protocols, broken greetings, random frames"


class SlowLoris(_Strangers):
    name = "slow_loris"
    text = "two hundred connections a node that say a byte now and then"


class Flood(_Strangers):
    name = "flood"
    text = "floods of well-formed frames: broken messages, other clusters' messages, questions, many parts"


def _garbage(rng: random.Random) -> bytes:
    kind = rng.randrange(4)
    if kind == 0:
        return rng.choice(_WORDS)
    if kind == 1:
        return rng.randbytes(rng.randint(1, 400))
    if kind == 2:
        return _GREETING[: rng.randint(1, 63)] + rng.randbytes(rng.randint(0, 100))
    return _GREETING + _READY + rng.randbytes(rng.randint(1, 2000))


def _throw_garbage(rng: random.Random, targets: list[Address]) -> Iterator[None]:
    while True:
        with contextlib.suppress(OSError), socket.create_connection(rng.choice(targets), timeout=0.2) as connection:
            connection.sendall(_garbage(rng))
            if rng.randrange(2):
                connection.settimeout(0.01)
                connection.recv(4096)
        yield
        time.sleep(0.001)


def _be_slow(rng: random.Random, targets: list[Address]) -> Iterator[None]:
    connections: list[socket.socket] = []
    while True:
        while len(connections) < 200 * len(targets):
            with contextlib.suppress(OSError):
                connection = socket.create_connection(targets[len(connections) % len(targets)], timeout=0.2)
                connection.setblocking(False)
                connections.append(connection)
            yield
        for connection in rng.sample(connections, 50):
            try:
                connection.send(_GREETING[:1] if rng.randrange(2) else b"\0")
            except OSError:
                connections.remove(connection)
                connection.close()
        yield
        select.select([], [], [], 0.05)


def _flood(rng: random.Random, targets: list[Address]) -> Iterator[None]:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    dealers = []
    for host, port in targets:
        dealer = context.socket(zmq.DEALER)
        dealer.setsockopt(zmq.LINGER, 0)
        dealer.connect(f"tcp://{host}:{port}")
        dealers.append(dealer)
    question = encode(Envelope(NAME, 0, 0, 0, 0, Query("status")))
    foreign = encode(Envelope("another", 1, 1, 1, 1, Query("status")))
    while True:
        for dealer in dealers:
            kind = rng.randrange(5)
            parts = (
                [rng.randbytes(200)],
                [question[: rng.randint(1, len(question))]],
                [foreign],
                [question],
                [b"x"] * 50,
            )[kind]
            with contextlib.suppress(zmq.Again):
                dealer.send_multipart(parts, zmq.NOBLOCK)
            while dealer.poll(0):
                dealer.recv_multipart()
        yield


_KINDS: dict[str, Callable[[random.Random, list[Address]], Iterator[None]]] = {
    Garbage.name: _throw_garbage,
    SlowLoris.name: _be_slow,
    Flood.name: _flood,
}

FAULTS: tuple[Fault, ...] = (Garbage(), SlowLoris(), Flood())


def main(arguments: list[str]) -> None:
    kind, seed, *addresses = arguments
    targets = [(host, int(port)) for host, _, port in (address.rpartition(":") for address in addresses)]
    deeds = _KINDS[kind](random.Random(int(seed)), targets)
    next(deeds)
    print("at it", flush=True)
    for _ in deeds:
        pass


if __name__ == "__main__":
    main(sys.argv[1:])
