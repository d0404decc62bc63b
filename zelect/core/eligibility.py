"""What an operator may ask for, and who may be handed the office.

Steering only chooses among the ways out of office that there are anyhow. Who comes into office after
it has to be elected like everybody else.
"""

from __future__ import annotations

from enum import StrEnum

from zelect.core.messages import RESTING, UNWELL
from zelect.core.state import Peer, State
from zelect.core.timing import Timing

__all__ = ["Unfit", "unfit"]


class Unfit(StrEnum):
    """Why a controller hands its office to somebody else than this member."""

    DEAD = "dead"
    OFFLINE = "offline"
    SILENT = "silent"
    NOT_MEMBER = "not_member"
    NOT_CONNECTED = "not_connected"
    NOT_HEARD = "not_heard"
    FORGETFUL = "forgetful"
    BEHIND = "behind"
    UNWELL = "unwell"
    RESTING = "resting"

    @property
    def words(self) -> str:
        """In words, after "node 3 "."""
        return _WORDS[self]


_WORDS = {
    Unfit.DEAD: "is dead",
    Unfit.OFFLINE: "said goodbye",
    Unfit.SILENT: "has not been heard for down_after_ms",
    Unfit.NOT_MEMBER: "has no vote now: it is not in the electorate",
    Unfit.NOT_CONNECTED: "is not connected",
    Unfit.NOT_HEARD: "has not been heard for an election timeout",
    Unfit.FORGETFUL: "forgot what it voted, and has no voice yet",
    Unfit.BEHIND: "has not saved the electorate as it is now",
    Unfit.UNWELL: "is unwell: its job can't be done there",
    Unfit.RESTING: "stepped down and rests",
}


def unfit(state: State, timing: Timing, now_us: int, node: int) -> Unfit | None:
    """Why the controller with `state` would not hand over to `node`, another member of the roster;
    None when it would. Whoever is named could not win at once, or is not wanted."""
    peer, reign = state.peers[node], state.reign
    if peer.dead or peer.offline or peer.silent:
        return Unfit.DEAD if peer.dead else Unfit.OFFLINE if peer.offline else Unfit.SILENT
    if node not in state.members:
        return Unfit.NOT_MEMBER
    if not peer.linked:
        return Unfit.NOT_CONNECTED
    if peer.heard_us < now_us - timing.promise_us:
        return Unfit.NOT_HEARD
    if not state.record.counts(node, peer.life):
        return Unfit.FORGETFUL
    if reign is None or reign.saved_by.get(node) != state.record.id:
        return Unfit.BEHIND
    return _unwilling(peer)


def _unwilling(peer: Peer) -> Unfit | None:
    return {UNWELL: Unfit.UNWELL, RESTING: Unfit.RESTING}.get(peer.priority)
