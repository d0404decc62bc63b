"""Asks nodes how they are, from outside the cluster (design: `zelect status`).

The asker is no member: it speaks as sender 0, and its questions change nothing. It has one DEALER
a node and never blocks, so a frozen or dead node costs the others nothing. Office is only what a
node says of itself with a running lease; what it says of others is hearsay and decides nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import zmq

from zelect.core.messages import CommonResp, Envelope, MalformedMessage, Message, Query, Report
from zelect.shell.clock import now_us
from zelect.wire import MAX_MESSAGE_BYTES, decode, encode

__all__ = ["Asker", "NodeReport", "StoreReport", "ask_all", "controller_of", "summary", "tell_all"]

_REOPEN_AFTER_US = 5_000_000


@dataclass(frozen=True, slots=True)
class StoreReport:
    """Redis, as one node sees it. `state` is "up" or "down"; `problem` is empty when up."""

    url: str
    state: str
    published_term: int | None
    problem: str


@dataclass(frozen=True, slots=True)
class NodeReport:
    """What one node said of itself. `since_ms`: Unix time at which it entered office (None out of
    office); `lease_left_ms` counts from the moment it answered, `at_us` is when that was heard on
    the election's clock; `links` of `peers` peers were connected."""

    id: int
    pid: int
    term: int
    role: str
    status: str
    address: str
    in_office: bool
    lease_left_ms: float
    since_ms: int | None
    config_term: int
    version: int
    members: tuple[int, ...]
    foundation: int
    witness: str
    survives: int
    links: int
    peers: int
    controller_heard_ms: float | None
    store: StoreReport
    rss_kb: int
    at_us: int
    counters: Mapping[str, int] = field(default_factory=dict)

    @property
    def age_ms(self) -> float:
        """How long ago this was heard."""
        return (now_us() - self.at_us) / 1000


def _typed(table: Mapping[str, Any], key: str, *kinds: type) -> Any:
    value = table.get(key)
    if type(value) not in kinds:  # exact types: True is no number
        raise MalformedMessage("bad_report", f"{key} is {value!r:.40}")
    return value


def _parse(text: str, at_us: int) -> NodeReport:
    """Judge a REPORT's text; raises MalformedMessage."""
    try:
        table = json.loads(text)
    except ValueError as error:
        raise MalformedMessage("bad_report", str(error)) from error
    if type(table) is not dict:
        raise MalformedMessage("bad_report", "not an object")
    none = type(None)
    electorate = _typed(table, "electorate", dict)
    members = _typed(electorate, "members", list)
    peers = _typed(table, "peers", list)
    if any(type(member) is not int for member in members) or any(type(peer) is not dict for peer in peers):
        raise MalformedMessage("bad_report", "members or peers")
    store = _typed(table, "store", dict)
    return NodeReport(
        id=_typed(table, "id", int),
        pid=_typed(table, "pid", int),
        term=_typed(table, "term", int),
        role=_typed(table, "role", str),
        status=_typed(table, "status", str),
        address=_typed(table, "address", str),
        in_office=_typed(table, "in_office", bool),
        lease_left_ms=_typed(table, "lease_left_ms", int, float),
        since_ms=_typed(table, "since_ms", int, none),
        config_term=_typed(electorate, "config_term", int),
        version=_typed(electorate, "version", int),
        members=tuple(members),
        foundation=_typed(electorate, "foundation", int),
        witness=_typed(electorate, "witness", str),
        survives=_typed(electorate, "survives", int),
        links=sum(peer.get("linked") is True for peer in peers),
        peers=len(peers),
        controller_heard_ms=_typed(table, "controller_heard_ms", int, float, none),
        store=StoreReport(
            url=_typed(store, "url", str),
            state=_typed(store, "state", str),
            published_term=_typed(store, "published_term", int, none),
            problem=_typed(store, "problem", str),
        ),
        rss_kb=_typed(table, "rss_kb", int),
        at_us=at_us,
        counters=_typed(table, "counters", dict),
    )


class _Link:
    """One node's DEALER, with a monitor that tells when a connection attempt failed."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], address: str) -> None:
        self._context = context
        self._address = address
        self.open()

    def open(self) -> None:
        """Connect anew. A DEALER that met a protocol error stays deaf for ever; a new one does not."""
        self.asked_us = 0
        self.unanswered = False
        self.refused = False
        self.socket = self._context.socket(zmq.DEALER)
        for option, value in (
            (zmq.LINGER, 0),
            (zmq.IMMEDIATE, 1),  # no questions pile up for a node that is away
            (zmq.SNDHWM, 4),
            (zmq.RCVHWM, 64),
            (zmq.MAXMSGSIZE, MAX_MESSAGE_BYTES),
            (zmq.RECONNECT_IVL, 100),
            (zmq.CONNECT_TIMEOUT, 1000),
        ):
            self.socket.setsockopt(option, value)
        self.monitor = self.socket.get_monitor_socket(zmq.EVENT_CONNECT_RETRIED | zmq.EVENT_HANDSHAKE_SUCCEEDED)
        self.socket.connect(self._address)

    def close(self) -> None:
        self.socket.disable_monitor()
        self.monitor.close(linger=0)
        self.socket.close(linger=0)

    def watch(self) -> None:
        """Read the monitor: was the last word of the connection that it failed?"""
        while self.monitor.poll(0):
            event = int.from_bytes(self.monitor.recv_multipart()[0][:2], "little")
            self.refused = event == zmq.EVENT_CONNECT_RETRIED


class Asker:
    """Asks the nodes at `addresses` (id to address) again and again, without ever blocking.

    Call `ask` when news is wanted and `collect` when a socket of `register` is readable;
    `reports` holds the latest answer of each node. Belongs to one thread.
    """

    def __init__(self, cluster: str, addresses: Mapping[int, str], context: zmq.Context[zmq.Socket[bytes]]) -> None:
        self._question = encode(Envelope(cluster, 0, 0, 0, 0, Query("status")))
        self._cluster = cluster
        self._links = {node: _Link(context, address) for node, address in addresses.items()}
        self._poller: zmq.Poller | None = None
        self.reports: dict[int, NodeReport] = {}

    def register(self, poller: zmq.Poller) -> None:
        """Have `poller` wake up for answers."""
        self._poller = poller
        for link in self._links.values():
            poller.register(link.socket, zmq.POLLIN)

    def ask(self) -> None:
        """Ask each node that owes no answer. One that owes it for seconds gets a new connection."""
        now = now_us()
        for link in self._links.values():
            if link.unanswered and now - link.asked_us > _REOPEN_AFTER_US:
                self._reopen(link)
            if not link.unanswered:
                self._send(link, now)

    def _send(self, link: _Link, now: int) -> None:
        try:
            link.socket.send(self._question, zmq.NOBLOCK)
        except zmq.Again:  # not connected
            return
        link.asked_us, link.unanswered = now, True

    def _reopen(self, link: _Link) -> None:
        if self._poller is not None:
            self._poller.unregister(link.socket)
        link.close()
        link.open()
        if self._poller is not None:
            self._poller.register(link.socket, zmq.POLLIN)

    def collect(self) -> None:
        """Take in all answers that have arrived."""
        for node, link in self._links.items():
            link.watch()
            if link.refused:  # the question went down with the old connection
                link.unanswered = False
            while link.socket.poll(0):
                frames = link.socket.recv_multipart()
                report = self._judge(node, frames)
                if report is not None:
                    link.unanswered = False
                    self.reports[node] = report

    def _judge(self, node: int, frames: list[bytes]) -> NodeReport | None:
        """The report in `frames`, or None for whatever is not this node's answer."""
        if len(frames) != 1:
            return None
        try:
            envelope = decode(frames[0])
            if envelope.cluster != self._cluster or envelope.sender != node:
                return None
            return _parse(envelope.message.text, now_us()) if isinstance(envelope.message, Report) else None
        except MalformedMessage:
            return None

    def fresh(self, within_ms: float) -> dict[int, NodeReport]:
        """The reports heard in the last `within_ms`."""
        return {node: report for node, report in self.reports.items() if report.age_ms <= within_ms}

    @property
    def pending(self) -> set[int]:
        """Nodes that have not answered yet and whose address refused no connection."""
        return {node for node, link in self._links.items() if node not in self.reports and not link.refused}

    def close(self) -> None:
        """Close all sockets; drops what was not sent."""
        for link in self._links.values():
            if self._poller is not None:
                self._poller.unregister(link.socket)
            link.close()


def ask_all(
    cluster: str,
    addresses: Mapping[int, str],
    within_s: float,
    enough: Callable[[Mapping[int, NodeReport]], bool] = lambda reports: False,
) -> dict[int, NodeReport]:
    """Ask every node once and return the answers of those that gave one within `within_s` seconds.

    Returns sooner when all others refuse connections, or when `enough(reports)`.
    """
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    asker = Asker(cluster, addresses, context)
    poller = zmq.Poller()
    asker.register(poller)
    end_us = now_us() + int(within_s * 1e6)
    try:
        while asker.pending and now_us() < end_us and not enough(asker.reports):
            asker.ask()
            poller.poll(5)
            asker.collect()
        return asker.reports
    finally:
        asker.close()
        context.destroy(linger=0)


def tell_all(cluster: str, addresses: Mapping[int, str], message: Message, within_s: float) -> dict[int, CommonResp]:
    """Tell every node at `addresses` something, and return the answers of those that gave one
    within `within_s` seconds."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    poller = zmq.Poller()
    sockets: dict[zmq.Socket[bytes], int] = {}
    answers: dict[int, CommonResp] = {}
    try:
        for node, address in addresses.items():
            socket = context.socket(zmq.DEALER)
            socket.setsockopt(zmq.LINGER, 0)
            socket.connect(address)
            socket.send(encode(Envelope(cluster, 0, 0, 0, 0, message)))
            sockets[socket] = node
            poller.register(socket, zmq.POLLIN)
        end_us = now_us() + int(within_s * 1e6)
        while len(answers) < len(addresses) and (left_us := end_us - now_us()) > 0:
            for socket, _ in poller.poll(left_us // 1000 + 1):
                answer = _common(cluster, sockets[socket], socket.recv_multipart())
                if answer is not None:
                    answers[sockets[socket]] = answer
        return answers
    finally:
        context.destroy(linger=0)


def _common(cluster: str, node: int, frames: list[bytes]) -> CommonResp | None:
    try:
        envelope = decode(frames[0]) if len(frames) == 1 else None
    except MalformedMessage:
        return None
    if envelope is None or (envelope.cluster, envelope.sender) != (cluster, node):
        return None
    return envelope.message if isinstance(envelope.message, CommonResp) else None


def controller_of(reports: Mapping[int, NodeReport]) -> NodeReport | None:
    """The node that says of itself that it is in office; of several, the one of the newest term."""
    claims = [report for report in reports.values() if report.in_office]
    return max(claims, key=lambda report: report.term, default=None)


def summary(cluster: str, addresses: Mapping[int, str], reports: Mapping[int, NodeReport]) -> dict[str, Any]:
    """What `zelect status --json` prints. What nobody told is None."""
    head = controller_of(reports)
    newest = max(reports.values(), key=lambda r: (r.foundation, r.config_term, r.version), default=None)
    teller = head or next(iter(reports.values()), None)
    return {
        "cluster": cluster,
        "term": head.term if head else max((report.term for report in reports.values()), default=None),
        "quorate": head is not None,
        "controller": head and {"id": head.id, "term": head.term, "address": head.address, "since_ms": head.since_ms},
        "electorate": newest
        and {
            "config_term": newest.config_term,
            "version": newest.version,
            "members": list(newest.members),
            "witness": newest.witness,
        },
        "store": teller
        and {
            "url": teller.store.url,
            "state": teller.store.state,
            "published_term": teller.store.published_term,
            "problem": teller.store.problem,
        },
        "nodes": [_row(node, addresses[node], reports.get(node)) for node in sorted(addresses)],
    }


def _row(node: int, address: str, report: NodeReport | None) -> dict[str, Any]:
    return {
        "id": node,
        "pid": report.pid if report else None,
        "role": report.role if report else None,
        "status": report.status if report else None,
        "term": report.term if report else None,
        "address": address,
        "reachable": report is not None,
        "counters": dict(report.counters) if report else None,
    }
