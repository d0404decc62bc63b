"""COMMON_RESP, QUERY, and the answer to a type that no actor handles.

None of them changes anything: an error from a peer is for people to read, a query is answered with the node's present
state.
"""

from __future__ import annotations

from collections.abc import Mapping

from zelect.core.actors.leadership import trace_of
from zelect.core.actors.voters import witness_state
from zelect.core.eligibility import ineligible
from zelect.core.messages import MAX_TEXT, MESSAGES, CommonResp, Envelope, Message, Query, Result
from zelect.core.settings import Settings
from zelect.core.state import LeaderState, Peer, State
from zelect.core.status import Belongs, NodeStatus, PauseStatus, PeerStatus, VotersStatus
from zelect.core.step import Step
from zelect.core.voters import failures_survived


def common_resp(step: Step, envelope: Envelope, message: CommonResp) -> None:
    """A peer reports an error: it goes to the log; the election doesn't change."""
    if message.result is Result.OK:
        return
    other = {"generation": envelope.generation} if message.result is Result.OTHER_GENERATION else {}
    detail = message.detail
    if message.result is Result.SETTINGS_MISMATCH:
        detail = _differences(step.settings.shared(), detail)
    complaint = f"{message.result.value}: {detail}"[:MAX_TEXT]
    _note_cluster(step, envelope, message.result)
    if step.peer(envelope.sender).complaint == complaint:
        return  # reported already
    step.know(envelope.sender, complaint=complaint)
    step.note("error_received", sender=envelope.sender, result=message.result.value, detail=detail, **other)


def _note_cluster(step: Step, envelope: Envelope, result: Result) -> None:
    """Which cluster the sender of a complaint belongs to. For a new node one that was removed belongs to none (R15);
    for a member one of another cluster has lost what it knew of this one (R16)."""
    sender, state = envelope.sender, step.state
    if state.is_new and result is not Result.REMOVED:
        learn_of_cluster(step, envelope)
    elif state.is_new:
        step.know(sender, cluster_id=-1)
    else:
        step.know(sender, foreign=envelope.cluster_id not in (0, state.record.cluster_id))


def _differences(ours: Mapping[str, str], told: str) -> str:
    """Which settings differ between this node and one that sent its own ("key=value ..."), in words."""
    theirs = dict(word.split("=", 1) for word in told.split() if "=" in word)
    if theirs.keys() != ours.keys():
        return told  # a peer may send any text
    found = [f"{key} is {value} here, {theirs[key]} there" for key, value in ours.items() if theirs[key] != value]
    return "; ".join(found)[:MAX_TEXT] or told


def learn_of_cluster(step: Step, envelope: Envelope) -> None:
    """Which cluster a peer of this new node belongs to: if to any, none may be founded (R15)."""
    sender, cluster_id = envelope.sender, envelope.cluster_id
    if step.peer(sender).cluster_id != cluster_id:
        step.know(sender, cluster_id=cluster_id)
        if cluster_id:
            step.note("cluster_heard", sender=sender, cluster_id=f"{cluster_id:x}")


def told_of_cluster(step: Step, member: int, cluster_id: str) -> None:
    """`member`, which this new node doesn't list, belongs to a cluster of this name: it spoke to this node, or is the
    controller in Redis. None is founded while that is so: this node's list may be older than the cluster (R15)."""
    if step.state.cluster_told_us < 0:
        step.note("cluster_heard", sender=member, cluster_id=cluster_id)
    step.state.cluster_told_us = step.now_us


def unhandled(step: Step, envelope: Envelope, message: Message) -> None:
    """A type that no actor handles is answered too, so that the sender doesn't wait."""
    code = next(int(code) for code, kind in MESSAGES.items() if kind is type(message))
    step.send(envelope.sender, CommonResp(code, Result.UNHANDLED, "no actor for this type"))


def query(step: Step, envelope: Envelope, message: Query) -> None:
    """Describe this node as it is at this moment."""
    step.answer = status_of(step.settings, step.state, step.now_us)


def status_of(settings: Settings, state: State, now_us: int) -> NodeStatus:
    """The node with `state` as it is at `now_us`."""
    active = state.active(now_us)
    leader_state = state.leader_state if active else None  # what only an active node reports
    controller = state.controller
    pause = state.pause if state.paused(now_us) else None
    return NodeStatus(
        id=settings.node,
        incarnation=state.saved.incarnation,
        term=state.term,
        role="controller" if active else "follower",
        status=state.status.value,
        active=active,
        lease_left_us=0 if leader_state is None else leader_state.lease_lapses_us - now_us,
        active_for_us=0 if leader_state is None else now_us - leader_state.active_since_us,
        controller=settings.node if active else controller.id if controller is not None else None,
        controller_heard_ago_us=None if controller is None else now_us - state.controller_heard_us,
        quorate=state.linked_to_quorum(),
        epoch=state.saved.epoch,
        belongs=belongs(state).value,
        missing=_missing(state),
        voters=_voters_status(settings, state),
        succession=state.succession,
        peers=_peers(settings, state, now_us, active),
        refused_by_gate=dict(state.refused),
        now_us=now_us,
        trace=None if leader_state is None else trace_of(leader_state),
        previous=_previous(leader_state),
        reason="" if leader_state is None else leader_state.reason.value,
        rounds=state.rounds,
        priority=state.priority(settings.priority, now_us),
        pause=None if pause is None else PauseStatus(pause.until_us - now_us, pause.asked),
        cooling_left_us=max(0, state.cooling_until_us - now_us),
        votes=state.votes(now_us),
    )


def _voters_status(settings: Settings, state: State) -> VotersStatus:
    record, may_vote = state.record, _may_vote(state)
    witness = witness_state(state, settings.dynamic)
    return VotersStatus(
        cluster_id=record.cluster_id,
        addresses={str(node): address for node, address in record.addresses},
        generation=record.generation,
        config_term=record.config_term,
        version=record.version,
        members=record.members,
        epochs=record.epochs,
        witness=witness,
        witness_votes=record.witness is not None,
        may_vote=tuple(sorted(may_vote)),
        survives=failures_survived(record, may_vote, state.witness_ready, settings.dynamic, witness == "unrecognized"),
    )


def _may_vote(state: State) -> set[int]:
    """The nodes whose votes could be counted now, as far as this node knows."""
    record = state.record
    here = {peer for peer, known in state.peers.items() if known.linked and not known.gone}
    voting = {peer for peer in here if record.counts(peer, state.peers[peer].epoch)}
    return voting | {state.node} if state.may_vote(record) else voting


def belongs(state: State) -> Belongs:
    """How this node belongs to the cluster."""
    if not state.is_new:
        if state.may_vote(state.record):
            return Belongs.VOTER
        return Belongs.REMOVED if state.removed else Belongs.NO_VOTE
    return Belongs.JOINING if state.hears_of_cluster() else Belongs.NEW


def _missing(state: State) -> tuple[int, ...]:
    """The members that a new node waits for: to found a cluster it needs the vote of each (R15)."""
    if belongs(state) is not Belongs.NEW:
        return ()
    peers = {node: state.peers.get(node, Peer()) for node in state.founding_members if node != state.node}
    return tuple(sorted(node for node, peer in peers.items() if not (peer.linked and peer.cluster_id == 0)))


def _previous(leader_state: LeaderState | None) -> int:
    return 0 if leader_state is None or leader_state.previous is None else leader_state.previous.id


def _peers(settings: Settings, state: State, now_us: int, active: bool) -> tuple[PeerStatus, ...]:
    return tuple(_peer_status(settings, state, now_us, peer, active) for peer in sorted(state.peers))


def _peer_status(settings: Settings, state: State, now_us: int, peer: int, active: bool) -> PeerStatus:
    known = state.peers[peer]
    return PeerStatus(
        id=peer,
        linked=known.linked,
        dead=known.dead,
        offline=known.offline,
        heard_ago_us=now_us - known.heard_us if known.heard_us >= 0 else None,
        priority=known.priority,
        ineligible=(ineligible(state, settings.timing, now_us, peer) or "") if active else "",
        problem=known.complaint,
    )
