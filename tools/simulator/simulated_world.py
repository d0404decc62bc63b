"""The simulator's world: the small world with faults, and fast.

On top of `tools.simulator.small_world.World`: every node has a clock of its own (offset and rate), a process may
die between any two effects of a step, connections break and come back while processes live, one of the two
between a pair without the other, something in front of a living node refuses connections,
answers of Redis are late, lost, or come from a script that ran long after its question, and what was once
sent may be delivered again, to the next process too. Everything follows from the seed and the plan
of faults; `trace` is a checksum over every step.
"""

from __future__ import annotations

import random
import zlib
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from tools.simulator.jobs import Jobs
from tools.simulator.properties import Properties
from tools.simulator.small_world import MS, Entry, SimulatedProcess, World
from zelect import wire
from zelect.core.effects import (
    AskController,
    Effects,
    Intent,
    Probe,
    PublishController,
    Saved,
    WithdrawController,
    WitnessIntent,
    WitnessLook,
    WitnessVote,
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
    PeerDisconnected,
    Tick,
    WitnessSeen,
    WitnessVoted,
)
from zelect.core.lease import NEVER_US
from zelect.core.messages import Envelope, Refusal

_WIRE_EVERY = 16
_RECONNECT_US = 20 * MS
_KEEP_LINES = 4000
_KEEP_SENT = 400
_REDIS_TIMEOUT_US = 200 * MS


class SimWorld(World):
    """N nodes under faults. `properties` looks after every event."""

    def __init__(self, nodes: int, *, seed: int, skews_us: dict[int, int], ppm: dict[int, int], **options: Any) -> None:
        super().__init__(nodes, seed=seed, **options)
        self.skews_us = skews_us
        self.ppm = ppm
        self.history = deque(maxlen=_KEEP_LINES)  # type: ignore[assignment]  # of the end only
        self.sent = deque(maxlen=_KEEP_SENT)  # type: ignore[assignment]
        self.properties = Properties(self)
        self.events = 0
        self.messages = 0
        self.trace = 0
        self.counts: dict[str, int] = {}
        self.link_delay_us: dict[tuple[int, int], int] = {}
        self.fronts: set[tuple[int, int]] = set()
        self.same_host = False
        self.witness_slow_us = 0
        self.redis_cuts: set[int] = set()
        self.witness_hung = False
        self.registry_slow_us = 0
        self.usual_save_us: dict[int, int] = {}
        self.armed: dict[str, list[Callable[[int], None]]] = {}
        self.doomed: dict[int, int] = {}
        self.healed = False
        self._stuck: list[tuple[SimulatedProcess, int, WitnessIntent, Callable[[], None]]] = []
        self._falling: set[tuple[int, int]] = set()
        self._asked: dict[tuple[int, type], int] = {}
        self._noise = random.Random(seed ^ 0x5EED)
        self.redis.tells_time = seed % 2 == 1
        self._jobs = Jobs(self, self.properties, seed) if options.get("guarded") else None

    # -- clocks ---------------------------------------------------------------------------------

    def local_us(self, n: int, at_us: int | None = None) -> int:
        """What the clock of `n` shows now, or at true time `at_us`."""
        true_us = self.now_us if at_us is None else at_us
        return true_us + self.skews_us[n] + true_us * self.ppm[n] // 1_000_000

    def true_us(self, n: int, local_us: int) -> int:
        """The first true moment at which the clock of `n` shows `local_us` or more."""
        at_us = (local_us - self.skews_us[n]) * 1_000_000 // (1_000_000 + self.ppm[n]) - 1
        while self.local_us(n, at_us) < local_us:
            at_us += 1
        return at_us

    # -- what a fault does ------------------------------------------------------------------------

    def start(self, *nodes: int, forget: bool = False) -> None:
        for n in nodes or tuple(self.settings):
            if n in self.processes:
                continue
            if forget:
                self._set_up_again(n)
            super().start(n, forget=forget and n in self.disks)
            self.properties.born(n)
            self.remark(n, "process_started", forgot=forget)

    def restore(self, n: int, copy: tuple[Saved, int], *, noticed: bool = False) -> None:
        if n not in self.processes:
            if noticed:
                self._set_up_again(n)
            else:
                self.properties.copied(n, copy[0])
            super().restore(n, copy, noticed=noticed)

    def _set_up_again(self, n: int) -> None:
        """Who sets a node up again writes the present members into its configuration."""
        self.settings[n] = replace(self.settings[n], addresses=dict(self.addresses))

    def move(self, n: int) -> None:
        """`n` runs at another address from now on, on a host where it has no data."""
        if n in self.processes:
            self.kill(n)
        host, _, port = self.addresses[n].rpartition(":")
        self.addresses[n] = f"{host}:{int(port) + 100}"
        self.start(n, forget=True)

    def kill(self, *nodes: int) -> None:
        for n in nodes:
            self.remark(n, "process_killed")
            self.properties.ended(n)
            self.doomed.pop(n, None)
        super().kill(*nodes)

    def leave(self, n: int, linger_us: int = 5 * MS) -> None:
        process = self.processes[n]
        self.feed(n, Leave())
        self.at(linger_us, lambda: self.kill(n) if self.processes.get(n) is process else None)

    def unlink(self, a: int, b: int) -> None:
        """Both ends see their connection close; both processes live, and connect again."""
        ends = (self.processes.get(a), self.processes.get(b))
        if ends[0] is None or ends[1] is None:
            return
        for x, y, process in ((a, b, ends[0]), (b, a, ends[1])):
            self._disconnect_inbound(x, y, 0)
            if y in process.linked:
                process.linked.discard(y)
                self._disconnect(x, y, 0)
        self._connect(a, b)

    def front(self, x: int, y: int) -> None:
        """Something in front of `y` closes the connection that `x` made to it, and refuses new ones while
        (`x`, `y`) is in `fronts`. The process of `y` lives, and its own connection to `x` stands."""
        self.fronts.add((x, y))
        process = self.processes.get(x)
        if process is None or y not in self.processes:
            return
        self._disconnect_inbound(y, x, 0)
        if y in process.linked:
            process.linked.discard(y)
            self._disconnect(x, y, 0)
        self._connect(x, y)

    def replay(self, which: int) -> None:
        """Deliver again what was sent some time ago, to whoever has that id now."""
        if self.sent:
            _, to, envelope = self.sent[which % len(self.sent)]
            self.at(0, lambda: self.feed(to, MessageReceived(envelope)))

    def unhang_witness(self) -> None:
        """Redis runs again: it first carries out what it had read before."""
        self.witness_hung = False
        stuck, self._stuck = self._stuck, []
        self._noise.shuffle(stuck)
        for *_, run in stuck:
            self.at(self._noise.randrange(2 * MS), run)

    def later(self, in_us: int, action: Callable[[], None]) -> None:
        """What a fault leads to later, unless all has been healed by then."""
        self.at(in_us, lambda: None if self.healed else action())

    def remark(self, n: int, name: str, **details: object) -> None:
        """A line of history about the world itself."""
        self.history.append(Entry(self.now_us, n, name, details))

    # -- for who records a history: nothing here ------------------------------------------------------

    def decided(self, n: int, event: Event) -> None:
        """`n` made a step because of `event`; nothing of it is carried out yet."""

    def kept(self, n: int, effects: Effects) -> None:
        """What `n` had to save is saved, and nothing is sent yet."""

    def done(self, n: int, effects: Effects) -> None:
        """The step's effects are carried out, and `n` still lives."""

    # -- how it works -------------------------------------------------------------------------------

    def controller(self) -> int | None:
        found = [n for n in self.properties.leading if self.processes[n].machine.active(self.local_us(n))]
        return found[0] if found else None

    def _after(self, n: int, process: SimulatedProcess, event: Event, effects: Effects) -> None:
        self.events += 1
        before = self.disks[n]
        self.decided(n, event)
        line = f"{self.now_us},{n},{type(event).__name__},{before.term},{before.record.version},{len(effects.send)}"
        self.trace = zlib.crc32(line.encode(), self.trace)
        self._carry_out(n, effects)
        self._answer(n, event, effects)
        if self.processes.get(n) is process:
            self.done(n, effects)
            self._arm(n, process)
            self.properties.stepped(n, process)
            if self._jobs is not None:
                self._jobs.stepped(n, process)

    def _carry_out(self, n: int, effects: Effects) -> None:
        acts = bool(effects.save or effects.send)
        doom = self.doomed.pop(n, -1) if acts else -1
        if doom >= 0:
            doom %= 4 + len(effects.send)
        if doom == 0:
            self._die_at(n, "before the save")
            return
        if effects.save is not None:
            self.properties.saving(n, effects.save)
            self.disks[n] = effects.save
            self.saves[n] = self.processes[n].machine.state.saves
        if effects.connect is not None:
            self._reconnect(n)
        if doom == 1:
            self._die_at(n, "after the save")
            return
        self.kept(n, effects)
        for position, (to, envelope) in enumerate(effects.send):
            self._deliver(n, to, envelope)
            if doom == 2 + position:
                self._die_at(n, f"after message {position + 1} of {len(effects.send)}")
                return
        for ask in effects.witness:
            self._ask_witness(n, ask)
        if doom >= 2:
            self._die_at(n, "before the publication")
            return
        for intent in effects.publish:
            self._publish(n, intent)
        for probe in effects.probe:
            delay_us = 1100 if self._noise.random() < 0.8 else self._noise.randrange(40 * MS)
            self.at(delay_us, partial(self._probe, n, probe))
        for fact in effects.facts:
            self._note(n, fact.name, dict(fact.fields))

    def _die_at(self, n: int, where: str) -> None:
        self.remark(n, "process_crashed", where=where)
        self.kill(n)

    def _note(self, n: int, name: str, details: dict[str, Any]) -> None:
        self.history.append(Entry(self.now_us, n, name, details))
        self.counts[name] = self.counts.get(name, 0) + 1
        self.properties.noted(n, name, details)
        if name in self.armed:
            waiting = self.armed.pop(name)
            for act in waiting:
                self.at(0, partial(act, n))

    def _deliver(self, n: int, to: int, envelope: Envelope) -> None:
        self.messages += 1
        process = self.processes.get(to)
        if to not in self.processes[n].linked or process is None or (n, to) in self.cuts:
            return
        noise = self._noise.random
        if noise() < self.loss:
            return
        if self.messages % _WIRE_EVERY == 0:
            envelope = wire.decode(wire.encode(envelope))
        self.sent.append((n, to, envelope))
        delay_us = self.link_delay_us.get((n, to), self.latency_us)
        for _ in range(2 if self.duplicates and noise() < self.duplicates else 1):
            late_us = int(noise() * self.late_us) if self.reordered and noise() < self.reordered else 0
            self.at(int(delay_us * (1 + noise() / 3)) + late_us, partial(self._arrive, to, process, envelope))

    def _arrive(self, to: int, process: SimulatedProcess, envelope: Envelope) -> None:
        if self.processes.get(to) is process:  # a connection dies with its process
            self.feed(to, MessageReceived(envelope))

    def _ask_witness(self, n: int, intent: WitnessIntent) -> None:
        process, kind, noise = self.processes[n], type(intent), self._noise
        number = next(self._serial)
        self._asked[n, kind] = number
        answered = isinstance(intent, WitnessVote | WitnessLook)
        asked_us, until_us = self.local_us(n), self.now_us + _REDIS_TIMEOUT_US

        def reply(event: Event | None) -> None:
            if event is None or self.processes.get(n) is not process:
                return
            if answered:
                if self._asked.get((n, kind)) != number:
                    return
                del self._asked[n, kind]
            self.feed(n, event)

        def run() -> None:
            self.properties.witness_asked(n, process.incarnation, intent)
            promise_ms = self.settings[n].timing.election_timeout_ms
            event = self.redis.carry_out((n, process.incarnation), intent, asked_us, promise_ms, self.now_us)
            self.properties.witness_changed()
            if event is not None and self.now_us < until_us and noise.random() >= self.loss:
                self.at(100 + int(noise.random() * self.witness_slow_us), partial(reply, event))

        if answered:
            self.at(_REDIS_TIMEOUT_US, partial(reply, _no_answer(intent)))
        if n in self.redis_cuts:
            return
        if self.witness_hung:
            # One question lies in the server's buffer; later ones are given up unsent.
            if not any(owner is process for owner, *_ in self._stuck):
                self._stuck.append((process, n, intent, run))
            return
        self.at(100 + noise.randrange(50) + int(noise.random() * self.witness_slow_us), run)

    def _publish(self, n: int, intent: Intent) -> None:
        process = self.processes[n]
        delay_us = 300 + self.registry_slow_us

        def run() -> None:
            up = self.registry_up and n not in self.redis_cuts
            if isinstance(intent, AskController):
                hint = ControllerHint(*(self.registry if up else (0, 0)))
                if self.processes.get(n) is process:
                    self.feed(n, hint)
            elif isinstance(intent, PublishController) and up and self.local_us(n) < intent.valid_until_us:
                standing, term = self.registry
                if intent.term > term or (intent.term == term and standing in (0, n)):
                    self.registry = (n, intent.term)
                self.properties.published(n, intent.term)
            elif isinstance(intent, WithdrawController) and up and self.registry == (n, intent.term):
                self.registry = (0, self.registry[1])

        if isinstance(intent, AskController | PublishController | WithdrawController):
            self.at(delay_us, run)

    def _probe(self, n: int, probe: Probe) -> None:
        if probe.peer in self.processes:
            return
        if self.same_host:
            self.feed(n, DeathProven(probe.peer, probe.incarnation, Evidence.LOCK))
        elif not self._cut(n, probe.peer):
            self.feed(n, DeathProven(probe.peer, probe.incarnation, Evidence.REFUSED))

    def _cut(self, a: int, b: int) -> bool:
        return (a, b) in self.cuts or (b, a) in self.cuts

    def _link(self, x: int, y: int, ends: tuple[SimulatedProcess, SimulatedProcess]) -> None:
        if (self.processes.get(x), self.processes.get(y)) != ends or y in ends[0].linked:
            return
        if ends[0].machine.state.addresses.get(y) != self.settings[y].address:
            return  # it connects elsewhere, or not at all
        if self._cut(x, y) or (x, y) in self._falling or (x, y) in self.fronts:
            self.at(_RECONNECT_US, partial(self._link, x, y, ends))
            return
        ends[0].linked.add(y)
        self.feed(x, LinkUp(y))

    def _disconnect_inbound(self, x: int, y: int, in_us: int) -> None:
        process, noise = self.processes[x], self._noise.random
        incarnation = process.inbound.pop(y, 0)

        def gone() -> None:
            # Not when it has connected again and spoken meanwhile: what counts is the last connection.
            if self.processes.get(x) is process and process.inbound.get(y) != incarnation:
                self.feed(x, PeerDisconnected(y, incarnation))

        if incarnation:
            self.at(int(in_us * noise()) if noise() < 0.7 else int(noise() * 30 * MS), gone)

    def _disconnect(self, x: int, y: int, in_us: int) -> None:
        process = self.processes[x]
        self._falling.add((x, y))
        noise = self._noise.random

        def gone() -> None:
            self._falling.discard((x, y))
            if self.processes.get(x) is process:
                self.feed(x, LinkDown(y))

        self.at(in_us if noise() < 0.7 else int(noise() * 30 * MS), gone)

    def _arm(self, n: int, process: SimulatedProcess) -> None:
        due_us = process.machine.deadline_us()
        if due_us >= NEVER_US:
            return
        due_us = self.true_us(n, due_us)
        if process.tick_at <= due_us:
            return  # looks again when that one fires
        process.tick_at = due_us

        def fire() -> None:
            if self.processes.get(n) is not process or process.tick_at != due_us:
                return
            process.tick_at = NEVER_US
            if process.saving:
                return  # looks again when the disk has it
            if process.frozen is None and self.local_us(n) >= process.machine.deadline_us():
                self.feed(n, Tick())
            elif process.frozen is None:
                self._arm(n, process)

        self.at(max(0, due_us - self.now_us), fire)


def _no_answer(intent: WitnessIntent) -> Event | None:
    """What the adapter says in the place of a Redis that doesn't answer in time."""
    if isinstance(intent, WitnessVote):
        return WitnessVoted(intent.pre, intent.round, Refusal.UNREACHABLE, 0)
    if isinstance(intent, WitnessLook):
        return WitnessSeen(intent.identity, ready=False, same=False)
    return None
