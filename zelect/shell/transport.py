"""Bytes to and from the peers: one ROUTER to receive on, one `Link` per peer to send on.

Owned by one thread and driven by its poller::

    ready = poller.poll(timeout_ms)
    changes = transport.service(ready)      # monitors, watchdogs, probes
    received = transport.receive(100)       # what the peers said
    verdicts = transport.verdicts()         # what the probes found, those just begun included

Nothing blocks: what can't be sent now is dropped and counted, because the next heartbeat is worth
more than this one. What arrives in another shape than one frame is thrown away and counted too.
"""

from __future__ import annotations

import errno
import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import zmq

from zelect.core.lease import NEVER_US
from zelect.core.timing import Proof
from zelect.shell.clock import now_us
from zelect.shell.link import Context, Counters, Link, parse_endpoint
from zelect.shell.poller import Poller, has_mail
from zelect.shell.probe import DeathProbe, Verdict

__all__ = ["CannotBind", "LinkChange", "Received", "Transport"]

PARTS_PER_TURN = 1024
"""Most frames read in one `receive`: a message of a million parts must not stop the loop."""

_OPTIONS = {
    zmq.LINGER: 0,  # closing must not wait for anybody
    zmq.RCVHWM: 256,  # per connection; a flood waits in its own sender's buffers
    zmq.SNDHWM: 64,  # answers to the command line only
    zmq.ROUTER_MANDATORY: 1,  # an answer to somebody who has gone fails visibly
    zmq.BACKLOG: 1024,  # a whole cluster, its probes and strangers may connect at once
    zmq.HANDSHAKE_IVL: 1000,  # ms; strangers that say nothing give their descriptor back
    # TCP's own keepalive clears connections of hosts that vanished. Not ZMQ_HEARTBEAT_IVL: libzmq 4.3.5
    # aborts the process when that timer fires on a connection that broke while it was stopped at the
    # high-water mark, which any stranger can bring about with a flood.
    zmq.TCP_KEEPALIVE: 1,
    zmq.TCP_KEEPALIVE_IDLE: 5,  # s
    zmq.TCP_KEEPALIVE_INTVL: 2,  # s
    zmq.TCP_KEEPALIVE_CNT: 3,
    zmq.TCP_MAXRT: 2000,  # ms
}

_COUNTERS = (
    "sent",
    "dropped",
    "too_big_to_send",
    "received",
    "wrong_shape",
    "too_big",
    "replied",
    "reply_failed",
    "came_up",
    "went_down",
    "rebuilt",
    "not_made",
    "met_itself",
    "stray_frames",
    "probes",
    "proofs",
)


class CannotBind(Exception):
    """The node can't listen on its address. The message says why and names the mend."""

    def __init__(self, address: str, code: int) -> None:
        super().__init__(f"cannot listen on {address}: {_explain_bind(address, code)}")
        self.address = address
        self.code = code


@dataclass(frozen=True, slots=True)
class LinkChange:
    """The connection to `peer` completed its handshake (`up`) or closed."""

    peer: int
    up: bool


@dataclass(frozen=True, slots=True)
class Received:
    """One message. `route` leads back over the ROUTER to whoever sent it, see `Transport.reply`;
    `frame` is what libzmq gave."""

    route: bytes
    payload: bytes
    frame: zmq.Frame | None = None

    @property
    def origin(self) -> str:
        """The IP address that it came from; "" when its connection has nothing to tell (an old
        ZMTP, or gone)."""
        try:
            return "" if self.frame is None else str(self.frame.get("Peer-Address"))
        except zmq.ZMQError:
            return ""

    @property
    def is_local(self) -> bool:
        """Whether it came over the loopback interface; False when that is not known."""
        try:
            return ipaddress.ip_address(self.origin).is_loopback
        except ValueError:
            return False


class Transport:
    """The sockets of one node. Use from one thread; `bind`, then `connect`, at the end `close`."""

    def __init__(
        self,
        context: Context,
        *,
        listen: str,
        peers: Mapping[int, str],
        max_message_bytes: int,
        poller: Poller,
        proof: Proof = Proof.REFUSED,
    ) -> None:
        """`listen` and the values of `peers` are ``tcp://host:port``; raises ValueError otherwise."""
        self.counters: Counters = dict.fromkeys(_COUNTERS, 0)
        self._context = context
        self._listen = listen
        self._max_message_bytes = max_message_bytes
        self._poller = poller
        self._proof = proof
        self._router: zmq.Socket[bytes] | None = None
        self._left = False  # messages that the poller may never tell of
        self._part = 0  # of the message being read: 0 route, 1 payload, 2 too many
        self._route = b""
        self._probes: dict[tuple[int, int], DeathProbe] = {}
        self._verdicts: list[Verdict] = []
        parse_endpoint(listen)
        self._links = {
            peer: Link(
                context, peer, endpoint, max_message_bytes=max_message_bytes, poller=poller, counters=self.counters
            )
            for peer, endpoint in peers.items()
        }

    def bind(self) -> None:
        """Listen. Raises `CannotBind`."""
        router = self._context.socket(zmq.ROUTER)
        try:
            for option, value in _OPTIONS.items():
                router.setsockopt(option, value)
            # Twice the limit: a peer that is configured a little differently loses its big messages
            # (counted), not its connection. Beyond that libzmq closes the connection unread.
            router.setsockopt(zmq.MAXMSGSIZE, 2 * self._max_message_bytes)
            if "[" in self._listen:
                router.setsockopt(zmq.IPV6, 1)
            router.bind(self._listen)
        except zmq.ZMQError as error:
            router.close(0)
            raise CannotBind(self._listen, error.errno or 0) from error
        self._poller.register(router, zmq.POLLIN)
        self._router = router

    def connect(self) -> None:
        """Begin to connect to all peers."""
        now = now_us()
        for link in self._links.values():
            link.open(now)

    def close(self) -> None:
        """Close all sockets at once, sending nothing more. Harmless when repeated."""
        for probe in self._probes.values():
            probe.close()
        self._probes.clear()
        for link in self._links.values():
            link.close()
        if self._router is not None:
            self._poller.unregister(self._router)
            self._router.close(0)
            self._router = None
            self._left = False

    def service(self, ready: Mapping[Any, int]) -> list[LinkChange]:
        """Drain the monitors, run watchdogs and probes. `ready` is what the poller returned.

        Every change of a link is reported, in order: one that went down and came up again in one
        turn is reported twice.
        """
        now = now_us()
        changes = [LinkChange(peer, up) for peer, link in self._links.items() for up in link.service(ready, now)]
        for key, probe in list(self._probes.items()):
            self._step(key, probe, now)
        return changes

    @property
    def inbox(self) -> object:
        """What the poller names when messages have arrived."""
        return self._router

    def has_mail(self, ready: Mapping[Any, int]) -> bool:
        """Whether the poller's answer says that messages have arrived, or some were left."""
        return self._left or self._router in ready

    def receive(self, limit: int) -> list[Received]:
        """At most `limit` messages that have arrived; see `backlog` for whether more wait."""
        messages: list[Received] = []
        router = self._router
        self._left = router is not None
        for _ in range(PARTS_PER_TURN):
            if router is None or len(messages) >= limit:
                break
            try:
                frame = router.recv(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                self._left = False
                self._poller.emptied(router)
                break
            message = self._take(frame)
            if message is not None:
                messages.append(message)
        return messages

    def backlog(self) -> bool:
        """Whether more is waiting in the ROUTER."""
        if self._router is not None and has_mail(self._router):
            self._left = True  # the poller may never tell of it
        return self._left

    def send(self, peer: int, payload: bytes) -> bool:
        """Send to `peer` if its link is up and has room; False when dropped, which is counted.

        A payload above the limit is dropped here: at the peer it would cost the connection.
        """
        if len(payload) > self._max_message_bytes:
            self.counters["too_big_to_send"] += 1
            return False
        return self._links[peer].send(payload)

    def reply(self, route: bytes, payload: bytes) -> bool:
        """Answer over the ROUTER; False when its sender is gone or takes nothing, which is counted."""
        if self._router is not None:
            self._left = True  # sending may swallow the news of a message (see poller.py)
            try:
                self._router.send_multipart([route, payload], zmq.NOBLOCK)
            except zmq.ZMQError:  # Again: its queue is full; EHOSTUNREACH: it has gone
                pass
            else:
                self.counters["replied"] += 1
                return True
        self.counters["reply_failed"] += 1
        return False

    def probe(self, peer: int, incarnation: int, lock_free: Callable[[], bool] | None = None) -> None:
        """Find out whether process `incarnation` of `peer` is dead; see `verdicts`.

        The first attempt is made here and now. Does nothing while the same question is open.
        `lock_free` must neither block nor raise.
        """
        key = (peer, incarnation)
        if key in self._probes:
            return
        self.counters["probes"] += 1
        self._probes[key] = probe = DeathProbe(
            peer,
            incarnation,
            address=self._links[peer].address,
            proof=self._proof,
            lock_free=lock_free,
            poller=self._poller,
        )
        self._step(key, probe, now_us())

    def verdicts(self) -> list[Verdict]:
        """The verdicts reached since this was last asked."""
        verdicts, self._verdicts = self._verdicts, []
        return verdicts

    def deadline_us(self) -> int:
        """When `service` wants to be called at the latest, on the clock of `now_us`.

        Now, while messages or verdicts wait to be fetched: some verdicts are reached the moment a
        probe begins.
        """
        due_us = now_us() if self._verdicts or self._left else NEVER_US
        for link in self._links.values():
            due_us = min(due_us, link.deadline_us())
        for probe in self._probes.values():
            due_us = min(due_us, probe.deadline_us())
        return due_us

    def links(self) -> dict[int, bool]:
        """Which links are up."""
        return {peer: link.up for peer, link in self._links.items()}

    def _step(self, key: tuple[int, int], probe: DeathProbe, now: int) -> None:
        verdict = probe.step(now)
        if verdict is not None:
            del self._probes[key]
            self._verdicts.append(verdict)
            self.counters["proofs"] += verdict.evidence is not None

    def _take(self, frame: zmq.Frame) -> Received | None:
        """Judge the next frame; the message if this frame completes a well-shaped one.

        Keeps its place between calls, so that a message of a million parts is thrown away piece
        by piece, over as many turns as it takes.
        """
        part, last = self._part, not frame.more
        self._part = 0 if last else min(part + 1, 2)
        if part == 0:
            self._route = frame.bytes
        elif part == 1 and last:
            if len(frame) <= self._max_message_bytes:
                self.counters["received"] += 1
                return Received(self._route, frame.bytes, frame)
            self.counters["too_big"] += 1
        elif last:
            self.counters["wrong_shape"] += 1
        return None


def _explain_bind(address: str, code: int) -> str:
    port = parse_endpoint(address)[1]
    if code == errno.EADDRINUSE:
        return (
            "the port is taken. Perhaps this node already runs, or another program listens there: "
            f"`ss -ltnp 'sport = :{port}'` names it. Stop that one, or choose another port for node.listen"
        )
    if code in (errno.EADDRNOTAVAIL, errno.ENODEV):
        return (
            "this host has no such address. node.listen must be an address of this host, or "
            f"tcp://*:{port} for all of them; the address that peers connect to is node.advertise"
        )
    if code in (errno.EACCES, errno.EPERM):
        return "not permitted. Ports below 1024 belong to root; choose one from 1024 to 32767 for node.listen"
    return f"{zmq.strerror(code)}. Check node.listen"
