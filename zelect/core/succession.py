"""Who campaigns first (R8).

All survivors learn of a death within the same millisecond, so split votes are avoided by order, not by
luck: the controller's PING names the successors, and successor r waits r times `stagger`. The
randomness that Raft needs in every election (paper, section 5.2) is needed here only after failed
campaigns, and is a hash of what the node knows, so that a run can be replayed. Safety rests on nothing
in this file.
"""

from __future__ import annotations

from collections.abc import Sequence

from zelect.core.messages import COOLING_DOWN
from zelect.core.step import Step


def ranked(step: Step, nodes: Sequence[int]) -> tuple[int, ...]:
    """`nodes` with the highest priority first, then the lowest id."""
    state, me = step.state, step.me

    def priority(node: int) -> int:
        return step.priority if node == me else state.peers[node].priority

    return tuple([node for _, node in sorted([(-priority(node), node) for node in nodes])])


def succession_of(step: Step) -> tuple[int, ...]:
    """The order that a controller announces: members that it heard within an election timeout."""
    since_us, me, peers = step.now_us - step.timing.promise_us, step.me, step.state.peers
    alive = [
        node
        for node in step.state.members
        if node != me and (peer := peers[node]).linked and not peer.gone and peer.heard_us >= since_us
    ]
    return ranked(step, alive)


def rank(step: Step) -> int:
    """This node's place in line: how many living members are before it."""
    state = step.state
    order = state.succession or ranked(step, state.members or tuple(state.addresses))
    if step.me not in order:
        order = (*order, step.me)
    ahead = order[: order.index(step.me)]
    return sum(1 for node in ahead if node in state.peers and not state.peers[node].gone)


def wait_us(step: Step) -> int:
    """How long this node waits for those before it in line. One that is cooling down gives them one election
    timeout more: it becomes controller only if no other node can."""
    place = rank(step)
    cooling_us = step.timing.promise_us if place and step.priority == COOLING_DOWN else 0
    return place * step.timing.stagger_us + cooling_us


def jitter_us(step: Step) -> int:
    """A little randomness after failed campaigns: it grows with the attempts, up to 16 staggers. Candidates whose
    disks are slow see each other later, and spread their turns wider."""
    state = step.state
    if state.attempts == 0:
        return 0
    span_us = (step.timing.stagger_us + state.save_us) * (1 << min(state.attempts, 4))
    return mixed(step.me, state.saved.incarnation, state.term, state.attempts) % span_us


def mixed(*numbers: int) -> int:
    """A well-spread 64-bit hash (the finalizer of splitmix64)."""
    value = 0
    for number in numbers:
        value = (value + number + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
        value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
        value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
        value ^= value >> 31
    return value
