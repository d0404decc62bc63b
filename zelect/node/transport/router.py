"""Bytes from peers and clients: the ROUTER, which everything that a node receives comes through.

A message that is not one frame is dropped and counted. With keys (`Keyring`) the
ROUTER speaks CURVE only, and the authenticator decides who may connect. When the node's own key changes, a second
ROUTER is made on the very same listening socket, so that there is no moment in which the port refuses:
a refusal would prove this node dead (R9).
"""

from __future__ import annotations

import errno
import ipaddress
import itertools
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import zmq

from zelect.node.transport.connection_limits import Connection, ConnectionLimits, Connections, Rate
from zelect.node.transport.peer_connections import InboundChange, PeerConnections, Process
from zelect.security.keys import Keyring
from zelect.security.zap_authenticator import DOMAIN, AuthenticatorFailed, ZapAuthenticator
from zelect.system.clock import now_us
from zelect.system.names import is_numeric, unmapped
from zelect.system.poller import Poller, has_messages
from zelect.system.sockets import CannotBind, Context, Counters, addresses_of, parse_endpoint, wire_bytes

PARTS_PER_TURN = 1024
"""Most frames read in one `receive`: a message of a million parts must not stop the loop."""

_FEW = 4
"""After so many messages at once more are taken for granted."""
_SECOND_US = 1_000_000
_RATE_TO_CLOSE = 10
"""At so many times the rate a connection is closed."""
_MOST_NEVER_VALID = 1000
"""Messages of one connection before the first valid one."""
_POLLIN = int(zmq.POLLIN)  # plain: an enumeration's operators are slow

_OPTIONS = {
    zmq.LINGER: 0,  # closing must not wait for a peer
    # Per connection; a flood waits in its own sender's buffers. What a connection leaves here when it
    # closes stays until it is read, and every message of it takes its time.
    zmq.RCVHWM: 16,
    # Of a connection that is being shut down, all that the kernel has of it is read all the same.
    zmq.RCVBUF: 128 * 1024,
    zmq.SNDHWM: 8,  # answers to the command line only, which asks again when it has one
    zmq.ROUTER_MANDATORY: 1,  # an answer to a client that has gone fails visibly
    zmq.BACKLOG: 1024,  # a whole cluster, its probes and unknown clients may connect at once
    zmq.HANDSHAKE_IVL: 1000,  # ms; unknown clients that say nothing give their descriptor back
    # TCP's own keepalive clears connections of hosts that vanished. Not ZMQ_HEARTBEAT_IVL: libzmq 4.3.5
    # aborts the process when that timer fires on a connection that broke while it was stopped at the
    # high-water mark, which any unknown client can bring about with a flood.
    zmq.TCP_KEEPALIVE: 1,
    zmq.TCP_KEEPALIVE_IDLE: 5,  # s
    zmq.TCP_KEEPALIVE_INTVL: 2,  # s
    zmq.TCP_KEEPALIVE_CNT: 3,
    zmq.TCP_MAXRT: 2000,  # ms
}

ROUTER_COUNTERS = (
    "received",
    "wrong_shape",
    "too_big",
    "too_fast",
    "replied",
    "reply_failed",
    "connections_accepted",
    "handshakes_aborted",
    "handshakes_failed",
    "handshakes_refused",
    "keys_accepted",
    "keys_unknown",
    "zap_requests_invalid",
    "connections_over_limit",
    "connections_over_key_limit",
    "connections_never_valid",
    "connections_too_fast",
    "connections_unread",
    "connections_key_removed",
)
_NO_SUCH_ADDRESS = (errno.EADDRNOTAVAIL, errno.ENODEV)
_names = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Received:
    """One message. `route` leads back over the ROUTER to its sender, see `Router.reply`;
    `frame` is what libzmq gave; `key`: the public key that the connection has proved to own,
    empty in plain text; `descriptor`: of its connection, which may be gone since; -1 when not known;
    `unproven`: this connection has brought no valid message yet; `process`: the peer's process that the newest
    message of one named which came over it (None: none did)."""

    route: bytes
    payload: bytes
    frame: zmq.Frame | None = None
    key: bytes = b""
    descriptor: int = -1
    unproven: bool = True
    process: Process | None = None

    @property
    def origin(self) -> str:
        """The IP address that it came from; "" when that is not known (an old ZMTP, or the connection
        is gone)."""
        try:
            return "" if self.frame is None else unmapped(str(self.frame.get("Peer-Address")))
        except zmq.ZMQError:
            return ""

    @property
    def is_local(self) -> bool:
        """Whether it came from this host: over loopback, or between two ends of one address, which
        no other host can have. False when that is not known."""
        try:
            address = ipaddress.ip_address(self.origin)
        except ValueError:
            return False
        if address.is_loopback:
            return True
        # The origin was written on the message when it was read. Should the descriptor be another
        # connection's by now, then its own end is still an address of this host.
        ends = addresses_of(self.descriptor)
        return ends is not None and unmapped(ends[0][0]) == self.origin


class Router:
    """The ROUTER of one node, and the authenticator before it. Use from one thread; `bind` first."""

    def __init__(
        self,
        context: Context,
        *,
        listen: str,
        max_message_bytes: int,
        poller: Poller,
        counters: Counters,
        keyring: Keyring | None,
        limits: ConnectionLimits,
    ) -> None:
        """Raises ValueError when `listen` is not of the form ``tcp://host:port``."""
        self.port = parse_endpoint(listen)[1]
        self.counters = counters
        self._context = context
        self._listen = listen
        self._max_message_bytes = max_message_bytes
        self._poller = poller
        self._keyring = keyring
        self._limits = limits
        self._peers = PeerConnections()
        self._connections = Connections(limits, counters, poller, self._peers, self.port)
        self._rates: dict[bytes, Rate] = {}  # by key; at most as many as the directory has
        self._authenticator: ZapAuthenticator | None = None
        self.router: zmq.Socket[bytes] | None = None
        self._listener = -1  # libzmq's listening socket
        self._left = False  # messages that the poller may never report
        self._part = 0  # of the message being read: 0 route, 1 payload, 2 too many
        self._route = b""

    @property
    def has_unproven(self) -> bool:
        """Whether a connection has sent nothing valid yet."""
        return self._connections.has_unproven

    def audit_all(self) -> None:
        """Have the next `service` look at how much each connection has sent."""
        self._connections.audit_all()

    @property
    def has_more(self) -> bool:
        """Whether more may be read at once."""
        if self._left or self._peers.changes:
            return True
        return self._authenticator is not None and self._authenticator.has_more

    def bind(self) -> None:
        """Listen. Raises `CannotBind`."""
        if self._keyring is not None:  # before the first connection can ask for it
            try:
                self._authenticator = ZapAuthenticator(
                    self._context, self._keyring.directory, self._poller, self.counters
                )
            except AuthenticatorFailed as error:
                raise CannotBind(self._listen, errno.EIO, str(error)) from error
        self._open(-1)

    def _open(self, descriptor: int) -> None:
        """Make the ROUTER, on the listening socket `descriptor` if there is one already."""
        connections = Connections(self._limits, self.counters, self._poller, self._peers, self.port)
        router = self._context.socket(zmq.ROUTER)
        try:
            for option, value in _OPTIONS.items():
                router.setsockopt(option, value)
            # Twice the limit: a peer that is configured a little differently loses its big messages
            # (counted), not its connection. Beyond that libzmq closes the connection unread.
            router.setsockopt(zmq.MAXMSGSIZE, 2 * self._max_message_bytes)
            if self._keyring is not None:
                _encrypt(router, self._keyring)
            if descriptor >= 0:
                router.setsockopt(zmq.USE_FD, descriptor)
                # Two ROUTERs share it for a moment, and only one of them gets each connection.
                os.set_blocking(descriptor, False)
            connections.watch(router, self._context, f"inproc://inbox-{next(_names)}")
            _bind(router, self._listen)
            self._listener = connections.listener
        except zmq.ZMQError as error:
            connections.close()
            router.close(0)
            code = error.errno or 0
            raise CannotBind(self._listen, code, _explain(self._listen, code)) from error
        self._poller.register(router, zmq.POLLIN, eager=True)
        self._left = descriptor >= 0  # the poller reports only what comes to the new ROUTER from now on
        self.router, self._connections = router, connections

    def rekey(self, keyring: Keyring) -> None:
        """Accept the keys in `keyring` from now on; with a new own key, on new connections only.
        Raises `CannotBind`; then the old key still holds."""
        assert self._keyring is not None
        assert self._authenticator is not None
        before, self._keyring = self._keyring, keyring
        if keyring.pair != before.pair and self.router is not None:
            old, connections = self.router, self._connections
            try:
                self._open(os.dup(self._listener))
            except CannotBind:
                self._keyring = before
                raise
            connections.close()
            self._poller.unregister(old)
            old.close(0)
            self._part = 0
        self._authenticator.directory = keyring.directory

    def break_authenticator(self) -> None:
        """Stop the authenticator; the next `service` raises `AuthenticatorFailed`. For tests (failpoints.py)."""
        if self._authenticator is not None:
            self._authenticator.close()

    def close(self) -> None:
        """Close all sockets at once. Harmless when repeated."""
        if self.router is not None:
            self._connections.close()
            self._poller.unregister(self.router)
            self.router.close(0)
            self.router = None
            self._left = False
        if self._authenticator is not None:
            self._authenticator.close()
            self._authenticator = None

    def is_idle(self, ready: Mapping[Any, int], now: int) -> bool:
        """Whether `ready` says nothing but that messages have come, and nothing is due."""
        if now >= self._connections.due_us or self._peers.changes:
            return False
        if self._authenticator is not None and self._authenticator.has_more:
            return False
        return not ready or (len(ready) == 1 and self.router in ready)

    def service(self, ready: Mapping[Any, int], now: int) -> None:
        """Answer the authenticator's questions, enforce the limits. Raises `AuthenticatorFailed`: then no new
        connection can be made."""
        if self._authenticator is not None:
            self._authenticator.service(ready)
        self._connections.service(ready, now)

    def mark_valid(self, received: Received) -> None:
        """`received` was a valid message of this cluster: its connection is one that should stay."""
        self._connections.mark_valid(received.descriptor, received.key)

    def mark_process(self, received: Received, process: Process) -> None:
        """`received` names `process`: its connection, if it stands, is one that this process made."""
        self._connections.mark_process(received.descriptor, received.route, process)

    def take_changes(self, *, look: bool = False) -> list[InboundChange]:
        """Which peers' processes have got a connection to this node, or lost the last. `look`: up to now, not
        only up to the last `service`."""
        if look:
            self._connections.read_monitor(now_us())
        return self._peers.take_changes()

    def disconnect(self, received: Received, reason: str) -> None:
        """Close the connection that brought `received`, and count that by `reason`."""
        self._connections.close_one(received.descriptor, reason)

    def has_messages(self, ready: Mapping[Any, int]) -> bool:
        """Whether the poller's answer says that messages have arrived, or some were left."""
        return self._left or self.router in ready

    def receive(self, limit: int) -> list[Received]:
        """At most `limit` messages that have arrived; see `backlog` for whether more wait."""
        messages: list[Received] = []
        router, now = self.router, now_us()
        if router is None:
            return messages
        for _ in range(PARTS_PER_TURN):
            if len(messages) >= limit:
                break
            try:
                frame = router.recv(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                self._left = False
                return messages
            message = self._accept(frame, now)
            if message is not None:
                messages.append(message)
                # A read in vain costs more than this question.
                if len(messages) <= _FEW and not int(router.getsockopt(zmq.EVENTS)) & _POLLIN:
                    self._left = False
                    return messages
        self._left = True
        return messages

    def backlog(self) -> bool:
        """Whether more is waiting in the ROUTER."""
        if self.router is not None and has_messages(self.router):
            self._left = True  # the poller may never report it
        return self._left

    def reply(self, route: bytes, payload: bytes) -> bool:
        """Answer over the ROUTER; False when its sender is gone or takes nothing, which is counted."""
        if self.router is not None:
            self._left = True  # sending may swallow the notice of a message (see poller.py)
            try:
                self.router.send_multipart([route, payload], zmq.NOBLOCK)
            except zmq.ZMQError:  # Again: its queue is full; EHOSTUNREACH: it has gone
                pass
            else:
                self.counters["replied"] += 1
                return True
        self.counters["reply_failed"] += 1
        return False

    def _accept(self, frame: zmq.Frame, now: int) -> Received | None:
        """The message that `frame` completes, if it is well-shaped and within the limits.

        Keeps its place between calls, so that a message of a million parts is dropped piece
        by piece, over as many turns as it takes.
        """
        part, last = self._part, not frame.more
        self._part = 0 if last else min(part + 1, 2)
        if part == 0:
            self._route = frame.bytes
            return None
        key = b"" if self._keyring is None else _key_of(frame)
        try:
            descriptor = int(frame.get(zmq.SRCFD))
        except zmq.ZMQError:
            descriptor = -1
        connection = self._connections.entries.get(descriptor)
        if connection is None:  # so new that it has no entry yet, or being closed
            if descriptor in self._connections.closing:
                return None
        elif not self._within_limits(connection, descriptor, key, len(frame), last, now):
            return None
        if part == 1 and last:
            if len(frame) <= self._max_message_bytes:
                self.counters["received"] += 1
                unproven = connection is None or connection.key is None
                process = None if connection is None else connection.process
                return Received(self._route, frame.bytes, frame, key, descriptor, unproven, process)
            self.counters["too_big"] += 1
        elif last:
            self.counters["wrong_shape"] += 1
        return None

    def _within_limits(
        self, connection: Connection, descriptor: int, key: bytes, size: int, last: bool, now_us: int
    ) -> bool:
        """Count a frame of `size` bytes that came over `connection`; whether the message that ends with it may be
        read. `key`: the sender's, empty in plain text."""
        connection.read_bytes += wire_bytes(size, bool(key))
        if not last:
            return True
        if connection.key is None:
            connection.invalid_messages += 1
            if connection.invalid_messages > _MOST_NEVER_VALID:
                self._connections.close_one(descriptor, "never_valid")
                return False
        rate = self._rates.setdefault(key, Rate()) if key else connection.rate
        if now_us - rate.since_us >= _SECOND_US:
            rate.since_us, rate.count = now_us, 0
        rate.count += 1
        if rate.count <= self._limits.messages_per_s:
            return True
        self.counters["too_fast"] += 1
        if rate.count > _RATE_TO_CLOSE * self._limits.messages_per_s:
            self._connections.close_one(descriptor, "too_fast")
        return False


def _encrypt(router: zmq.Socket[bytes], keyring: Keyring) -> None:
    router.setsockopt(zmq.CURVE_SERVER, 1)
    router.setsockopt(zmq.CURVE_SECRETKEY, keyring.pair.secret)
    router.setsockopt(zmq.ZAP_DOMAIN, DOMAIN)
    # Without this libzmq accepts every key while the authenticator does not answer.
    router.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)


def _key_of(frame: zmq.Frame) -> bytes:
    try:
        return str(frame.get("User-Id")).encode()
    except zmq.ZMQError:
        return b""


def _bind(router: zmq.Socket[bytes], listen: str) -> None:
    """Listen, on IPv4 and IPv6 where `listen` is every interface. A name's address of IPv4 comes first, as for those
    that connect to it. Raises ZMQError."""
    host = parse_endpoint(listen)[0]
    if host == "*" or is_numeric(host):
        router.setsockopt(zmq.IPV6, int(host == "*" or ":" in host))
        router.bind(listen)
        return
    try:
        router.bind(listen)
    except zmq.ZMQError as error:
        if error.errno not in _NO_SUCH_ADDRESS:
            raise
        router.setsockopt(zmq.IPV6, 1)
        router.bind(listen)


def _explain(address: str, code: int) -> str:
    port = parse_endpoint(address)[1]
    if code == errno.EADDRINUSE:
        return (
            "the port is taken. Perhaps this node is already running, or another program listens there: "
            f"`ss -ltnp 'sport = :{port}'` names it. Stop that one, or choose another port for node.listen"
        )
    if code in _NO_SUCH_ADDRESS:
        return (
            "this host has no such address. node.listen must be an address of this host, or "
            f"tcp://*:{port} for all of them; peers connect to the address in this node's [[peers]] entry"
        )
    if code in (errno.EACCES, errno.EPERM):
        return "not permitted. Ports below 1024 belong to root; choose one from 1024 to 32767 for node.listen"
    return f"{zmq.strerror(code)}. Check node.listen"
