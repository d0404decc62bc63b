"""The connections that others made to the ROUTER, and how much of this process they may use.

libzmq accepts every connection, and remembers what it sends until that is read. Here each
connection has an entry, by its descriptor, from the ROUTER's monitor and the messages themselves;
one that takes too much is shut down, and libzmq cleans up behind it:

- too many connections: the oldest that has sent no valid message yet is closed, then the newest;
- too many that are shut down and not closed yet, since libzmq closes none before what it read of it
  has been read here: a new one is closed at once, before it could send anything;
- too many of one key: the oldest of them is closed;
- too fast: messages are dropped, and at ten times the rate the connection is closed;
- unknown clients that keep sending and never send anything valid are closed;
- too many bytes that no message accounts for, such as one without an end: the largest is closed. The
  kernel knows how many came (TCP_INFO), the loop how many it has read.

Everything is counted by its reason. The limits lie far above what an election needs. What a connection sends
is counted where it is read, in `Router`; what else it costs is checked here.

Connections cost descriptors. When a process has none left, libzmq's listener asks the kernel for the
same connection again and again, at 100 % of a core, and nothing can be opened. Hence the soft limit of
open files is raised as far as is of use, and fewer connections are allowed where the hard limit is low.
"""

from __future__ import annotations

import contextlib
import resource
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import zmq

from zelect.config.sections import LimitsConfig
from zelect.node.transport.peer_connections import PeerConnections, Process
from zelect.system.log import Log
from zelect.system.poller import Poller
from zelect.system.sockets import Counters, borrowed, received_bytes, reserve_descriptor

_EVENTS = (
    zmq.EVENT_LISTENING
    | zmq.EVENT_ACCEPTED
    | zmq.EVENT_DISCONNECTED
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
)
_FAILED = {
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL: "handshakes_aborted",
    zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL: "handshakes_failed",
    zmq.EVENT_HANDSHAKE_FAILED_AUTH: "handshakes_refused",
}
_EVENT = struct.Struct("=HI")
_EVENTS_PER_TURN = 1024
_AUDIT_US = 100_000
_AUDIT_OF_ALL_US = 1_000_000
"""Connections that have sent something valid are looked at less often: asking the kernel about each peer
ten times a second would be a tenth of what an idle node does."""
_PER_KEY = 16
_INTERNET = (socket.AF_INET, socket.AF_INET6)
_CLOSING_FACTOR = 2
"""This many times the connection limit may wait for libzmq to close them."""
_HANDSHAKE_BYTES = 4096
_LEAST_MESSAGES_UNREAD = 4
"""So many of the longest messages may be unread, whatever the limit says."""

_OWN_DESCRIPTORS = 128
"""Files, threads' pipes, sockets of Redis, and whatever the libraries open."""
_DESCRIPTORS_PER_PEER = 8
_USEFUL_DESCRIPTORS = 32_768
"""Room for many connections that come before the loop has closed those over the limit."""


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """What all connections together may be (`connections`) and leave unread (`unread_bytes`), and
    how many messages a second one of them, or one key, may send."""

    connections: int = 512
    messages_per_s: int = 1000
    unread_bytes: int = 1 << 20


@dataclass(slots=True)
class Rate:
    """Messages in the second that began at `since_us`."""

    since_us: int = 0
    count: int = 0


@dataclass(slots=True)
class Connection:
    """What one connection has sent so far. `key`: what its valid messages came with, empty in plain text; None
    before the first valid one. `invalid_messages`: how many came before that. `process`: the peer's process that its
    newest message from one named."""

    rate: Rate = field(default_factory=Rate)
    read_bytes: int = 0
    invalid_messages: int = 0
    key: bytes | None = None
    process: Process | None = None


class Connections:
    """The connections of one ROUTER, which listens on `port`. `entries`: by descriptor, in the order in which they
    came; `closing`: the descriptors that are shut down, but libzmq has not closed them yet; `peers` is told which
    close. Belongs to the loop's thread."""

    def __init__(
        self, limits: ConnectionLimits, counters: Counters, poller: Poller, peers: PeerConnections, port: int
    ) -> None:
        self.entries: dict[int, Connection] = {}
        self.closing: set[int] = set()
        self.due_us = 0
        """When `service` is to be called again although nothing is ready."""
        self.has_unproven = False
        """Whether, as of the last look, there was a connection that had sent nothing valid."""
        self._limits, self._port = limits, port
        self._counters = counters
        self._poller = poller
        self._peers = peers
        self._router: zmq.Socket[bytes] | None = None
        self._monitor: zmq.Socket[bytes] | None = None
        self._listener = -1
        self._audit_of_all_us = 0
        self._was_over_limit = False  # since memory was given back

    def watch(self, router: zmq.Socket[bytes], context: zmq.Context[zmq.Socket[bytes]], name: str) -> None:
        """Watch `router`, before it binds. Raises zmq.ZMQError."""
        reserve_descriptor()
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
        self.read_monitor(0)
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
        for descriptor in list(self.entries):
            self._forget(descriptor)

    def service(self, ready: Mapping[Any, int], now_us: int) -> None:
        """Note which connections came and went, and enforce the limits."""
        if self._monitor in ready:
            self.read_monitor(now_us)
        if now_us >= self.due_us:
            self._audit(now_us)

    def audit_all(self) -> None:
        """Have the next `service` look at every connection."""
        self.due_us = self._audit_of_all_us = 0

    def mark_valid(self, descriptor: int, key: bytes) -> None:
        """A connection has sent a valid message."""
        connection = self.entries.get(descriptor)
        if connection is None or connection.key is not None:
            return
        connection.key = key
        if key:
            same = [other for other, one in self.entries.items() if one.key == key]
            for other in same[: max(0, len(same) - _PER_KEY)]:
                self.close_one(other, "over_key_limit")

    def mark_process(self, descriptor: int, route: bytes, process: Process) -> None:
        """A connection has brought a message of `process`, by `route`."""
        connection = self.entries.get(descriptor)
        if connection is not None:
            connection.process = process
            self._peers.spoke(process, descriptor, route)

    def close_one(self, descriptor: int, reason: str) -> None:
        """Shut a connection down. libzmq closes the descriptor when it notices, and says so on
        the monitor before."""
        if not self._forget(descriptor):
            return
        self.closing.add(descriptor)
        self._was_over_limit = True
        self._counters[f"connections_{reason}"] += 1
        with contextlib.suppress(OSError), borrowed(descriptor) as open_connection:
            # libzmq may have closed it, and this program opened something else since.
            if open_connection.family in _INTERNET and open_connection.getsockname()[1] == self._port:
                open_connection.shutdown(socket.SHUT_RDWR)

    def _forget(self, descriptor: int) -> bool:
        """The connection is closed, or will be; whether there was one."""
        self._peers.closed(descriptor)
        return self.entries.pop(descriptor, None) is not None

    def read_monitor(self, now_us: int) -> None:
        """Note which connections came and went."""
        monitor = self._monitor
        if monitor is None:
            return
        with contextlib.suppress(zmq.Again):
            for _ in range(_EVENTS_PER_TURN):
                head, *_ = monitor.recv_multipart(zmq.NOBLOCK)
                code, value = _EVENT.unpack(head)
                if code == zmq.EVENT_ACCEPTED:
                    self._counters["connections_accepted"] += 1
                    self.due_us = min(self.due_us, now_us + _AUDIT_US)
                    self._forget(value)
                    self.closing.discard(value)
                    self.entries[value] = Connection()
                    self.has_unproven = True
                    if len(self.closing) >= _CLOSING_FACTOR * self._limits.connections:
                        self.close_one(value, "over_limit")
                elif code == zmq.EVENT_DISCONNECTED:
                    self._forget(value)
                    self.closing.discard(value)
                elif code == zmq.EVENT_LISTENING:
                    self._listener = value
                else:
                    self._counters[_FAILED[code]] += 1
        # Only after reading all: many of those that came have gone since.
        while len(self.entries) > self._limits.connections:
            unproven = (one for one, connection in self.entries.items() if connection.key is None)
            oldest = next(unproven, None)
            self.close_one(next(reversed(self.entries)) if oldest is None else oldest, "over_limit")

    def _audit(self, now_us: int) -> None:
        of_all = now_us >= self._audit_of_all_us
        if of_all:
            self._audit_of_all_us = now_us + _AUDIT_OF_ALL_US
        audited = [(one, connection) for one, connection in self.entries.items() if of_all or connection.key is None]
        unproven = any(connection.key is None for _, connection in audited)
        self.has_unproven = unproven
        self.due_us = now_us + _AUDIT_US if unproven else self._audit_of_all_us
        if of_all and self._was_over_limit and not unproven and not self.closing:
            self._was_over_limit = False
            _give_memory_back()
        unread = {one: max(0, received_bytes(one) - c.read_bytes - _HANDSHAKE_BYTES) for one, c in audited}
        total = sum(unread.values())
        for one, size in sorted(unread.items(), key=lambda item: -item[1]):
            if total <= self._limits.unread_bytes:
                return
            total -= size
            self.close_one(one, "unread")


def _give_memory_back() -> None:
    """Have the C library return what it keeps free. It would keep all of it: what many connections took
    lies between things that stay. Does nothing where the library can't (it is glibc's)."""
    import ctypes  # here only: an idle node never needs it

    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


# -- descriptors --------------------------------------------------------------------------------


def raise_descriptor_limit() -> None:
    """Raise the soft limit of open files as far as is of use; for a process of a node's own. Never raises."""
    with contextlib.suppress(OSError, ValueError):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = _USEFUL_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _USEFUL_DESCRIPTORS)
        if soft != resource.RLIM_INFINITY and soft < most:
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def room_for(connections: int, peers: int) -> int:
    """How many of `connections` that others make the soft limit has room for."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return connections
    # Half of what is left, as connections come faster than they can be closed.
    return max(1, min(connections, (soft - _OWN_DESCRIPTORS - _DESCRIPTORS_PER_PEER * peers) // 2))


def connection_limits_of(limits: LimitsConfig, peers: int, log: Log) -> ConnectionLimits:
    """The limits that the configuration asks for, as far as descriptors suffice."""
    room = room_for(limits.max_connections, peers)
    if room < limits.max_connections:
        fix = f"raise the limit of open files (ulimit -n) by {2 * (limits.max_connections - room)}"
        log.event("warning", "descriptors_scarce", max_connections=room, fix=fix)
    unread_bytes = max(limits.max_unread_bytes, _LEAST_MESSAGES_UNREAD * limits.max_message_bytes)
    return ConnectionLimits(room, limits.max_messages_per_s, unread_bytes)
