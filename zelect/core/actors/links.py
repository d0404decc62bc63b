"""Connections that come and go (R6, R9)."""

from __future__ import annotations

from zelect.core.actors.leadership import ping_one
from zelect.core.messages import NodeOnline
from zelect.core.step import Step

__all__ = ["introduce", "link_down", "link_up"]


def link_up(step: Step, peer: int) -> None:
    """Introduce oneself; an elected node greets with its PING."""
    state = step.state
    if state.leaving:
        return
    step.know(peer, linked=True, linked_us=step.now_us)
    step.note("link_opened", peer=peer)
    introduce(step, peer)
    ping_one(step, peer)


def introduce(step: Step, peer: int) -> None:
    """Say who this node is; the answer says who leads, and brings the peer's voter record."""
    step.send(peer, NodeOnline(step.settings.addresses[step.me], step.priority, step.state.saved.epoch))


def link_down(step: Step, peer: int) -> None:
    """The first sign of a death, or of a cut: probe the peer when it matters who is alive.

    An elected node that has lost its connections to a majority keeps its lease but not its
    leadership, until a PING sent from now on is answered by a quorum: the others may have been told
    by a refusing network that it is dead (R6).
    """
    state = step.state
    step.know(peer, linked=False)
    step.note("link_closed", peer=peer)
    matters = (
        state.leader_state is not None
        or state.controller is None
        or state.controller.id == peer
        or (state.promise is not None and state.promise.to == peer)
    )
    if matters:
        step.probe(peer)
    if state.leader_state is not None and not state.links_quorum(step.me):
        state.leader_state.quorum_lost_us = step.now_us + 1
        state.leader_state.next_ping_us = min(state.leader_state.next_ping_us, step.now_us + 1)
