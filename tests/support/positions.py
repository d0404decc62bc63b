"""Nodes brought into a wanted position, and a look at what one step asks for."""

from __future__ import annotations

from typing import Any

from tools.simulator.small_world import World, packet
from zelect.core.effects import Effects
from zelect.core.events import Event, LinkDown, MessageReceived, PeerDisconnected
from zelect.core.messages import Envelope, Message, NodeOnline, Ping, Pong, Refusal, VotResp
from zelect.core.state import Role

__all__ = [
    "Watched",
    "both_close",
    "deaf",
    "elected_of",
    "founder_of",
    "grant",
    "new_nodes",
    "numbered",
    "pong",
    "pre_candidate_of",
    "refusal",
    "sent_by",
    "step",
    "walk_to",
]


class Watched(World):
    """A world that keeps the effects of every step: (node, time, effects)."""

    def __init__(self, nodes: int = 3, **options: Any) -> None:
        self.steps: list[tuple[int, int, Effects]] = []
        super().__init__(nodes, **options)

    def _carry_out(self, n: int, effects: Effects) -> None:
        self.steps.append((n, self.now_us, effects))
        super()._carry_out(n, effects)


def step(world: World, node: int, event: Event, after_us: int = 0) -> Effects:
    """What `event` makes `node` ask for; nothing of it is carried out."""
    return world.processes[node].machine.step(event, world.now_us + after_us)


def both_close(world: World, node: int, peer: int, after_us: int = 0) -> Effects:
    """The two connections between `node` and the process of `peer` close, as when it dies. What the last one
    makes `node` ask for; nothing of it is carried out."""
    step(world, node, LinkDown(peer), after_us)
    return step(world, node, PeerDisconnected(peer, world.state(node).peers[peer].incarnation), after_us)


def sent_by(effects: Effects, kind: type[Message]) -> list[Any]:
    """The messages of one type among the effects of a step."""
    return [envelope.message for _, envelope in effects.send if isinstance(envelope.message, kind)]


def numbered(envelope: Envelope) -> bool:
    """Whether this is a controller's heartbeat."""
    return isinstance(envelope.message, Ping) and envelope.message.number > 0


def deaf(nodes: int = 3, *others: int, **options: Any) -> World:
    """A fresh cluster whose nodes are connected, but every message is lost: each hears only what
    the test feeds it. `others`: the nodes to start (all when absent)."""
    world = World(nodes, **options)
    for a in world.settings:
        for b in world.settings:
            world.cut(a, b)
    world.start(*others)
    return world


def pre_candidate_of(nodes: int = 3, **options: Any) -> World:
    """Node 1 of a deaf cluster asks whether it would be elected."""
    world = deaf(nodes, **options)
    world.run_until(lambda: world.state(1).role is Role.PRE_CANDIDATE)
    return world


def new_nodes(nodes: int = 3, **options: Any) -> World:
    """New nodes that have met (R15); from then on each hears only what the test feeds it."""
    world = deaf(nodes, founded=False, **options)
    world.run(1)
    for sender, process in world.processes.items():
        online = NodeOnline(world.settings[sender].address, 0, process.machine.state.saved.epoch)
        for node in world.processes:
            if node != sender:
                world.feed(node, packet(world, sender, online))
    return world


def founder_of(nodes: int = 3, **options: Any) -> World:
    """Node 1 of new nodes asks whether the others would found a cluster with it (R15)."""
    world = new_nodes(nodes, **options)
    world.run_until(lambda: world.state(1).role is Role.PRE_CANDIDATE)
    return world


def grant(world: World, voter: int, *, wait_us: int = 0, to: int = 1) -> MessageReceived:
    """A grant of `voter` that answers what node `to` asks at this moment."""
    campaign = world.state(to).campaign
    process = world.state(voter).saved.epoch
    answer = VotResp(campaign.pre, campaign.round, True, None, wait_us, process, None)
    return packet(world, voter, answer, world.state(to).term)


def refusal(world: World, voter: int, reason: Refusal, *, wait_us: int = 0, to: int = 1) -> MessageReceived:
    """A refusal of `voter` that answers what node `to` asks at this moment."""
    campaign = world.state(to).campaign
    process = world.state(voter).saved.epoch
    answer = VotResp(campaign.pre, campaign.round, False, reason, wait_us, process, None)
    return packet(world, voter, answer, world.state(to).term)


def elected_of(nodes: int = 3, *, wait_us: int = 0, **options: Any) -> World:
    """Node 1 of a deaf cluster has won its first election; nobody has answered a PING yet."""
    world = pre_candidate_of(nodes, **options)
    voters = range(2, 2 + nodes // 2)
    for _ in ("pre-vote", "vote"):
        for voter in voters:
            world.feed(1, grant(world, voter, wait_us=wait_us))
    assert world.state(1).role is Role.ELECTED
    return world


def pong(world: World, voter: int, *, number: int | None = None, to: int = 1, **changes: Any) -> MessageReceived:
    """The answer of `voter` to the newest PING of node `to`, or to `number`."""
    leader_state, saved = world.state(to).leader_state, world.state(to).saved
    fields = {
        "number": leader_state.number if number is None else number,
        "of_term": leader_state.term,
        "record_id": saved.record.id,
        "priority": 0,
        "epoch": world.state(voter).saved.epoch,
        **changes,
    }
    return packet(world, voter, Pong(**fields), world.state(to).term)


def walk_to(world: World, *members: int, witness: bool, within_ms: float = 10_000) -> None:
    """Wait until the controller's voters is exactly this, and saved by all living members."""

    def there() -> bool:
        head = world.controller()
        if head is None:
            return False
        record = world.state(head).record
        living = [n for n in record.members if n in world.processes and world.processes[n].frozen is None]
        same = all(world.state(n).record == record for n in living)
        return same and record.members == members and (record.witness is not None) is witness

    world.run_until(there, within_ms)
