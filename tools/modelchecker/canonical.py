"""What makes two worlds the same: time is relative, numbers are ages, what guides only luck is left out.

A node's state is always kept as it is at the moment `NOW`; when time passes, everything in it moves
back by one unit. What decides only *when* a node campaigns (succession, stagger, attempts, jitter,
reason) is set aside, and a node may campaign whenever promises, silence and connections allow:
more behaviours than the shipped timers have, never fewer.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, fields, replace
from typing import Any

from zelect.core.effects import WitnessIntent, WitnessPing
from zelect.core.events import WitnessAnswered
from zelect.core.lease import NEVER_US
from zelect.core.messages import (
    CommonResp,
    Envelope,
    Handover,
    Message,
    NodeOffline,
    NodeOnline,
    NodeOnlineResp,
    Ping,
    Pong,
    Reason,
    Voting,
    VotResp,
)
from zelect.core.quorum import NO_RECORD
from zelect.core.state import Campaign, LeaderState, Peer, Role, State, Status, VoteAnswer
from zelect.core.timing import Timing

NOW = 1_000
"""The moment at which every state is kept, in units."""
_OLD = NOW - 4  # older than a lease and than three heartbeats: only that it was matters


@dataclass(frozen=True, slots=True)
class Coarse(Timing):
    """Durations in units: a heartbeat is 1, a lease 2, a promise 3, and one unit is R5's margin.
    What only tidies up, or is left to chance here, never comes due."""

    @property
    def heartbeat_us(self) -> int:
        return 1

    @property
    def lease_us(self) -> int:
        return 2

    @property
    def promise_us(self) -> int:
        return 3

    @property
    def stagger_us(self) -> int:
        return 1

    @property
    def down_after_us(self) -> int:
        return 10**6

    @property
    def vote_wait_us(self) -> int:
        return 10**6

    @property
    def idle_ping_us(self) -> int:
        return 10**9

    @property
    def refresh_us(self) -> int:
        return 10**9


STALE = NOW - 3
"""Number of all PINGs older than a lease: nobody remembers when they were sent."""


def settle(state: State, now: int, counted: Collection[int] = ()) -> dict[int, int]:
    """Bring `state`, as it is at `now`, into its one form at `NOW`; returns how its PINGs are renumbered. `counted`:
    the nodes whose saves are counted."""
    shift = NOW - now
    state.status, state.reason, state.succession, state.attempts = Status.VOTING, Reason.START, (), 0
    state.identify_until_us = state.next_idle_us = state.next_witness_look_us = state.next_publish_us = NEVER_US
    state.last_controller, state.last_controller_heard_us, state.controller_heard_us = None, -1, -1
    state.grace_until_us = _later(state.grace_until_us, shift)
    state.campaign_at_us = NEVER_US if state.role is Role.ELECTED else NOW
    if state.promise is not None:
        until_us = _later(state.promise.until_us, shift)
        state.promise = replace(state.promise, until_us=until_us) if until_us else None
    if state.pending_handover is not None:
        message = replace(state.pending_handover.message, successor=0, asked="")
        state.pending_handover = replace(
            state.pending_handover, message=message, until_us=_later(state.pending_handover.until_us, shift)
        )
    # A request that waits for a promise to end is in the network as well, and may come again.
    state.waiting_requests, state.refused = {}, {}
    state.lost_us, state.rounds, state.asked = -1, (), ""
    state.save_us = 0
    if state.node not in counted:
        state.saves = state.saves_at_start = 0
    state.cooling_until_us = 0  # whether it stays behind the others is luck
    state.cluster_told_us = -1 if state.cluster_told_us < 0 else NOW
    state.redis_told_until_us = NEVER_US
    if state.pause is not None and not state.paused(now):
        state.pause = None
    if state.pause is not None:
        state.pause = replace(state.pause, until_us=state.pause.until_us + shift)
    state.peers = {node: _peer(peer, node in counted) for node, peer in state.peers.items()}
    if state.record.witness is None:
        state.witness_same = False
    if state.campaign is None:
        state.round = 2 * state.term + 1  # the next question is about term + 1
    else:
        _settle_campaign(state.campaign, shift)
    return {} if state.leader_state is None else _settle_leadership(state, state.leader_state, shift)


def _later(at_us: int, shift: int) -> int:
    """A deadline, or 0 once it has passed."""
    return at_us + shift if at_us + shift > NOW else 0


def _peer(peer: Peer, counted: bool) -> Peer:
    processes = peer.linked and peer.linked_us < peer.heard_us
    heard_us = -1 if not peer.incarnation else NOW
    linked_us = NOW - 1 if processes else NOW
    saves, before = (peer.saves, peer.saves_before) if counted else (0, 0)
    return replace(
        peer, heard_us=heard_us, priority=0, linked_us=linked_us, saves=saves, saves_before=before, complaint=""
    )


def _settle_campaign(campaign: Campaign, shift: int) -> None:
    campaign.reason, campaign.began_us, campaign.round_began_us, campaign.give_up_us = Reason.START, NOW, NOW, NEVER_US
    # Refusals only end a round sooner, and a round may end at any time here.
    # Of a pre-vote only who would vote is asked.
    campaign.answers = {
        voter: VoteAnswer(True, None, 0) if campaign.pre else replace(answer, until_us=_later(answer.until_us, shift))
        for voter, answer in campaign.answers.items()
        if answer.granted
    }


def _settle_leadership(state: State, leader_state: LeaderState, shift: int) -> dict[int, int]:
    numbers = {number: sent_us + shift for number, sent_us in leader_state.sent_us.items()}
    leader_state.reason, leader_state.previous, leader_state.previous_heard_us = Reason.START, None, -1
    leader_state.lost_us, leader_state.rounds, leader_state.asked, leader_state.disks_us = -1, (), "", 0
    leader_state.sent_us = {sent_us: sent_us for sent_us in numbers.values()}
    leader_state.number = max(leader_state.sent_us)
    # What decides when a leadership without a lease is over; with one nobody asks.
    leader_state.elected_us = NOW if leader_state.lease_lapses_us else max(leader_state.elected_us + shift, NOW - 3)
    leader_state.lease_lapses_us = max(leader_state.lease_lapses_us + shift, NOW) if leader_state.lease_lapses_us else 0
    leader_state.renewed_us = max(leader_state.renewed_us + shift, _OLD) if leader_state.renewed_us else 0
    leader_state.quorum_lost_us = (
        leader_state.quorum_lost_us + shift if leader_state.quorum_lost_us + shift > _OLD else 0
    )
    leader_state.promises_end_us = _later(leader_state.promises_end_us, shift)
    leader_state.waiting = leader_state.promises_end_us > 0
    leader_state.create_witness_again_us = _later(leader_state.create_witness_again_us, shift)
    leader_state.next_ping_us = max(leader_state.next_ping_us + shift, NOW)
    leader_state.active_since_us = int(leader_state.active_since_us > 0)
    leader_state.suspended = bool(leader_state.active_since_us) and not leader_state.holds(NOW)
    members = state.members
    leader_state.answered_us = {
        n: at_us + shift for n, at_us in leader_state.answered_us.items() if at_us + shift >= _matters_since(state, n)
    }
    leader_state.steady_us = {
        n: max(at_us + shift, _OLD) for n, at_us in leader_state.steady_us.items() if n not in members
    }
    leader_state.saved_by = {
        n: saved for n, saved in leader_state.saved_by.items() if saved in (state.record.id, NO_RECORD.id)
    }
    return numbers


def _matters_since(state: State, node: int) -> int:
    """Since when an answer counts for anything. A voter's only if it is newer than what the lease
    rests on already; while there was no lease, even old answers begin one, though it be over.
    With a witness in the record, two heartbeats long for whether the nodes do without it. A
    unknown client's as long as it may count among three heartbeats."""
    assert state.leader_state is not None
    if node not in state.voters:
        return _OLD
    if not state.leader_state.lease_lapses_us:
        return NOW - 3
    peer = state.peers.get(node)
    asked_last = state.record.witness is not None and peer is not None and not peer.dead and not peer.offline
    return NOW - 2 if asked_last else state.leader_state.renewed_us + 1


def spoken(message: Message, numbers: dict[int, int], counted: bool = False) -> Message | None:
    """What is left of a message without what guides only luck; None when nothing is. `counted`: the saves of the
    node that it is about are."""
    match message:
        case Ping():
            number = numbers.get(message.number, NOW)
            return replace(message, number=number, succession=()) if message.number else None
        case Pong():
            saves = message.saves if counted else 0
            return replace(message, priority=0, saves=saves) if message.number > STALE else None
        case NodeOnline():
            return message if counted else replace(message, saves=0)
        case NodeOnlineResp():
            return message if counted else replace(message, heard_saves=0)
        case Voting():
            return replace(message, reason=Reason.START, controller=0, controller_term=0)
        case VotResp():
            return message if message.granted else replace(message, wait_us=0)
        case NodeOffline():
            return message if message.reason == "leave" else None
        case Handover():
            return replace(message, successor=0, asked="")
        case CommonResp():
            return None
    return message


def age_envelope(envelope: Envelope) -> Envelope | None:
    """The same message one unit later; None when it can do nothing any more."""
    message = envelope.message
    if isinstance(message, Ping):
        return replace(envelope, message=replace(message, number=max(message.number - 1, STALE)))
    if isinstance(message, Pong):
        older = replace(message, number=message.number - 1)
        return replace(envelope, message=older) if older.number > STALE else None
    return envelope


def age_intent(intent: WitnessIntent) -> WitnessIntent:
    """The same question to the witness one unit later."""
    return replace(intent, number=max(intent.number - 1, STALE)) if isinstance(intent, WitnessPing) else intent


def age_answer(event: Any) -> Any:
    """The same answer of the witness one unit later; None when it can do nothing any more."""
    if isinstance(event, WitnessAnswered):
        if event.number - 1 <= STALE and event.reason is None:
            return None
        return replace(event, number=max(event.number - 1, STALE))
    return event


def frozen(value: Any) -> Any:
    """A hashable twin of a state."""
    if isinstance(value, State | Campaign | LeaderState):
        return tuple(frozen(getattr(value, item.name)) for item in fields(value))
    if isinstance(value, dict):
        return tuple(sorted(value.items()))
    return tuple(sorted(value)) if isinstance(value, set) else value
