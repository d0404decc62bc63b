"""MEMBERS, BOOTSTRAP and RESET: what an operator changes about who belongs to the cluster (R10, R11, R15).

The active controller adds a node to the record, removes one, or gives one another address. Like any change of the
record this waits until a quorum has saved the record before it. A node that is added has no vote at first; it gets one
as every node of the cluster does, once it has answered steadily (`core.actors.voters`). A node that is removed loses
both at once. A replaced host comes with a new storage epoch: the old one is removed, then the new one is added (R16).

BOOTSTRAP tells new nodes to found the cluster with other members than the configured ones. RESET forces
new voters on a cluster whose quorum is gone for good: the only record that is written without one.
"""

from __future__ import annotations

from zelect.core.actors.leadership import ping_round
from zelect.core.actors.links import introduce
from zelect.core.invariants import require
from zelect.core.messages import Bootstrap, CommonResp, Envelope, MemberAction, MemberChange, Reset, Result, Type
from zelect.core.quorum import Record, has_quorum
from zelect.core.state import LeaderState
from zelect.core.step import Step
from zelect.core.transitions import accept_reset, forget, schedule_campaign

MAX_GENERATION = 2**48
"""The command line takes milliseconds since 1970 as generation; a much higher one leaves no room for another reset."""

_Answer = tuple[Result, str]


def change(step: Step, envelope: Envelope, message: MemberChange) -> None:
    """Carry out what the operator asks for, or answer why it is refused."""
    leader_state = step.state.leader_state
    if leader_state is None or not leader_state.holds(step.now_us):
        leader = step.state.controller
        known = f"; node {leader.id} is" if leader is not None else " and knows of no controller"
        answer = Result.NOT_CONTROLLER, f"node {step.me} is not active{known}"
    else:
        answer = _change(step, leader_state, message)
    step.answer = CommonResp(int(Type.MEMBERS), *answer)


def _change(step: Step, leader_state: LeaderState, message: MemberChange) -> _Answer:
    before, node, address = step.state.record, message.node, message.address
    done = _done_already(before, message)
    if done:
        return Result.OK, done
    problem = _problem(step, message)
    if problem:
        return Result.FORBIDDEN, problem
    if not leader_state.committed(before) or before.config_term != step.state.term:
        return Result.BUSY, "the change before this one is not saved by a quorum yet; try again"
    removes = message.what is MemberAction.REMOVE
    after = before.without_node(node) if removes else before.with_address(node, address)
    if removes and not _answered_by_quorum(step, after):
        return Result.FORBIDDEN, f"without node {node} too few of the voters answer: no node could be active"
    require(after.differs_by_one_from(before), "R10", "one voter is added or removed at a time")
    step.save(record=after)
    if removes:
        step.note("member_removed", peer=node)  # it is told before its connections close (`core.actors.voters`)
    else:
        step.meet(dict(after.addresses))
        added = message.what is MemberAction.ADD
        step.note("member_added" if added else "member_replaced", peer=node, address=address)
    ping_round(step)
    return Result.OK, f"voter record {after.config_term}.{after.version}"


def _answered_by_quorum(step: Step, after: Record) -> bool:
    """Whether the voters of `after` that are there now are a quorum of it: else no change could follow."""
    state = step.state
    gone = {peer for peer, known in state.peers.items() if known.gone}
    return has_quorum(after.voters, state.connected() - gone)


def _done_already(record: Record, message: MemberChange) -> str:
    addresses, node = dict(record.addresses), message.node
    if message.what is MemberAction.REMOVE:
        return "" if node in addresses else f"node {node} does not belong to the cluster"
    same = addresses.get(node) == message.address
    return f"node {node} belongs to the cluster, at {message.address}" if same else ""


def _problem(step: Step, message: MemberChange) -> str:
    """Why the operator's request is refused; empty when it is not."""
    addresses, node = dict(step.state.record.addresses), message.node
    at = {place: other for other, place in addresses.items()}.get(message.address)
    if at is not None:
        return f"{message.address} is the address of node {at}"
    match message.what:
        case MemberAction.ADD if node in addresses:
            return f"node {node} belongs to the cluster already, at {addresses[node]}"
        case MemberAction.REPLACE if node not in addresses:
            return f"node {node} does not belong to the cluster"
        case MemberAction.REPLACE if node != step.me and _lives_elsewhere(step, node, message.address):
            return f"node {node} answers at {step.state.addresses[node]}; stop that process first"
        case MemberAction.REMOVE if addresses.keys() == {node}:
            return f"node {node} is the only member; a cluster ends when its last node is stopped for good"
        case MemberAction.REMOVE if node == step.me:
            return f"node {node} is the controller; transfer its leadership first"
        case MemberAction.REPLACE if node == step.me:
            return f"node {node} is the controller; transfer its leadership first"
    return ""


def _lives_elsewhere(step: Step, node: int, address: str) -> bool:
    """Whether a member is there now, at another address: to say where it is would be a mistake."""
    known = step.peer(node)
    heard = not known.gone and step.now_us - known.heard_us < step.timing.promise_us
    return known.linked and heard and step.state.addresses[node] != address


def bootstrap(step: Step, envelope: Envelope, message: Bootstrap) -> None:
    """Found the cluster with these members. The rule is the same: each of them must vote for it (R15). The other
    configured members belong to it too, and get a vote when they have answered."""
    state, members = step.state, dict(message.members)
    if not state.is_new:
        answer = Result.FORBIDDEN, f"node {step.me} belongs to cluster {state.record.cluster_id:x}"
    elif state.hears_of_cluster():
        answer = Result.FORBIDDEN, f"node {step.me} hears of a cluster that exists already"
    elif left_out := {node for node, _ in state.saved.founding} - members.keys():
        bound = ", ".join(map(str, sorted(left_out)))
        answer = (
            Result.FORBIDDEN,
            f"node {step.me} has voted to found the cluster with {bound} too, and is bound to that",
        )
    elif members.get(step.me) != step.settings.address:
        answer = Result.FORBIDDEN, f"the list must have node {step.me} at {step.settings.address}"
    else:
        step.meet({**state.addresses, **members})
        state.founding_members = tuple(sorted(members))
        step.note("bootstrap_accepted", members=state.founding_members)
        schedule_campaign(step, state.reason)
        answer = Result.OK, f"founds the cluster with {len(members)} member{'s' if len(members) > 1 else ''}"
    step.answer = CommonResp(int(Type.BOOTSTRAP), *answer)


def reset(step: Step, envelope: Envelope, message: Reset) -> None:
    """Adopt the voters that the operator forces, or join the generation that has them (R11). Refused while this node
    hears a controller: nothing is lost then."""
    problem = _reset_problem(step, message.record, message.join)
    if problem is not None:
        step.answer = CommonResp(int(Type.RESET), *problem)
        return
    record, state = message.record, step.state
    if record.generation == state.record.generation:
        step.answer = CommonResp(int(Type.RESET), Result.OK, f"generation {record.generation} already")
        return
    if message.join:
        forget(step, max(state.saved.epoch + 1, state.saved.incarnation))
        step.meet(dict(record.addresses))
        state.founding_members = record.nodes
        for peer in state.peers:
            introduce(step, peer)  # so that they withdraw their refusals
    else:
        accept_reset(step, record)
    step.note("voters_reset", generation=record.generation, members=record.members)
    step.answer = CommonResp(int(Type.RESET), Result.OK, f"generation {record.generation}")


def _reset_problem(step: Step, record: Record, joins: bool) -> _Answer | None:
    state = step.state
    mine = state.record
    leader = step.me if state.active(step.now_us) else 0 if state.controller is None else state.controller.id
    if record.generation > MAX_GENERATION:
        return Result.FORBIDDEN, f"a generation is at most {MAX_GENERATION}"
    if not state.is_new and record.cluster_id != mine.cluster_id:
        return Result.OTHER_CLUSTER, f"this node belongs to cluster {mine.cluster_id:x}"
    behind = record.generation < mine.generation
    if behind or (record.generation == mine.generation and record != mine and not joins):
        return Result.FORBIDDEN, f"this node is in generation {mine.generation}"
    if leader and record.generation > mine.generation:
        return Result.CONTROLLER_LIVES, f"node {leader} is controller: nothing is lost"
    return None
