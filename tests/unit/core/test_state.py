"""What can be read off a node's state, and a copy of it."""

from __future__ import annotations

from dataclasses import fields, replace

from hypothesis import given
from hypothesis import strategies as st

from tests.support.positions import elected_of, pong
from tests.support.records import made_record
from zelect.core.lease import NEVER_US
from zelect.core.quorum import WITNESS, Witness
from zelect.core.state import Campaign, LeaderState, Peer, State, clone

WHEN = st.integers(-1, 5)
PEERS = st.builds(
    Peer,
    incarnation=st.integers(0, 3),
    heard_us=WHEN,
    priority=st.integers(0, 2),
    linked=st.booleans(),
    linked_us=WHEN,
    dead=st.booleans(),
    epoch=st.integers(0, 2),
    offline=st.booleans(),
    unresponsive=st.booleans(),
)


def active_state() -> State:
    world = elected_of(3)
    world.feed(1, pong(world, 2))
    assert world.state(1).active(world.now_us)
    state: State = world.state(1)
    return state


@given(PEERS, st.integers(0, 9))
def test_a_peer_that_was_heard_is_what_replace_would_make_of_it(peer: Peer, now_us: int) -> None:
    plain = replace(peer, heard_us=now_us, unresponsive=False, dead=peer.dead and not peer.linked)
    assert peer.heard(now_us) == plain


def test_active_is_a_deadline() -> None:
    state = active_state()
    leader_state = state.leader_state
    assert leader_state is not None
    assert state.active(leader_state.lease_lapses_us - 1)
    assert not state.active(leader_state.lease_lapses_us)
    leader_state.quorum_lost_us = leader_state.renewed_us + 1
    assert not state.active(0)
    assert leader_state.lease is None


def test_a_quorum_of_connections_counts_the_witness_only_while_it_is_up() -> None:
    state = active_state()
    state.saved = replace(state.saved, record=made_record(1, 1, (1, 2), Witness("k", "r", "i")))
    state.peers = {2: Peer(linked=False), 3: Peer(linked=True)}
    assert not state.linked_to_quorum(), "node 3 is no voter"
    assert state.connected() == {1, 3}
    state.witness_ready = state.witness_same = True
    assert state.linked_to_quorum()
    assert WITNESS in state.connected()
    state.witness_same = False
    assert not state.linked_to_quorum()


def test_a_node_that_leaves_waits_for_nothing() -> None:
    state = active_state()
    state.leaving = True
    assert state.campaign_due_us() == NEVER_US


def test_a_clone_shares_nothing_that_can_change() -> None:
    state = active_state()
    state.campaign = Campaign(True, 1, 2, state.reason, 0, 0, 0)
    copy = clone(state)
    assert copy == state
    for one, other in ((state, copy), (state.leader_state, copy.leader_state), (state.campaign, copy.campaign)):
        assert isinstance(one, State | LeaderState | Campaign)
        assert one is not other
        for item in fields(one):
            value = getattr(one, item.name)
            if isinstance(value, dict | set):
                assert getattr(other, item.name) is not value, item.name
