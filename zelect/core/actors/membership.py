"""NODE_ONLINE, NODE_ONLINE_RESP, NODE_OFFLINE, HANDOVER, and proofs of death (R3, R9).

This file decides whether a process is dead (`died`); zelect/node/transport/death_probe.py only runs the probe.

A promise to a controller ends early in three ways: it left (NODE_OFFLINE of itself), it handed over (HANDOVER), or its
process is proven dead. Proof is first-hand and needs both sides: the connections between the two are closed, the one
that this node made and the one that the process made to this node, *and* the lock on its data is free or its address
refuses a new connection. The kernel closes all connections of a dead process, so an open one contradicts the proof:
what refuses then is a proxy, a moved address or a firewall, and a lock that looks free was dropped. That an id comes
back with a newer incarnation is proof by itself. What another node says of a third one proves nothing; it only starts a
probe.
"""

from __future__ import annotations

from zelect.core.actors.health import vacate
from zelect.core.actors.leadership import ping_one
from zelect.core.actors.links import introduce, remember_disk
from zelect.core.effects import Depart, MarkOffline
from zelect.core.events import DeathProven, Evidence, Leave
from zelect.core.invariants import require
from zelect.core.messages import (
    MAX_EPOCH_HEARD,
    CommonResp,
    Envelope,
    Handover,
    NodeOffline,
    NodeOnline,
    NodeOnlineResp,
    Reason,
    Result,
    Type,
)
from zelect.core.state import Role, Status
from zelect.core.step import Step
from zelect.core.succession import succession_of
from zelect.core.timing import Proof
from zelect.core.transitions import adopt_record, forget, hand_over, leave_election, lose_controller, step_down

CLUSTER_STOP = "cluster_stop"
"""The reason of a leave that stops the whole cluster: all are expected back (R11)."""

# A process that came back under a new incarnation cannot still be alive under its old one.
_BELIEVED = {
    Proof.REFUSED: frozenset(Evidence),
    Proof.PROCESS: frozenset({Evidence.LOCK, Evidence.REAPED, Evidence.RESTARTED}),
    Proof.NONE: frozenset({Evidence.RESTARTED}),
}


def node_online(step: Step, envelope: Envelope, message: NodeOnline) -> None:
    """A peer is online: answer which node is controller; the controller also sends it a PING."""
    state, sender = step.state, envelope.sender
    other = _learn_address(step, sender, message.address)
    if state.record.epoch_of(sender) not in (-1, message.epoch):
        step.note("peer_lost_state", sender=sender, epoch=message.epoch)
    step.know(sender, priority=message.priority)
    remember_disk(step, sender, message.epoch, message.saves)
    controller, term = 0, 0
    if state.leader_state is not None:
        controller, term = step.me, state.term
    elif state.controller is not None:
        controller, term = state.controller.id, state.controller.term
    record = None if state.is_new else state.record
    known = step.peer(sender)
    heard = max((known.epoch, known.saves_before), (state.record.epoch_of(sender), 0))
    step.send(sender, NodeOnlineResp(controller, term, record, *heard))
    if other:
        text = f"{message.address} is the address of node {other}"
        step.send(sender, CommonResp(int(Type.NODE_ONLINE), Result.ADDRESS_IN_USE, text))
    ping_one(step, sender)


def _learn_address(step: Step, peer: int, said: str) -> int:
    """Connect to `peer` where it says that it is, unless that is another node's address: then that node, else 0."""
    state, before = step.state, step.state.addresses[peer]
    step.know(peer, address=said)
    other = state.at_address(said, peer)
    if other:
        step.note("address_refused", peer=peer, said=said, other=other)
    elif said != before:
        step.note("address_learned", peer=peer, said=said, before=before)
        step.move(peer, said)
    return other


def node_online_resp(step: Step, envelope: Envelope, message: NodeOnlineResp) -> None:
    """A hint about which node is controller. A starting node gives that controller one election timeout to be heard
    before it campaigns; nothing else rests on it."""
    state = step.state
    if step.peer(envelope.sender).complaint:
        step.know(envelope.sender, complaint="")  # it accepts this node's messages again
    new_epoch = _compare_with_memory(step, message)
    if message.record is not None and not new_epoch:  # no record names an epoch that begins only now
        adopt_record(step, message.record)
    if message.controller in (0, step.me) or state.controller is not None or state.role is not Role.FOLLOWER:
        return
    if state.reason is Reason.START and not state.attempts:
        until_us = step.now_us + step.timing.promise_us
        if state.status is Status.VOTING:
            state.campaign_at_us = max(state.campaign_at_us, until_us)
            state.attempts += 1  # once only: hints must not put it off forever


def _compare_with_memory(step: Step, message: NodeOnlineResp) -> bool:
    """A peer's memory of this node shows whether its data is an older copy, or has a storage epoch that is not newer
    than a lost one (R16). Either way it must not vote on it; it becomes new, with a higher epoch. A node saves when
    it starts, so what earlier processes were heard to have saved is less than what this one started with. Returns
    whether a new epoch begins."""
    state = step.state
    epoch, heard, saves = state.saved.epoch, message.heard_epoch, message.heard_saves
    older_copy = heard == epoch and saves > 0 and saves >= state.saves_at_start
    if heard > MAX_EPOCH_HEARD or (not older_copy and heard <= epoch):
        return False
    if older_copy:
        step.note("older_copy_found", saves=state.saves_at_start, heard=saves)
    raised = max(heard + 1, epoch + 1, state.saved.incarnation)
    forget(step, raised)
    step.note("epoch_raised", epoch=raised, heard=heard)
    for peer in state.peers:
        introduce(step, peer)
    return True


def node_offline(step: Step, envelope: Envelope, message: NodeOffline) -> None:
    """A leave ends the promise to the node that leaves; news of a third node starts a probe."""
    state, node = step.state, message.node
    if node == step.me or node not in state.peers:
        return
    if message.incarnation < state.peers[node].incarnation:
        return  # about a process that has been replaced since
    if node != envelope.sender:
        step.probe(node)
        if state.controller is not None and envelope.sender == state.controller.id:
            step.know(node, unresponsive=True)
        return
    step.note("peer_left", peer=node, reason=message.reason)
    step.know(node, offline=True, cluster_stop=message.reason == CLUSTER_STOP)
    _end_promise(step, node, message.incarnation, Reason.LEAVE)


def handover(step: Step, envelope: Envelope, message: Handover) -> None:
    """The sender gave up its leadership of `of_term` and will not act in that term again."""
    state, sender = step.state, envelope.sender
    promise = state.promise
    state.handed_over[sender] = max(state.handed_over.get(sender, 0), message.of_term)
    if promise is None or promise.to != sender or promise.term > message.of_term:
        return  # bound to term: an old handover must not end a newer promise
    state.promise, state.asked = None, message.asked
    others = [node for node in state.succession if node != message.successor]
    state.succession = (*([message.successor] if message.successor in state.members else []), *others)
    step.note("leadership_handed_over", controller=sender, term=message.of_term, successor=message.successor)
    lose_controller(step, Reason.HANDOVER)


def death_proven(step: Step, event: DeathProven) -> None:
    """A probe found evidence that a process is dead."""
    died(step, event.peer, event.incarnation, event.evidence)


def died(step: Step, peer: int, incarnation: int, evidence: Evidence) -> None:
    """Process `incarnation` of `peer` is proven dead, first-hand (R9)."""
    state = step.state
    known = state.peers.get(peer)
    if known is None or known.incarnation != incarnation or known.dead or evidence not in _BELIEVED[step.timing.proof]:
        return
    if known.connected and evidence is not Evidence.RESTARTED:
        step.note("death_contradicted", peer=peer, evidence=evidence.value)
        return  # a dead process has no connections
    require(
        not known.dead and known.incarnation > 0,
        "R9",
        "proof is about a process that was heard and is not known to be dead",
    )
    step.know(peer, dead=True)
    step.note("peer_died", peer=peer, evidence=evidence.value)
    if state.leader_state is not None:
        step.broadcast(NodeOffline(peer, incarnation, evidence.value))
        step.publish(MarkOffline(peer, state.term))
    _end_promise(step, peer, incarnation, Reason.DEATH)


def _end_promise(step: Step, peer: int, incarnation: int, reason: Reason) -> None:
    """End the promise to a process that is gone, and campaign when this node's turn comes."""
    state = step.state
    promise, leader = state.promise, state.controller
    promised = promise is not None and promise.to == peer and promise.incarnation == incarnation
    if promised:
        state.promise = None
    followed = leader is not None and (leader.id, leader.incarnation) == (peer, incarnation)
    if (promised or followed) and state.leader_state is None and state.campaign is None:
        lose_controller(step, reason)


def leave(step: Step, event: Leave) -> None:
    """Leave gracefully: hand leadership over, tell the peers, remove this node's entry from Redis."""
    state = step.state
    if state.leaving:
        return
    if state.leader_state is not None:
        order = succession_of(step)
        successor, term = (order[0] if order else 0), state.term
        step_down(step, "leaving")
        hand_over(step, Handover(term, successor))
    vacate(step)
    leave_election(step)
    step.broadcast(NodeOffline(step.me, state.saved.incarnation, CLUSTER_STOP if event.cluster_stop else "leave"))
    step.publish(Depart(last=not any(peer.linked for peer in state.peers.values())))
    step.note("leave_announced")
    step.leave = True
