"""COMMON_RESP, QUERY, and the answer to a type nobody handles."""

from __future__ import annotations

from zelect.core.actors.leadership import lapse_due_us, story_of
from zelect.core.actors.voters import witness_state
from zelect.core.eligibility import unfit
from zelect.core.messages import MESSAGES, CommonResp, Envelope, Message, Query, Result
from zelect.core.settings import Settings
from zelect.core.state import State
from zelect.core.status import PeerView, View
from zelect.core.step import Turn
from zelect.core.voters import failures_survived

__all__ = ["common_resp", "query", "unhandled", "view_of"]


def common_resp(turn: Turn, envelope: Envelope, message: CommonResp) -> None:
    """A peer complains: people must hear of it; the election doesn't change."""
    if message.result is not Result.OK:
        turn.note("complaint_heard", sender=envelope.sender, result=message.result.value, detail=message.detail)


def unhandled(turn: Turn, envelope: Envelope, message: Message) -> None:
    """A type that no actor handles is answered, so that the sender need not wait."""
    code = next(int(code) for code, kind in MESSAGES.items() if kind is type(message))
    turn.send(envelope.sender, CommonResp(code, Result.UNHANDLED, "no actor for this type"))


def query(turn: Turn, envelope: Envelope, message: Query) -> None:
    """Describe this node as it is at this moment."""
    turn.answer = view_of(turn.settings, turn.state, turn.now_us)


def view_of(settings: Settings, state: State, now_us: int) -> View:
    """A picture of `state` at `now_us`."""
    node, promise_us = settings.node, settings.timing.promise_us
    record = state.record
    here = {peer for peer, known in state.peers.items() if known.linked and not known.gone}
    alive = {peer for peer in here if record.counts(peer, state.peers[peer].life)}
    alive |= {node} if state.has_voice(record) else set()
    witness = witness_state(state, settings.dynamic)
    reign, leader = state.reign, state.leader
    in_office = state.in_office(now_us)
    pause = state.pause if state.paused(now_us) else None
    controller = node if in_office else leader.id if leader is not None else 0
    return View(
        id=node,
        incarnation=state.saved.incarnation,
        term=state.term,
        role="controller" if in_office else "follower",
        status=state.status.value,
        in_office=in_office,
        lease_left_us=lapse_due_us(promise_us, reign) - now_us if reign is not None and in_office else 0,
        office_us=now_us - reign.entered_us if reign is not None and in_office else 0,
        controller=controller,
        controller_heard_ago_us=now_us - state.leader_heard_us if leader is not None else -1,
        record=state.saved.record,
        quorate=state.links_quorum(node),
        amnesia=state.amnesia,
        witness=witness,
        survives=failures_survived(record, alive, state.witness_ready, settings.dynamic, witness == "stranger"),
        succession=state.succession,
        peers=tuple(
            PeerView(
                id=peer,
                incarnation=known.incarnation,
                linked=known.linked,
                dead=known.dead,
                offline=known.offline,
                heard_ago_us=now_us - known.heard_us if known.heard_us >= 0 else -1,
                priority=known.priority,
                unfit=(unfit(state, settings.timing, now_us, peer) or "") if in_office else "",
            )
            for peer, known in sorted(state.peers.items())
        ),
        refused_by_gate=dict(state.refused),
        now_us=now_us,
        story=story_of(reign) if reign is not None and in_office else None,
        previous=reign.previous.id if reign is not None and reign.previous is not None and in_office else 0,
        trigger=reign.trigger.value if reign is not None and in_office else "",
        rounds=state.rounds,
        voices=tuple(sorted(alive)),
        priority=state.priority(settings.priority, now_us),
        pause_left_us=pause.until_us - now_us if pause is not None else 0,
        pause_asked=pause.asked if pause is not None else "",
        rest_left_us=max(0, state.rest_until_us - now_us),
    )
