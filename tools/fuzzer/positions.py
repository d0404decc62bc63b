"""Positions of the machine that hostile messages are thrown at, and honest messages to begin from.

Each position is a node as the small world brings it about, so everything in it is consistent; the
corpus speaks in the voting right of its peers, about the terms, rounds and numbers that it waits for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from tools.simulator.small_world import World, packet
from zelect.core.events import Leave
from zelect.core.messages import (
    AdminAction,
    AdminCommand,
    Bootstrap,
    CommonResp,
    Envelope,
    Handover,
    MemberAction,
    MemberChange,
    Message,
    NodeOffline,
    NodeOnline,
    NodeOnlineResp,
    Ping,
    Pong,
    Query,
    Reason,
    Refusal,
    Report,
    Reset,
    Result,
    Voting,
    VotResp,
)
from zelect.core.quorum import Record, Witness
from zelect.core.settings import Settings
from zelect.core.state import Role, State
from zelect.wire import encode


@dataclass(frozen=True)
class Target:
    """A node in `state` at `now_us` (microseconds of its clock); a clone of it is thrown at.
    `voting right`: id and incarnation of each peer; `corpus`: honest frames."""

    settings: Settings
    state: State
    now_us: int
    may_vote: tuple[tuple[int, int], ...]
    corpus: tuple[bytes, ...]


def _deaf(nodes: int = 3) -> World:
    world = World(nodes)
    for a in world.settings:
        for b in world.settings:
            world.cut(a, b)
    world.start()
    return world


def _starting() -> World:
    world = _deaf()
    world.run(0.5)  # begun, and Redis has not answered yet
    return world


def _leadership_of(node: int, nodes: int = 3) -> World:
    """A settled cluster in which `node` is active, and node 1 was there from the start or came later."""
    world = World(nodes)
    first = [other for other in world.settings if other >= node]
    world.start(*first)
    world.run_until(lambda: world.controller() == node)
    if late := set(world.settings) - set(first):
        world.start(*late)
    world.run_until(lambda: len(world.state(node).record.members) == nodes, 20_000)
    world.run(300)
    return world


def _asking(nodes: int = 3) -> World:
    world = _deaf(nodes)
    world.run_until(lambda: world.state(1).role is Role.PRE_CANDIDATE)
    return world


def _granted(world: World, times: int, wait_us: int = 0) -> World:
    """`times` rounds of node 1 answered with yes by a bare majority."""
    for _ in range(times):
        for voter in range(2, 2 + len(world.settings) // 2):
            campaign = world.state(1).campaign
            process = world.state(voter).saved.epoch
            answer = VotResp(campaign.pre, campaign.round, True, None, wait_us, process, None)
            world.feed(1, packet(world, voter, answer, world.state(1).term))
    return world


def _at_the_floor() -> World:
    world = _leadership_of(1)
    world.kill(3)
    world.run_until(lambda: world.state(1).record.members == (1, 2) and world.state(1).record.witness is not None)
    world.run(300)
    return world


def _again(forget: bool) -> World:
    world = _leadership_of(2)
    world.kill(1)
    world.run(20)
    for other in (2, 3):
        world.cut(1, other)
    world.start(1, forget=forget)
    world.run(30)
    return world


def _leaving() -> World:
    world = _leadership_of(2)
    world.feed(1, Leave())
    return world


def _new() -> World:
    """Node 1 waits for node 3, to found a cluster."""
    world = World(3, founded=False)
    world.start(1, 2)
    world.run(1500)
    return world


def _founding() -> World:
    """Node 1 has won the pre-vote of its founding, and waits for the votes."""
    world = World(3, founded=False)
    world.start()
    world.run_until(lambda: world.state(1).role is Role.CANDIDATE)
    return world


POSITIONS: dict[str, Callable[[], World]] = {
    "starting": _starting,
    "follower": lambda: _leadership_of(2),
    "follower of five": lambda: _leadership_of(2, 5),
    "pre-candidate": _asking,
    "candidate": lambda: _granted(_asking(), 1),
    "candidate of five": lambda: _granted(_asking(5), 1),
    "elected": lambda: _granted(_asking(), 2),
    "elected, waiting": lambda: _granted(_asking(), 2, wait_us=300_000),
    "active": lambda: _leadership_of(1),
    "active of five": lambda: _leadership_of(1, 5),
    "active with the witness": _at_the_floor,
    "silent": lambda: _again(forget=False),
    "without memory": lambda: _again(forget=True),
    "leaving": _leaving,
    "new": _new,
    "founding": _founding,
}
"""How node 1 gets into each position."""


def target_of(name: str) -> Target:
    """Stand `name` (a key of `POSITIONS`), ready to be thrown at."""
    world = POSITIONS[name]()
    machine, state = world.processes[1].machine, world.state(1)
    may_vote = tuple((peer, known.incarnation or peer) for peer, known in state.peers.items())
    corpus = tuple(
        encode(
            Envelope(
                cluster="demo",
                sender=sender,
                incarnation=incarnation,
                settings=machine.settings.digest(),
                term=term,
                message=message,
                generation=state.record.generation,
                cluster_id=state.record.cluster_id,
            )
        )
        for sender, incarnation in may_vote
        for term, message in _honest(world, sender)
    )
    return Target(machine.settings, state, world.now_us, may_vote, corpus)


def _honest(world: World, sender: int) -> Iterator[tuple[int, Message]]:
    """What `sender` might say to node 1, with the term in the envelope."""
    state: State = world.state(1)
    term, record = state.term, state.record
    process = record.epoch_of(sender) if record.epoch_of(sender) > 0 else sender
    others = tuple(node for node in record.members if node != sender)
    if state.is_new:  # what the others might propose
        nodes = tuple(sorted(state.addresses))
        epochs = tuple(state.saved.epoch if n == 1 else state.peers[n].epoch or n for n in nodes)
        record = Record(0, 0, nodes, None, 0, epochs, 77, tuple(sorted(state.addresses.items())))
    newer, theirs = record.rewritten(term + 1), record.with_witness(Witness("1-1-1-1-1", "run1", "repl"))
    asked, number = (
        state.campaign.round if state.campaign else 1,
        state.leader_state.number if state.leader_state else 3,
    )
    for one in (term, term + 1):
        yield one, Ping(0, False, None, ())
        yield one, Ping(number, True, record, others)
        yield one, Ping(number, False, newer if one > term else theirs, others)
        yield one, Pong(number, term, record.id, 0, process, 5)
        for pre in (True, False):
            for reason in Reason:
                yield one, Voting(pre, 5, term + 1, newer if one > term else record, reason, sender, term)
            yield one, VotResp(pre, asked, True, None, 0, process, None)
            yield one, VotResp(pre, asked, True, None, 200_000, process, None)
            for refusal in Refusal:
                yield one, VotResp(pre, asked, False, refusal, 250_000, process, None)
            yield one, VotResp(pre, asked, False, Refusal.STALE_VOTERS, 0, process, newer)
        yield one, NodeOnlineResp(sender, one, record, state.saved.epoch, 0)
        yield one, Handover(max(1, term), 1)
    for peer, known in state.peers.items():
        yield term, NodeOffline(peer, known.incarnation or peer, "leave")
    yield term, NodeOnline(world.settings[1].addresses[sender], 0, process, 5)
    yield term, NodeOnlineResp(0, 0, newer, state.saved.epoch + 1, 3)
    yield term, CommonResp(1, Result.TERM_JUMP, "this node's term is 4")
    yield term, Query("status")
    yield term, Report('{"id": 1}')
    forced = replace(record, config_term=0, version=record.version + 1, generation=record.generation + 1, witness=None)
    yield term, Reset(forced, False)
    yield term, Reset(forced, True)
    yield term, MemberChange(MemberAction.ADD, 9, "tcp://127.0.0.1:7109")
    yield term, MemberChange(MemberAction.REMOVE, sender, "")
    yield term, Bootstrap(tuple(sorted(world.settings[1].addresses.items())))
    yield term, AdminCommand(AdminAction.TRANSFER, 0, 0, "a new kernel", "ops@host1")
    yield term, AdminCommand(AdminAction.PAUSE, 0, 60_000, "release day", "ops@host1")
