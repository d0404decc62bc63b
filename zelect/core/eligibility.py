"""Who may be handed the leadership (R8).

A planned transfer names a successor, and that node still has to be elected like any other. So it is
named only if it could win at once: alive, connected, heard lately, up to date with the voter record, healthy.
"""

from __future__ import annotations

from enum import StrEnum

from zelect.core.messages import COOLING_DOWN, UNHEALTHY
from zelect.core.state import State
from zelect.core.timing import Timing


class Ineligible(StrEnum):
    """Why a controller does not hand its leadership to this member."""

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
    Ineligible.NOT_MEMBER: "has no vote now: it is not one of the voters",
    Ineligible.NOT_CONNECTED: "is not connected",
    Ineligible.NOT_HEARD: "has not been heard for an election timeout",
    Ineligible.LOST_STATE: "lost its state, and has no voting right yet",
    Ineligible.BEHIND: "has not saved the current voter record",
    Ineligible.UNHEALTHY: "is unhealthy: its job can't be done there",
    Ineligible.COOLING_DOWN: "stepped down and is cooling down",
}


def ineligible(state: State, timing: Timing, now_us: int, node: int) -> Ineligible | None:
    """Why the controller with `state` would not hand over to `node`, another configured member; None when
    it would."""
    peer, leader_state = state.peers[node], state.leader_state
    if peer.gone:
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
    return {UNHEALTHY: Ineligible.UNHEALTHY, COOLING_DOWN: Ineligible.COOLING_DOWN}.get(peer.priority)
