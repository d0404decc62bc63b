"""Bytes to and from the peers: one ROUTER to receive on (`Router`), one `PeerLink` per peer to send on.

Owned by one thread and driven by its poller::

    ready = poller.poll(timeout_ms)
    changes = transport.service(ready)      # monitors, watchdogs, probes
    received = transport.receive(100)       # what the peers said
    verdicts = transport.verdicts()         # what the probes found, those just begun included

Nothing blocks: what can't be sent now is dropped and counted, because the next heartbeat is worth
more than this one. New keys (`rekey`) get connections of their own, which take over once they stand.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from zelect.core.lease import NEVER_US
from zelect.core.timing import Proof
from zelect.node.transport.connection_limits import ConnectionLimits
from zelect.node.transport.death_probe import DeathProbe, Verdict
from zelect.node.transport.peer_link import PeerLink
from zelect.node.transport.router import INBOX_COUNTERS, Router
from zelect.security.keys import Keyring
from zelect.system.clock import now_us
from zelect.system.poller import Poller
from zelect.system.sockets import Context, Counters

__all__ = ["LinkChange", "Transport"]

_COUNTERS = (
    "sent",
    "dropped",
    "too_big_to_send",
    "came_up",
    "went_down",
    "rebuilt",
    "other_key_tried",
    "not_made",
    "self_connects",
    "stray_frames",
    "probes",
    "proofs",
    *INBOX_COUNTERS,
)


@dataclass(frozen=True, slots=True)
class LinkChange:
    """The connection to `peer` completed its handshake (`up`) or closed."""

    peer: int
    up: bool


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
        keyring: Keyring | None = None,
        bounds: ConnectionLimits | None = None,
    ) -> None:
        """`listen` and the values of `peers` are ``tcp://host:port``; raises ValueError otherwise.
        `keyring`: None for plain text."""
        self.counters: Counters = dict.fromkeys(_COUNTERS, 0)
        self._context = context
        self._peers = peers
        self._max_message_bytes = max_message_bytes
        self._poller = poller
        self._proof = proof
        self._keyring = keyring
        self._probes: dict[tuple[int, int], DeathProbe] = {}
        self._verdicts: list[Verdict] = []
        self._router = Router(
            context,
            listen=listen,
            max_message_bytes=max_message_bytes,
            poller=poller,
            counters=self.counters,
            keyring=keyring,
            bounds=bounds or ConnectionLimits(),
        )
        self._links = {peer: self._link(peer) for peer in peers}
        self._coming: dict[int, PeerLink] = {}
        """Links with new keys, until they stand."""
        self._links_due_us = NEVER_US  # the earliest watchdog of a link, as of the last look at all of them
        self.bind = self._router.bind
        self.receive = self._router.receive
        self.backlog = self._router.backlog
        self.reply = self._router.reply
        self.know = self._router.know
        self.throw_out = self._router.throw_out
        self.break_authenticator = self._router.break_authenticator

    def _link(self, peer: int) -> PeerLink:
        keyring = self._keyring
        return PeerLink(
            self._context,
            peer,
            self._peers[peer],
            max_message_bytes=self._max_message_bytes,
            poller=self._poller,
            counters=self.counters,
            keys=None if keyring is None else keyring.to(peer),
        )

    def connect(self) -> None:
        """Begin to connect to all peers."""
        now = now_us()
        for link in self._links.values():
            link.open(now)
        self._links_due_us = self._watchdogs_us()

    def rekey(self, keyring: Keyring) -> None:
        """Use the keys of `keyring` from now on, without letting go of a connection that stands
        before another one does. Raises `CannotBind`; then nothing has changed."""
        before = self._keyring
        assert before is not None
        self._router.rekey(keyring)
        self._keyring, now = keyring, now_us()
        for peer in self._peers:
            if keyring.pair != before.pair or keyring.directory.nodes[peer] != before.directory.nodes[peer]:
                if peer in self._coming:
                    self._coming[peer].close()
                self._coming[peer] = link = self._link(peer)
                link.open(now)
        self._links_due_us = self._watchdogs_us()

    def close(self) -> None:
        """Close all sockets at once, sending nothing more. Harmless when repeated."""
        for probe in self._probes.values():
            probe.close()
        self._probes.clear()
        for link in (*self._links.values(), *self._coming.values()):
            link.close()
        self._coming.clear()
        self._router.close()

    def service(self, ready: Mapping[Any, int]) -> list[LinkChange]:
        """Drain the monitors, run watchdogs and probes. `ready` is what the poller returned.

        Every change of a link is reported, in order: one that went down and came up again in one
        turn is reported twice. Raises `AuthenticatorFailed`: nobody new can come in any more.
        """
        now = now_us()
        if not self._probes and now < self._links_due_us and self._router.rests(ready, now):
            return []  # as nearly always
        self._router.service(ready, now)
        changes = [LinkChange(peer, up) for peer, link in self._links.items() for up in link.service(ready, now)]
        for peer, link in list(self._coming.items()) if self._coming else ():
            link.service(ready, now)
            if link.up:
                before, self._links[peer] = self._links[peer], link
                del self._coming[peer]
                if not before.up:
                    changes.append(LinkChange(peer, True))
                before.close()
        for key, probe in list(self._probes.items()) if self._probes else ():
            self._step(key, probe, now)
        self._links_due_us = self._watchdogs_us()
        return changes

    def _watchdogs_us(self) -> int:
        links = (*self._links.values(), *self._coming.values())
        return min((link.deadline_us() for link in links), default=NEVER_US)

    def has_mail(self, ready: Mapping[Any, int]) -> bool:
        """Whether the poller's answer says that messages have arrived, or some were left."""
        return self._router.has_mail(ready)

    def send(self, peer: int, payload: bytes) -> bool:
        """Send to `peer` if its link is up and has room; False when dropped, which is counted.

        A payload above the limit is dropped here: at the peer it would cost the connection.
        """
        if len(payload) > self._max_message_bytes:
            self.counters["too_big_to_send"] += 1
            return False
        return self._links[peer].send(payload)

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
        due_us = now_us() if self._verdicts or self._router.waits else self._links_due_us
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
