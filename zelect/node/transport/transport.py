"""Bytes to and from the peers: one ROUTER to receive on (`Router`), one `PeerLink` per peer to send on.

Owned by one thread and driven by its poller::

    ready = poller.poll(timeout_ms)
    changes = transport.service(ready)          # connections that opened or closed, supervision timers, probes
    received = transport.router.receive(100)    # what the peers sent
    verdicts = transport.take_verdicts()        # what the probes found, those just begun included
    transport.links[peer].send(payload)

Nothing blocks: what can't be sent now is dropped and counted, because the next heartbeat is worth
more than this one. With new keys (`rekey`) there are new connections, which take over once they are up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from zelect.core.lease import NEVER_US
from zelect.core.timing import Proof
from zelect.node.transport.connection_limits import ConnectionLimits
from zelect.node.transport.death_probe import DeathProbe, Verdict
from zelect.node.transport.peer_connections import InboundChange
from zelect.node.transport.peer_link import LINK_COUNTERS, PeerLink
from zelect.node.transport.router import ROUTER_COUNTERS, Router
from zelect.security.keys import Keyring
from zelect.system.clock import now_us
from zelect.system.forks import Address, close_connections, in_child
from zelect.system.memory import MemoryWatch
from zelect.system.poller import Poller
from zelect.system.sockets import Context, Counters

_MEMORY_US = 5_000
"""The process's memory is looked at this often at most, and this often while it grows."""
_GROWING_US = 100_000
_UNPROVEN_US = 20_000
"""How often the process's memory is looked at while a connection has sent nothing valid."""


@dataclass(frozen=True, slots=True)
class LinkChange:
    """The connection to `peer` completed its handshake (`up`) or closed."""

    peer: int
    up: bool


Change = LinkChange | InboundChange
"""What happens to a connection between this node and a peer, by whose it is."""


class Transport:
    """The sockets of one node: `router`, and the `links` to the peers. Use from one thread; `router.bind`, then
    `connect`, at the end `close`. `verdicts`: what the probes have found out so far."""

    def __init__(
        self,
        context: Context,
        *,
        listen: str,
        max_message_bytes: int,
        poller: Poller,
        proof: Proof = Proof.REFUSED,
        keyring: Keyring | None = None,
        limits: ConnectionLimits | None = None,
    ) -> None:
        """`listen` is ``tcp://host:port``; raises ValueError otherwise. `keyring`: None for plain text."""
        self.counters: Counters = dict.fromkeys(
            (*LINK_COUNTERS, *ROUTER_COUNTERS, "probes", "proofs", "bad_addresses"), 0
        )
        self.verdicts: list[Verdict] = []
        self.answers: list[tuple[int, bytes]] = []
        self._context = context
        self._peers: dict[int, str] = {}
        self._others: dict[int, str] = {}
        self._max_message_bytes = max_message_bytes
        self._poller = poller
        self._proof = proof
        self._keyring = keyring
        self._probes: dict[tuple[int, int], DeathProbe] = {}
        self.router = Router(
            context,
            listen=listen,
            max_message_bytes=max_message_bytes,
            poller=poller,
            counters=self.counters,
            keyring=keyring,
            limits=limits or ConnectionLimits(),
        )
        self.links: dict[int, PeerLink] = {}
        self._replacements: dict[int, PeerLink] = {}
        """Links with new keys, until they are up."""
        self._closed: list[LinkChange] = []
        """Links that were closed for want of a key, or as wrong, and not reported yet."""
        self._memory = MemoryWatch()
        self._memory_due_us = self._growing_until_us = 0
        in_child(self._leave_to_parent)
        self._links_due_us = NEVER_US  # the earliest supervision timer of a link, as of the last look at all of them

    def _link(self, peer: int) -> PeerLink:
        return PeerLink(
            self._context,
            peer,
            self._peers[peer],
            max_message_bytes=self._max_message_bytes,
            poller=self._poller,
            counters=self.counters,
            keys=None if self._keyring is None else self._keyring.to(peer),
            answers=self.answers,
            other=self._others.get(peer, ""),
        )

    def connect(self, peers: Mapping[int, str], others: Mapping[int, str] | None = None) -> None:
        """Hold connections to `peers` from now on, at ``tcp://host:port`` each, and to nobody else. A standing
        connection to a peer whose address stays is kept. With keys, there is none to a peer whose key is not in
        the directory, nor to one whose address is none, which is counted. `others`: where a peer may be instead, for a
        new connection to it."""
        now = now_us()
        earlier, self._others = self._others, {at: to for at, to in (others or {}).items() if to != peers.get(at)}
        before, self._peers = self._peers, dict(peers)
        keyless = set() if self._keyring is None else peers.keys() - self._keyring.directory.nodes.keys()
        looks_elsewhere = {p for p, at in self._others.items() if at != earlier.get(p) and not self._is_up(p)}
        moved = {peer for peer in self.links if peers.get(peer) != before[peer]}
        for peer in moved | (keyless | looks_elsewhere) & self.links.keys():
            if self.links[peer].up and peer in keyless:  # that one has moved or gone is known already
                self._closed.append(LinkChange(peer, False))
            self._replacements.pop(peer, self.links[peer]).close()
            self.links.pop(peer).close()
        for peer in sorted(peers.keys() - self.links.keys() - keyless):
            try:
                link = self._link(peer)
            except ValueError:  # what somebody told or recorded is no address
                self.counters["bad_addresses"] += 1
                continue
            self.links[peer] = link
            link.open(now)
        self._links_due_us = self._supervision_due_us()

    def _is_up(self, peer: int) -> bool:
        return peer in self.links and self.links[peer].up

    def rekey(self, keyring: Keyring) -> None:
        """Use the keys of `keyring` from now on. A connection is closed only when the one that replaces it is up.
        Raises `CannotBind`; then nothing has changed."""
        before = self._keyring
        assert before is not None
        self.router.rekey(keyring)
        self._keyring, now = keyring, now_us()
        for peer in self.links:
            if peer in keyring.directory.nodes and keyring.to(peer) != before.to(peer):
                if peer in self._replacements:
                    self._replacements[peer].close()
                self._replacements[peer] = link = self._link(peer)
                link.open(now)
        self.connect(self._peers, self._others)  # to those whose keys are new

    def close(self) -> None:
        """Close all sockets at once, sending nothing more. Harmless when repeated."""
        for probe in self._probes.values():
            probe.close()
        self._probes.clear()
        for link in (*self.links.values(), *self._replacements.values()):
            link.close()
        self._replacements.clear()
        self.router.close()
        self._memory.close()

    def _leave_to_parent(self) -> None:
        """In a forked child: close what keeps this node alive in the eyes of its peers."""
        for probe in self._probes.values():
            probe.close()
        peers = {at for link in (*self.links.values(), *self._replacements.values()) for at in link.tried}

        def is_ours(own: Address, other: Address | None) -> bool:
            return own[1] == self.router.port or other in peers

        close_connections(is_ours)

    def service(self, ready: Mapping[Any, int]) -> list[Change]:
        """Read the monitors, run supervision timers and probes. `ready` is what the poller returned.

        Every change is reported, those of a link in order: one that went down and came up again in one
        turn is reported twice. Raises `AuthenticatorFailed`: no new connection can be made any more.
        """
        now = now_us()
        if now >= self._memory_due_us:
            self._memory_due_us = now + _MEMORY_US
            if self._memory.has_grown():
                self._audit_all(now)
        if not self._probes and not self._closed and now < self._links_due_us and self.router.is_idle(ready, now):
            return []  # as nearly always
        self.router.service(ready, now)
        changes: list[Change] = [*self._closed]
        self._closed.clear()
        changes += (LinkChange(peer, up) for peer, link in self.links.items() for up in link.service(ready, now))
        for peer, link in list(self._replacements.items()) if self._replacements else ():
            link.service(ready, now)
            if link.up:
                before, self.links[peer] = self.links[peer], link
                del self._replacements[peer]
                if not before.up:
                    changes.append(LinkChange(peer, True))
                before.close()
        for key, probe in list(self._probes.items()) if self._probes else ():
            self._step(key, probe, now)
        self._links_due_us = self._supervision_due_us()
        changes += self.router.take_changes()
        return changes

    def _audit_all(self, now: int) -> None:
        """The process has grown: see whether a connection is to blame."""
        self._growing_until_us = now + _GROWING_US
        self.router.audit_all()
        for peer, link in self.links.items():
            self._closed += (LinkChange(peer, up) for up in link.audit(now))
        for link in self._replacements.values():
            link.audit(now)
        self._links_due_us = self._supervision_due_us()

    def _supervision_due_us(self) -> int:
        links = (*self.links.values(), *self._replacements.values())
        return min((link.deadline_us() for link in links), default=NEVER_US)

    def probe(self, peer: int, incarnation: int, lock_free: Callable[[], bool] | None = None) -> None:
        """Find out whether process `incarnation` of `peer` is dead; see `verdicts`.

        The first attempt is made here and now. Does nothing while the same question is open.
        `lock_free` must neither block nor raise.
        """
        key = (peer, incarnation)
        if key in self._probes or peer not in self.links:
            return
        self.counters["probes"] += 1
        self._probes[key] = probe = DeathProbe(
            peer,
            incarnation,
            address=self.links[peer].address,
            proof=self._proof,
            lock_free=lock_free,
            poller=self._poller,
        )
        self._step(key, probe, now_us())

    def take_answers(self) -> list[tuple[int, bytes]]:
        """What came back over the links since this was last called: how a node that does not count this one as a
        member says so. With the peer that the link leads to."""
        answers = self.answers[:]
        self.answers.clear()
        return answers

    def reject(self, peer: int, problem: str) -> None:
        """The link to `peer` leads elsewhere: `problem` says where. It is down until another attempt finds the peer."""
        link = self.links.get(peer)
        if link is None:
            return
        if link.up:
            self._closed.append(LinkChange(peer, False))
        link.reject(problem, now_us())
        self._links_due_us = self._supervision_due_us()

    def problem_of(self, peer: int) -> str:
        """What answers in the place of `peer` at its address, where that is known; ""."""
        return self.links[peer].problem if peer in self.links else ""

    def take_verdicts(self) -> list[Verdict]:
        """The verdicts reached since this was last called."""
        verdicts, self.verdicts = self.verdicts, []
        return verdicts

    def deadline_us(self) -> int:
        """When `service` is to be called at the latest, on the clock of `now_us`.

        Now, while messages or verdicts wait to be fetched: some verdicts are reached the moment a
        probe begins.
        """
        now = now_us()
        due_us = now if self.verdicts or self._closed or self.router.has_more else self._links_due_us
        if now < self._growing_until_us:
            due_us = min(due_us, now + _MEMORY_US)
        elif self.router.has_unproven:
            due_us = min(due_us, now + _UNPROVEN_US)
        for probe in self._probes.values():
            due_us = min(due_us, probe.deadline_us())
        return due_us

    def _step(self, key: tuple[int, int], probe: DeathProbe, now: int) -> None:
        verdict = probe.step(now)
        if verdict is not None:
            del self._probes[key]
            self.verdicts.append(verdict)
            self.counters["proofs"] += verdict.evidence is not None
