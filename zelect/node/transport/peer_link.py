"""The connection to one peer: a DEALER, the monitor that shows whether it is connected, and a
supervision timer.

A link is **up** from HANDSHAKE_SUCCEEDED (a TCP connection alone is made by the kernel of a frozen
process too) until DISCONNECTED. libzmq reconnects by itself, with one exception that makes the
supervision timer necessary: after a single protocol error (something that speaks no ZMTP answered on the
port, another socket type or mechanism, an oversize frame) it gives the connection up for ever,
silently. And with a listener that looks like ZMTP 1.0 or 2.0 (any text does) it stays
"connected" without a handshake and without a time limit. Both show as silence of the monitor:

- after DISCONNECTED a healthy socket says CONNECT_RETRIED at once; not within 100 ms: dead;
- while not up, a healthy socket says something at least every 0.6 s (a retry is at most 90 ms
  away, a connection attempt lasts at most 300 ms, a handshake at most 500 ms); not within 1 s: dead.

With keys, a peer whose key is being changed has one of two. A connection that closed before its
handshake was complete may have used the wrong one: the next attempt is made with the other.

A host name is looked up elsewhere (`zelect.system.names`), and libzmq gets an address: it would look the name up in
its one I/O thread. While the link isn't up the name is looked up again, and a DEALER made on the next address: of
those that it has, or a new one. A link that is up needs no name. The same for a peer that may be at one of two
endpoints: what the voter record and what the configuration says of it.

What answers there may be another node, or another program: an address is wrong, a name leads elsewhere. Messages say
whom they are for, so a wrong node refuses them and says who it is; such a link is down (`reject`), and tried again
later, at another address if there is one. `problem` says what answers there.

A port inside the ephemeral range has one more trap: a DEALER that connects to it while no process listens
may connect to itself, and then holds the port. The connection's two addresses show it.

A dead DEALER is closed and made again on the same endpoint; `disconnect` and `connect` would keep a
monitor whose late events look like new ones. While a peer is merely not there the
retries go on, so its link is left alone. While a link is up the supervision timer is off.

Descriptors: an eventfd each for the DEALER and the two ends of its monitor, and the connection: 4
for a peer, and a fifth for the connection that the peer makes to the ROUTER.
"""

from __future__ import annotations

import contextlib
import itertools
import socket
import struct
from collections.abc import Mapping
from typing import Any

import zmq

from zelect.core.lease import NEVER_US
from zelect.security.keys import ClientKeys
from zelect.system.names import NAMES, Names, endpoint_of, is_numeric
from zelect.system.poller import Poller, has_messages
from zelect.system.sockets import (
    Context,
    Counters,
    addresses_of,
    borrowed,
    parse_endpoint,
    received_bytes,
    wire_bytes,
)

LINK_COUNTERS = (
    "sent",
    "dropped",
    "too_big_to_send",
    "connected",
    "disconnected",
    "rebuilt",
    "other_key_tried",
    "not_opened",
    "other_address_tried",
    "self_connects",
    "rejected",
    "unexpected_frames",
    "flooded",
)

RETRY_TIMEOUT_US = 100_000
MONITOR_TIMEOUT_US = 1_000_000
FIRST_PAUSE_US = 100_000
"""Pause after repairing; it doubles up to `LAST_PAUSE_US` while repairing does not help."""
LAST_PAUSE_US = 1_000_000
REJECTED_PAUSE_US = 8_000_000
"""The longest pause before a link is tried again that led to the wrong node; the first is `FIRST_PAUSE_US`."""
_OTHER_PROGRAM = "no_handshake: takes connections, but is another program, has another key, or is stopped"
SENT_PER_LOOK = 8
"""After so many messages sent, unexpected frames are looked for although the poller reported none: sending may
have swallowed the notice. Far fewer than the frames that would stop libzmq from reading (`RCVHWM`)."""
ADDRESS_TIMEOUT_US = 400_000
"""A name's next address is tried when a link to one of them isn't up within this time."""
FIRST_KEY_PAUSE_US = 20_000
"""From one key of the peer to the other; doubles too."""
UNEXPECTED_PER_TURN = 256
"""Most frames taken at once that arrived where hardly any should."""
MOST_ANSWERS = 16
MOST_UNREAD_BYTES = 256 * 1024
"""Beyond so many bytes that came over a link in no frame it is closed."""
ANSWER_BYTES = 2048
"""Most of them that are kept as answers, and how long one may be."""

_OPTIONS = {
    zmq.LINGER: 0,  # closing must not wait for a peer that is gone
    zmq.IMMEDIATE: 1,  # queue for a completed connection only: a restarted peer must not get stale heartbeats
    zmq.SNDHWM: 128,  # a late message is worth less than a timely one: short queue, then drop
    zmq.RCVHWM: 64,  # peers send nothing here
    zmq.RCVBUF: 64 * 1024,  # ... and what the kernel holds of a connection that is closed is not to be much
    zmq.RECONNECT_IVL: 10,  # ms; a peer that comes back is found soon ...
    zmq.RECONNECT_IVL_MAX: 80,  # ... and one that stays away costs a dozen attempts a second, not a hundred
    zmq.CONNECT_TIMEOUT: 300,  # ms; the kernel itself would repeat a lost SYN only after a second
    zmq.HANDSHAKE_IVL: 500,  # ms; leave a listener that accepts and then says nothing
    zmq.TCP_MAXRT: 2000,  # ms; a connection whose data is not acknowledged for so long is gone
}

_EVENTS = zmq.EVENT_CONNECTED | zmq.EVENT_CONNECT_RETRIED | zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED
_EVENT = struct.Struct("=HI")
_names = itertools.count(1)


class PeerLink:
    """The connection to `peer` at `endpoint`, or else at `other`, until it was up once at one of them. Owned by one
    thread; nothing here blocks."""

    def __init__(
        self,
        context: Context,
        peer: int,
        endpoint: str,
        *,
        max_message_bytes: int,
        poller: Poller,
        counters: Counters,
        keys: ClientKeys | None = None,
        answers: list[tuple[int, bytes]] | None = None,
        names: Names = NAMES,
        other: str = "",
    ) -> None:
        """Raises ValueError when an endpoint is not of the form ``tcp://host:port``. `keys`: None
        for plain text. `answers` gets what comes back over the link, with the peer that it leads to."""
        self.peer = peer
        self.endpoint = endpoint
        self.up = False
        self.problem = ""
        self._context = context
        self._max_message_bytes = max_message_bytes
        self._poller = poller
        self._counters = counters
        self._keys = keys
        self._key_turn = 0
        self._key_pause_us = FIRST_KEY_PAUSE_US
        self._all_places = [parse_endpoint(at) for at in (endpoint, other) if at]
        self._places = self._all_places
        self._names = names
        host, port = self._places[0]
        self._address = (host, port) if is_numeric(host) else None
        self._tried = ("", 0)  # the address and port that the DEALER connects to
        self._tried_us = 0
        self._wait_us = 0  # for the name's address; 0: not waiting
        self._dealer: zmq.Socket[bytes] | None = None
        self._monitor: zmq.Socket[bytes] | None = None
        self._pause_us = FIRST_PAUSE_US
        self._rejected_pause_us = FIRST_PAUSE_US
        self._accepted = False  # a connection was made since the last attempt, with or without a handshake
        self._not_before_us = NEVER_US
        self._up_us = 0
        self._answers = [] if answers is None else answers
        self._in_message = False  # the last frame that arrived was a part, and not the last
        self._read_bytes = 0  # of the connection, in frames
        self._sent = 0  # messages since unexpected frames were last looked for
        self._reset(0)

    @property
    def address(self) -> tuple[str, int] | None:
        """IP address and port of the peer; None while a host name was never connected to."""
        return self._address

    @property
    def tried(self) -> set[tuple[str, int]]:
        """Where this link is connected, or may be about to be."""
        return {self._tried} if self._address is None else {self._tried, self._address}

    def open(self, now_us: int) -> None:
        """Begin to connect. Running out of sockets is counted, and tried again later."""
        self._not_before_us = now_us + self._pause_us
        self._reset(now_us)
        if not self._choose(now_us):
            self._wait_us = max(self._names.try_again_us(host) for host, _ in self._places)
            return
        self._wait_us = 0
        try:
            self._make(endpoint_of(*self._tried))
        except zmq.ZMQError:
            self._counters["not_opened"] += 1
            self.close()

    def send(self, payload: bytes) -> bool:
        """Hand `payload` to the connection, if it is up and has room; False when it was dropped, which is counted.

        A payload above the limit is dropped here: at the peer it would cost the connection.
        """
        if len(payload) > self._max_message_bytes:
            self._counters["too_big_to_send"] += 1
            return False
        if self.up and self._dealer is not None:
            self._sent += 1
            try:
                self._dealer.send(payload, zmq.NOBLOCK)
            except zmq.Again:
                pass
            else:
                self._counters["sent"] += 1
                return True
        self._counters["dropped"] += 1
        return False

    def service(self, ready: Mapping[Any, int], now_us: int) -> list[bool]:
        """Take what the sockets in `ready` have, fix the link if it is dead.

        Returns the changes in the order in which they happened: True for up, False for down.
        """
        changes: list[bool] = []
        if self.up and self._sent < SENT_PER_LOOK and self._monitor not in ready and self._dealer not in ready:
            return changes  # as nearly always
        if self._wait_us:
            if now_us >= self.deadline_us():
                self.open(now_us)
            return changes
        if self._monitor in ready or now_us >= self.deadline_us():
            changes = self._read_monitor(now_us)
            if not self.up:
                self._try_another(now_us)
        if self._sent >= SENT_PER_LOOK or self._dealer in ready:
            self._sent = 0  # sending may have swallowed the notice of a frame (see poller.py)
            self._take_frames()
        if now_us >= self.deadline_us():
            self.close()
            if self._rejected_us != NEVER_US:
                self._counters["other_key_tried"] += 1
                self._key_turn += 1
                self._key_pause_us = min(2 * self._key_pause_us, LAST_PAUSE_US)
                self.open(now_us)
                return changes
            self._counters["rebuilt"] += 1
            if self._accepted:
                self.problem = _OTHER_PROGRAM
            self._pause_us = min(2 * self._pause_us, LAST_PAUSE_US)
            self.open(now_us)
        return changes

    def audit(self, now_us: int) -> list[bool]:
        """Close the connection if far more has come over it than a node says: a message without an end, which fills
        the memory and never shows. Returns the changes, as `service` does."""
        ends = addresses_of(self._descriptor)
        if not self.up or ends is None or ends[1] != self._address:
            return []
        self._take_frames()
        if received_bytes(self._descriptor) - self._read_bytes <= MOST_UNREAD_BYTES:
            return []
        self._counters["flooded"] += 1
        changes: list[bool] = []
        self._turn(False, changes)
        self.close()
        self._pause_us = min(2 * self._pause_us, LAST_PAUSE_US)
        self._reset(now_us)
        self._wait_us = self._pause_us
        return changes

    def deadline_us(self) -> int:
        """When the supervision timer is due; never while it is up."""
        if self.up:
            return NEVER_US
        if self._wait_us:
            return self._heard_us + self._wait_us
        if self._rejected_us != NEVER_US:
            return self._rejected_us + self._key_pause_us
        timeout_us = 0 if self._connected_to_itself else RETRY_TIMEOUT_US if self._disconnected else MONITOR_TIMEOUT_US
        return max(self._heard_us + timeout_us, self._not_before_us)

    def reject(self, problem: str, now_us: int) -> None:
        """What this link leads to is not the peer, and why: close it, and connect again after a pause."""
        if now_us - self._up_us > 2 * self._rejected_pause_us:
            self._rejected_pause_us = FIRST_PAUSE_US  # it was right for a while
        self.close()
        self.problem, self._address, self._places = problem, None, self._all_places
        self._counters["rejected"] += 1
        self._heard_us, self._wait_us = now_us, self._rejected_pause_us
        self._rejected_pause_us = min(2 * self._rejected_pause_us, REJECTED_PAUSE_US)

    def close(self) -> None:
        """Close both sockets. Harmless when repeated."""
        self.up = False
        for end in (self._dealer, self._monitor):
            if end is not None and end in self._poller:
                self._poller.unregister(end)
        if self._dealer is not None:
            with contextlib.suppress(zmq.ZMQError):
                self._dealer.disable_monitor()
            self._dealer.close(0)
        if self._monitor is not None:
            self._monitor.close(0)
        self._dealer = self._monitor = None

    def _reset(self, now_us: int) -> None:
        self._heard_us = now_us  # when the monitor's last event came
        self._disconnected = False  # DISCONNECTED was the last event
        self._connected_to_itself = False  # the DEALER had connected to itself, and is closed
        self._descriptor = -1  # of the connection, by CONNECTED
        self._rejected_us = NEVER_US  # since when, perhaps for the wrong one of two keys

    def _known(self) -> list[tuple[str, int]]:
        """Where the peer may be, as far as is known: of each place the addresses of its host."""
        return [at for place in self._places for at in self._at(place)]

    def _at(self, place: tuple[str, int]) -> list[tuple[str, int]]:
        return [(address, place[1]) for address in self._names.addresses(place[0])]

    def _choose(self, now_us: int) -> bool:
        """Choose where to connect to: after what was tried last. False as long as no address is known."""
        known = self._known()
        if known:
            at = known.index(self._tried) + 1 if self._tried in known else 0
            self._tried, self._tried_us = known[at % len(known)], now_us
        return bool(known)

    def _try_another(self, now_us: int) -> None:
        """Connect to another address once there is one: a name has moved, or the one that was tried doesn't answer."""
        known = self._known()
        unanswered = len(known) > 1 and now_us - self._tried_us >= ADDRESS_TIMEOUT_US
        if known and (self._tried not in known or unanswered):
            self._counters["other_address_tried"] += 1
            self.close()
            self.open(now_us)

    def _make(self, endpoint: str) -> None:
        self._dealer = dealer = self._context.socket(zmq.DEALER)
        for option, value in _OPTIONS.items():
            dealer.setsockopt(option, value)
        dealer.setsockopt(zmq.MAXMSGSIZE, self._max_message_bytes)
        if self._keys is not None:
            self._keys.apply_to(dealer, self._key_turn)
        if "[" in endpoint:
            dealer.setsockopt(zmq.IPV6, 1)
        # A name never used before: that of the closed monitor may not be free yet.
        name = f"inproc://link-{self.peer}-{next(_names)}"
        dealer.monitor(name, _EVENTS)
        self._monitor = monitor = self._context.socket(zmq.PAIR)
        monitor.setsockopt(zmq.LINGER, 0)
        # Without limit: a full queue of events would block libzmq's I/O thread, and all links with it.
        monitor.setsockopt(zmq.RCVHWM, 0)
        monitor.connect(name)
        self._poller.register(monitor, zmq.POLLIN)
        self._poller.register(dealer, zmq.POLLIN)
        dealer.connect(endpoint)

    def _read_monitor(self, now_us: int) -> list[bool]:
        changes: list[bool] = []
        learnt: tuple[str, int] | None = None
        while (event := self._next_event()) is not None:
            code, value = event
            self._heard_us = now_us
            self._disconnected = code == zmq.EVENT_DISCONNECTED
            if code == zmq.EVENT_CONNECTED:
                self._descriptor, self._read_bytes, self._accepted = value, 0, True
            elif code == zmq.EVENT_CONNECT_RETRIED:
                self.problem = _OTHER_PROGRAM if self._accepted else ""
                self._accepted = False
            elif code == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                ends = addresses_of(self._descriptor)
                if ends is not None and ends[0] == ends[1]:
                    self._close_self_connect(now_us)
                    break
                learnt = ends[1] if ends is not None and ends[1][1] == self._tried[1] else None
                self._up_us = now_us
                self._rejected_us = NEVER_US
                self._key_pause_us = FIRST_KEY_PAUSE_US
                self.problem, self._accepted = "", False
                self._turn(True, changes)
            elif code == zmq.EVENT_DISCONNECTED:
                learnt = None
                if not self.up and self._descriptor >= 0 and self._keys is not None and len(self._keys.servers) > 1:
                    self._rejected_us = min(self._rejected_us, now_us)
                self._descriptor = -1
                if self.up and now_us - self._up_us >= LAST_PAUSE_US:
                    self._pause_us = FIRST_PAUSE_US
                self._turn(False, changes)
        # DISCONNECTED is said before the descriptor is closed. None came, so what was read from
        # the descriptor above was this connection's, and not that of a later owner of the number.
        if learnt is not None:
            self._address = learnt
            self._places = [place for place in self._places if self._tried in self._at(place)] or self._places
        return changes

    def _close_self_connect(self, now_us: int) -> None:
        """Close a DEALER that connected to itself, and keep it closed for a pause: it holds the peer's own
        port, which the peer can't bind meanwhile."""
        self._counters["self_connects"] += 1
        _reset_when_closed(self._descriptor)
        self.close()
        self._connected_to_itself = True
        self._not_before_us = now_us + self._pause_us

    def _turn(self, up: bool, changes: list[bool]) -> None:
        if up is not self.up:
            self.up = up
            self._counters["connected" if up else "disconnected"] += 1
            changes.append(up)

    def _next_event(self) -> tuple[int, int] | None:
        if self._monitor is None:
            return None
        try:
            head, *_ = self._monitor.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            return None
        code, value = _EVENT.unpack(head)
        return code, value

    def _take_frames(self) -> None:
        """Take the frames that arrived here: left alone they would stop libzmq from reading the connection, and so
        from noticing its end. A node answers here only one that it has no connection to, and briefly; the rest
        is dropped."""
        if self._dealer is None or not has_messages(self._dealer):
            return
        with contextlib.suppress(zmq.Again):
            for _ in range(UNEXPECTED_PER_TURN):
                frame = self._dealer.recv(zmq.NOBLOCK, copy=False)
                alone, self._in_message = not (frame.more or self._in_message), frame.more
                self._counters["unexpected_frames"] += 1
                self._read_bytes += wire_bytes(len(frame), self._keys is not None)
                if alone and len(self._answers) < MOST_ANSWERS and len(frame) <= ANSWER_BYTES:
                    self._answers.append((self.peer, frame.bytes))


def _reset_when_closed(descriptor: int) -> None:
    """Let a connection end in a reset: in TIME_WAIT it would keep its port for another minute."""
    with contextlib.suppress(OSError), borrowed(descriptor) as connection:
        if connection.getsockname() == connection.getpeername():  # still that one, and nothing of the program's
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
