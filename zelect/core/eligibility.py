"""What an operator may ask for, and who may be handed leadership.

AdminAction only chooses among the ways not active that there are anyhow. Who becomes active after
it has to be elected like everybody else.
"""

from __future__ import annotations

from enum import StrEnum

from zelect.core.messages import COOLING_DOWN, UNHEALTHY
from zelect.core.state import Peer, State
from zelect.core.timing import Timing

__all__ = ["Ineligible", "ineligible"]


class Ineligible(StrEnum):
    """Why a controller hands its leadership to somebody else than this member."""

    DEAD = "dead"
    OFFLINE = "offline"
    UNRESPONSIVE = "unresponsive"
    NOT_MEMBER = "not_member"
    NOT_CONNECTED = "not_connected"
    NOT_HEARD = "not_heard"
    LOST_STATE = "lost_state"
    BEHIND = "behind"
    UNHEALTHY = "unhealthy"
    COOLING_DOWN = "cooling_down"

    @property
    def words(self) -> str:
        """In words, after "node 3 "."""
        return _WORDS[self]


_WORDS = {
    Ineligible.DEAD: "is dead",
    Ineligible.OFFLINE: "left",
    Ineligible.UNRESPONSIVE: "has not been heard for down_after_ms",
    Ineligible.NOT_MEMBER: "has no vote now: it is not in the voters",
    Ineligible.NOT_CONNECTED: "is not connected",
    Ineligible.NOT_HEARD: "has not been heard for an election timeout",
    Ineligible.LOST_STATE: "forgot what it voted, and has no voting right yet",
    Ineligible.BEHIND: "has not saved the voters as it is now",
    Ineligible.UNHEALTHY: "is unhealthy: its job can't be done there",
    Ineligible.COOLING_DOWN: "stepped down and rests",
}


def ineligible(state: State, timing: Timing, now_us: int, node: int) -> Ineligible | None:
    """Why the controller with `state` would not hand over to `node`, another member of the members;
    None when it would. Whoever is named could not win at once, or is not wanted."""
    peer, leader_state = state.peers[node], state.leader_state
    if peer.dead or peer.offline or peer.unresponsive:
        return Ineligible.DEAD if peer.dead else Ineligible.OFFLINE if peer.offline else Ineligible.UNRESPONSIVE
    if node not in state.members:
        return Ineligible.NOT_MEMBER
    if not peer.linked:
        return Ineligible.NOT_CONNECTED
    if peer.heard_us < now_us - timing.promise_us:
        return Ineligible.NOT_HEARD
    if not state.record.counts(node, peer.epoch):
        return Ineligible.LOST_STATE
    if leader_state is None or leader_state.saved_by.get(node) != state.record.id:
        return Ineligible.BEHIND
    return _unwilling(peer)


def _unwilling(peer: Peer) -> Ineligible | None:
    return {UNHEALTHY: Ineligible.UNHEALTHY, COOLING_DOWN: Ineligible.COOLING_DOWN}.get(peer.priority)
