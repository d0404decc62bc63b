"""The connections that others made to the ROUTER, and what they may take up.

libzmq accepts whoever comes, and remembers whatever they send until it is read. Here each
connection has an entry, by its descriptor, from the ROUTER's monitor and the messages themselves;
one that takes too much is shut down, and libzmq cleans up behind it:

- too many connections: the oldest that has said nothing sensible yet goes, then the newest;
- too many that are shut down and not closed yet, since libzmq closes none before what it read of it
  has been read here: whoever comes now goes at once, before it could say anything;
- too many of one key: the oldest of them goes;
- too fast: messages are dropped, and at ten times the rate the connection goes;
- unknown clients that talk and talk and say nothing sensible go;
- too many bytes that no message accounts for, such as one without an end: the largest goes. The
  kernel knows how many came (TCP_INFO), the loop how many it has read.

Everything is counted by its reason. The bounds lie far above what an election needs.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import zmq

from zelect.node.transport.malloc_trim import give_back
from zelect.system.poller import Poller
from zelect.system.sockets import Counters, borrowed

__all__ = ["ConnectionLimits", "Connections"]

_EVENTS = (
    zmq.EVENT_LISTENING
    | zmq.EVENT_ACCEPTED
    | zmq.EVENT_DISCONNECTED
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
)
_FAILED = {
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL: "handshake_broken",
    zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL: "handshake_wrong",
    zmq.EVENT_HANDSHAKE_FAILED_AUTH: "handshake_refused",
}
_EVENT = struct.Struct("=HI")
_EVENTS_PER_TURN = 1024
_AUDIT_US = 100_000
_AUDIT_OF_ALL_US = 1_000_000
"""Who has said something sensible is looked at less often: asking the kernel about each peer ten
times a second would be a tenth of what an idle node does."""
_SECOND_US = 1_000_000
_TIMEOUT = 10
"""At so many times the rate a connection is closed."""
_NEVER_VALID_MOST = 1000
"""Messages of one connection before the first sensible one."""
_PER_KEY = 16
_GONE = 2
"""So many times the connections may be waiting for libzmq to close them."""
_HANDSHAKE_BYTES = 4096
_RECEIVED_AT = 128  # tcpi_bytes_received in struct tcp_info of Linux


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """What all connections together may be (`connections`) and leave unread (`unread_bytes`), and
    how many messages a second one of them, or one key, may send."""

    connections: int = 512
    messages_per_s: int = 1000
    unread_bytes: int = 16 << 20


@dataclass(slots=True)
class _Rate:
    """Messages in the second that began at `since_us`."""

    since_us: int = 0
    count: int = 0

    def add(self, now_us: int) -> int:
        if now_us - self.since_us >= _SECOND_US:
            self.since_us, self.count = now_us, 0
        self.count += 1
        return self.count


@dataclass(slots=True)
class _Connection:
    rate: _Rate = field(default_factory=_Rate)
    read_bytes: int = 0
    never_valid: int = 0
    key: bytes | None = None  # what its sensible messages came with; empty in plain text


class Connections:
    """Keeps the book on the connections of one ROUTER. Belongs to the loop's thread."""

    def __init__(self, bounds: ConnectionLimits, counters: Counters, poller: Poller) -> None:
        self._bounds = bounds
        self._counters = counters
        self._poller = poller
        self._router: zmq.Socket[bytes] | None = None
        self._monitor: zmq.Socket[bytes] | None = None
        self._listener = -1
        self._connections: dict[int, _Connection] = {}  # by descriptor, in the order in which they came
        self._gone: set[int] = set()  # shut down, but libzmq has not closed them yet
        self._rates: dict[bytes, _Rate] = {}  # by key; at most as many as the directory has
        self.due_us = 0
        """When `service` is to be called again although nothing is ready."""
        self._audit_of_all_us = 0
        self._over_limit = False  # since memory was given back

    def __len__(self) -> int:
        return len(self._connections)

    def watch(self, router: zmq.Socket[bytes], context: zmq.Context[zmq.Socket[bytes]], name: str) -> None:
        """Watch `router`, before it binds. Raises zmq.ZMQError."""
        router.monitor(name, _EVENTS)
        self._router = router
        self._monitor = monitor = context.socket(zmq.PAIR)
        monitor.setsockopt(zmq.LINGER, 0)
        # Without limit: a full queue of events would block libzmq's I/O thread, and all links with it.
        monitor.setsockopt(zmq.RCVHWM, 0)
        monitor.connect(name)
        self._poller.register(monitor, zmq.POLLIN)

    @property
    def listener(self) -> int:
        """The descriptor that the ROUTER listens on."""
        self._drain()
        return self._listener

    def close(self) -> None:
        """Stop watching; before the ROUTER is closed."""
        if self._router is not None:
            with contextlib.suppress(zmq.ZMQError):
                self._router.disable_monitor()
            self._router = None
        if self._monitor is not None:
            self._poller.unregister(self._monitor)
            self._monitor.close(0)
            self._monitor = None
        self._connections.clear()

    def service(self, ready: Mapping[Any, int], now_us: int) -> None:
        """Take in who came and went, and look after the bounds."""
        if self._monitor in ready:
            self._drain()
            self.due_us = min(self.due_us, now_us + _AUDIT_US)
        if now_us >= self.due_us:
            self._audit(now_us)

    def takes(self, descriptor: int, key: bytes, size: int, last: bool, now_us: int) -> bool:
        """Account for a frame of `size` bytes; whether the message that ends with it may be read.
        `key`: the sender's, empty in plain text."""
        connection = self._connections.get(descriptor)
        if connection is None:
            return descriptor not in self._gone  # else so new that it is not in the book yet
        connection.read_bytes += size + (9 if size > 200 else 2) + (33 if key else 0)
        if not last:
            return True
        if connection.key is None:
            connection.never_valid += 1
            if connection.never_valid > _NEVER_VALID_MOST:
                self.evict(descriptor, "never_valid")
                return False
        count = (self._rates.setdefault(key, _Rate()) if key else connection.rate).add(now_us)
        if count <= self._bounds.messages_per_s:
            return True
        self._counters["too_fast"] += 1
        if count > _TIMEOUT * self._bounds.messages_per_s:
            self.evict(descriptor, "too_fast")
        return False

    def know(self, descriptor: int, key: bytes) -> None:
        """A connection has said something sensible."""
        connection = self._connections.get(descriptor)
        if connection is None or connection.key is not None:
            return
        connection.key = key
        if key:
            same = [other for other, one in self._connections.items() if one.key == key]
            for other in same[: max(0, len(same) - _PER_KEY)]:
                self.evict(other, "same_key")

    def evict(self, descriptor: int, reason: str) -> None:
        """Shut a connection down. libzmq closes the descriptor when it notices, and says so on
        the monitor before."""
        if self._connections.pop(descriptor, None) is None:
            return
        self._gone.add(descriptor)
        self._over_limit = True
        self._counters[f"evicted_{reason}"] += 1
        with contextlib.suppress(OSError, ValueError), borrowed(descriptor) as open_connection:
            open_connection.shutdown(socket.SHUT_RDWR)

    def _drain(self) -> None:
        monitor = self._monitor
        if monitor is None:
            return
        with contextlib.suppress(zmq.Again):
            for _ in range(_EVENTS_PER_TURN):
                head, *_ = monitor.recv_multipart(zmq.NOBLOCK)
                code, value = _EVENT.unpack(head)
                if code == zmq.EVENT_ACCEPTED:
                    self._counters["accepted"] += 1
                    self._connections.pop(value, None)
                    self._gone.discard(value)
                    self._connections[value] = _Connection()
                    if len(self._gone) >= _GONE * self._bounds.connections:
                        self.evict(value, "over_limit")
                elif code == zmq.EVENT_DISCONNECTED:
                    self._connections.pop(value, None)
                    self._gone.discard(value)
                elif code == zmq.EVENT_LISTENING:
                    self._listener = value
                else:
                    self._counters[_FAILED[code]] += 1
        # Only now: of those that came a good deal have gone since.
        while len(self._connections) > self._bounds.connections:
            unknowns = (one for one, connection in self._connections.items() if connection.key is None)
            oldest = next(unknowns, None)
            self.evict(next(reversed(self._connections)) if oldest is None else oldest, "over_limit")

    def _audit(self, now_us: int) -> None:
        everybody = now_us >= self._audit_of_all_us
        if everybody:
            self._audit_of_all_us = now_us + _AUDIT_OF_ALL_US
        looked_at = [
            (one, connection) for one, connection in self._connections.items() if everybody or connection.key is None
        ]
        unknowns = any(connection.key is None for _, connection in looked_at)
        self.due_us = now_us + _AUDIT_US if unknowns else self._audit_of_all_us
        if everybody and self._over_limit and not unknowns and not self._gone:
            self._over_limit = False
            give_back()
        unread = {one: self._unread(one, connection) for one, connection in looked_at}
        total = sum(unread.values())
        for one, size in sorted(unread.items(), key=lambda item: -item[1]):
            if total <= self._bounds.unread_bytes:
                return
            total -= size
            self.evict(one, "unread")

    def _unread(self, descriptor: int, connection: _Connection) -> int:
        """Bytes that came over a connection and in no message; 0 where the system doesn't tell."""
        if sys.platform != "linux":
            return 0
        with contextlib.suppress(OSError, ValueError, struct.error):
            with borrowed(descriptor) as open_connection:
                info = open_connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _RECEIVED_AT + 8)
            (came,) = struct.unpack_from("=Q", info, _RECEIVED_AT)
            return max(0, int(came) - connection.read_bytes - _HANDSHAKE_BYTES)
        return 0
