"""Faults from unknown clients on the network: hostile bytes, slow connections, floods, during an election.

python -m tools.chaos_lab.hostile_faults KIND SEED HOST:PORT ...      until it is killed
"""

from __future__ import annotations

import contextlib
import random
import select
import socket
import sys
import time
from collections.abc import Callable, Iterator

import zmq

from tools.chaos_lab.cluster import ChaosCluster
from tools.chaos_lab.fault import Fault, PlannedFault
from tools.chaos_lab.worker_setup import NAME
from tools.fuzzer.hostile import GARBAGE
from tools.fuzzer.zmtp import GREETING
from zelect.core.messages import Envelope, Query
from zelect.wire import encode

Address = tuple[str, int]


class _UnknownClients(Fault):
    """Unknown clients attack all nodes, and meanwhile the controller is killed."""

    hold = (400, 1500)

    def ranks(self, rng: random.Random, nodes: int) -> tuple[int, ...]:
        return (0,)

    def details(self, rng: random.Random, nodes: int) -> dict[str, int]:
        return {"kill": 1, "seed": rng.getrandbits(32)}

    def begin(self, cluster: ChaosCluster, planned: PlannedFault) -> None:
        targets = [address.removeprefix("tcp://") for address in cluster.addresses.values()]
        command = (sys.executable, "-P", "-m", "tools.chaos_lab.hostile_faults", self.name, str(planned.detail["seed"]))
        begun = self.help(*command, *targets).stdout
        assert begun is not None
        begun.readline()
        cluster.wait(200)
        super().begin(cluster, planned)


class Garbage(_UnknownClients):
    name = "garbage"
    text = "hostile bytes on every node's port: other protocols, broken greetings, random frames"


class SlowLoris(_UnknownClients):
    name = "slow_loris"
    text = "two hundred connections per node that send a byte now and then"


class Flood(_UnknownClients):
    name = "flood"
    text = "floods of well-formed frames: broken messages, other clusters' messages, queries, many parts"


def _throw_garbage(rng: random.Random, targets: list[Address]) -> Iterator[None]:
    while True:
        with contextlib.suppress(OSError), socket.create_connection(rng.choice(targets), timeout=0.2) as connection:
            connection.sendall(b"".join(text for _, text in rng.choice(GARBAGE)(rng).pieces))
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
                connection.send(GREETING[:1] if rng.randrange(2) else b"\0")
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
    print("begun", flush=True)
    for _ in deeds:
        pass


if __name__ == "__main__":
    main(sys.argv[1:])
