"""A small world for the shipped machine: virtual time, a network, disks that survive, a registry.

Deterministic: the same calls give the same history. Messages go through the real wire format.
Scenarios and module tests use it; nothing in it sleeps.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from typing import Any

from tools.common.founded import founded_record
from tools.simulator.witness import Redis
from zelect import wire
from zelect.core.effects import (
    AskController,
    Effects,
    Probe,
    PublishController,
    Saved,
    WithdrawController,
    WitnessIntent,
)
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
)
from zelect.core.lease import NEVER_US
from zelect.core.machine import Machine, first_state
from zelect.core.messages import CommonResp, Envelope, Message
from zelect.core.settings import Settings
from zelect.core.timing import Timing

MS = 1000


@dataclass(eq=False)
class SimulatedProcess:
    """One process of a node. `linked`: the nodes that its own connections lead to; `inbound`: whose processes
    have connections to it that they made and have spoken over, by incarnation. While it is `saving` it does
    nothing else; what arrives meanwhile is in `waiting`."""

    machine: Machine
    incarnation: int
    linked: set[int] = field(default_factory=set)
    inbound: dict[int, int] = field(default_factory=dict)
    frozen: list[Event] | None = None
    saving: bool = False
    waiting: deque[Event] = field(default_factory=deque)
    tick_at: int = NEVER_US


@dataclass(frozen=True)
class Entry:
    """One line of history."""

    at_us: int
    node: int
    name: str
    details: dict[str, Any]


class World:
    """N nodes, started and broken by the caller, and the history of what they did.

    `founded`: the nodes whose cluster exists already (True: all, False: none, all are new); `lists`: the members in
    the configuration of each node that does not have all of them (R15). A save takes `save_us[n]`, and the node does
    nothing meanwhile."""

    def __init__(
        self,
        nodes: int = 3,
        *,
        seed: int = 0,
        loss: float = 0.0,
        duplicates: float = 0.0,
        reordered: float = 0.0,
        late_us: int = 2_000_000,
        latency_us: int = 150,
        founded: bool | Collection[int] = True,
        lists: Mapping[int, Collection[int]] | None = None,
        **options: Any,
    ) -> None:
        timing = options.pop("timing", Timing())
        priorities = options.pop("priorities", {})
        addresses = {n: f"tcp://127.0.0.1:{7100 + n}" for n in range(1, nodes + 1)}
        self.addresses = addresses
        self.settings = {
            n: Settings(
                "demo",
                n,
                {m: addresses[m] for m in (lists or {}).get(n, addresses)},
                priority=priorities.get(n, 0),
                timing=timing,
                **options,
            )
            for n in addresses
        }
        self.now_us = 1_000_000
        self.random = random.Random(seed)
        self.loss = loss
        self.duplicates = duplicates
        self.reordered = reordered
        self.late_us = late_us
        self.latency_us = latency_us
        self.disks: dict[int, Saved] = {}
        self.saves: dict[int, int] = {}  # how often each disk's storage epoch was saved (R16)
        self.save_us: dict[int, int] = {}
        founders = (set(addresses) if founded else set()) if isinstance(founded, bool) else set(founded)
        if founders:
            epochs = {n: n for n in founders}  # as if each had first saved something in the order of the ids
            record = founded_record({n: addresses[n] for n in founders}, epochs)
            self.disks = {
                n: replace(first_state(self.settings[n], 0), record=record, epoch=epochs[n]) for n in sorted(founders)
            }
        self.ran: set[int] = set()  # those that may have made a promise before their next start (R4)
        self.processes: dict[int, SimulatedProcess] = {}
        self.cuts: set[tuple[int, int]] = set()
        self.history: list[Entry] = []
        self.registry: tuple[int, int] = (0, 0)
        self.registry_up = True
        self.redis = Redis()
        self.sent: list[tuple[int, int, Envelope]] = []
        self._births = count(1)
        self._serial = count()
        self._queue: list[tuple[int, int, Callable[[], None]]] = []

    # -- what a test does -------------------------------------------------------------------------

    def start(self, *nodes: int, forget: bool = False) -> None:
        """Start processes; a node with a disk restarts with what it saved, or (`forget`) without it: nobody tells it
        that there was more, so that it knows of no promise to outwait either."""
        for n in nodes or self.settings:
            born = next(self._births)
            saved = None if forget else self.disks.get(n)
            ran_before = n in self.ran and saved is not None
            self.ran.add(n)
            if saved is None:
                saved = first_state(self.settings[n], born)
                self.saves[n] = 0
            saved = replace(saved, incarnation=born)
            self.disks[n] = saved
            self.saves[n] = saves = self.saves.get(n, 0) + 1
            machine = Machine(self.settings[n], saved, ran_before=ran_before, saves=saves)
            self.processes[n] = SimulatedProcess(machine, born)
            self.at(0, partial(self.feed, n, Started()))
            for other in self.processes:
                if other != n:
                    self._connect(n, other)

    def restore(self, n: int, copy: tuple[Saved, int], *, noticed: bool = False) -> None:
        """Start `n` with an older copy of its disk and of how often it was saved. `noticed`: the file's inode tells
        that it is one, and the node begins a new storage epoch; else only the memory of others can tell (R16)."""
        saved, self.saves[n] = copy
        self.disks[n] = saved
        if noticed:
            epoch = max(saved.epoch, saved.incarnation) + 1
            self.disks[n] = replace(first_state(self.settings[n], epoch), epoch=max(epoch, next(self._births)))
            self.saves[n] = 0
        self.start(n)

    def kill(self, *nodes: int) -> None:
        """SIGKILL: the process is gone, its connections close within a millisecond."""
        for n in nodes:
            del self.processes[n]
        for n in nodes:
            for other, process in self.processes.items():
                # Dead to each other at once; the survivors hear of it a little later.
                self._disconnect_inbound(other, n, 600)
                if n in process.linked:
                    process.linked.discard(n)
                    self._disconnect(other, n, 700)

    def leave(self, n: int) -> None:
        """SIGTERM: leave, then the process ends."""
        self.feed(n, Leave())
        self.at(5 * MS, lambda: self.kill(n) if n in self.processes else None)

    def freeze(self, n: int) -> None:
        """SIGSTOP: nothing runs, everything queues."""
        self.processes[n].frozen = []

    def thaw(self, n: int) -> None:
        """SIGCONT: what queued is handled before any timer is looked at, as a node does (R14)."""
        process = self.processes.get(n)
        if process is None or process.frozen is None:
            return
        queued, process.frozen = process.frozen, None
        for event in sorted(queued, key=lambda e: not isinstance(e, LinkUp | LinkDown | PeerDisconnected)):
            if self.processes.get(n) is process:
                self.feed(n, event)
        self.feed(n, Tick(late=True))

    def cut(self, a: int, b: int, *, one_way: bool = False) -> None:
        """Lose everything from `a` to `b` (and back); connections stay up, as with a dropped cable."""
        self.cuts |= {(a, b)} if one_way else {(a, b), (b, a)}

    def heal(self) -> None:
        """Undo all cuts."""
        self.cuts.clear()

    def run(self, for_ms: float) -> None:
        """Let virtual time pass."""
        end_us = self.now_us + int(for_ms * MS)
        while self._queue and self._queue[0][0] <= end_us:
            self.now_us, _, action = heapq.heappop(self._queue)
            action()
        self.now_us = end_us

    def run_until(self, condition: Callable[[], Any], within_ms: float = 5000) -> float:
        """Let time pass until `condition`; returns how many milliseconds it took."""
        began_us = self.now_us
        while not condition():
            assert self.now_us - began_us <= within_ms * MS, f"not within {within_ms} ms\n{self.timeline()}"
            assert self._queue, "nothing left to happen"
            self.now_us, _, action = heapq.heappop(self._queue)
            action()
        return (self.now_us - began_us) / MS

    # -- what a test looks at -----------------------------------------------------------------------

    @property
    def active(self) -> list[int]:
        """Nodes active at this moment, frozen ones included: their lease still runs."""
        return [n for n, process in self.processes.items() if process.machine.active(self.now_us)]

    def controller(self) -> int | None:
        """The node active; two would break S2."""
        assert len(self.active) <= 1, f"S2 broken: {self.active}\n{self.timeline()}"
        return self.active[0] if self.active else None

    def state(self, n: int) -> Any:
        return self.processes[n].machine.state

    def happened(self, name: str, node: int | None = None) -> list[Entry]:
        return [e for e in self.history if e.name == name and node in (None, e.node)]

    def timeline(self, last: int = 60) -> str:
        lines = (
            f"{e.at_us / MS - 1000:10.3f} ms  n{e.node:<3} {e.name:<22} "
            + " ".join(f"{k}={v}" for k, v in e.details.items())
            for e in list(self.history)[-last:]
        )
        return "\n".join(lines)

    # -- how it works -------------------------------------------------------------------------------

    def local_us(self, n: int, at_us: int | None = None) -> int:
        """What the clock of `n` shows now, or at true time `at_us`."""
        return self.now_us if at_us is None else at_us

    def true_us(self, n: int, local_us: int) -> int:
        """The first true moment at which the clock of `n` shows `local_us` or more."""
        return local_us

    def at(self, in_us: int, action: Callable[[], None]) -> None:
        heapq.heappush(self._queue, (self.now_us + in_us, next(self._serial), action))

    def feed(self, n: int, event: Event) -> None:
        """Give one event to a node and carry out what it asks for."""
        process = self.processes.get(n)
        if process is None:
            return
        if process.frozen is not None:
            if not isinstance(event, Tick):
                process.frozen.append(event)
            return
        if process.saving:
            if not isinstance(event, Tick):
                process.waiting.append(event)
            return
        self._handle(n, process, event)

    def _handle(self, n: int, process: SimulatedProcess, event: Event) -> None:
        self._step(n, process, event)
        if isinstance(event, MessageReceived) and self.processes.get(n) is process:
            self._note_inbound(n, process, event.envelope)

    def _note_inbound(self, n: int, process: SimulatedProcess, envelope: Envelope) -> None:
        """The connection that brought a message is its sender's, if it stands still."""
        peer, incarnation = envelope.sender, envelope.incarnation
        other = self.processes.get(peer)
        if other is None or other.incarnation != incarnation or process.inbound.get(peer) == incarnation:
            return
        known = process.machine.state.peers.get(peer)
        if n in other.linked and known is not None and known.incarnation == incarnation:
            process.inbound[peer] = incarnation
            if process.saving:
                process.waiting.appendleft(PeerConnected(peer, incarnation))
            else:
                self._step(n, process, PeerConnected(peer, incarnation))

    def _step(self, n: int, process: SimulatedProcess, event: Event) -> None:
        effects = process.machine.step(event, self.local_us(n))
        save_us = self.save_us.get(n, 0) if effects.save is not None else 0
        if save_us:
            process.saving = True
            self.at(save_us, partial(self._saved, n, process, event, effects, save_us))
        else:
            self._after(n, process, event, effects)

    def _saved(self, n: int, process: SimulatedProcess, event: Event, effects: Effects, took_us: int) -> None:
        """The disk has it. What waited meanwhile is read before any deadline is judged (R14)."""
        if self.processes.get(n) is not process:
            return
        if process.frozen is not None:
            self.at(MS, partial(self._saved, n, process, event, effects, took_us + MS))
            return
        process.machine.saved_in(took_us)
        process.saving = False
        self._after(n, process, event, effects)
        while process.waiting and not process.saving and process.frozen is None and self.processes.get(n) is process:
            self._handle(n, process, process.waiting.popleft())
        if self.processes.get(n) is process:
            late = took_us > self.settings[n].timing.heartbeat_us // 2
            if self.local_us(n) >= process.machine.deadline_us():
                self.feed(n, Tick(late=late))

    def _after(self, n: int, process: SimulatedProcess, event: Event, effects: Effects) -> None:
        """What a step asks for is carried out, once it is saved."""
        self._carry_out(n, effects)
        self._answer(n, event, effects)
        self._arm(n, process)
        self.controller()

    def _answer(self, n: int, event: Event, effects: Effects) -> None:
        """Answer a node that this one doesn't know over the connection that its message came on."""
        if not isinstance(event, MessageReceived) or not isinstance(effects.answer, CommonResp):
            return
        asker, machine = event.envelope.sender, self.processes[n].machine if n in self.processes else None
        if machine is None or asker not in self.processes or (n, asker) in self.cuts:
            return
        saved, record = machine.state.saved, machine.state.record
        answer = Envelope(
            "demo",
            n,
            saved.incarnation,
            machine.settings.digest(),
            saved.term,
            effects.answer,
            record.generation,
            record.cluster_id,
        )
        self.at(self.latency_us, partial(self.feed, asker, MessageReceived(answer)))

    def _carry_out(self, n: int, effects: Effects) -> None:
        if effects.save is not None:
            self.disks[n] = effects.save
            self.saves[n] = self.processes[n].machine.state.saves
        if effects.connect is not None:
            self._reconnect(n)
        for to, envelope in effects.send:
            self._deliver(n, to, envelope)
        for ask in effects.witness:
            self._ask_witness(n, ask)
        for intent in effects.publish:
            if isinstance(intent, AskController):
                seen = self.registry if self.registry_up else (0, 0)
                self.at(MS, partial(self.feed, n, ControllerHint(*seen)))
            elif isinstance(intent, PublishController) and self.registry_up:
                if intent.term >= self.registry[1]:  # the script refuses an older term (R13)
                    self.registry = (n, intent.term)
            elif isinstance(intent, WithdrawController) and self.registry == (n, intent.term):
                self.registry = (0, self.registry[1])
        for probe in effects.probe:
            self.at(1100, partial(self._probe, n, probe))
        for fact in effects.facts:
            self.history.append(Entry(self.now_us, n, fact.name, dict(fact.fields)))

    def _deliver(self, n: int, to: int, envelope: Envelope) -> None:
        self.sent.append((n, to, envelope))
        if to not in self.processes[n].linked or (n, to) in self.cuts or self.random.random() < self.loss:
            return
        payload, process = wire.encode(envelope), self.processes.get(to)

        def arrive() -> None:
            if self.processes.get(to) is process:  # a connection dies with its process
                self.feed(to, MessageReceived(wire.decode(payload)))

        for _ in range(2 if self.random.random() < self.duplicates else 1):
            late_us = self.random.randrange(self.late_us) if self.random.random() < self.reordered else 0
            jitter_us = self.random.randrange(self.latency_us // 3 + 1)
            self.at(self.latency_us + jitter_us + late_us, arrive)

    def _ask_witness(self, n: int, intent: WitnessIntent) -> None:
        process = self.processes[n]

        def run() -> None:
            promise_ms, now_us = self.settings[n].timing.election_timeout_ms, self.now_us
            answer = self.redis.carry_out((n, process.incarnation), intent, now_us, promise_ms, now_us)
            if answer is not None and self.processes.get(n) is process:
                self.at(100, lambda: self.feed(n, answer))

        self.at(100 + self.random.randrange(50), run)

    def _probe(self, n: int, probe: Probe) -> None:
        process = self.processes.get(probe.peer)
        if process is None:
            self.feed(n, DeathProven(probe.peer, probe.incarnation, Evidence.REFUSED))

    def _connect(self, a: int, b: int) -> None:
        for x, y in ((a, b), (b, a)):
            self.at(1000, partial(self._link, x, y, (self.processes[x], self.processes[y])))

    def _reconnect(self, n: int) -> None:
        """The nodes that `n` holds connections to have changed."""
        process = self.processes[n]
        peers = process.machine.state.peers
        process.linked = {y for y in process.linked if y in peers and peers[y].linked}
        for y in peers.keys() & self.processes.keys() - process.linked:
            self.at(1000, partial(self._link, n, y, (process, self.processes[y])))

    def _link(self, x: int, y: int, ends: tuple[SimulatedProcess, SimulatedProcess]) -> None:
        if y not in ends[0].machine.state.peers:
            return
        if (self.processes.get(x), self.processes.get(y)) == ends and y not in ends[0].linked:
            ends[0].linked.add(y)
            self.feed(x, LinkUp(y))

    def _disconnect_inbound(self, x: int, y: int, in_us: int) -> None:
        """What `x` notices of it that the connection that `y` made to it has closed."""
        process = self.processes[x]
        incarnation = process.inbound.pop(y, 0)

        def gone() -> None:
            if self.processes.get(x) is process:
                self.feed(x, PeerDisconnected(y, incarnation))

        if incarnation:
            self.at(in_us, gone)

    def _disconnect(self, x: int, y: int, in_us: int) -> None:
        process = self.processes[x]

        def gone() -> None:
            if self.processes.get(x) is process:
                self.feed(x, LinkDown(y))

        self.at(in_us, gone)

    def _arm(self, n: int, process: SimulatedProcess) -> None:
        due_us = process.machine.deadline_us()
        if due_us == process.tick_at or due_us >= NEVER_US:
            return
        process.tick_at = due_us

        def fire() -> None:
            if self.processes.get(n) is process and process.tick_at == due_us:
                process.tick_at = NEVER_US
                self.feed(n, Tick())

        self.at(max(0, due_us - self.now_us), fire)


def packet(world: World, sender: int, message: Message, term: int | None = None) -> MessageReceived:
    """`message` from the living process of `sender`, at its own term unless told otherwise."""
    machine = world.processes[sender].machine
    saved = machine.state.saved
    digest = machine.settings.digest()
    at_term = saved.term if term is None else term
    record = saved.record
    return MessageReceived(
        Envelope("demo", sender, saved.incarnation, digest, at_term, message, record.generation, record.cluster_id)
    )


def leadership_of(node: int, nodes: int = 3) -> World:
    """A settled cluster in which `node` is active."""
    world = World(nodes, priorities={node: 10})
    world.start()
    world.run_until(lambda: world.controller() == node)
    world.run(300)
    return world
