"""Parts for tests of the transport: one driven as a node drives it, peers in processes of their own,
listeners that speak no ZMTP, and network namespaces."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import zmq

from tests.support.paths import ROOT
from tests.support.ports import free_ports
from zelect.core.timing import Proof
from zelect.node.transport.connection_limits import ConnectionLimits
from zelect.node.transport.death_probe import Verdict
from zelect.node.transport.router import Received
from zelect.node.transport.transport import Change, Transport
from zelect.security.keys import Caller, ClientKeys, Directory, KeyPair, Keyring, Permission
from zelect.system.clock import now_us
from zelect.system.poller import Poller
from zelect.system.sockets import Context

LIMIT_BYTES = 4096


def at(port: int) -> str:
    return f"tcp://127.0.0.1:{port}"


class Loop:
    """A transport and its poller, turned as the node turns them. Keeps whatever came."""

    def __init__(
        self,
        listen: int,
        peers: dict[int, str],
        proof: Proof = Proof.REFUSED,
        keyring: Keyring | None = None,
        limits: ConnectionLimits | None = None,
    ) -> None:
        self.port = listen
        self.peers = peers
        self.context: Context = zmq.Context()
        self.poller = Poller()
        self.transport = Transport(
            self.context,
            listen=at(listen),
            max_message_bytes=LIMIT_BYTES,
            poller=self.poller,
            proof=proof,
            keyring=keyring,
            limits=limits,
        )
        self.changes: list[Change] = []
        self.received: list[Received] = []
        self.verdicts: list[Verdict] = []

    def open(self) -> Loop:
        self.transport.router.bind()
        self.transport.connect(self.peers)
        return self

    def turn(self) -> None:
        wait_us = min(20_000, max(0, self.transport.deadline_us() - now_us()))
        ready = self.poller.poll(-(-wait_us // 1000))
        self.changes += self.transport.service(ready)
        self.received += self.transport.router.receive(100)
        self.verdicts += self.transport.take_verdicts()

    def until(self, condition: Callable[[], object], within_s: float = 30.0, what: str = "") -> None:
        """Turn until `condition` holds; fail after `within_s` seconds."""
        end = time.monotonic() + within_s
        while not condition():
            assert time.monotonic() < end, f"not within {within_s} s: {what}; {self.transport.counters}"
            self.turn()

    def until_up(self, *peers: int) -> None:
        self.until(lambda: all(self.transport.links[peer].up for peer in peers), what=f"{peers} up")

    def payloads(self) -> list[bytes]:
        return [message.payload for message in self.received]

    def close(self) -> None:
        try:
            self.transport.close()
        except BaseException:
            self.context.destroy(linger=0)  # else what is still open holds up the end of all tests
            raise
        ends(self.context)


@contextlib.contextmanager
def loop(
    listen: int,
    peers: dict[int, str],
    proof: Proof = Proof.REFUSED,
    keyring: Keyring | None = None,
    limits: ConnectionLimits | None = None,
) -> Iterator[Loop]:
    made = Loop(listen, peers, proof, keyring, limits)
    try:
        yield made.open()
    finally:
        made.close()


def ends(context: Context) -> None:
    """End `context`; fail, and don't hang, when a socket of it was left open."""
    thread = threading.Thread(target=context.term, daemon=True)
    thread.start()
    thread.join(20)
    assert not thread.is_alive(), "a socket was left open"


ECHO = """
import sys, zmq
from tests.support.wires import Loop, at
node = Loop(int(sys.argv[1]), {1: at(int(sys.argv[2]))}).open()
print("ready", flush=True)
while True:
    node.turn()
    for message in node.received:
        node.transport.links[1].send(b"echo " + message.payload)
        sys.stdout.buffer.write(message.payload[:64] + b"\\n")
        sys.stdout.flush()
    node.received.clear()
"""


class PeerProcess:
    """A peer in a process of its own: echoes over its link what it receives, and prints it."""

    def __init__(self, listen: int, to: int) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", ECHO, str(listen), str(to)], cwd=ROOT, stdout=subprocess.PIPE
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"ready\n"

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def kill(self) -> list[bytes]:
        """Kill it; the lines it printed."""
        self.process.kill()
        lines, _ = self.process.communicate(timeout=20)
        return list(lines.splitlines())


class Pair:
    """This process as node 1 and a process of its own as node 2."""

    def __init__(self) -> None:
        self.here, self.there = free_ports(2)
        self.loop = Loop(self.here, {2: at(self.there)}).open()
        self.peer = PeerProcess(self.there, self.here)

    def restart(self) -> None:
        self.peer = PeerProcess(self.there, self.here)

    def echo(self, payload: bytes) -> None:
        """One message there and back, again until it gets through: both links must be up."""
        asked: list[float] = []

        def echoed() -> bool:
            if not asked or time.monotonic() > asked[-1] + 0.2:
                self.loop.transport.links[2].send(payload)
                asked.append(time.monotonic())
            return b"echo " + payload in self.loop.payloads()

        self.loop.until(echoed, what=f"{payload!r} echoed")

    def close(self) -> None:
        self.peer.kill()
        self.loop.close()


class Keys:
    """Key pairs of nodes 1 and 2 and an operator who may send admin commands, and their directory."""

    def __init__(self) -> None:
        self.pairs: dict[int, list[KeyPair]] = {node: [KeyPair.new()] for node in (1, 2)}
        self.operator = KeyPair.new()

    @property
    def directory(self) -> Directory:
        nodes = {node: tuple(pair.public for pair in pairs) for node, pairs in self.pairs.items()}
        owners = {key: Caller(f"node {node}", node, Permission.READ) for node, keys in nodes.items() for key in keys}
        return Directory(nodes, owners | {self.operator.public: Caller("operator", 0, Permission.ADMIN)})

    def of(self, node: int, turn: int = 0) -> Keyring:
        return Keyring(self.pairs[node][turn], self.directory)


class HistoryRecorder:
    """A TCP proxy to `port` for one connection after the other; keeps every byte, by direction."""

    def __init__(self, port: int) -> None:
        self.there, self.back = bytearray(), bytearray()
        self._target = port
        self._stop = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(0.05)
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while not self._stop:
            with contextlib.suppress(TimeoutError, OSError):
                client, _ = self._listener.accept()
                with client, socket.create_connection(("127.0.0.1", self._target)) as target:
                    self._carry(client, target)

    def _carry(self, client: socket.socket, target: socket.socket) -> None:
        other = {client: (target, self.there), target: (client, self.back)}
        while not self._stop:
            for source in select.select([client, target], [], [], 0.05)[0]:
                data = source.recv(65_536)
                if not data:
                    return
                sink, kept = other[source]
                kept += data
                sink.sendall(data)

    def close(self) -> None:
        self._stop = True
        self._thread.join(20)
        self._listener.close()


class UnknownClients:
    """DEALERs of somebody who is no peer."""

    def __init__(self) -> None:
        self._context: Context = zmq.Context()
        self._sockets: list[zmq.Socket[bytes]] = []

    def dealer(self, to: Loop, lock: ClientKeys | None = None) -> zmq.Socket[bytes]:
        made = self._context.socket(zmq.DEALER)
        made.setsockopt(zmq.LINGER, 0)
        self._sockets.append(made)  # one that is forgotten closes, and drops what it has not sent
        if lock is not None:
            lock.apply_to(made, 0)
        made.connect(at(to.port))
        return made

    def is_heard_by(self, to: Loop) -> None:
        """A well-behaved message gets through."""
        self.dealer(to).send(b"well-behaved")
        to.until(lambda: b"well-behaved" in to.payloads(), what="delivered")

    def close(self) -> None:
        self._context.destroy(0)


class BadListener:
    """Accepts on `port`, says `text` to each who connects, and holds the connection or closes it."""

    def __init__(self, port: int, text: bytes, hold: bool = True) -> None:
        self.accepted = 0
        self._text, self._hold = text, hold
        self._held: list[socket.socket] = []
        self._stop = False
        self._listener = socket.create_server(("127.0.0.1", port), backlog=64)
        self._listener.settimeout(0.05)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while not self._stop:
            try:
                connection, _ = self._listener.accept()
            except TimeoutError:
                continue
            self.accepted += 1
            with contextlib.suppress(OSError):
                connection.sendall(self._text)
            if self._hold:
                self._held.append(connection)
            else:
                connection.close()

    def close(self) -> None:
        self._stop = True
        self._thread.join(20)
        self._listener.close()
        for connection in self._held:
            # A reset, so that no connection in TIME_WAIT keeps the port.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            connection.close()


def in_namespace(script: str, *arguments: str, mount: bool = False, within_s: float = 90) -> str:
    """Run `script` in a network namespace of its own with loopback up, and with `mount` in a mount namespace too; what
    it printed.

    Skips the test where that can't be had.
    """
    if sys.platform != "linux" or shutil.which("unshare") is None or shutil.which("ip") is None:
        pytest.skip("needs Linux with unshare and ip to make a network namespace")
    enter = ["unshare", "--net", "--map-root-user", *(["--mount"] if mount else [])]
    if subprocess.run([*enter, "ip", "link", "set", "lo", "up"], capture_output=True).returncode != 0:
        pytest.skip("not permitted to make a network namespace")
    start = ["sh", "-c", 'ip link set lo up && exec "$0" "$@"', sys.executable, "-c", script, *arguments]
    result = subprocess.run([*enter, *start], cwd=ROOT, capture_output=True, text=True, timeout=within_s)
    assert result.returncode == 0, result.stderr
    return result.stdout


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))
