"""A world, what may happen in it, and what must hold in it.

A world is (locals, witness, messages in flight, budget, elected, committed): one number per node, the number
of the witness's state, a set of bits of every message in flight, what misfortune is still allowed, who
was elected in which term, and the newest record known to be committed. A message that arrives stays
on its way: it may arrive again, at any time, or never.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from tools.common.violation import Violation
from tools.common.witness import WitnessServer
from tools.modelchecker.model import Ask, Budget, Local, Move, Outcome, Reply, World
from tools.modelchecker.node_model import NodeModel
from tools.modelchecker.pruning import Sweeper
from zelect.core.events import HealthChanged, JobEnded, WitnessSeen
from zelect.core.quorum import WITNESS, RecordId


@dataclass
class Universe:
    """Everything that may happen to worlds of one cast."""

    model: NodeModel
    seen: set[str] = field(default_factory=set)
    on_move: Callable[[Move], object] | None = None
    floor: int = 0

    def __post_init__(self) -> None:
        self.servers: list[WitnessServer] = [WitnessServer()]
        self._server_ids = {WitnessServer(): 0}
        self.sweeper = Sweeper(self.model, self.servers)
        self._heard: list[dict[int, Outcome]] = []
        self._idle: list[int] = []
        self._alone: dict[int, list[tuple[str, Outcome]]] = {}
        self._cached: dict[tuple[object, ...], Outcome | None] = {}
        self._answers: dict[tuple[int, int], tuple[int, int]] = {}
        self._later: dict[int, tuple[int, ...]] = {}
        self._aged: dict[int, int] = {}
        self._sights: dict[tuple[int, int], tuple[int, int]] = {}

    # -- moves ----------------------------------------------------------------------------------------

    def moves(self, world: World) -> Iterator[tuple[Move, World]]:
        """Every move and the world it leads to. Raises `Violation`."""
        model = self.model
        for index, node in enumerate(model.nodes):
            at = world.at[index]
            if model.locals[at].state is None:
                yield from self.down(world, index, node)
                continue
            yield from self._hears(world, index, node, at)
            for words, outcome in self.by_itself(at):
                yield from self._apply(world, index, node, words, outcome)
            yield from self.suffers(world, index, node, at)
        yield from self._witness(world)
        yield from self.passes(world)

    def by_itself(self, at: int) -> list[tuple[str, Outcome]]:
        known = self._alone.get(at)
        if known is None:
            known = self._alone[at] = self.model.alone(at)
        return known

    def _hears(self, world: World, index: int, node: int, at: int) -> Iterator[tuple[Move, World]]:
        for bit, outcome in self.hears(at, world.in_flight & self.model.sent_to[node]):
            if outcome.after != at or outcome.sends & ~world.in_flight:
                yield from self._apply(world, index, node, "hears", outcome, bit)

    def hears(self, at: int, in_flight: int) -> Iterator[tuple[int, Outcome]]:
        """What comes of each of the messages in flight, for those of which something comes."""
        while len(self._heard) <= at:
            self._heard.append({})
            self._idle.append(0)
        heard = self._heard[at]
        rest = in_flight & ~self._idle[at]
        while rest:
            low = rest & -rest
            rest ^= low
            bit = low.bit_length() - 1
            outcome = heard.get(bit)
            if outcome is None:
                outcome = self.model.hear(at, bit)
                if outcome is None or (outcome.after == at and not outcome.sends and not outcome.broken):
                    self._idle[at] |= low
                    continue
                heard[bit] = outcome
            yield bit, outcome

    def suffers(self, world: World, index: int, node: int, at: int) -> Iterator[tuple[Move, World]]:
        model, budget = self.model, world.budget
        local = model.locals[at]
        state = local.state
        assert state is not None
        victim = not model.bounds.victims or node in model.bounds.victims
        if state.leaving or (budget.crashes and victim):
            spent = budget if state.leaving else budget._replace(crashes=budget.crashes - 1)
            yield self._go(world, index, Move(node, "ends" if state.leaving else "crashes"), self._crash(at), 0, spent)
            saved = model.crash_once_saved(at)
            if saved >= 0:
                yield self._go(world, index, Move(node, "crashes once it has saved"), saved, 0, spent)
        yield from self.leaves(world, index, node, at)
        yield from self.changes(world, index, node, at)
        yield from self.vacates(world, index, node, at)
        yield from self.meets_a_front(world, index, node, at)
        processes = tuple(process(model.locals[number]) for number in world.at)
        for words, outcome in self.finds(at, processes, world.witness):
            yield from self._apply(world, index, node, words, outcome)

    def vacates(self, world: World, index: int, node: int, at: int) -> Iterator[tuple[Move, World]]:
        """The job of a leadership that a guarded node has left ends."""
        state = self.model.locals[at].state
        if state is not None and state.pending_handover is not None:
            outcome = self._cache(("end_job", at), lambda: self.model.see(at, JobEnded()))
            yield from self._apply(world, index, node, "ends its job", outcome)

    def meets_a_front(self, world: World, index: int, node: int, at: int) -> Iterator[tuple[Move, World]]:
        """Something refuses for a process that lives and whose own connection stands."""
        if not world.budget.fronts:
            return
        model, spent = self.model, world.budget._replace(fronts=world.budget.fronts - 1)
        local = model.locals[at]
        assert local.state is not None
        for other, running in zip(model.nodes, (process(model.locals[number]) for number in world.at), strict=True):
            peer = local.state.peers.get(other)
            if running and peer is not None and peer.inbound and local.links[other] == running:
                outcome = self._cache(("front", at, other), lambda other=other: model.front(at, other))
                words = f"is refused by what stands before node {other}"
                yield from self._apply(world._replace(budget=spent), index, node, words, outcome)

    def leaves(self, world: World, index: int, node: int, at: int) -> Iterator[tuple[Move, World]]:
        """A node is asked to go, or the job of a guarded one can't be done any more."""
        model, budget = self.model, world.budget
        state = model.locals[at].state
        if budget.leaves and state is not None and not state.leaving:
            spent = budget._replace(leaves=budget.leaves - 1)
            outcome = self._cache(("leave", at), lambda: model.leave(at))
            yield from self._apply(world._replace(budget=spent), index, node, "is asked to go", outcome)
        if (
            budget.leaves
            and model.settings[node].guarded
            and state is not None
            and state.leader_state
            and state.healthy
        ):
            spent = budget._replace(leaves=budget.leaves - 1)
            outcome = self._cache(("unhealthy", at), lambda: model.see(at, HealthChanged(False)))
            yield from self._apply(world._replace(budget=spent), index, node, "is unhealthy", outcome)

    def changes(self, world: World, index: int, node: int, at: int) -> Iterator[tuple[Move, World]]:
        """An operator asks a node that leads for a change of the members."""
        if not world.budget.changes:
            return
        spent = world._replace(budget=world.budget._replace(changes=world.budget.changes - 1))
        for change in self.model.changes(at):
            outcome = self._cache(("change", at, change), lambda change=change: self.model.change(at, change))
            if outcome is not None and (outcome.after != at or outcome.broken):
                words = f"is asked to {change.what.value} node {change.node}"
                yield from self._apply(spent, index, node, words, outcome)

    def finds(self, at: int, processes: tuple[int, ...], witness: int) -> Iterator[tuple[str, Outcome | None]]:
        """The deaths that a node may prove while these processes run, and the witness in the record
        that turns out to be another one."""
        model = self.model
        local = model.locals[at]
        state = local.state
        assert state is not None
        for other, running in zip(model.nodes, processes, strict=True):
            known = state.peers.get(other)
            gone = known is not None and known.incarnation not in (0, running)
            if known is not None and gone and (local.links[other] or not known.dead):
                outcome = self._cache(("lose", at, other), lambda other=other: model.lose(at, other))
                yield f"proves node {other} dead", outcome
        identity = state.record.witness
        if state.witness_same and not self.servers[witness].same(identity, model.seams.bound()):
            event = WitnessSeen(identity, ready=True, same=False)
            outcome = self._cache(("see", at, False), lambda: model.see(at, event))
            yield "finds the witness to be an unknown client", outcome
        kept = self.servers[witness].handed_out
        if kept is not None and kept.id > state.record.id:
            told = WitnessSeen(identity, state.witness_ready, state.witness_same, kept)
            yield "is told the witness's record", self._cache(("told", at, kept), lambda: model.see(at, told))

    def sight(self, at: int, sends: int, witness: int) -> tuple[int, int]:
        """A node that has not seen the witness as it is looks at once."""
        local = self.model.locals[at]
        state = local.state
        idle = state is None or state.leaving or local.saving is not None
        if state is None or idle or not self.model.settings[local.node].dynamic:
            return at, sends
        known = self._sights.get((at, witness))
        if known is None:
            identity = state.record.witness
            is_same = self.servers[witness].same(identity, self.model.seams.bound())
            known = (at, 0)
            if not state.witness_ready or (is_same and not state.witness_same):
                outcome = self.model.see(at, WitnessSeen(identity, ready=True, same=is_same))
                known = (at, 0) if outcome is None else (outcome.after, outcome.sends)
                if outcome is not None:
                    self.check_step(outcome)
            self._sights[at, witness] = known
        return known[0], sends | known[1]

    def down(self, world: World, index: int, node: int) -> Iterator[tuple[Move, World]]:
        model, at = self.model, world.at[index]
        starts = model.locals[at].starts
        if starts and not world.budget.restarts:
            return
        budget = world.budget._replace(restarts=world.budget.restarts - (starts > 0))
        around = [model.locals[number] for number in world.at]
        up = {local.node: local.starts for local in around if local.state is not None}
        others = tuple(up.get(n, 0) for n in range(max(model.nodes) + 1))
        for words, with_disk in _STARTS:
            lost, copied = with_disk == "lost", with_disk == "copied"
            if (not starts and (lost or copied)) or lost > budget.losses or copied > budget.copies:
                continue
            spent = budget._replace(losses=budget.losses - lost, copies=budget.copies - copied)
            outcome = self._cache(("start", at, others, words), lambda w=with_disk: model.start(at, others, w))
            met, broken = self._meet(world._replace(budget=spent), node, starts + 1)
            if not broken:
                yield from self._apply(met, index, node, words, outcome)

    def _meet(self, world: World, node: int, starts: int) -> tuple[World, bool]:
        """All that run connect to the process that starts; True when that is beyond the bounds."""
        at, in_flight = list(world.at), world.in_flight
        for index, number in enumerate(world.at):
            local = self.model.locals[number]
            if local.node == node or local.state is None or local.state.leaving:
                continue
            outcome = self._cache(("link", number, node, starts), lambda n=number: self.model.link(n, node, starts))
            if outcome is None:
                return world, True
            self.check_step(outcome)
            at[index], in_flight = outcome.after, in_flight | outcome.sends
        return world._replace(at=tuple(at), in_flight=in_flight), False

    def _cache(self, key: tuple[object, ...], make: object) -> Outcome | None:
        if key not in self._cached:
            self._cached[key] = make()  # type: ignore[operator]
        return self._cached[key]

    def _crash(self, at: int) -> int:
        return self.model.crash(at)

    # -- the witness and time -------------------------------------------------------------------------

    def _witness(self, world: World) -> Iterator[tuple[Move, World]]:
        rest = world.in_flight & self.model.sent_to[WITNESS]
        while rest:
            low = rest & -rest
            rest ^= low
            after, reply = self.answer(world.witness, low.bit_length() - 1)
            if after == world.witness and not reply & ~world.in_flight:
                continue
            yield (
                Move(0, "hears", None, low.bit_length() - 1),
                self._tidy(world._replace(witness=after, in_flight=world.in_flight | reply)),
            )
        yield from self.forgets(world)

    def forgets(self, world: World) -> Iterator[tuple[Move, World]]:
        """The witness loses its memory or becomes another."""
        server = self.servers[world.witness]
        if world.budget.witness_losses and server.memory is not None:
            spent = world.budget._replace(witness_losses=world.budget.witness_losses - 1)
            for words, changed in (
                ("is flushed", server.flushed()),
                ("restarts empty", server.restarted(None)),
                ("restarts with what it held", server.restarted(server.memory)),
            ):
                yield Move(0, words), self._tidy(world._replace(witness=self.number(changed), budget=spent))

    def answer(self, witness: int, bit: int) -> tuple[int, int]:
        known = self._answers.get((witness, bit))
        if known is None:
            ask = self.model.in_flight[bit]
            assert isinstance(ask, Ask)
            server, event = self.servers[witness].answer(
                (ask.node, ask.incarnation),
                ask.intent,
                ask.turn,
                bound=self.model.seams.bound(),
                once=not self.model.bounds.recreate,
            )
            reply = 0 if event is None else self.model.post(Reply(ask.node, ask.incarnation, event))
            known = self._answers[witness, bit] = (self.number(server), reply)
        return known

    def number(self, server: WitnessServer) -> int:
        known = self._server_ids.get(server)
        if known is None:
            known = self._server_ids[server] = len(self.servers)
            self.servers.append(server)
        return known

    def passes(self, world: World) -> Iterator[tuple[Move, World]]:
        """One unit passes for all, or for all but one whose clock falls behind; who must look at
        the clock does so first."""
        model = self.model
        if not model.bounds.clock:
            return
        if model.bounds.late:
            overdue = [i for i, at in enumerate(world.at) if model.overdue(at)]
            for index in overdue:
                at = world.at[index]
                outcome = self._cache(("tick", at), lambda at=at: model.tick(at))
                yield from self._apply(world, index, model.nodes[index], "looks at the clock", outcome)
            if overdue:
                return
        yield from self._pass(world, -1, "a unit of time passes")
        if world.budget.skew:
            slow = world._replace(budget=world.budget._replace(skew=world.budget.skew - 1))
            for index, node in enumerate(model.nodes):
                if model.locals[world.at[index]].state is not None:
                    yield from self._pass(slow, index, f"a unit of time passes, but not on the clock of node {node}")

    def _pass(self, world: World, slow: int, words: str) -> Iterator[tuple[Move, World]]:
        model = self.model
        at = tuple(number if i == slow else self.age(number) for i, number in enumerate(world.at))
        in_flight = self.age_in_flight(world.in_flight)
        aged = world._replace(at=at, in_flight=in_flight)
        facts, ticked = [], aged
        for index, number in enumerate(at):
            if model.bounds.late or index == slow or not model.overdue(number):
                continue
            outcome = self.tick(number)
            if outcome is None:
                return  # beyond the bounds
            self.check_step(outcome)
            self.seen |= outcome.seen
            if outcome.facts:
                facts.append(f"node {model.nodes[index]}: {outcome.facts}")
            changed = (*ticked.at[:index], outcome.after, *ticked.at[index + 1 :])
            ticked = ticked._replace(at=changed, in_flight=ticked.in_flight | outcome.sends)
        if ticked != world:
            note = Outcome(0, 0, None, "; ".join(facts), frozenset(), "", ())
            self.check_active(ticked.at)
            yield Move(-1, words, note), self._tidy(ticked)

    def tick(self, number: int) -> Outcome | None:
        return self._cache(("tick", number), lambda: self.model.tick(number))

    def age(self, at: int) -> int:
        known = self._later.get(at)
        if known is None:
            known = self._later[at] = (self.model.later(at),)
        return known[0]

    def age_in_flight(self, in_flight: int) -> int:
        known = self._aged.get(in_flight)
        if known is None:
            known = self._aged[in_flight] = self.model.aged_all(in_flight)
        return known

    # -- consequences ---------------------------------------------------------------------------------

    def _apply(
        self, world: World, index: int, node: int, words: str, outcome: Outcome | None, sent: int = -1
    ) -> Iterator[tuple[Move, World]]:
        if outcome is None:
            return
        move = Move(node, words, outcome, sent)
        if self.on_move is not None:
            self.on_move(move)
        self.check_step(outcome)
        victims = self.model.bounds.victims
        if outcome.inside and world.budget.crashes and (not victims or node in victims):
            spent = world.budget._replace(crashes=world.budget.crashes - 1)
            for after, sends in outcome.inside:
                halted = Move(node, f"crashes before all is done as it {words}", None, sent)
                yield self._go(world, index, halted, after, sends, spent)
        elected = world.elected
        if outcome.elected is not None:
            elected = self.elect(elected, world.committed, node, outcome.elected)
        if outcome.seen:
            self.seen |= outcome.seen
        changed = world._replace(elected=elected)
        if outcome.slowly >= 0 and world.budget.slow:
            spent = world.budget._replace(slow=world.budget.slow - 1)
            yield self._go(changed, index, move._replace(words=f"{words}, and saves slowly,"), outcome.slowly, 0, spent)
        yield self._go(changed, index, move, outcome.after, outcome.sends, world.budget)

    def _go(self, world: World, index: int, move: Move, after: int, sends: int, budget: Budget) -> tuple[Move, World]:
        after, sends = self.sight(after, sends, world.witness)
        at = (*world.at[:index], after, *world.at[index + 1 :])
        committed = world.committed
        if self.model.committed[after] > committed:
            committed = self.model.committed[after]
            self.seen.update(self.kinds_of_record(self.model.locals[after]))
        changed = World(at, world.witness, world.in_flight | sends, budget, world.elected, committed)
        self.check_active(at)
        return move, self._tidy(changed)

    def kinds_of_record(self, local: Local) -> Iterator[str]:
        """What there is to say of the record that this elected node knows to be committed."""
        assert local.state is not None
        record, members = local.state.record, self.model.nodes
        if len(record.members) == 2 and record.witness is not None:
            yield "shrunk to the floor"
        if record.members == members and record.witness is None and record.version > self.floor > 0:
            yield "grown again"

    def check_step(self, outcome: Outcome) -> None:
        if outcome.broken:
            rule, _, text = outcome.broken.partition(": ")
            raise Violation(rule, text)

    def elect(
        self, elected: tuple[int, ...], committed: RecordId, node: int, won: tuple[int, RecordId]
    ) -> tuple[int, ...]:
        """Who was elected in which term, with `node` that has `won` one. Raises `Violation`."""
        term, held = won
        if elected[term - 1] not in (0, node):
            raise Violation("S1", f"nodes {elected[term - 1]} and {node} are both elected in term {term}")
        if term > committed[1] and held < committed:
            raise Violation("R10", f"node {node} is elected with record {held}, but {committed} is committed")
        return (*elected[: term - 1], node, *elected[term:])

    def check_active(self, at: tuple[int, ...]) -> None:
        """Raises `Violation` when two are active, or disks are of two clusters (R15)."""
        active = self.model.active
        holders = [node for node, number in zip(self.model.nodes, at, strict=True) if active[number]]
        if len(holders) > 1:
            raise Violation("S2", f"nodes {holders} are active at the same time")
        clusters = {self.model.clusters[number] for number in at} - {0}
        if len(clusters) > 1:
            raise Violation("R15", f"there are {len(clusters)} clusters")

    def _tidy(self, world: World) -> World:
        in_flight = self.sweeper.sweep(world.at, world.witness, world.in_flight)
        return world if in_flight == world.in_flight else world._replace(in_flight=in_flight)


_STARTS = (
    ("starts", ""),
    ("starts without its disk", "lost"),
    ("starts with its disk as it was at the beginning", "copied"),
)


def process(local: Local) -> int:
    """The process that runs, 0 for none."""
    return 0 if local.state is None else local.starts
