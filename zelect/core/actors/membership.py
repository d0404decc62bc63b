"""NODE_ONLINE, NODE_ONLINE_RESP, NODE_OFFLINE, HANDOVER, and proofs of death (R9)."""

from __future__ import annotations

from zelect.core.actors.health import vacated
from zelect.core.actors.leadership import ping_one
from zelect.core.effects import Depart, MarkOffline
from zelect.core.events import Evidence
from zelect.core.messages import (
    CommonResp,
    Envelope,
    Handover,
    NodeOffline,
    NodeOnline,
    NodeOnlineResp,
    Result,
    Trigger,
    Type,
)
from zelect.core.state import Stand, Status
from zelect.core.step import Turn
from zelect.core.succession import succession_of
from zelect.core.timing import Proof
from zelect.core.transitions import adopt_record, hand_over, leave_office, lose_controller

# A process that came back under a new incarnation cannot live on under its old one.
_BELIEVED = {
    Proof.REFUSED: frozenset(Evidence),
    Proof.PROCESS: frozenset({Evidence.LOCK, Evidence.REAPED, Evidence.REBORN}),
    Proof.NONE: frozenset({Evidence.REBORN}),
}

__all__ = ["died", "handover", "leave", "node_offline", "node_online", "node_online_resp"]


def node_online(turn: Turn, envelope: Envelope, message: NodeOnline) -> None:
    """A peer is here: tell it who is controller; the controller also greets it with a PING."""
    state, sender = turn.state, envelope.sender
    expected = turn.settings.addresses[sender]
    if message.address != expected:
        detail = f"node {sender} says {message.address}, node {turn.me} is configured with {expected}"
        turn.note("address_mismatched", sender=sender, said=message.address, configured=expected)
        turn.send(sender, CommonResp(int(Type.NODE_ONLINE), Result.ADDRESS_MISMATCH, detail))
        return
    if state.record.life_of(sender) not in (-1, 0, message.life):
        turn.note("forgetful_peer_heard", sender=sender, life=message.life)
    turn.know(sender, priority=message.priority, life=message.life)
    controller, term = 0, 0
    if state.reign is not None:
        controller, term = turn.me, state.term
    elif state.leader is not None:
        controller, term = state.leader.id, state.leader.term
    turn.send(sender, NodeOnlineResp(controller, term, state.saved.record))
    ping_one(turn, sender)


def node_online_resp(turn: Turn, envelope: Envelope, message: NodeOnlineResp) -> None:
    """A hint who leads. A starting node gives that controller one election timeout to be heard
    before it campaigns; nothing else rests on it."""
    state = turn.state
    adopt_record(turn, message.record)
    if message.controller in (0, turn.me) or state.leader is not None or state.stand is not Stand.FOLLOWER:
        return
    if state.trigger is Trigger.START and not state.attempts:
        wait_us = turn.now_us + turn.timing.promise_us
        if state.status is Status.VOTING:
            state.campaign_at_us = max(state.campaign_at_us, wait_us)
            state.attempts += 1  # once: rumours must not put it off for ever


def node_offline(turn: Turn, envelope: Envelope, message: NodeOffline) -> None:
    """A goodbye ends the promise to the one that leaves; news of a third node starts a probe."""
    state, node = turn.state, message.node
    if node == turn.me or node not in state.peers:
        return
    if message.incarnation < state.peers[node].incarnation:
        return  # about a process that has been replaced since
    if node != envelope.sender:
        turn.probe(node)
        if state.leader is not None and envelope.sender == state.leader.id:
            turn.know(node, silent=True)
        return
    turn.note("peer_left", peer=node, reason=message.reason)
    turn.know(node, offline=True)
    _gone(turn, node, message.incarnation, Trigger.GOODBYE)


def handover(turn: Turn, envelope: Envelope, message: Handover) -> None:
    """The sender left its office of `of_term` and will not act in that term again."""
    state, sender = turn.state, envelope.sender
    promise = state.promise
    state.handed[sender] = max(state.handed.get(sender, 0), message.of_term)
    if promise is None or promise.to != sender or promise.term > message.of_term:
        return  # bound to term: an old handover must not end a newer promise
    state.promise, state.asked = None, message.asked
    others = [node for node in state.succession if node != message.successor]
    state.succession = (*([message.successor] if message.successor in state.members else []), *others)
    turn.note("office_handed_over", controller=sender, term=message.of_term, successor=message.successor)
    lose_controller(turn, Trigger.HANDOVER)


def died(turn: Turn, peer: int, incarnation: int, evidence: Evidence) -> None:
    """Process `incarnation` of `peer` is proven dead, first-hand (R9)."""
    state = turn.state
    known = state.peers[peer]
    if known.incarnation != incarnation or known.dead or evidence not in _BELIEVED[turn.timing.proof]:
        return
    if evidence is Evidence.REFUSED and known.linked:
        return  # closed *and* refused: while the connection stands, a refusal proves nothing
    turn.know(peer, dead=True)
    turn.note("peer_died", peer=peer, evidence=evidence.value)
    if state.reign is not None:
        turn.broadcast(NodeOffline(peer, incarnation, evidence.value))
        turn.publish(MarkOffline(peer, state.term))
    _gone(turn, peer, incarnation, Trigger.DEATH)


def _gone(turn: Turn, peer: int, incarnation: int, trigger: Trigger) -> None:
    """End the promise to a process that is gone, and get in line for its succession."""
    state = turn.state
    promise, leader = state.promise, state.leader
    promised = promise is not None and promise.to == peer and promise.incarnation == incarnation
    if promised:
        state.promise = None
    followed = leader is not None and (leader.id, leader.incarnation) == (peer, incarnation)
    if (promised or followed) and state.reign is None and state.campaign is None:
        lose_controller(turn, trigger)


def leave(turn: Turn) -> None:
    """Leave in good order: hand the office over, say goodbye, clear one's traces in Redis."""
    state = turn.state
    if state.leaving:
        return
    if state.reign is not None:
        order = succession_of(turn)
        successor, term = (order[0] if order else 0), state.term
        leave_office(turn, "leaving")
        hand_over(turn, Handover(term, successor))
    vacated(turn)
    state.leaving = True
    state.campaign = None
    state.stand = Stand.FOLLOWER
    turn.broadcast(NodeOffline(turn.me, state.saved.incarnation, "goodbye"))
    turn.publish(Depart(last=not any(peer.linked for peer in state.peers.values())))
    turn.note("goodbye_said")
    turn.leave = True
