"""One node's part of a world, and everything that can happen to it: the shipped machine, step by step.

A *local* is a node's disk and, while its process lives, its state. Locals and messages in flight are numbered,
and each step is taken once: `step` by the machine that ships, on a clone. Seams for mutants stand
in `Seams`; the shipped behaviour is what they do when nobody overrides them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from tools.common.founded import founded_record
from tools.modelchecker.canonical import NOW, age_answer, age_envelope, age_intent, settle, spoken
from tools.modelchecker.model import Ask, Bounds, Copy, InFlight, Local, Mail, Outcome, Reply, Saving, Seams
from zelect.core.effects import Effects, Saved, WitnessCreate, WitnessLook, WitnessPing
from zelect.core.events import (
    ControllerHint,
    DeathProven,
    Event,
    Evidence,
    Leave,
    LinkDown,
    LinkUp,
    MessageReceived,
    PeerConnected,
    PeerDisconnected,
    Started,
    Tick,
    WitnessVoted,
)
from zelect.core.lease import NEVER_US
from zelect.core.machine import Machine, first_state
from zelect.core.messages import (
    Envelope,
    Handover,
    MemberAction,
    MemberChange,
    NodeOnline,
    NodeOnlineResp,
    Ping,
    VotResp,
)
from zelect.core.quorum import WITNESS, RecordId
from zelect.core.settings import Settings
from zelect.core.state import State, clone


@dataclass
class NodeModel:
    """The nodes, their messages in flight and locals, numbered in the order of their appearance. `founders`: the nodes
    whose cluster exists at the start; the others are new (R15)."""

    settings: dict[int, Settings]
    bounds: Bounds
    seams: Seams = field(default_factory=Seams)
    founders: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        self.nodes = tuple(self.settings)
        self.first_version = 0
        self.first_disks: dict[int, tuple[Saved, int]] = {}
        self.counted = self.bounds.victims if self.bounds.copies else ()
        self.first_resets: dict[int, int] = {}
        self.machines = {n: Machine(s, self.first_disk(n, 1), ran_before=False) for n, s in self.settings.items()}
        self.locals: list[Local] = []
        self.in_flight: list[InFlight] = []
        self.sent_to = dict.fromkeys((WITNESS, *self.nodes), 0)
        self.grants = 0
        self.committed: list[RecordId] = []
        self.active: list[bool] = []
        self.clusters: list[int] = []
        self._local_ids: dict[Any, int] = {}
        self._in_flight_ids: dict[InFlight, int] = {}
        self._aged: dict[int, int] = {}
        self._rules = tuple(self._own_rules())

    def first_disk(self, node: int, incarnation: int) -> Saved:
        """What a node has at its first start."""
        founders = self.nodes if self.founders is None else self.founders
        saved = first_state(self.settings[node], incarnation)
        if node not in founders:
            return saved
        addresses = {n: self.settings[n].address for n in founders}
        return replace(saved, record=founded_record(addresses, dict.fromkeys(founders, 1)), epoch=1)

    # -- numbering ------------------------------------------------------------------------------------

    def number(self, local: Local) -> int:
        """The local's number."""
        key = local.key
        known = self._local_ids.get(key)
        if known is None:
            known = self._local_ids[key] = len(self.locals)
            self.locals.append(local)
            state = local.state
            # The job of a guarded node acts until it has ended, or the lease has.
            acts = state is not None and state.pending_handover is not None and state.pending_handover.until_us > NOW
            active = state is not None and state.active(NOW) and (local.saving is None or local.saving.shown)
            self.active.append(acts or active)
            self.committed.append((0, 0, 0) if local.saving is not None else _committed(state))
            self.clusters.append(local.disk.record.cluster_id)
        return known

    def post(self, sent: InFlight) -> int:
        """The message's bit."""
        known = self._in_flight_ids.get(sent)
        if known is None:
            known = self._in_flight_ids[sent] = len(self.in_flight)
            self.in_flight.append(sent)
            self.sent_to[WITNESS if isinstance(sent, Ask) else sent.to] |= 1 << known
            if _is_grant(sent):
                self.grants |= 1 << known
        return 1 << known

    def aged(self, bit: int) -> int:
        """The message's bit one unit later, 0 when it can do nothing any more."""
        known = self._aged.get(bit)
        if known is None:
            sent = self.in_flight[bit]
            later: InFlight | None
            if isinstance(sent, Mail):
                envelope = age_envelope(sent.envelope)
                later = None if envelope is None else replace(sent, envelope=envelope)
            elif isinstance(sent, Ask):
                later = replace(sent, intent=age_intent(sent.intent))
            else:
                event = age_answer(sent.event)
                later = None if event is None else replace(sent, event=event)
            known = self._aged[bit] = 0 if later is None else self.post(later)
        return known

    def aged_all(self, bits: int) -> int:
        """The messages one unit later."""
        later = 0
        while bits:
            low = bits & -bits
            bits ^= low
            later |= self.aged(low.bit_length() - 1)
        return later

    # -- what can happen ------------------------------------------------------------------------------

    def hear(self, at: int, bit: int) -> Outcome | None:
        """A message arrives; None when nothing comes of it."""
        local, sent = self.locals[at], self.in_flight[bit]
        if isinstance(sent, Mail):
            sender, incarnation = sent.envelope.sender, sent.envelope.incarnation
            events: list[Event] = [MessageReceived(sent.envelope)]
            if local.links and local.links[sender] == incarnation:
                # Connections come and go in pairs here, and the one that it made is known once it spoke.
                events.append(PeerConnected(sender, incarnation))
            return self.happen(local, events, sent.envelope.term)
        assert isinstance(sent, Reply)
        return self.happen(local, [sent.event]) if sent.incarnation == local.starts else None

    def alone(self, at: int) -> list[tuple[str, Outcome]]:
        """What a node may do of its own at any time."""
        local = self.locals[at]
        state = local.state
        found = [] if local.saving is None else self._has_saved(local, local.saving)
        if state is None or state.leaving:
            return found
        for name, may, prepare, event in self._rules:
            if may(local.node, state):
                outcome = self.happen(local, [event], prepare=prepare)
                if outcome is not None:
                    found.append((name, outcome))
        return found

    def _has_saved(self, local: Local, saving: Saving) -> list[tuple[str, Outcome]]:
        """A save is done: what waited for it happens. An elected node that has to looks at the clock then, at once or
        after it has read what came meanwhile (R14)."""
        done = replace(local, disk=saving.saved, saving=None)
        outcome = Outcome(self.number(done), saving.sends, None, "", frozenset(), "", ())
        found = [("has saved", outcome)]
        looked = self.tick(outcome.after) if self.overdue(outcome.after) else None
        if looked is not None:
            found.append(("has saved, and looks at the clock", replace(looked, sends=looked.sends | saving.sends)))
        return found

    def _own_rules(self) -> Iterable[tuple[str, Callable[[int, State], bool], Callable[[State], None] | None, Event]]:
        bounds = self.bounds

        def campaigns(node: int, state: State) -> bool:
            allowed = not bounds.candidates or node in bounds.candidates
            return allowed and state.term < bounds.terms and state.campaign_due_us() <= NOW

        def gives_up(node: int, state: State) -> bool:
            campaign = state.campaign
            if campaign is None:
                return False
            asks = WITNESS in state.voters and not campaign.witness_asked
            return asks or (not campaign.pre and state.term < bounds.terms)

        def end_round(state: State) -> None:
            assert state.campaign is not None
            state.campaign.give_up_us = NOW

        def deafen(state: State) -> None:
            state.peers = {n: replace(p, heard_us=NOW - 10**7) for n, p in state.peers.items()}

        yield "campaigns", campaigns, None, Tick()
        yield "ends its round of questions", gives_up, end_round, Tick(late=True)
        if bounds.unresponsive:
            yield "misses the silent", lambda node, state: state.leader_state is not None, deafen, Tick(late=True)

    def overdue(self, at: int) -> bool:
        """Whether an elected node has to look at the clock."""
        state = self.locals[at].state
        if state is None or state.leader_state is None or state.leaving or self.locals[at].saving is not None:
            return False
        leader_state = state.leader_state
        promise_us = self.settings[self.nodes[0]].timing.promise_us
        due_us = min(leader_state.next_ping_us, leader_state.over_us(promise_us))
        return min(due_us, leader_state.promises_end_us or NEVER_US) <= NOW

    def tick(self, at: int) -> Outcome | None:
        """The clock is looked at; campaigns are separate."""
        return self.happen(self.locals[at], [Tick(late=True)])

    def later(self, at: int) -> int:
        """The local one unit of time later."""
        local = self.locals[at]
        if local.state is None:
            return at
        state, saving = clone(local.state), local.saving
        settle(state, NOW + 1, self.counted)
        if saving is not None:
            saving = replace(saving, sends=self.aged_all(saving.sends))
        return self.number(replace(local, state=state, saving=saving))

    def start(self, at: int, others: tuple[int, ...], with_disk: str) -> Outcome | None:
        """A process starts; `others` are the processes it finds running, by node (0: none). `with_disk`: "" as it left
        it, "lost", or "copied": as it was when the search began."""
        local = self.locals[at]
        starts, node = local.starts + 1, local.node
        settings = self.settings[node]
        saved, saves, copy = local.disk if starts > 1 else self.first_disk(node, starts), local.saves, local.copy
        if with_disk == "copied":
            older, saves = self.first_disks[node]
            copy = Copy.UNNOTICED if older.epoch == saved.epoch and older != saved else copy
            saved = older
        forget = with_disk == "lost"
        saved = first_state(settings, starts) if forget else replace(saved, incarnation=starts)
        machine = self.machines[node]
        machine.ran_before = starts > 1 and not forget  # who lost its data does not know that it had any (R16)
        saves = (0 if forget else saves) + 1 if node in self.counted else 0
        fresh = Machine(settings, saved, ran_before=machine.ran_before, saves=saves).state
        begun = Local(node, saved, starts, fresh, others, local.creations, None, saves, copy)
        events: list[Event] = [Started(), ControllerHint(0, 0)]
        events += [LinkUp(other) for other in self.nodes if others[other]]
        return self.happen(begun, events)

    def crash(self, at: int) -> int:
        """What is left when the process dies."""
        return self.number(_left(self.locals[at]))

    def crash_once_saved(self, at: int) -> int:
        """What is left when it dies as soon as a save under way is done; -1 where none is."""
        local = self.locals[at]
        return -1 if local.saving is None else self.number(_left(replace(local, disk=local.saving.saved)))

    def gone_node(self, node: int) -> int:
        """What is left of a node that never starts again."""
        return self.number(Local(node, self.first_disk(node, 1), 1))

    def leave(self, at: int) -> Outcome | None:
        """The node is asked to go."""
        return self.happen(self.locals[at], [Leave()])

    def lose(self, at: int, other: int) -> Outcome | None:
        """The connections to and from `other` close, and the process at their other end is proven dead."""
        local = self.locals[at]
        assert local.state is not None
        known = local.state.peers[other].incarnation
        proof = DeathProven(other, known, Evidence.REAPED)
        return self.happen(_linked(local, other, 0), [*_closings(local, other), proof])

    def front(self, at: int, other: int) -> Outcome | None:
        """Something in front of `other`, which lives, closes this node's connection to it and refuses a new one,
        and its lock looks free; then all is as before. Its own connection to this node stands throughout."""
        local = self.locals[at]
        assert local.state is not None
        known = local.state.peers[other].incarnation
        proofs = [DeathProven(other, known, evidence) for evidence in (Evidence.REFUSED, Evidence.LOCK)]
        return self.happen(local, [LinkDown(other), *proofs, LinkUp(other)])

    def link(self, at: int, other: int, starts: int) -> Outcome | None:
        """A connection to process `starts` of `other` stands."""
        local = self.locals[at]
        return self.happen(_linked(local, other, starts), [*_closings(local, other), LinkUp(other)])

    def changes(self, at: int) -> list[MemberChange]:
        """What an operator may ask of a node that leads: to remove another one, or to add one."""
        local = self.locals[at]
        if local.state is None or local.state.leader_state is None:
            return []
        found, recorded = [], local.state.record.nodes
        for other in self.nodes:
            if other not in recorded:
                found.append(MemberChange(MemberAction.ADD, other, self.settings[other].address))
            elif other != local.node:
                found.append(MemberChange(MemberAction.REMOVE, other, ""))
        return found

    def change(self, at: int, change: MemberChange) -> Outcome | None:
        """An operator asks for a change of the members."""
        return self.happen(self.locals[at], [MessageReceived(Envelope("check", 0, 0, 0, 0, change))])

    def see(self, at: int, event: Event) -> Outcome | None:
        """A look at the witness."""
        return self.happen(self.locals[at], [event])

    # -- the step itself ------------------------------------------------------------------------------

    def happen(
        self,
        local: Local,
        events: list[Event],
        asked_term: int = -1,
        prepare: Callable[[State], None] | None = None,
    ) -> Outcome | None:
        """Take the steps, carry their effects out, and note what came of it."""
        saving = local.saving
        if local.state is None or (saving is not None and self.seams.waits()):
            return None  # what comes waits
        node, state, creations = local.node, clone(local.state), local.creations
        disk = local.disk if saving is None else saving.saved
        was_active = state.active(NOW)
        machine = self.machines[node]
        machine.state = state
        facts: list[str] = []
        seen: set[str] = set()
        sends, elected, broken, inside = 0, None, "", []
        try:
            for event in events:
                if prepare is not None:
                    prepare(state)
                event = self.seams.before(state, event, machine.settings)
                held = state.record.id
                effects = machine.step(event, NOW)
                self.seams.after(state, effects)
                before, disk = disk, self.seams.saved(disk, effects)
                broken = broken or _disk_broken(before, disk)
                numbers = {} if state.leader_state is None else dict(state.leader_state.sent_us)
                bits, creations = self._send(local, state, effects, numbers, asked_term, creations)
                sends |= bits
                elected = self._note(state, effects, held, facts, seen) or elected
                if self.bounds.inside:
                    inside += [(disk if s else before, bits if m else 0) for s, m in self.seams.prefixes(effects)]
                if effects.connect is not None:
                    events += [LinkUp(n) for n, peer in state.peers.items() if local.links[n] and not peer.linked]
            settle(state, NOW, self.counted)
        except Exception as error:  # whatever a step raises is a finding
            return Outcome(-1, 0, None, "", frozenset(), f"out of step: {type(error).__name__}: {error}", ())
        if state.term > self.bounds.terms or state.record.version > self.first_version + self.bounds.versions:
            return None
        if state.leader_state is not None and creations == self.first_resets.get(node, 0) + self.bounds.creations:
            state.leader_state.create_witness_again_us = 0
        copy = _copy_after(local, disk, events)
        if copy is Copy.UNNOTICED and _decides(local.disk, disk):
            return None  # what then happens nobody promises (R16)
        if copy is Copy.TOLD and _decides(local.disk, disk):
            broken = broken or "R16: a node that was told that its data is an older copy decides by it"
        then = replace(local, disk=disk, state=state, creations=creations, saves=state.saves, copy=copy)
        after, slowly = self.number(then), -1
        if saving is not None:
            after = self.number(replace(then, disk=local.disk, saving=replace(saving, saved=disk)))
        elif self.bounds.slow and disk != local.disk:
            slowly = self.number(replace(then, disk=local.disk, saving=Saving(disk, sends, was_active)))
        gone = tuple((self.number(replace(_left(then), disk=d)), m) for d, m in inside)
        return Outcome(after, sends, elected, "; ".join(facts), frozenset(seen), broken, gone, slowly)

    def _send(
        self, local: Local, state: State, effects: Effects, numbers: dict[int, int], asked_term: int, creations: int
    ) -> tuple[int, int]:
        bits = 0
        for to, envelope in effects.send:
            greets = isinstance(envelope.message, NodeOnline | NodeOnlineResp)
            about = to if isinstance(envelope.message, NodeOnlineResp) else local.node
            message = spoken(envelope.message, numbers, about in self.counted)
            if message is None or (greets and not self.bounds.hello and about not in self.counted):
                continue
            if not self.bounds.beats and isinstance(message, Ping):
                continue
            if _only_no(message) and envelope.term <= asked_term:
                continue  # it tells the candidate nothing but to stop asking, which it may do at any time
            bits |= self.post(Mail(to, replace(envelope, message=message)))
        for intent in effects.witness:
            if isinstance(intent, WitnessLook):
                continue
            if isinstance(intent, WitnessCreate):
                assert state.leader_state is not None
                if creations == self.first_resets.get(local.node, 0) + self.bounds.creations:
                    state.leader_state.pending_witness_key = f"{local.node}.{creations}"
                    continue  # lost, and any further ones
                creations += 1
                intent = replace(intent, key=f"{local.node}.{creations}")
                state.leader_state.pending_witness_key = intent.key
            elif isinstance(intent, WitnessPing):
                intent = replace(intent, number=numbers.get(intent.number, NOW))
            bits |= self.post(Ask(local.node, local.starts, intent, creations))
        return bits, creations

    def _note(
        self, state: State, effects: Effects, held: RecordId, facts: list[str], seen: set[str]
    ) -> tuple[int, RecordId] | None:
        elected = None
        for fact in effects.facts:
            details = dict(fact.fields)
            if fact.name == "elected":
                elected = (state.term, held)
                seen.add("elected")
                assert state.leader_state is not None
                if any(vote.voter == WITNESS and vote.granted for vote in state.leader_state.rounds[-1].votes):
                    seen.add("elected with the witness")
            elif fact.name == "became_active":
                seen.add("active")
                if state.handed_over:
                    seen.add("handover done")
            if fact.name not in ("status_changed", "machine_started", "link_opened", "link_closed"):
                words = " ".join(f"{k}={v}" for k, v in details.items() if k not in _IDLE_WORDS and v not in ("", None))
                facts.append(f"{fact.name} {words}".rstrip())
        return elected


_IDLE_WORDS = frozenset(
    {"took_ms", "gap_ms", "heard_ms", "elected_to_active_ms", "reason", "attempt", "again", "previous"}
)


def _left(local: Local) -> Local:
    """What is left of a process that has died."""
    return replace(local, state=None, links=(), saving=None)


def _decides(before: Saved, after: Saved) -> bool:
    """Whether a node has voted, or taken a record, on the memory that its disk holds."""
    if before.epoch != after.epoch:
        return False
    voted = after.voted_for and (after.term, after.voted_for) != (before.term, before.voted_for)
    return bool(voted) or after.record != before.record


def _copy_after(local: Local, disk: Saved, events: Iterable[Event]) -> Copy:
    """Whether a disk that was an older copy still counts as one, after these events."""
    if local.copy is Copy.NONE or disk.epoch != local.disk.epoch:
        return Copy.NONE
    assert local.state is not None
    at_start = local.state.saves_at_start
    for event in events:
        message = event.envelope.message if isinstance(event, MessageReceived) else None
        if (
            isinstance(message, NodeOnlineResp)
            and message.heard_epoch == disk.epoch
            and message.heard_saves >= at_start
        ):
            return Copy.TOLD
    return local.copy


def _only_no(message: object) -> bool:
    return isinstance(message, VotResp) and not message.granted and message.record is None


def _is_grant(sent: InFlight) -> bool:
    """Whether it tells of what is done once in a term: a vote given, a leadership handed over."""
    message = sent.envelope.message if isinstance(sent, Mail) else None
    if isinstance(message, VotResp):
        return message.granted and not message.pre
    event = sent.event if isinstance(sent, Reply) else None
    voted = isinstance(event, WitnessVoted) and event.reason is None and not event.pre
    return voted or isinstance(message, Handover)


def _closings(local: Local, other: int) -> list[Event]:
    """The connections between this node and process `links[other]` of `other` close, if they stood."""
    process = local.links[other]
    return [LinkDown(other), PeerDisconnected(other, process)] if process else []


def _linked(local: Local, other: int, starts: int) -> Local:
    links = tuple(starts if n == other else linked for n, linked in enumerate(local.links))
    return replace(local, links=links)


def _committed(state: State | None) -> RecordId:
    """The record that an elected node knows a quorum to have saved; the twin of the core's own count."""
    if state is None or state.leader_state is None:
        return (0, 0, 0)
    record = state.record
    count = sum(1 for voter in record.voters if state.leader_state.saved_by.get(voter) == record.id)
    return record.id if 2 * count > len(record.voters) else (0, 0, 0)


def _disk_broken(before: Saved, after: Saved) -> str:
    if after.term < before.term:
        return f"R1: the term on disk went from {before.term} back to {after.term}"
    if after.term == before.term and before.voted_for not in (0, after.voted_for):
        return f"R2: the vote of term {after.term} on disk changed from {before.voted_for} to {after.voted_for}"
    return ""
