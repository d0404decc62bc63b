"""Asks nodes how they are, from outside the cluster (design: `zelect status`).

The asker is no member: it speaks as sender 0, and its questions change nothing. It has one DEALER
a node and never blocks, so a frozen or dead node costs the others nothing. Leadership is only what a
node says of itself with a running lease; what it says of others is hearsay and decides nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import zmq

from zelect.core.messages import CommonResp, Envelope, MalformedMessage, Message, Query, Report
from zelect.security.keys import ClientKeys, Keyring
from zelect.status.decode import NodeReport, RedisReport, controller_of, parse
from zelect.system.clock import now_us
from zelect.wire import MAX_MESSAGE_BYTES, decode, encode

__all__ = ["Asker", "NodeReport", "RedisReport", "ask_all", "controller_of", "summary", "tell_all"]

_REOPEN_AFTER_US = 5_000_000
_AGAIN_US = 20_000
"""Who has answered is left alone for so long: while another is waited for, it would be asked a thousand times a
second, and bounds the messages of unknown clients."""
_LOCKED = "takes no such key, or speaks plain text: is --key right, and the directory of keys the newest?"
_EVENTS = (
    zmq.EVENT_CONNECT_RETRIED
    | zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
)


class _PeerLink:
    """One node's DEALER, with a monitor that tells when a connection attempt failed. `keys`: None
    for plain text."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], address: str, keys: ClientKeys | None) -> None:
        self._context = context
        self._address = address
        self._keys = keys
        self._key_turn = 0
        self.problem = ""
        self.open()

    def open(self) -> None:
        """Connect again. A DEALER that met a protocol error stays deaf for ever; a new one does not."""
        self.asked_us = 0
        self.unanswered = False
        self.refused = False
        self.wants_other_key = False
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
        if self._keys is not None:
            self._keys.apply_to(self.socket, self._key_turn)
        self.monitor = self.socket.get_monitor_socket(_EVENTS)
        self.socket.connect(self._address)

    def close(self) -> None:
        self.socket.disable_monitor()
        self.monitor.close(linger=0)
        self.socket.close(linger=0)

    def watch(self) -> None:
        """Read the monitor: was the last word of the connection that it failed?"""
        while self.monitor.poll(0):
            event = int.from_bytes(self.monitor.recv_multipart()[0][:2], "little")
            if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self.refused, self.problem = False, ""
            elif event == zmq.EVENT_CONNECT_RETRIED:
                self.refused = True
            else:
                self._locked_out()

    def _locked_out(self) -> None:
        """The handshake failed: the node may have its other key, or it will have none of this."""
        keys = len(self._keys.servers) if self._keys else 1
        self.wants_other_key = self._key_turn + 1 < keys
        if not self.wants_other_key:
            self.refused, self.problem = True, _LOCKED

    def try_other_key(self) -> None:
        """Connect with the node's next key."""
        self._key_turn += 1
        self.close()
        self.open()


class Asker:
    """Asks the nodes at `addresses` (id to address) again and again, without ever blocking.

    Call `ask` when news is wanted and `collect` when a socket of `register` is readable;
    `reports` holds the latest answer of each node, `denials` why one gave none. `keyring`: the key
    to ask with, None for plain text. Belongs to one thread.
    """

    def __init__(
        self,
        cluster: str,
        addresses: Mapping[int, str],
        context: zmq.Context[zmq.Socket[bytes]],
        keyring: Keyring | None = None,
    ) -> None:
        self._question = encode(Envelope(cluster, 0, 0, 0, 0, Query("status")))
        self._cluster = cluster
        self._links = {node: _PeerLink(context, address, _lock(keyring, node)) for node, address in addresses.items()}
        self._poller: zmq.Poller | None = None
        self.reports: dict[int, NodeReport] = {}
        self.denials: dict[int, str] = {}

    def register(self, poller: zmq.Poller) -> None:
        """Have `poller` wake up for answers."""
        self._poller = poller
        for link in self._links.values():
            poller.register(link.socket, zmq.POLLIN)

    def ask(self, at_once: bool = False) -> None:
        """Ask each node that owed_term no answer, and was not asked just now (`at_once`: even so). One that owed_term
        it for seconds gets a new connection."""
        now = now_us()
        for link in self._links.values():
            if link.unanswered and now - link.asked_us > _REOPEN_AFTER_US:
                self._reopen(link)
            if not link.unanswered and (at_once or now - link.asked_us > _AGAIN_US):
                self._send(link, now)

    def _send(self, link: _PeerLink, now: int) -> None:
        try:
            link.socket.send(self._question, zmq.NOBLOCK)
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
            if isinstance(envelope.message, CommonResp):
                self.denials[node] = envelope.message.detail
                return None
            return parse(envelope.message.text, now_us()) if isinstance(envelope.message, Report) else None
        except MalformedMessage:
            return None

    def fresh(self, within_ms: float) -> dict[int, NodeReport]:
        """The reports heard in the last `within_ms`."""
        return {node: report for node, report in self.reports.items() if report.age_ms <= within_ms}

    @property
    def pending(self) -> set[int]:
        """Nodes that have not answered yet and whose address refused no connection."""
        open_ = {node for node, link in self._links.items() if not link.refused}
        return open_ - self.reports.keys() - self.denials.keys()

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
    keyring: Keyring | None = None,
    denials: dict[int, str] | None = None,
) -> dict[int, NodeReport]:
    """Ask every node once and return the answers of those that gave one within `within_s` seconds.

    Returns sooner when all others refuse, or when `enough(reports)`. `keyring`: the key to ask with,
    None for plain text. `denials` is told why a node that could be reached gave no answer.
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
        if denials is not None:
            denials |= {node: why for node, why in asker.denials.items() if node not in asker.reports}
        return asker.reports
    finally:
        asker.close()
        context.destroy(linger=0)


def tell_all(
    cluster: str, addresses: Mapping[int, str], message: Message, within_s: float, keyring: Keyring | None = None
) -> dict[int, CommonResp]:
    """Tell every node at `addresses` something once, and return the answers of those that gave one
    within `within_s` seconds. `keyring`: the key to speak with, None for plain text."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    links = {node: _PeerLink(context, address, _lock(keyring, node)) for node, address in addresses.items()}
    question = encode(Envelope(cluster, 0, 0, 0, 0, message))
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
                        link.socket.send(question, zmq.NOBLOCK)
                        link.unanswered = True
                if link.socket.poll(5 if len(links) == 1 else 1):
                    answer = _common(cluster, node, link.socket.recv_multipart())
                    answers |= {node: answer} if answer is not None else {}
        return answers
    finally:
        for link in links.values():
            link.close()
        context.destroy(linger=0)


def _lock(keyring: Keyring | None, node: int) -> ClientKeys | None:
    return None if keyring is None else keyring.to(node)


def _common(cluster: str, node: int, frames: list[bytes]) -> CommonResp | None:
    try:
        envelope = decode(frames[0]) if len(frames) == 1 else None
    except MalformedMessage:
        return None
    if envelope is None or (envelope.cluster, envelope.sender) != (cluster, node):
        return None
    return envelope.message if isinstance(envelope.message, CommonResp) else None


def summary(cluster: str, addresses: Mapping[int, str], reports: Mapping[int, NodeReport]) -> dict[str, Any]:
    """What `zelect status --json` prints. What nobody told is None."""
    head = controller_of(reports)
    newest = max(reports.values(), key=lambda r: (r.generation, r.config_term, r.version), default=None)
    teller = head or next(iter(reports.values()), None)
    return {
        "cluster": cluster,
        "term": head.term if head else max((report.term for report in reports.values()), default=None),
        "quorate": head is not None,
        "controller": head and {"id": head.id, "term": head.term, "address": head.address, "since_ms": head.since_ms},
        "voters": newest
        and {
            "config_term": newest.config_term,
            "version": newest.version,
            "members": list(newest.members),
            "witness": newest.witness,
        },
        "redis": teller
        and {
            "url": teller.redis.url,
            "state": teller.redis.state,
            "published_term": teller.redis.published_term,
            "problem": teller.redis.problem,
        },
        "pause": head and head.pause and {"left_ms": head.pause.left_ms, "asked": head.pause.asked},
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
