"""One step in the making: what an actor reads, and where it puts what is to be done.

A `Step` collects; `finish` puts the collection into the order of `Effects` and stamps every message
with the cluster, the sender and the term *as they are after the step*.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, TypedDict, Unpack

from zelect.core.effects import FACTS, Effects, Fact, Intent, Probe, Saved, WitnessIntent
from zelect.core.messages import CommonResp, Envelope, Message
from zelect.core.quorum import WITNESS, Record
from zelect.core.settings import Settings
from zelect.core.state import Peer, State
from zelect.core.status import NodeStatus
from zelect.core.timing import Proof

NOTHING = Effects()
"""The effects of a step that asks for nothing."""


class _SavedChanges(TypedDict, total=False):
    """The fields of `Saved` that a step may change."""

    term: int
    voted_for: int
    voted_epoch: int
    record: Record
    epoch: int
    founding: tuple[tuple[int, int], ...]
    promise_ms: int


class _PeerChanges(TypedDict, total=False):
    """The fields of `Peer` that a step may change."""

    incarnation: int
    heard_us: int
    priority: int
    linked: bool
    linked_us: int
    inbound: bool
    dead: bool
    epoch: int
    address: str
    saves: int
    saves_before: int
    offline: bool
    cluster_stop: bool
    unresponsive: bool
    cluster_id: int
    foreign: bool
    complaint: str


class Step:
    """Everything that one step may read and add to.

    `ran_before`: this node voted or promised before its current start (R4). `saved_before` and `promise_before` are
    what the step found. `routine`: a heartbeat was answered as usual, so only the lease has to be checked before the
    next tick.

    Written out rather than a dataclass: one is made for every message.
    """

    __slots__ = (
        "answer",
        "connect",
        "digest",
        "facts",
        "intents",
        "leave",
        "me",
        "now_us",
        "outbox",
        "probes",
        "promise_before",
        "ran_before",
        "routine",
        "saved_before",
        "settings",
        "state",
        "timing",
        "witness",
    )

    def __init__(self, settings: Settings, state: State, now_us: int, digest: int, ran_before: bool = False) -> None:
        self.settings = settings
        self.state = state
        self.now_us = now_us
        self.digest = digest
        self.ran_before = ran_before
        self.me = settings.node
        self.timing = settings.timing
        self.saved_before = state.saved
        self.promise_before = state.promise
        self.outbox: list[tuple[int, Message]] = []
        self.witness: list[WitnessIntent] = []
        self.intents: list[Intent] = []
        self.probes: list[Probe] = []
        self.facts: list[Fact] = []
        self.answer: NodeStatus | CommonResp | None = None
        self.leave = False
        self.connect = False
        self.routine = False

    @property
    def priority(self) -> int:
        """This node's priority in the succession as it is now."""
        return self.state.priority(self.settings.priority, self.now_us)

    def send(self, to: int, message: Message) -> None:
        """Send `message` to one peer."""
        self.outbox.append((to, message))

    def broadcast(self, message: Message) -> None:
        """Send `message` to every other node of the cluster."""
        self.outbox.extend((peer, message) for peer in self.state.peers)

    def meet(self, addresses: Mapping[int, str]) -> None:
        """These nodes belong to the cluster from now on, with these addresses (R10, R15). What was known of one that
        has moved or gone is forgotten."""
        state = self.state
        if state.addresses == addresses:
            return
        kept = {node: peer for node, peer in state.peers.items() if state.addresses[node] == addresses.get(node)}
        state.peers = {node: kept.get(node) or Peer() for node in sorted(addresses) if node != self.me}
        state.addresses = dict(addresses)
        state.succession = tuple(node for node in state.succession if node in addresses)
        for known in self._known_by_node():
            for node in known.keys() - kept.keys() - {self.me, WITNESS}:
                del known[node]
        self.connect = True

    def move(self, node: int, address: str) -> None:
        """A peer says that it is at another address: connect to it there. What is known of it stays."""
        self.state.addresses = {**self.state.addresses, node: address}
        self.know(node, linked=False)
        self.connect = True

    def _known_by_node(self) -> Iterable[dict[int, Any]]:
        """What else is known of each peer, beside `State.peers`."""
        state, leader_state = self.state, self.state.leader_state
        yield state.handed_over
        yield state.waiting_requests
        if leader_state is not None:
            yield leader_state.answered_us
            yield leader_state.saved_by
            yield leader_state.steady_us

    def publish(self, intent: Intent) -> None:
        """Ask for something to be written to Redis, or read from it (R13)."""
        self.intents.append(intent)

    def probe(self, peer: int) -> None:
        """Find out whether the process last heard as `peer` is dead (R9), unless no evidence would be
        believed. There is nothing to find out about this node itself or an unknown one."""
        known = self.state.peers.get(peer)
        if known is not None and known.incarnation and not known.dead and self.timing.proof is not Proof.NONE:
            self.probes.append(Probe(peer, known.incarnation))

    def ask_witness(self, intent: WitnessIntent) -> None:
        """Ask the witness; its answer comes back as an event, or never."""
        self.witness.append(intent)

    def note(self, name: str, **details: object) -> None:
        """Record that something happened. What `FACTS` does not declare is a bug: `TypeError`."""
        declared = FACTS[name]
        if not declared.keys() >= details.keys():
            raise TypeError(f"{name} has no field {', '.join(sorted(details.keys() - declared.keys()))}")
        for field, kind in declared.items():
            if not isinstance(details.get(field), kind):
                raise TypeError(f"{name}: {field} must be {kind}, not {details.get(field)!r}")
        self.facts.append(Fact(name, tuple(details.items())))

    def save(self, **changes: Unpack[_SavedChanges]) -> None:
        """Change the durable state; it is saved before anything is sent (R1)."""
        self.state.saved = replace(self.state.saved, **changes)

    def know(self, peer: int, **changes: Unpack[_PeerChanges]) -> None:
        """Change what is known of a peer."""
        self.state.peers[peer] = replace(self.state.peers[peer], **changes)

    def peer(self, peer: int) -> Peer:
        """What is known of a peer."""
        return self.state.peers[peer]

    def finish(self) -> Effects:
        """The effects of this step, in the order in which they must be carried out."""
        saved = self.state.saved
        asked = self.outbox or self.witness or self.intents or self.probes or self.facts or self.answer or self.leave
        if saved is self.saved_before and not asked and not self.connect:
            return NOTHING  # as after most answers to a heartbeat
        changed = saved != self.saved_before
        self.state.saves += changed
        return Effects(
            save=saved if changed else None,
            connect=tuple(sorted(self.state.addresses.items())) if self.connect else None,
            send=self._stamped(saved) if self.outbox else (),
            witness=tuple(self.witness),
            publish=tuple(self.intents),
            probe=tuple(self.probes),
            answer=self.answer,
            facts=tuple(self.facts),
            leave=self.leave,
        )

    def _stamped(self, saved: Saved) -> tuple[tuple[int, Envelope], ...]:
        envelopes: dict[int, Envelope] = {}  # one envelope for all recipients of a broadcast
        send = []
        for to, message in self.outbox:
            envelope = envelopes.get(id(message))
            if envelope is None:
                envelope = envelopes[id(message)] = Envelope(
                    cluster=self.settings.cluster,
                    sender=self.me,
                    incarnation=saved.incarnation,
                    settings=self.digest,
                    generation=saved.record.generation,
                    cluster_id=saved.record.cluster_id,
                    term=saved.term,
                    message=message,
                )
            send.append((to, envelope))
        return tuple(send)
