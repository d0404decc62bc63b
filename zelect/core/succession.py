"""Who campaigns first (R8).

All survivors learn of a death within the same millisecond, so order, not luck, avoids split
votes: the controller's PING names the successors, and successor r waits r times `stagger`. The
randomness that Raft needs at every election (section 5.2 of the paper) is needed here only after
failures, and is a hash of what the node knows, so that a run can be replayed.
"""

from __future__ import annotations

from collections.abc import Sequence

from zelect.core.messages import RESTING
from zelect.core.step import Turn

__all__ = ["jitter_us", "rank", "ranked", "succession_of", "wait_us"]


def ranked(turn: Turn, nodes: Sequence[int]) -> tuple[int, ...]:
    """`nodes` with the highest priority first, then the lowest id."""
    state, me = turn.state, turn.me

    def priority(node: int) -> int:
        return turn.priority if node == me else state.peers[node].priority

    return tuple([node for _, node in sorted([(-priority(node), node) for node in nodes])])


def succession_of(turn: Turn) -> tuple[int, ...]:
    """The order that a controller announces: members that it heard within an election timeout."""
    since_us, me, peers = turn.now_us - turn.timing.promise_us, turn.me, turn.state.peers
    alive = [
        node
        for node in turn.state.members
        if node != me and (peer := peers[node]).linked and not peer.gone and peer.heard_us >= since_us
    ]
    return ranked(turn, alive)


def rank(turn: Turn) -> int:
    """This node's place in line: how many living members go before it."""
    state = turn.state
    order = state.succession or ranked(turn, state.members)
    if turn.me not in order:
        order = (*order, turn.me)
    ahead = order[: order.index(turn.me)]
    return sum(1 for node in ahead if not state.peers[node].gone)


def wait_us(turn: Turn) -> int:
    """How long this node lets those go first that stand before it in line. One that was asked to stay
    out of office gives them an election timeout: it leads where nobody else can, and only there."""
    place = rank(turn)
    resting_us = turn.timing.promise_us if place and turn.priority == RESTING else 0
    return place * turn.timing.stagger_us + resting_us


def jitter_us(turn: Turn) -> int:
    """A little randomness after failures: grows with the attempts up to 16 staggers."""
    state = turn.state
    if state.attempts == 0:
        return 0
    span_us = turn.timing.stagger_us * (1 << min(state.attempts, 4))
    return _mix(turn.me, state.saved.incarnation, state.term, state.attempts) % span_us


def _mix(*numbers: int) -> int:
    """A well-spread 64-bit hash (the finalizer of splitmix64)."""
    value = 0
    for number in numbers:
        value = (value + number + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
        value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
        value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
        value ^= value >> 31
    return value
