"""Packets that can do nothing any more, and packets in words."""

from __future__ import annotations

from tools.common.witness import WitnessServer
from tools.modelchecker.local_state import Cast
from tools.modelchecker.parts import Ask, Local, Mail, Packet, Reply
from zelect.core.effects import WitnessCreate, WitnessPing, WitnessVote
from zelect.core.events import WitnessAnswered
from zelect.core.messages import Ping, Pong, Voting, VotResp
from zelect.core.quorum import WITNESS, RecordId
from zelect.core.state import State


class Sweeper:
    """Takes away packets that can do nothing any more. Which they are depends on few things in a
    world, and is found once for each."""

    def __init__(self, cast: Cast, servers: list[WitnessServer]) -> None:
        self.cast, self.servers = cast, servers
        self._dead: dict[object, tuple[int, int]] = {}
        self._kinds: list[int] = []
        self._kind_ids: dict[object, int] = {}
        self._worthless: dict[object, tuple[int, int]] = {}

    def sweep(self, at: tuple[int, ...], witness: int, packets: int) -> int:
        """The packets without those that can do nothing any more."""
        return packets & ~self.dead(at, witness)

    def dead(self, at: tuple[int, ...], witness: int) -> int:
        """The packets that can do nothing any more."""
        kinds = self._kinds
        key = (*[kinds[number] for number in at], witness) if len(kinds) == len(self.cast.locals) else None
        known = self._worthless.get(key) if key is not None else None
        if known is None or known[1] != len(self.cast.packets):
            while len(kinds) < len(self.cast.locals):
                kinds.append(self._kind(self.cast.locals[len(kinds)]))
            key = (*[kinds[number] for number in at], witness)
            known = self._worthless[key] = (self._find(at, witness), len(self.cast.packets))
        return known[0]

    def _kind(self, local: Local) -> int:
        state = local.state
        asks = state is not None and state.campaign is not None and not state.campaign.pre
        beat = _beat(state)
        kind = (local.node, local.births, local.disk.term, local.disk.record.id, asks, beat)
        return self._kind_ids.setdefault(kind, len(self._kind_ids))

    def _find(self, at: tuple[int, ...], witness: int) -> int:
        dead = 0
        locals_ = [self.cast.locals[number] for number in at]
        memory = self.servers[witness].memory
        for local in locals_:
            dead |= self._lost_on(local)
            beat = _beat(local.state)
            if beat:
                for to in self.cast.to_mask:
                    dead |= self._mask(("beat", local.node, local.disk.term, beat), to)
            for other in locals_:
                if other is not local:
                    term = min(local.disk.term, other.disk.term)
                    dead |= self._mask(("old", other.node, local.node, term), local.node)
            term = min(local.disk.term, memory.term if memory is not None else 0)
            dead |= self._mask(("ask", local.node, local.births, term), WITNESS)
        return dead

    def _lost_on(self, local: Local) -> int:
        state = local.state
        asks = state is not None and state.campaign is not None and not state.campaign.pre
        key = ("to", local.node, local.births, local.disk.term, local.disk.record.id, asks)
        return self._mask(key, local.node)

    def _mask(self, key: tuple[object, ...], to: int) -> int:
        """The packets to `to` that `key` makes worthless; looks only at packets it has not seen."""
        mask, judged = self._dead.get(key, (0, 0))
        packets = self.cast.packets
        if judged < len(packets):
            rest = self.cast.to_mask[to] >> judged
            while rest:
                low = rest & -rest
                rest ^= low
                bit = judged + low.bit_length() - 1
                if worthless(packets[bit], key):
                    mask |= 1 << bit
            self._dead[key] = (mask, len(packets))
        return mask


def _beat(state: State | None) -> int:
    """The number of the newest round of PINGs of an elected node, 0 for others."""
    return 0 if state is None or state.leader_state is None else state.leader_state.number


def worthless(packet: Packet, key: tuple[object, ...]) -> bool:
    """Whether a packet can change nothing, or say nothing new, from now on."""
    kind = key[0]
    if kind == "to":
        return _worthless_to(packet, *key[2:])  # type: ignore[arg-type]
    if kind == "beat":
        return _outdone(packet, *key[1:])  # type: ignore[arg-type]
    if kind == "old":  # an old question, whose answer would tell its sender of a term it knows
        if not isinstance(packet, Mail):
            return False
        envelope = packet.envelope
        asks = isinstance(envelope.message, Ping | Voting)
        return envelope.sender == key[1] and asks and envelope.term < key[3]  # type: ignore[operator]
    assert isinstance(packet, Ask)
    intent = packet.intent
    if packet.node != key[1]:
        return False
    past = packet.incarnation != key[2]
    if isinstance(intent, WitnessVote):
        return intent.term_sought < key[3] or (intent.pre and intent.term_sought <= key[3]) or (past and intent.pre)  # type: ignore[operator]
    assert isinstance(intent, WitnessPing | WitnessCreate)
    return intent.term < key[3]  # type: ignore[operator]


def _outdone(packet: Packet, node: int, term: int, beat: int) -> bool:
    """Whether a PING is older than the newest of the same leadership, whose answer renews more. A voter
    that hears the newer one later is as one that heard the older one then."""
    if isinstance(packet, Ask):
        asks = isinstance(packet.intent, WitnessPing) and (packet.node, packet.intent.term) == (node, term)
        return asks and isinstance(packet.intent, WitnessPing) and packet.intent.number < beat
    if not isinstance(packet, Mail) or not isinstance(packet.envelope.message, Ping):
        return False
    envelope = packet.envelope
    return (envelope.sender, envelope.term) == (node, term) and packet.envelope.message.number < beat


def _worthless_to(packet: Packet, births: int, term: int, record_id: RecordId, asks: bool) -> bool:
    round_now = 2 * term + 1
    if isinstance(packet, Reply):
        event = packet.event
        number = getattr(event, "round", round_now + 1)
        past = number < round_now or (number == round_now and not asks)
        if isinstance(event, WitnessAnswered) and event.reason is not None:
            past = event.term <= term
        return packet.incarnation != births or past
    assert isinstance(packet, Mail)
    message, spoken_in = packet.envelope.message, packet.envelope.term
    if isinstance(message, Pong):
        return spoken_in < term
    if isinstance(message, VotResp):
        newer = message.record is not None and message.record.id > record_id
        past = message.round < round_now or (message.round == round_now and not asks)
        return past and spoken_in <= term and not newer
    return False


def describe(packet: Packet) -> str:
    """A packet in the words of the protocol."""
    if isinstance(packet, Reply):
        return str(packet.event)
    if isinstance(packet, Ask):
        return f"node {packet.node} ask {packet.intent}"
    envelope = packet.envelope
    return f"{envelope.message} of term {envelope.term} from node {envelope.sender}"
