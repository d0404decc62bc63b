"""Asks nodes for their status, from outside the cluster.

The client is not a member: it is sender 0, and its queries change nothing. It has one DEALER a node and never
blocks, so a frozen or dead node does not delay the others.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace

import zmq

from zelect.core.messages import MAX_TEXT, CommonResp, Envelope, MalformedMessage, Message, Query, Report, Result
from zelect.security.keys import ClientKeys, Keyring
from zelect.status.cluster import ClusterStatus
from zelect.status.problems import answers_as
from zelect.status.report import NodeReport, parse
from zelect.system.clock import now_us
from zelect.system.foreign import shown
from zelect.system.names import NAMES, endpoint_of
from zelect.system.sockets import addresses_of, parse_endpoint, received_bytes, wire_bytes
from zelect.wire import MAX_MESSAGE_BYTES, addressed, decode, encode

_REOPEN_AFTER_US = 5_000_000
_AGAIN_US = 20_000
"""A node that has answered is not asked again for so long: while others are waited for, it would be asked a
thousand times a second, and it limits the messages of unknown clients."""
_MOST_UNREAD_BYTES = 256 * 1024
"""Beyond so many bytes that came in no answer, a connection is closed: a message without an end fills the memory."""
_FRAMES_PER_TURN = 1024
_MOST_ANSWERS = 8
"""The newest of those that are read at once: a node owes one."""
_FLOODED = "sends a message without an end"
_NO_HANDSHAKE = "does not accept this key, or uses plain text: check --key, and that public.toml is the newest"
_NOT_PLAIN = "is another program, or a node with keys: check its address, and name a key with --key"
_EVENTS = (
    zmq.EVENT_CONNECTED
    | zmq.EVENT_CONNECT_RETRIED
    | zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
)
_EVENT = struct.Struct("=HI")


class _PeerLink:
    """One node's DEALER, with a monitor that reports failed connection attempts. `keys`: None for plain
    text. A host name is looked up elsewhere: libzmq would wait for it."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], address: str, keys: ClientKeys | None) -> None:
        self._context = context
        self._host, self._port = parse_endpoint(address)
        self._keys = keys
        self._key_turn = 0
        self.problem = ""
        self.open()

    def open(self) -> None:
        """Connect again. A DEALER that met a protocol error never receives again; a new one does."""
        self.asked_us = 0
        self.unanswered = False
        self.refused = False
        self.wants_other_key = False
        self.socket = self._context.socket(zmq.DEALER)
        for option, value in (
            (zmq.LINGER, 0),
            (zmq.IMMEDIATE, 1),  # no queries pile up for a node that is away
            (zmq.SNDHWM, 4),
            (zmq.RCVHWM, 4),
            (zmq.RCVBUF, 64 * 1024),
            (zmq.MAXMSGSIZE, MAX_MESSAGE_BYTES),
            (zmq.RECONNECT_IVL, 100),
            (zmq.CONNECT_TIMEOUT, 1000),
        ):
            self.socket.setsockopt(option, value)
        if self._keys is not None:
            self._keys.apply_to(self.socket, self._key_turn)
        self.monitor = self.socket.get_monitor_socket(_EVENTS)
        self._connected_to, self._refusals = "", 0
        self._descriptor, self._read_bytes, self._in_message = -1, 0, False
        self._not_before_us = 0
        self._connect()

    def _connect(self) -> None:
        """Connect to the host's address, or to another one that its name has when that refused, if any is known."""
        if now_us() < self._not_before_us:
            return
        found = NAMES.addresses(self._host)
        if not found:
            self.refused = NAMES.failed(self._host)
            return
        at = found.index(self._connected_to) + 1 if self._connected_to in found else 0
        address = found[at % len(found)]
        if address == self._connected_to:
            return
        if self._connected_to:
            self.socket.disconnect(endpoint_of(self._connected_to, self._port))
        self._connected_to = address
        if ":" in address:
            self.socket.setsockopt(zmq.IPV6, 1)
        self.socket.connect(endpoint_of(address, self._port))

    def close(self) -> None:
        self.socket.disable_monitor()
        self.monitor.close(linger=0)
        self.socket.close(linger=0)

    def watch(self) -> None:
        """Read the monitor: did the connection fail last? And close it if it is flooded."""
        if not self._connected_to:
            self._connect()
        while self.monitor.poll(0):
            event, value = _EVENT.unpack(self.monitor.recv_multipart()[0])
            if event == zmq.EVENT_CONNECTED:
                self._descriptor, self._read_bytes = value, 0
            elif event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self.refused, self.problem, self._refusals = False, "", 0
            elif event == zmq.EVENT_CONNECT_RETRIED:
                self._refusals += 1
                self.refused = self._refusals >= len(NAMES.addresses(self._host))
                self._connect()
            else:
                self._handshake_failed()
        if self._is_flooded():
            self.socket.disconnect(endpoint_of(self._connected_to, self._port))
            self._connected_to, self._descriptor = "", -1
            self._not_before_us = now_us() + _REOPEN_AFTER_US
            self.refused, self.problem = True, _FLOODED

    def receive(self) -> list[bytes]:
        """The answers that have arrived, of one frame each. Other messages, and more frames than a node can have
        reason to send, are dropped: the rest is read the next time."""
        answers: deque[bytes] = deque(maxlen=_MOST_ANSWERS)
        with suppress(zmq.Again):
            for _ in range(_FRAMES_PER_TURN):
                frame = self.socket.recv(zmq.NOBLOCK, copy=False)
                alone, self._in_message = not (frame.more or self._in_message), frame.more
                self._read_bytes += wire_bytes(len(frame), self._keys is not None)
                if alone:
                    answers.append(frame.bytes)
        return list(answers)

    def _is_flooded(self) -> bool:
        ends = addresses_of(self._descriptor) if self._descriptor >= 0 else None
        if ends is None or ends[1] != (self._connected_to, self._port):
            return False
        return received_bytes(self._descriptor) - self._read_bytes > _MOST_UNREAD_BYTES

    def _handshake_failed(self) -> None:
        """The node may use its other key now, or accepts none of ours."""
        keys = len(self._keys.servers) if self._keys else 1
        self.wants_other_key = self._key_turn + 1 < keys
        if not self.wants_other_key:
            self.refused, self.problem = True, _NO_HANDSHAKE if self._keys else _NOT_PLAIN

    def try_other_key(self) -> None:
        """Connect with the node's next key."""
        self._key_turn += 1
        self.close()
        self.open()


class Asker:
    """Asks the nodes at `addresses` (id to address) again and again, without ever blocking.

    Call `ask` to ask for new reports and `collect` when a socket of `register` is readable; `reports` has the
    latest answer of each node, `denials` why a node gave none. `keyring`: the key to ask with, None for plain
    text. Belongs to one thread.
    """

    def __init__(
        self,
        cluster: str,
        addresses: Mapping[int, str],
        context: zmq.Context[zmq.Socket[bytes]],
        keyring: Keyring | None = None,
    ) -> None:
        self._query = encode(Envelope(cluster, 0, 0, 0, 0, Query("status")))
        self._cluster, self._addresses = cluster, addresses
        self._context, self._keyring = context, keyring
        self._links = {node: _PeerLink(context, address, _keys(keyring, node)) for node, address in addresses.items()}
        self._poller: zmq.Poller | None = None
        self.reports: dict[int, NodeReport] = {}
        self.denials: dict[int, str] = {}

    def follow(self, within_ms: float) -> None:
        """Ask whom the newest voter record names from now on, where it says that they are. Who answered in the last
        `within_ms` at another address is still asked there; a node that the record does not name and that does not
        answer is asked no more."""
        answered = self.fresh(within_ms)
        recorded = self.status_within(within_ms).recorded
        if not recorded or recorded == self._addresses:
            return
        keyed = None if self._keyring is None else self._keyring.directory.nodes
        wanted = {node: at for node, at in recorded.items() if keyed is None or node in keyed}
        wanted |= {node: self._addresses[node] for node in answered}
        for node in [node for node in self._links if wanted.get(node) != self._addresses[node]]:
            self._drop(self._links.pop(node))
            self.denials.pop(node, None)
        for node in wanted.keys() - self._links.keys():
            self._links[node] = link = _PeerLink(self._context, wanted[node], _keys(self._keyring, node))
            if self._poller is not None:
                self._poller.register(link.socket, zmq.POLLIN)
        self._addresses = wanted

    def register(self, poller: zmq.Poller) -> None:
        """Have `poller` wake up for answers."""
        self._poller = poller
        for link in self._links.values():
            poller.register(link.socket, zmq.POLLIN)

    def ask(self, at_once: bool = False) -> None:
        """Ask each node that owes no answer and was not asked just now (`at_once`: even then). A node that has
        owed one for seconds gets a new connection."""
        now = now_us()
        for node, link in self._links.items():
            if link.unanswered and now - link.asked_us > _REOPEN_AFTER_US:
                self._reopen(link)
            if not link.unanswered and (at_once or now - link.asked_us > _AGAIN_US):
                self._send(node, link, now)

    def _send(self, node: int, link: _PeerLink, now: int) -> None:
        try:
            link.socket.send(addressed(self._query, node), zmq.NOBLOCK)
        except zmq.Again:  # not connected
            return
        link.asked_us, link.unanswered = now, True

    def _reopen(self, link: _PeerLink) -> None:
        if self._poller is not None:
            self._poller.unregister(link.socket)
        if link.wants_other_key:
            link.try_other_key()
        else:
            link.close()
            link.open()
        if self._poller is not None:
            self._poller.register(link.socket, zmq.POLLIN)

    def collect(self) -> None:
        """Take in all answers that have arrived."""
        for node, link in self._links.items():
            link.watch()
            if link.wants_other_key:
                self._reopen(link)
            if link.problem:
                self.denials[node] = link.problem
            if link.refused:  # the query was lost with the old connection
                link.unanswered = False
            for answer in link.receive():
                report = self._report_in(node, answer)
                if report is not None:
                    link.unanswered = False
                    self.reports[node] = report

    def _report_in(self, node: int, answer: bytes) -> NodeReport | None:
        """The report in `answer`, or None for anything but this node's."""
        try:
            envelope = decode(answer)
            wrong = answers_as(self._cluster, node, envelope)
            if wrong:
                self.denials[node] = shown(f"its address {wrong.partition(': ')[2]}")
                return None
            if isinstance(envelope.message, CommonResp):
                self.denials[node] = shown(envelope.message.detail)
                return None
            return parse(envelope.message.text, now_us()) if isinstance(envelope.message, Report) else None
        except MalformedMessage:
            return None

    def fresh(self, within_ms: float) -> dict[int, NodeReport]:
        """The reports heard in the last `within_ms`."""
        return {node: report for node, report in self.reports.items() if report.age_us <= within_ms * 1000}

    @property
    def pending(self) -> set[int]:
        """Nodes that have not answered yet and whose address refused no connection."""
        return self._links.keys() - self.refused - self.reports.keys() - self.denials.keys()

    @property
    def refused(self) -> set[int]:
        """Nodes whose address refuses connections: nobody listens there."""
        return {node for node, link in self._links.items() if link.refused and not link.problem}

    @property
    def status(self) -> ClusterStatus:
        """All that is known now."""
        denials = {node: why for node, why in self.denials.items() if node not in self.reports}
        return ClusterStatus(self._cluster, self._addresses, self.reports, denials, self.refused - self.reports.keys())

    def status_within(self, within_ms: float) -> ClusterStatus:
        """The same, without the reports that are older than `within_ms`."""
        return replace(self.status, reports=self.fresh(within_ms))

    def close(self) -> None:
        """Close all sockets; drops what was not sent."""
        for link in self._links.values():
            self._drop(link)

    def _drop(self, link: _PeerLink) -> None:
        if self._poller is not None:
            self._poller.unregister(link.socket)
        link.close()


def ask_cluster(
    cluster: str,
    addresses: Mapping[int, str],
    within_s: float,
    enough: Callable[[Mapping[int, NodeReport]], bool] = lambda reports: False,
    keyring: Keyring | None = None,
) -> ClusterStatus:
    """Ask every node; return the answers of those that gave one within `within_s` seconds, and why others gave none.

    Returns sooner when all others refuse, or when `enough(reports)`. `keyring`: the key to ask with, None for
    plain text.
    """
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    asker = Asker(cluster, addresses, context, keyring)
    poller = zmq.Poller()
    asker.register(poller)
    end_us = now_us() + int(within_s * 1e6)
    try:
        while asker.pending and now_us() < end_us and not enough(asker.reports):
            asker.ask()
            poller.poll(5)
            asker.collect()
        return asker.status
    finally:
        asker.close()
        context.destroy(linger=0)


def ask_all(
    cluster: str,
    addresses: Mapping[int, str],
    within_s: float,
    enough: Callable[[Mapping[int, NodeReport]], bool] = lambda reports: False,
    keyring: Keyring | None = None,
) -> dict[int, NodeReport]:
    """The reports alone of `ask_cluster`."""
    return dict(ask_cluster(cluster, addresses, within_s, enough, keyring).reports)


def tell_all(
    cluster: str, addresses: Mapping[int, str], message: Message, within_s: float, keyring: Keyring | None = None
) -> dict[int, CommonResp]:
    """Send `message` once to every node at `addresses`, and return the answers of those that gave one within
    `within_s` seconds. `keyring`: the key to use, None for plain text."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    links = {node: _PeerLink(context, address, _keys(keyring, node)) for node, address in addresses.items()}
    query = encode(Envelope(cluster, 0, 0, 0, 0, message))
    answers: dict[int, CommonResp] = {}
    end_us = now_us() + int(within_s * 1e6)
    try:
        while len(answers) < len(links) and now_us() < end_us:
            for node, link in links.items():
                link.watch()
                if link.wants_other_key:
                    link.try_other_key()
                if not link.unanswered:
                    with suppress(zmq.Again):  # not connected yet
                        link.socket.send(addressed(query, node), zmq.NOBLOCK)
                        link.unanswered = True
                link.socket.poll(5 if len(links) == 1 else 1)
                for payload in link.receive():
                    answer = _common(cluster, node, payload)
                    answers |= {node: answer} if answer is not None else {}
        return answers
    finally:
        for link in links.values():
            link.close()
        context.destroy(linger=0)


def _keys(keyring: Keyring | None, node: int) -> ClientKeys | None:
    return None if keyring is None else keyring.to(node)


def _common(cluster: str, node: int, payload: bytes) -> CommonResp | None:
    try:
        envelope = decode(payload)
    except MalformedMessage:
        return None
    message = envelope.message
    if not isinstance(message, CommonResp):
        return None
    if (envelope.cluster, envelope.sender) != (cluster, node):
        kind, _, words = answers_as(cluster, node, envelope).partition(": ")
        return CommonResp(message.about, Result(kind), shown(f"its address {words}", MAX_TEXT))
    return replace(message, detail=shown(message.detail))
