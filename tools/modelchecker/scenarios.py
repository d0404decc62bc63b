"""Where the searches begin: from nothing, or from a settled cluster that a good run leads to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from tools.modelchecker.canonical import NOW, Coarse
from tools.modelchecker.model import Bounds, Budget, Local, Mail, Move, Seams, World
from tools.modelchecker.node_model import NodeModel
from tools.modelchecker.search import greedy
from tools.modelchecker.universe import Universe
from zelect.core.messages import NodeOnline
from zelect.core.settings import Settings
from zelect.core.state import State


@dataclass(frozen=True)
class Scenario:
    """`settled`: "" with every process just started, "met" when all have heard of each other too, "leadership" with
    node 1 active, "floor" with nodes 1 and 2 and the witness after node 3 has died, "lone" after node 2 has died too,
    "return" after node 3 has come back instead. `founders`: the nodes whose cluster exists (None: all); the others are
    new, and have all in their configuration. `must`: what a search must have seen."""

    about: str
    nodes: int
    quorum: str
    settled: str
    bounds: Bounds
    must: frozenset[str]
    guarded: bool = False
    founders: tuple[int, ...] | None = None

    @property
    def alike(self) -> int:
        """How many nodes differ from the others at the start in more than their names."""
        if self.founders:
            return self.nodes
        return {"": 0, "met": 0, "leadership": 1}.get(self.settled, self.nodes)

    def begin(self, bounds: Bounds, seams: Seams) -> tuple[Universe, World]:
        """A universe and the world where the search starts; what was still on its way is lost."""
        addresses = {n: f"tcp://127.0.0.1:{7100 + n}" for n in range(1, self.nodes + 1)}
        settings = {
            n: Settings("check", n, self._list_of(n, addresses), 0, self.quorum, self.guarded, Coarse())
            for n in addresses
        }
        good = Bounds(candidates=(1,), terms=bounds.terms, versions=99, creations=9, inside=False, hello=True)
        universe = Universe(NodeModel(settings, good, founders=self.founders))
        model = universe.model
        down = tuple(model.number(Local(n, model.first_disk(n, 0), 0)) for n in settings)
        crashes = int(self.settled in ("floor", "lone", "return"))
        world = World(down, 0, 0, Budget(crashes, 0, 0, 0, 0, 0), (0,) * (bounds.terms + 1), (0, 0, 0))
        world = greedy(universe, world, _all_up(model), lambda move: move.words == "starts")
        if self.settled == "met":
            world = greedy(universe, world, _met(model), lambda move: _calm(move) and move.words == "hears")
        elif self.settled:
            world = greedy(universe, world, _leadership(model), _calm)
        if self.settled in ("floor", "lone", "return"):
            world = greedy(
                universe, world, lambda w: w.budget.crashes == 0, lambda m: (m.who, m.words) == (3, "crashes")
            )
            world = greedy(universe, world, _floor(model), _calm)
        if self.settled == "lone":
            world = world._replace(budget=Budget(1, 0, 0, 0, 0, 0))
            world = greedy(
                universe, world, lambda w: w.budget.crashes == 0, lambda m: (m.who, m.words) == (2, "crashes")
            )
            world = greedy(universe, world, _lone(model), _calm)
        if self.settled == "return":
            world = world._replace(budget=Budget(0, 1, 0, 0, 0, 0))
            world = greedy(universe, world, _returned(model), lambda move: _calm(move) or move.words == "starts")
        return _transplant(universe, world, Universe(NodeModel(settings, bounds, seams, self.founders)))

    def _list_of(self, node: int, addresses: dict[int, str]) -> dict[int, str]:
        """The members in the configuration of `node`."""
        return {n: addresses[n] for n in self.founders} if self.founders and node in self.founders else addresses


def _transplant(old: Universe, world: World, new: Universe) -> tuple[Universe, World]:
    new.floor = world.committed[2] if world.witness else 0
    new.model.first_version = max(old.model.locals[number].disk.record.version for number in world.at)
    new.model.first_resets = {
        local.node: local.creations for local in (old.model.locals[number] for number in world.at)
    }
    new.model.first_disks = {
        local.node: (local.disk, local.saves) for local in (old.model.locals[number] for number in world.at)
    }
    at = tuple(new.model.number(old.model.locals[number]) for number in world.at)
    bounds = new.model.bounds
    budget = Budget(
        bounds.crashes,
        bounds.restarts,
        bounds.witness_losses,
        bounds.losses,
        bounds.leaves,
        bounds.skew,
        bounds.fronts,
        bounds.changes,
        bounds.slow,
        bounds.copies,
    )
    in_flight = 0
    if not any(old.model.active[number] for number in world.at):
        for number, sent in enumerate(old.model.in_flight):
            greeting = isinstance(sent, Mail) and isinstance(sent.envelope.message, NodeOnline)
            if world.in_flight >> number & 1 and (bounds.hello or not greeting):
                in_flight |= new.model.post(sent)
    return new, world._replace(
        at=at, witness=new.number(old.servers[world.witness]), budget=budget, in_flight=in_flight
    )


def _calm(move: Move) -> bool:
    return "crashes" not in move.words and move.words != "starts" and "ends its round" not in move.words


def _fresh(model: NodeModel, world: World) -> bool:
    """Whether everybody who lives has just promised node 1, whose lease rests on it."""
    states = _members(model, world)
    leader_state = states[0].leader_state
    promised = all(state.promise is not None and state.promise.until_us == NOW + 3 for state in states)
    return promised and leader_state is not None and leader_state.renewed_us == NOW


def _members(model: NodeModel, world: World) -> list[State]:
    """The members of the cluster that live; a new node is none yet."""
    found = model.founders or model.nodes
    return [s for n, at in zip(model.nodes, world.at, strict=True) if n in found and (s := model.locals[at].state)]


def _all_up(model: NodeModel) -> Callable[[World], bool]:
    return lambda world: all(model.locals[at].state is not None for at in world.at)


def _met(model: NodeModel) -> Callable[[World], bool]:
    """Each process knows the others."""

    def settled(world: World) -> bool:
        states = [state for at in world.at if (state := model.locals[at].state) is not None]
        return all(peer.incarnation for state in states for peer in state.peers.values())

    return settled


def _leadership(model: NodeModel) -> Callable[[World], bool]:
    """Node 1 active with everybody's memory undoubted, and its record known to all."""

    def settled(world: World) -> bool:
        states = _members(model, world)
        records = {state.record for state in states}
        members = model.founders or model.nodes
        whole = len(records) == 1 and records.pop().members == members and world.committed == states[0].record.id
        return (
            _fresh(model, world)
            and model.active[world.at[0]]
            and whole
            and not any(not state.may_vote(state.record) for state in states)
        )

    return settled


def _floor(model: NodeModel) -> Callable[[World], bool]:
    def settled(world: World) -> bool:
        states = [state for at in world.at if (state := model.locals[at].state) is not None]
        records = {state.record for state in states}
        if len(records) != 1 or not model.active[world.at[0]]:
            return False
        record = records.pop()
        shrunk = record.members == (1, 2) and record.witness is not None
        return shrunk and world.committed == record.id and _fresh(model, world)

    return settled


def _lone(model: NodeModel) -> Callable[[World], bool]:
    """Node 1 active on the witness's word."""

    def settled(world: World) -> bool:
        state = model.locals[world.at[0]].state
        assert state is not None
        alone = state.peers[2].dead and model.active[world.at[0]]
        return alone and state.leader_state is not None and state.leader_state.renewed_us == NOW

    return settled


def _returned(model: NodeModel) -> Callable[[World], bool]:
    """Node 3 is back, and has been heard nearly long enough to be a member again."""

    def settled(world: World) -> bool:
        state = model.locals[world.at[0]].state
        assert state is not None
        return (
            _fresh(model, world)
            and state.leader_state is not None
            and state.leader_state.steady_us.get(3, NOW) == NOW - 2
        )

    return settled


_VOTES = frozenset({"elected", "active"})

_ALL = Bounds(terms=2, versions=4, crashes=1, restarts=0, witness_losses=1)
"""Anybody may campaign and die, also between two effects."""

_FEW = Bounds(terms=2, versions=4, crashes=1, restarts=0, witness_losses=0, candidates=(2,), inside=False)

_VOTING = Bounds(
    terms=1, versions=1, restarts=1, witness_losses=0, inside=False, candidates=(1, 2), victims=(3,), beats=False
)
"""Two nodes may campaign in the first term, and the third one may die and start again."""

_LOST = replace(_VOTING, losses=1, hello=True, clock=False)
"""It starts again without its data."""

SCENARIOS = {
    "static3": Scenario(
        "three nodes, all members vote, node 1 active",
        3,
        "static",
        "leadership",
        _FEW,
        _VOTES | {"handover done"},
    ),
    "guarded3": Scenario(
        "three nodes, all members vote, node 1 active with a job that takes a while to end",
        3,
        "static",
        "leadership",
        replace(_FEW, crashes=0, versions=1, leaves=1),
        _VOTES | {"handover done"},
        guarded=True,
    ),
    "votes3": Scenario(
        "three nodes, all members vote, all just started; heartbeats are lost",
        3,
        "static",
        "",
        replace(_VOTING, inside=True),
        frozenset({"elected"}),
    ),
    "shrink": Scenario(
        "three nodes and the witness, node 1 active",
        3,
        "dynamic",
        "leadership",
        replace(_FEW, terms=1, witness_losses=1, victims=(3,)),
        frozenset({"shrunk to the floor"}),
    ),
    "floor": Scenario(
        "two nodes and the witness, node 3 just died, node 1 active",
        3,
        "dynamic",
        "floor",
        replace(_FEW, witness_losses=1, candidates=()),
        _VOTES | {"elected with the witness"},
    ),
    "leadership": Scenario(
        "three nodes and the witness to be, node 1 active: anybody may die and campaign (long)",
        3,
        "dynamic",
        "leadership",
        _ALL,
        _VOTES | {"shrunk to the floor", "elected with the witness"},
    ),
    "cold": Scenario(
        "three nodes and the witness to be, all just started: anybody may die and campaign (long)",
        3,
        "dynamic",
        "",
        _ALL,
        _VOTES,
    ),
    "lone": Scenario(
        "node 1 active with the witness alone, nodes 2 and 3 dead",
        3,
        "dynamic",
        "lone",
        replace(_FEW, crashes=0, restarts=1),
        _VOTES | {"elected with the witness"},
    ),
    "grow": Scenario(
        "two nodes and the witness, node 1 active, node 3 is back and about to be a member",
        3,
        "dynamic",
        "return",
        replace(_FEW, terms=1, crashes=0, creations=0, versions=2),
        frozenset({"grown again"}),
    ),
    "found3": Scenario(
        "three new nodes found a cluster; one may die, and start again without its data",
        3,
        "static",
        "",
        replace(_LOST, terms=2, versions=3, victims=(1,)),
        frozenset({"elected"}),
        founders=(),
    ),
    "join3": Scenario(
        "one node is a cluster of its own, two new ones have all three in their configuration",
        3,
        "static",
        "",
        Bounds(terms=2, versions=3, crashes=0, restarts=0, witness_losses=0, hello=True, inside=False, clock=False),
        frozenset({"elected"}),
        founders=(1,),
    ),
    "lost3": Scenario(
        "three nodes, all just started; one dies, and starts again without its data, which nobody is told",
        3,
        "static",
        "",
        _LOST,
        frozenset({"elected"}),
    ),
    "copied3": Scenario(
        "three nodes, all members vote, no controller; one dies, and comes back with its disk as it was",
        3,
        "static",
        "met",
        replace(_VOTING, copies=1, beats=True),
        frozenset({"elected"}),
    ),
    "remove3": Scenario(
        "three nodes, all members vote, node 1 active; an operator removes one",
        3,
        "static",
        "leadership",
        replace(_FEW, crashes=0, changes=1, versions=2),
        _VOTES,
    ),
    "add3": Scenario(
        "two nodes are a cluster, node 1 active, a third one is new; an operator adds it, or removes node 2",
        3,
        "static",
        "leadership",
        replace(_FEW, crashes=0, changes=1, versions=2),
        _VOTES,
        founders=(1, 2),
    ),
    "slow3": Scenario(
        "three nodes, all members vote, no controller; a save takes a while",
        3,
        "static",
        "met",
        replace(_VOTING, slow=1),
        frozenset({"elected"}),
    ),
    "votes5": Scenario(
        "five nodes, all members vote, all just started; no time passes",
        5,
        "static",
        "",
        Bounds(terms=1, crashes=0, witness_losses=0, candidates=(1, 2), beats=False, clock=False),
        frozenset({"elected"}),
    ),
}

LONG = frozenset({"leadership", "cold", "found3", "lost3", "copied3", "slow3"})
"""What is searched only by its name: it takes an hour, or does not end."""
