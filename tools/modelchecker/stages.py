"""Breadth first through *stages*: worlds that differ in nothing but their messages in flight are taken as one.

A stage is a world without its messages in flight, except those that tell of what is done once in a term: a
vote given, a leadership handed over. It holds every message that
is on its way in any of its worlds. A message may always be lost, so more of them allow more and
forbid nothing: whatever a world may do its stage does too, and what never happens on any stage
happens in no world. The other way round is not so, because messages in flight of two histories may meet on a
stage. So what a stage shows counts only after a true history of it was found: `histories`.

What only adds messages in flight (a question answered again, a pre-vote, a refusal) is done at once. A dead
process that may not start again is dead, whatever stands on its disk. Where nodes are alike, a
history differs in nothing but names from the one in which they first campaign in the order of their
ids; only that one is followed.
"""

from __future__ import annotations

import sys
import time
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from tools.common.violation import Violation
from tools.modelchecker.model import Budget, Move, World
from tools.modelchecker.reactions import Reactions, Step
from tools.modelchecker.search import Found
from tools.modelchecker.universe import Universe
from zelect.core.quorum import RecordId

_AT_BITS = 20  # a million locals
_AT = (1 << _AT_BITS) - 1
_FEW_BITS = 16  # states of the witness, and sets of grants
_FEW = (1 << _FEW_BITS) - 1
_TRIES = 60
"""Stages kept for each thing that must be seen, to look for a true history of one."""


@dataclass(frozen=True, slots=True)
class Rest:
    """What else a world holds: what misfortune is still allowed, who was elected, what is
    committed; `campaigned`: nodes that are told apart so far, those with the lowest ids."""

    budget: Budget
    elected: tuple[int, ...]
    committed: RecordId
    campaigned: int


@dataclass
class Stages:
    """A search in the making. `alike`: nodes after this many are alike at the start. Of a stage,
    `bit_sets` holds the messages in flight, `dead` those that can do nothing there, `parents` from where it was
    first reached; `queued` whether it waits to be looked at (again)."""

    universe: Universe
    alike: int
    found: Found = field(default_factory=Found)

    def __post_init__(self) -> None:
        model = self.universe.model
        self.found.seen = self.universe.seen
        self.nodes = model.nodes
        self.shifts = tuple(_AT_BITS * index for index in range(len(self.nodes)))
        self.witness_shift = _AT_BITS * len(self.nodes)
        self.grants_shift = self.witness_shift + _FEW_BITS
        self.rest_shift = self.grants_shift + _FEW_BITS
        self.gone_nodes = {node: model.gone_node(node) for node in self.nodes}
        self.rests: list[Rest] = []
        self.keys: list[int] = []
        self.bit_sets: list[int] = []
        self.dead: list[int] = []
        self.parents = array("I")
        self.queued = bytearray()
        self.index: dict[int, int] = {}
        self.shown: dict[str, list[int]] = {}
        self.now = 0
        self._rest_ids: dict[Rest, int] = {}
        self._grant_ids: dict[int, int] = {0: 0}
        self._following: list[int] = []
        self._spent: dict[int, int] = {}
        self.reactions = Reactions(self.universe, self._show)

    # -- stages as numbers ----------------------------------------------------------------------------

    def key(self, world: World, campaigned: int) -> int:
        """The stage of a world, without its grants."""
        locals_ = self.universe.model.locals
        key = self._rest(Rest(world.budget, world.elected, world.committed, campaigned)) << self.rest_shift
        key |= world.witness << self.witness_shift
        for number, shift in zip(world.at, self.shifts, strict=True):
            local = locals_[number]
            ended = local.starts and local.state is None and not world.budget.restarts
            key |= (self.gone_nodes[local.node] if ended else number) << shift
        return key

    def stage(self, world: World, campaigned: int) -> int:
        """The stage of a world, with its grants."""
        grants = world.in_flight & self.universe.model.grants & ~self.dead_in(world)
        return self.key(world, campaigned) | self._grants(grants) << self.grants_shift

    def without_grants(self, key: int) -> int:
        """The stage's key but for its grants."""
        return key ^ (key >> self.grants_shift & _FEW) << self.grants_shift

    def dead_in(self, world: World) -> int:
        """The messages in flight that can do nothing any more in a world."""
        return self._dead(self._at(self.key(world, self.alike)), world.witness)

    def shape(self, key: int) -> tuple[object, ...]:
        """What there is to see of a stage if nobody had a name."""
        model = self.universe.model
        locals_ = [(model.locals[number], model.active[number]) for number in self._at(key)]
        seen = [
            (local.disk.term, local.disk.record.id, active, local.state and local.state.role.value)
            for local, active in locals_
        ]
        rest = self.rests[key >> self.rest_shift]
        return (*sorted(seen, key=str), rest.budget, sum(node > 0 for node in rest.elected), rest.committed)

    def campaigned_after(self, move: Move, campaigned: int) -> int | None:
        """How many nodes are told apart after a move; None when another node should go first."""
        if move.words != "campaigns":
            return campaigned
        place = self.nodes.index(move.who)
        return None if place > campaigned else max(campaigned, place + 1)

    def _world(self, key: int, in_flight: int) -> World:
        rest = self.rests[key >> self.rest_shift]
        witness = key >> self.witness_shift & _FEW
        return World(self._at(key), witness, in_flight, rest.budget, rest.elected, rest.committed)

    def _at(self, key: int) -> tuple[int, ...]:
        return tuple(key >> shift & _AT for shift in self.shifts)

    def _rest(self, rest: Rest) -> int:
        known = self._rest_ids.get(rest)
        if known is None:
            known = self._rest_ids[rest] = len(self.rests)
            self.rests.append(rest)
        return known

    def _grants(self, grants: int) -> int:
        known = self._grant_ids.setdefault(grants, len(self._grant_ids))
        assert known <= _FEW, "too many sets of deeds for the bits that are kept for them"
        return known

    def _dead(self, at: tuple[int, ...], witness: int) -> int:
        dead = self.universe.sweeper.dead(at, witness)
        for node, number in zip(self.nodes, at, strict=True):
            if number == self.gone_nodes[node]:
                dead |= self.universe.model.sent_to[node]
        return dead

    # -- the search -----------------------------------------------------------------------------------

    def search(self, start: World, *, most: int, depth: int, seconds: float, progress: bool = False) -> Found:
        """Look at stages from that of `start` until nothing new comes, a property breaks, or a limit
        is reached."""
        found, began = self.found, time.monotonic()
        described = began
        try:
            self._visit(self.key(start, self.alike), start.in_flight)
            while self._following and found.depth < depth:
                level, self._following = self._following, []
                for offset, index in enumerate(level):
                    self.queued[index] = 0
                    self._look(index)
                    now = time.monotonic()
                    if progress and now > described + 10:
                        described = now
                        _show(len(self.keys), found.depth, len(level) - offset, now - began)
                    if len(self.keys) >= most or now - began > seconds:
                        raise TimeoutError
                found.depth += bool(self._following)
            found.complete = not self._following
        except TimeoutError:
            pass
        except Violation as violation:
            found.violation = str(violation)
        found.worlds, found.seconds = len(self.keys), time.monotonic() - began
        return found

    def _visit(self, key: int, in_flight: int) -> None:
        """Come to a stage, named without its grants, with these messages in flight."""
        grants = in_flight & self.universe.model.grants
        named = key | self._grants(grants) << self.grants_shift
        index = self.index.get(named)
        if index is None:
            at, witness = self._at(key), key >> self.witness_shift & _FEW
            self.universe.check_active(at)
            dead = self._dead(at, witness)
            if grants & dead:
                self._visit(key, in_flight & ~dead)
                self.index[named] = self.index[key | self._grants(grants & ~dead) << self.grants_shift]
                return
            self.index[named] = len(self.keys)
            self._following.append(len(self.keys))
            self.keys.append(named)
            self.bit_sets.append(in_flight & ~dead)
            self.dead.append(dead)
            self.parents.append(self.now)
            self.queued.append(1)
        elif in_flight & ~self.bit_sets[index] & ~self.dead[index]:
            self.bit_sets[index] |= in_flight & ~self.dead[index]
            if not self.queued[index]:
                self.queued[index] = 1
                self._following.append(index)

    def _look(self, index: int) -> None:
        """Take every step from a stage."""
        self.now = index
        key = self.keys[index]
        at, witness = self._at(key), key >> self.witness_shift & _FEW
        key = self.without_grants(key)
        rest = self.rests[key >> self.rest_shift]
        bits = self._close(index, at, witness)
        world = self._world(key, bits)
        processes = tuple(self.reactions.process(number) for number in at)
        for place, number in enumerate(at):
            if not processes[place]:
                if rest.budget.restarts or not self.universe.model.locals[number].starts:
                    self._come_to(self.universe.down(world, place, self.nodes[place]), rest.campaigned)
                continue
            for step in self.reactions.view(number, bits, witness)[1]:
                self._go(key, bits, place, number, step, rest)
            for step in self.reactions.alone(number, witness):
                if not step.campaigns or place <= rest.campaigned:
                    self._go(key, bits, place, number, step, rest)
            for step in self.reactions.found_out(number, processes, witness):
                self._go(key, bits, place, number, step, rest)
            self._crash(key, bits, place, number, rest)
            if self.universe.model.settings[self.nodes[place]].guarded:
                self._come_to(self.universe.vacates(world, place, self.nodes[place], number), rest.campaigned)
            if rest.budget.fronts:
                self._come_to(self.universe.meets_a_front(world, place, self.nodes[place], number), rest.campaigned)
            if rest.budget.leaves:
                self._come_to(self.universe.leaves(world, place, self.nodes[place], number), rest.campaigned)
            if rest.budget.changes:
                self._come_to(self.universe.changes(world, place, self.nodes[place], number), rest.campaigned)
        for after, replies in self.reactions.asked(witness, bits)[1]:
            self._visit(key + ((after - witness) << self.witness_shift), bits | replies)
        if rest.budget.witness_losses:
            self._come_to(self.universe.forgets(world), rest.campaigned)
        if self.universe.model.bounds.late or rest.budget.skew:
            self._come_to(self.universe.passes(world), rest.campaigned)
        elif self.universe.model.bounds.clock:
            self._pass(key, bits, at)

    def _come_to(self, moves: Iterator[tuple[Move, World]], campaigned: int) -> None:
        for _, after in moves:
            self._visit(self.key(after, campaigned), after.in_flight)

    def _close(self, index: int, at: tuple[int, ...], witness: int) -> int:
        """The stage's messages in flight, with all that are sent in answer to them by who does not change."""
        bits, dead = self.bit_sets[index], self._dead(at, witness)
        bits &= ~dead
        while True:
            more = self.reactions.asked(witness, bits)[0]
            for number in at:
                more |= self.reactions.view(number, bits, witness)[0]
            if not more & ~bits & ~dead:
                break
            bits |= more & ~dead
        self.bit_sets[index], self.dead[index] = bits, dead
        return bits

    # -- steps ----------------------------------------------------------------------------------------

    def _go(self, key: int, bits: int, place: int, number: int, step: Step, rest: Rest) -> None:
        model, changed = self.universe.model, rest
        if step.inside and rest.budget.crashes and self._mortal(place):
            world = self._world(key, bits)
            spent = rest.budget._replace(crashes=rest.budget.crashes - 1)
            for after, sends in step.inside:
                gone = world._replace(at=(*world.at[:place], after, *world.at[place + 1 :]), budget=spent)
                self._visit(self.key(gone, rest.campaigned), bits | sends)
        if step.campaigns and place == rest.campaigned:
            changed = replace(changed, campaigned=place + 1)
        if step.elected is not None:
            elected = self.universe.elect(rest.elected, rest.committed, self.nodes[place], step.elected)
            changed = replace(changed, elected=elected)
        if model.committed[step.after] > rest.committed:
            changed = replace(changed, committed=model.committed[step.after])
            for name in self.universe.kinds_of_record(model.locals[step.after]):
                self._show(name)
        if step.slowly >= 0 and rest.budget.slow:
            waiting = replace(changed, budget=rest.budget._replace(slow=rest.budget.slow - 1))
            slow_key = key + ((self._rest(waiting) - (key >> self.rest_shift)) << self.rest_shift)
            self._visit(slow_key + ((step.slowly - number) << self.shifts[place]), bits)
        if changed is not rest:
            key += (self._rest(changed) - (key >> self.rest_shift)) << self.rest_shift
        self._visit(key + ((step.after - number) << self.shifts[place]), bits | step.sends)

    def _mortal(self, place: int) -> bool:
        victims = self.universe.model.bounds.victims
        return not victims or self.nodes[place] in victims

    def _crash(self, key: int, bits: int, place: int, number: int, rest: Rest) -> None:
        state = self.universe.model.locals[number].state
        assert state is not None
        if not state.leaving and not (rest.budget.crashes and self._mortal(place)):
            return
        if not state.leaving:
            before = key >> self.rest_shift
            spent = self._spent.get(before)
            if spent is None:
                budget = rest.budget._replace(crashes=rest.budget.crashes - 1)
                spent = self._spent[before] = self._rest(replace(rest, budget=budget))
            key += (spent - before) << self.rest_shift
        after = self.gone_nodes[self.nodes[place]]
        if rest.budget.restarts:
            after = self.reactions.crash(number)
            saved = self.universe.model.crash_once_saved(number)
            if saved >= 0:
                self._visit(key + ((saved - number) << self.shifts[place]), bits)
        self._visit(key + ((after - number) << self.shifts[place]), bits)

    def _pass(self, key: int, bits: int, at: tuple[int, ...]) -> None:
        in_flight = self.universe.age_in_flight(bits)
        for number, shift in zip(at, self.shifts, strict=True):
            ticked = self.reactions.tick(number)
            if ticked is None:
                return  # beyond the bounds
            key += (ticked[0] - number) << shift
            in_flight |= ticked[1]
        self._visit(key, in_flight)

    def _show(self, name: str) -> None:
        self.universe.seen.add(name)
        tries = self.shown.setdefault(name, [])
        if len(tries) < _TRIES and (not tries or tries[-1] != self.now):
            tries.append(self.now)


def _show(stages: int, depth: int, left: int, seconds: float) -> None:
    rate = stages / max(seconds, 0.001)
    print(f"  {stages:,} stages, depth {depth} ({left:,} left there), {rate:,.0f} a second", file=sys.stderr)
