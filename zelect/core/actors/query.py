"""COMMON_RESP, QUERY, and the answer to a type nobody handles."""

from __future__ import annotations

from zelect.core.actors.leadership import lapse_due_us, trace_of
from zelect.core.actors.voters import witness_state
from zelect.core.eligibility import ineligible
from zelect.core.messages import MESSAGES, CommonResp, Envelope, Message, Query, Result
from zelect.core.settings import Settings
from zelect.core.state import State
from zelect.core.status import NodeStatus, PeerStatus
from zelect.core.step import Step
from zelect.core.voters import failures_survived

__all__ = ["common_resp", "query", "status_of", "unhandled"]


def common_resp(step: Step, envelope: Envelope, message: CommonResp) -> None:
    """A peer complains: people must hear of it; the election doesn't change."""
    if message.result is not Result.OK:
        step.note("error_received", sender=envelope.sender, result=message.result.value, detail=message.detail)


def unhandled(step: Step, envelope: Envelope, message: Message) -> None:
    """A type that no actor handles is answered, so that the sender need not wait."""
    code = next(int(code) for code, kind in MESSAGES.items() if kind is type(message))
    step.send(envelope.sender, CommonResp(code, Result.UNHANDLED, "no actor for this type"))


def query(step: Step, envelope: Envelope, message: Query) -> None:
    """Describe this node as it is at this moment."""
    step.answer = status_of(step.settings, step.state, step.now_us)


def status_of(settings: Settings, state: State, now_us: int) -> NodeStatus:
    """A picture of `state` at `now_us`."""
    node, promise_us = settings.node, settings.timing.promise_us
    record = state.record
    here = {peer for peer, known in state.peers.items() if known.linked and not known.gone}
    alive = {peer for peer in here if record.counts(peer, state.peers[peer].epoch)}
    alive |= {node} if state.may_vote(record) else set()
    witness = witness_state(state, settings.dynamic)
    leader_state, leader = state.leader_state, state.controller
    active = state.active(now_us)
    pause = state.pause if state.paused(now_us) else None
    controller = node if active else leader.id if leader is not None else 0
    return NodeStatus(
        id=node,
        incarnation=state.saved.incarnation,
        term=state.term,
        role="controller" if active else "follower",
        status=state.status.value,
        active=active,
        lease_left_us=lapse_due_us(promise_us, leader_state) - now_us if leader_state is not None and active else 0,
        active_for_us=now_us - leader_state.active_since_us if leader_state is not None and active else 0,
        controller=controller,
        controller_heard_ago_us=now_us - state.controller_heard_us if leader is not None else -1,
        record=state.saved.record,
        quorate=state.links_quorum(node),
        lost_state=state.lost_state,
        witness=witness,
        survives=failures_survived(record, alive, state.witness_ready, settings.dynamic, witness == "unrecognized"),
        succession=state.succession,
        peers=tuple(
            PeerStatus(
                id=peer,
                incarnation=known.incarnation,
                linked=known.linked,
                dead=known.dead,
                offline=known.offline,
                heard_ago_us=now_us - known.heard_us if known.heard_us >= 0 else -1,
                priority=known.priority,
                ineligible=(ineligible(state, settings.timing, now_us, peer) or "") if active else "",
            )
            for peer, known in sorted(state.peers.items())
        ),
        refused_by_gate=dict(state.refused),
        now_us=now_us,
        trace=trace_of(leader_state) if leader_state is not None and active else None,
        previous=leader_state.previous.id
        if leader_state is not None and leader_state.previous is not None and active
        else 0,
        reason=leader_state.reason.value if leader_state is not None and active else "",
        rounds=state.rounds,
        may_vote=tuple(sorted(alive)),
        priority=state.priority(settings.priority, now_us),
        pause_left_us=pause.until_us - now_us if pause is not None else 0,
        pause_asked=pause.asked if pause is not None else "",
        cooling_left_us=max(0, state.cooling_until_us - now_us),
    )
