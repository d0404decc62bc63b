"""One step in the making: what an actor reads, and where it puts what shall happen.

A `Turn` collects; `finish` puts the collection into the order of `Effects`, stamps every message
with the cluster, the sender and the term *as they are after the step*, and checks the rules that
hold for every step whatever the event was.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from zelect.core.effects import Effects, Fact, Intent, Probe, Saved, WitnessIntent
from zelect.core.invariants import require
from zelect.core.messages import CommonResp, Envelope, Message
from zelect.core.settings import Settings
from zelect.core.state import Peer, State
from zelect.core.status import NodeStatus
from zelect.core.timing import MAX_TERM, Proof, Timing

__all__ = ["NOTHING", "Step"]

NOTHING = Effects()
"""What a step that asks for nothing asks for."""


@dataclass(slots=True)
class Step:
    """Everything one step may look at and add to."""

    settings: Settings
    state: State
    now_us: int
    before: Saved
    digest: int
    me: int = field(init=False)
    timing: Timing = field(init=False)
    outbox: list[tuple[int, Message]] = field(default_factory=list)
    witness: list[WitnessIntent] = field(default_factory=list)
    intents: list[Intent] = field(default_factory=list)
    probes: list[Probe] = field(default_factory=list)
    facts: list[Fact] = field(default_factory=list)
    answer: NodeStatus | CommonResp | None = None
    leave: bool = False
    routine: bool = False
    """An answer that said nothing new came: what depends on more than the lease need not be judged
    again before the next tick."""

    def __post_init__(self) -> None:
        self.me = self.settings.node
        self.timing = self.settings.timing

    @property
    def priority(self) -> int:
        """This node's priority in the succession as it is now."""
        return self.state.priority(self.settings.priority, self.now_us)

    def send(self, to: int, message: Message) -> None:
        """Send `message` to one peer."""
        self.outbox.append((to, message))

    def broadcast(self, message: Message) -> None:
        """Send `message` to every other member of the members."""
        self.outbox.extend((peer, message) for peer in self.settings.peers)

    def publish(self, intent: Intent) -> None:
        """Ask the store for something."""
        self.intents.append(intent)

    def probe(self, peer: int) -> None:
        """Find out whether the process last heard as `peer` is dead (R9), if that is to be believed.
        Asked about itself or unrecognized, a node has nothing to find out."""
        known = self.state.peers.get(peer)
        if known is not None and known.incarnation and not known.dead and self.timing.proof is not Proof.NONE:
            self.probes.append(Probe(peer, known.incarnation))

    def ask_witness(self, intent: WitnessIntent) -> None:
        """Ask the witness; its answer comes back as an event, or never."""
        self.witness.append(intent)

    def note(self, name: str, **details: object) -> None:
        """Record that something happened."""
        self.facts.append(Fact(name, tuple(details.items())))

    def save(self, **changes: object) -> None:
        """Change the durable state; it is saved before anything is sent (R1)."""
        self.state.saved = replace(self.state.saved, **changes)  # type: ignore[arg-type]

    def know(self, peer: int, **changes: object) -> None:
        """Change what is known of a peer."""
        self.state.peers[peer] = replace(self.state.peers[peer], **changes)  # type: ignore[arg-type]

    def peer(self, peer: int) -> Peer:
        return self.state.peers[peer]

    def finish(self) -> Effects:
        """The effects of this step, in the order in which they must be carried out."""
        saved = self.state.saved
        asked = self.outbox or self.witness or self.intents or self.probes or self.facts or self.answer or self.leave
        if saved is self.before and not asked:
            return NOTHING  # as after most answers to a heartbeat
        self._check_saved(saved)
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
                    term=saved.term,
                    message=message,
                )
            send.append((to, envelope))
        return Effects(
            save=saved if saved != self.before else None,
            send=tuple(send),
            witness=tuple(self.witness),
            publish=tuple(self.intents),
            probe=tuple(self.probes),
            answer=self.answer,
            facts=tuple(self.facts),
            leave=self.leave,
        )

    def _check_saved(self, saved: Saved) -> None:
        before = self.before
        if saved is before:
            return
        require(before.term <= saved.term <= MAX_TERM, "R1", "the term only grows, and stays below 2^53")
        require(
            saved.term > before.term or before.voted_for in (0, saved.voted_for),
            "R2",
            f"the vote of term {saved.term} was given to {before.voted_for} and does not change",
        )
        require(saved.record.id >= before.record.id, "R10", "an voter record is never replaced by an older one")
