"""Connections that come and go (R6, R9).

Between two nodes there are two: each makes one to the other and sends over it. The kernel closes both when a process
dies, so while one of them is open the process at its other end is alive, and needs no probe. The last one to close
starts the probe that may find proof of a death (R9).

An elected node that has lost its connections to a majority keeps its lease and still stops being active
until a PING sent from then on is answered by a quorum: a network that refuses connections may have "proved"
it dead to the others, and ended their promises early (R6).
"""

from __future__ import annotations

from zelect.core.actors.leadership import ping_one
from zelect.core.events import LinkDown, LinkUp, PeerConnected, PeerDisconnected
from zelect.core.messages import NodeOnline
from zelect.core.step import Step


def link_up(step: Step, event: LinkUp) -> None:
    """Introduce this node to the peer; an elected node also sends its PING."""
    state, peer = step.state, event.peer
    if state.leaving or peer not in state.peers:
        return
    step.know(peer, linked=True, linked_us=step.now_us)
    step.note("link_opened", peer=peer)
    introduce(step, peer)
    ping_one(step, peer)


def introduce(step: Step, peer: int) -> None:
    """Send NODE_ONLINE; the answer names the controller, and has the peer's voter record. A node that was removed sends
    none: new nodes would take it for one of a cluster that they are to join (R15). The controller that adds it again
    speaks first."""
    state = step.state
    if not state.removed:
        step.send(peer, NodeOnline(step.settings.address, step.priority, state.saved.epoch, state.saves))


def remember_disk(step: Step, peer: int, epoch: int, saves: int) -> None:
    """Which storage epoch a peer reports, and how often it says that it was saved: the most that was heard (R16)."""
    known = step.peer(peer)
    if epoch > known.epoch:
        step.know(peer, epoch=epoch, saves=saves, saves_before=0)
    elif epoch == known.epoch and saves > known.saves:
        step.know(peer, saves=saves)


def link_down(step: Step, event: LinkDown) -> None:
    """The connection that this node made to the peer closed."""
    state, peer = step.state, event.peer
    if peer not in state.peers:
        return
    step.know(peer, linked=False)
    if state.is_new:
        step.know(peer, cluster_id=-1)  # it may come back without its data, or not at all
    step.note("link_closed", peer=peer)
    _probe_if_unconnected(step, peer)
    if state.leader_state is not None and not state.linked_to_quorum():
        state.leader_state.quorum_lost_us = step.now_us + 1
        state.leader_state.next_ping_us = min(state.leader_state.next_ping_us, step.now_us + 1)


def peer_connected(step: Step, event: PeerConnected) -> None:
    """A process that sends over a connection of its own is alive, whatever was proven before."""
    if _is_of(step, event):
        step.know(event.peer, inbound=True, dead=False)


def peer_disconnected(step: Step, event: PeerDisconnected) -> None:
    """The connection that the peer made to this node closed. One of an earlier process says nothing about the present
    one."""
    if _is_of(step, event):
        step.know(event.peer, inbound=False)
        _probe_if_unconnected(step, event.peer)


def _is_of(step: Step, event: PeerConnected | PeerDisconnected) -> bool:
    """Whether the connection is that of a peer's present process. A node that was removed has connections until
    it is stopped, and is no peer any more."""
    known = step.state.peers.get(event.peer)
    return known is not None and known.incarnation == event.incarnation


def _probe_if_unconnected(step: Step, peer: int) -> None:
    """Probe the peer once both connections are closed, when it matters whether it is alive."""
    state, known = step.state, step.peer(peer)
    matters = (
        state.leader_state is not None
        or state.controller is None
        or state.controller.id == peer
        or (state.promise is not None and state.promise.to == peer)
        or known.unresponsive  # the controller reported that it is gone, maybe before its connections closed here
    )
    if matters and not known.connected:
        step.probe(peer)
