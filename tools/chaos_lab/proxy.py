"""The cluster's links as a process of its own: TCP proxies for every ordered pair (a, b).

    python -m tools.chaos_lab.proxy < orders > answers

The first line of input is a JSON object with the `host` to listen on and `routes`: a list of
[a, b, host, port]: who dials, whom, and where b listens; where b has several addresses, one for each. The answer is
the list of the ports to dial. Then come orders, each answered by "ok": {"blocked": [[a, b], ...],
"delay_ms": [[a, b, ms], ...], "refused": [[a, b], ...]}, which replaces what was ordered before,
with {"reset": [[a, b], ...]} and {"point": [b, host, port]} where wanted. Party 0 is Redis.

A blocked direction holds its bytes, as a network does whose packets are lost and sent again: what
was on its way arrives late, or never, if the connection is reset by then. A direction is that of
the bytes, not of the connection: blocking (a, b) also holds b's half of the handshakes that a
waits for. A blocked link accepts connections and stays silent; it never refuses. `refused` pairs
do: their listeners are closed and their connections reset, although b lives.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import struct
import sys
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from zelect.devcluster.layout import find_port
from zelect.system.clock import now_us

Pair = tuple[int, int]
_MOST_QUEUED = 1 << 20
_CHUNK = 1 << 16
_RESET = struct.pack("ii", 1, 0)


@dataclass(slots=True)
class _Half:
    """The bytes from `source` to `sink`, which belong to `direction`."""

    source: socket.socket
    sink: socket.socket
    direction: Pair
    queue: deque[tuple[int, bytes]] = field(default_factory=deque)
    queued: int = 0
    ended: bool = False


@dataclass(slots=True, eq=False)
class _Route:
    """How one party gets to another at one of its addresses. `port`: where it dials; `listener`: None while it is
    refused."""

    pair: Pair
    target: tuple[str, int]
    port: int = 0
    listener: socket.socket | None = None


@dataclass(slots=True, eq=False)
class _Connection:
    """One connection through the proxy. `dialled`: the connection to the target was begun."""

    route: _Route
    client: socket.socket
    target: socket.socket
    there: _Half
    back: _Half
    dialled: bool = False
    connected: bool = False


class _Proxy:
    """All routes, in one loop."""

    def __init__(self, host: str, routes: list[_Route]) -> None:
        self._host = host
        self._routes = routes
        self._connections: set[_Connection] = set()
        self._by_fd: dict[int, tuple[_Connection, _Half]] = {}
        self._masks: dict[int, int] = {}
        self._blocked: set[Pair] = set()
        self._delays_us: dict[Pair, int] = {}
        self._poll = select.epoll()
        for route in routes:
            while not route.port:
                with contextlib.suppress(OSError):  # somebody took the port first
                    self._listen(route, find_port())

    @property
    def ports(self) -> list[int]:
        return [route.port for route in self._routes]

    def _listen(self, route: _Route, port: int) -> None:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((self._host, port))
        except OSError:
            listener.close()
            raise
        listener.listen(128)
        listener.setblocking(False)
        route.listener, route.port = listener, port
        self._poll.register(listener.fileno(), select.EPOLLIN)

    # -- orders ---------------------------------------------------------------------------

    def order(self, table: dict[str, Any]) -> None:
        """Carry out one order."""
        if "blocked" in table:
            self._blocked = {(a, b) for a, b in table["blocked"]}
            self._delays_us = {(a, b): int(ms * 1000) for a, b, ms in table["delay_ms"]}
            self._refuse({(a, b) for a, b in table["refused"]})
        if "point" in table:
            to, host, port = table["point"]
            for route in self._routes:
                route.target = (host, port) if route.pair[1] == to else route.target
        for a, b in table.get("reset", ()):
            self._reset((a, b))
        for connection in list(self._connections):
            for half in (connection.there, connection.back):
                if half.queue and half.direction not in self._delays_us:
                    half.queue = deque((0, data) for _, data in half.queue)
            self._move(connection) if connection.connected else self._arm(connection)

    def _refuse(self, pairs: set[Pair]) -> None:
        for route in self._routes:
            if route.pair in pairs and route.listener is not None:
                self._poll.unregister(route.listener.fileno())
                route.listener.close()
                route.listener = None
                self._reset(route.pair)
            elif route.pair not in pairs and route.listener is None:
                self._listen(route, route.port)

    def _reset(self, pair: Pair) -> None:
        for connection in [one for one in self._connections if one.route.pair == pair]:
            for end in (connection.client, connection.target):
                with contextlib.suppress(OSError):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self._close(connection)

    # -- the loop -------------------------------------------------------------------------

    def run(self) -> None:
        """Serve until the input ends."""
        orders = b""
        stdin = sys.stdin.fileno()
        self._poll.register(stdin, select.EPOLLIN)
        while True:
            for descriptor, events in self._poll.poll(self._wait_s()):
                if descriptor == stdin:
                    more = os.read(stdin, _CHUNK)
                    if not more:
                        return
                    *lines, orders = (orders + more).split(b"\n")
                    for line in lines:
                        self.order(json.loads(line))
                        print("ok", flush=True)
                elif descriptor in self._by_fd:
                    self._serve(descriptor, events)
                else:
                    self._accept(descriptor)
            if self._delays_us:
                for connection in list(self._connections):
                    self._move(connection)

    def _wait_s(self) -> float:
        dues = (
            [
                half.queue[0][0]
                for connection in self._connections
                for half in (connection.there, connection.back)
                if half.queue and half.direction not in self._blocked
            ]
            if self._delays_us
            else []
        )
        return max(0.0, (min(dues) - now_us()) / 1e6) + 0.0005 if dues else 60.0

    def _accept(self, descriptor: int) -> None:
        listening = ((one, one.listener) for one in self._routes if one.listener is not None)
        route, listener = next(((one, end) for one, end in listening if end.fileno() == descriptor), (None, None))
        if route is None or listener is None:
            return
        with contextlib.suppress(OSError):
            client, _ = listener.accept()
            target = socket.socket()
            for end in (client, target):
                end.setblocking(False)
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            a, b = route.pair
            there, back = _Half(client, target, (a, b)), _Half(target, client, (b, a))
            connection = _Connection(route, client, target, there, back)
            self._connections.add(connection)
            self._by_fd[client.fileno()] = (connection, there)
            self._by_fd[target.fileno()] = (connection, back)
            self._arm(connection)

    def _arm(self, connection: _Connection) -> None:
        """Ask the kernel for what may happen now. Where nothing may, the descriptor is taken out
        altogether: its end would be told again and again."""
        a, b = connection.route.pair
        if not connection.dialled:
            if self._blocked & {(a, b), (b, a)}:
                return  # the handshake needs both directions
            connection.dialled = True
            connection.target.connect_ex(connection.route.target)
        if not connection.connected:
            self._watch(connection.target, select.EPOLLOUT)
            return
        for half, other in ((connection.there, connection.back), (connection.back, connection.there)):
            mask = 0
            if half.direction not in self._blocked and not half.ended and half.queued < _MOST_QUEUED:
                mask |= select.EPOLLIN
            if other.queue and other.direction not in self._blocked and other.queue[0][0] <= now_us():
                mask |= select.EPOLLOUT
            self._watch(half.source, mask)

    def _watch(self, end: socket.socket, mask: int) -> None:
        descriptor = end.fileno()
        before = self._masks.get(descriptor, 0)
        if mask == before:
            return
        if not mask:
            self._poll.unregister(descriptor)
            del self._masks[descriptor]
            return
        (self._poll.modify if before else self._poll.register)(descriptor, mask)
        self._masks[descriptor] = mask

    def _serve(self, descriptor: int, events: int) -> None:
        connection, incoming = self._by_fd[descriptor]
        if not connection.connected:
            if connection.target.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                self._close(connection)
                return
            connection.connected = True
        elif events & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR) and not self._read(incoming):
            incoming.ended = True
        self._move(connection)

    def _read(self, half: _Half) -> bool:
        """Take what there is; whether its source goes on."""
        try:
            data = half.source.recv(_CHUNK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        if data:
            half.queue.append((now_us() + self._delays_us.get(half.direction, 0), data))
            half.queued += len(data)
        return bool(data)

    def _move(self, connection: _Connection) -> None:
        """Pass on what is due; close when one side has ended and all is passed on."""
        if not connection.connected:
            return
        for half in (connection.there, connection.back):
            if not self._flush(half) or (half.ended and not half.queue):
                self._close(connection)
                return
        self._arm(connection)

    def _flush(self, half: _Half) -> bool:
        """Send what is due; False when the sink is gone."""
        while half.queue and half.direction not in self._blocked and half.queue[0][0] <= now_us():
            due_us, data = half.queue[0]
            try:
                sent = half.sink.send(data)
            except BlockingIOError:
                return True
            except OSError:
                return False
            half.queued -= sent
            if sent < len(data):
                half.queue[0] = (due_us, data[sent:])
                return True
            half.queue.popleft()
        return True

    def _close(self, connection: _Connection) -> None:
        self._connections.discard(connection)
        for end in (connection.client, connection.target):
            self._watch(end, 0)
            self._by_fd.pop(end.fileno(), None)
            end.close()


def _first_line(descriptor: int) -> bytes:
    """Byte by byte: what follows belongs to the loop."""
    line = b""
    while not line.endswith(b"\n"):
        line += os.read(descriptor, 1)
    return line


def main() -> None:
    table = json.loads(_first_line(sys.stdin.fileno()))
    proxy = _Proxy(table["host"], [_Route((a, b), (host, port)) for a, b, host, port in table["routes"]])
    print(json.dumps(proxy.ports), flush=True)
    proxy.run()


if __name__ == "__main__":
    main()
