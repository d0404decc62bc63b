"""Connections that come and go (R6, R9)."""

from __future__ import annotations

from zelect.core.actors.leadership import ping_one
from zelect.core.messages import NodeOnline
from zelect.core.step import Turn

__all__ = ["introduce", "link_down", "link_up"]


def link_up(turn: Turn, peer: int) -> None:
    """Introduce oneself; an elected node greets with its PING."""
    state = turn.state
    if state.leaving:
        return
    turn.know(peer, linked=True, linked_us=turn.now_us)
    turn.note("link_opened", peer=peer)
    introduce(turn, peer)
    ping_one(turn, peer)


def introduce(turn: Turn, peer: int) -> None:
    """Say who this node is; the answer says who leads, and brings the peer's electorate record."""
    turn.send(peer, NodeOnline(turn.settings.addresses[turn.me], turn.priority, turn.state.saved.life))


def link_down(turn: Turn, peer: int) -> None:
    """The first sign of a death, or of a cut: probe the peer when it matters who is alive.

    An elected node that has lost its connections to a majority keeps its lease but not its
    office, until a PING sent from now on is answered by a quorum: the others may have been told
    by a refusing network that it is dead (R6).
    """
    state = turn.state
    turn.know(peer, linked=False)
    turn.note("link_closed", peer=peer)
    matters = (
        state.reign is not None
        or state.leader is None
        or state.leader.id == peer
        or (state.promise is not None and state.promise.to == peer)
    )
    if matters:
        turn.probe(peer)
    if state.reign is not None and not state.links_quorum(turn.me):
        state.reign.floor_us = turn.now_us + 1
        state.reign.next_ping_us = min(state.reign.next_ping_us, turn.now_us + 1)
