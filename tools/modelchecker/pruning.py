"""Packets that can do nothing any more, and messages in flight in words."""

from __future__ import annotations

from tools.common.witness import WitnessServer
from tools.modelchecker.model import Ask, InFlight, Local, Mail, Reply
from tools.modelchecker.node_model import NodeModel
from zelect.core.effects import WitnessCreate, WitnessPing, WitnessVote
from zelect.core.events import WitnessAnswered
from zelect.core.messages import Ping, Pong, Voting, VotResp
from zelect.core.quorum import WITNESS, RecordId
from zelect.core.state import State


class Sweeper:
    """Takes away messages in flight that can do nothing any more. Which they are depends on few things in a
    world, and is found once for each."""

    def __init__(self, model: NodeModel, servers: list[WitnessServer]) -> None:
        self.model, self.servers = model, servers
        self._dead: dict[object, tuple[int, int]] = {}
        self._kinds: list[int] = []
        self._kind_ids: dict[object, int] = {}
        self._worthless: dict[object, tuple[int, int]] = {}

    def sweep(self, at: tuple[int, ...], witness: int, in_flight: int) -> int:
        """The messages in flight without those that can do nothing any more."""
        return in_flight & ~self.dead(at, witness)

    def dead(self, at: tuple[int, ...], witness: int) -> int:
        """The messages in flight that can do nothing any more."""
        kinds = self._kinds
        key = (*[kinds[number] for number in at], witness) if len(kinds) == len(self.model.locals) else None
        known = self._worthless.get(key) if key is not None else None
        if known is None or known[1] != len(self.model.in_flight):
            while len(kinds) < len(self.model.locals):
                kinds.append(self._kind(self.model.locals[len(kinds)]))
            key = (*[kinds[number] for number in at], witness)
            known = self._worthless[key] = (self._find(at, witness), len(self.model.in_flight))
        return known[0]

    def _kind(self, local: Local) -> int:
        state = local.state
        asks = state is not None and state.campaign is not None and not state.campaign.pre
        beat = _beat(state)
        kind = (local.node, local.starts, local.disk.term, local.disk.record.id, asks, beat)
        return self._kind_ids.setdefault(kind, len(self._kind_ids))

    def _find(self, at: tuple[int, ...], witness: int) -> int:
        dead = 0
        locals_ = [self.model.locals[number] for number in at]
        memory = self.servers[witness].memory
        for local in locals_:
            dead |= self._lost_on(local)
            beat = _beat(local.state)
            if beat:
                for to in self.model.sent_to:
                    dead |= self._bits_of(("beat", local.node, local.disk.term, beat), to)
            for other in locals_:
                if other is not local:
                    term = min(local.disk.term, other.disk.term)
                    dead |= self._bits_of(("old", other.node, local.node, term), local.node)
            term = min(local.disk.term, memory.term if memory is not None else 0)
            dead |= self._bits_of(("ask", local.node, local.starts, term), WITNESS)
        return dead

    def _lost_on(self, local: Local) -> int:
        state = local.state
        asks = state is not None and state.campaign is not None and not state.campaign.pre
        key = ("to", local.node, local.starts, local.disk.term, local.disk.record.id, asks)
        return self._bits_of(key, local.node)

    def _bits_of(self, key: tuple[object, ...], to: int) -> int:
        """The messages in flight to `to` that `key` makes worthless; looks only at those it has not seen."""
        bits, judged = self._dead.get(key, (0, 0))
        in_flight = self.model.in_flight
        if judged < len(in_flight):
            rest = self.model.sent_to[to] >> judged
            while rest:
                low = rest & -rest
                rest ^= low
                bit = judged + low.bit_length() - 1
                if worthless(in_flight[bit], key):
                    bits |= 1 << bit
            self._dead[key] = (bits, len(in_flight))
        return bits


def _beat(state: State | None) -> int:
    """The number of the newest round of PINGs of an elected node, 0 for others."""
    return 0 if state is None or state.leader_state is None else state.leader_state.number


def worthless(sent: InFlight, key: tuple[object, ...]) -> bool:
    """Whether a message can change nothing, or say nothing new, from now on."""
    kind = key[0]
    if kind == "to":
        return _worthless_to(sent, *key[2:])  # type: ignore[arg-type]
    if kind == "beat":
        return _superseded(sent, *key[1:])  # type: ignore[arg-type]
    if kind == "old":  # an old question, whose answer would tell its sender of a term it knows
        if not isinstance(sent, Mail):
            return False
        envelope = sent.envelope
        asks = isinstance(envelope.message, Ping | Voting)
        return envelope.sender == key[1] and asks and envelope.term < key[3]  # type: ignore[operator]
    assert isinstance(sent, Ask)
    intent = sent.intent
    if sent.node != key[1]:
        return False
    past = sent.incarnation != key[2]
    if isinstance(intent, WitnessVote):
        return intent.term_sought < key[3] or (intent.pre and intent.term_sought <= key[3]) or (past and intent.pre)  # type: ignore[operator]
    assert isinstance(intent, WitnessPing | WitnessCreate)
    return intent.term < key[3]  # type: ignore[operator]


def _superseded(sent: InFlight, node: int, term: int, beat: int) -> bool:
    """Whether a PING is older than the newest of the same leadership, whose answer renews more. A voter
    that hears the newer one later is as one that heard the older one then."""
    if isinstance(sent, Ask):
        asks = isinstance(sent.intent, WitnessPing) and (sent.node, sent.intent.term) == (node, term)
        return asks and isinstance(sent.intent, WitnessPing) and sent.intent.number < beat
    if not isinstance(sent, Mail) or not isinstance(sent.envelope.message, Ping):
        return False
    envelope = sent.envelope
    return (envelope.sender, envelope.term) == (node, term) and sent.envelope.message.number < beat


def _worthless_to(sent: InFlight, starts: int, term: int, record_id: RecordId, asks: bool) -> bool:
    round_now = 2 * term + 1
    if isinstance(sent, Reply):
        event = sent.event
        number = getattr(event, "round", round_now + 1)
        past = number < round_now or (number == round_now and not asks)
        if getattr(event, "reason", None) is not None:  # a refusal may tell of a newer term or record
            kept = getattr(event, "record", None)
            over = past or isinstance(event, WitnessAnswered)
            past = over and getattr(event, "term", 0) <= term and (kept is None or kept.id <= record_id)
        return sent.incarnation != starts or past
    assert isinstance(sent, Mail)
    message, spoken_in = sent.envelope.message, sent.envelope.term
    if isinstance(message, Pong):
        return spoken_in < term
    if isinstance(message, VotResp):
        newer = message.record is not None and message.record.id > record_id
        past = message.round < round_now or (message.round == round_now and not asks)
        return past and spoken_in <= term and not newer
    return False


def describe(sent: InFlight) -> str:
    """A message in the words of the protocol."""
    if isinstance(sent, Reply):
        return str(sent.event)
    if isinstance(sent, Ask):
        return f"node {sent.node} ask {sent.intent}"
    envelope = sent.envelope
    return f"{envelope.message} of term {envelope.term} from node {envelope.sender}"
