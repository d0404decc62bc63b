"""What is written out because it happens with every heartbeat says what its plain form says."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from tests.support.positions import elected_of, pong
from zelect.core.actors.voters import at_rest, health_of
from zelect.core.quorum import Record, Witness
from zelect.core.state import Peer, Reign
from zelect.core.step import Turn
from zelect.core.voters import next_change

LIVES = st.integers(0, 2)
WHEN = st.integers(-1, 5)
PEERS = st.builds(
    Peer,
    incarnation=st.integers(0, 3),
    heard_us=WHEN,
    priority=st.integers(0, 2),
    linked=st.booleans(),
    linked_us=WHEN,
    dead=st.booleans(),
    life=LIVES,
    offline=st.booleans(),
    silent=st.booleans(),
)
IN_PLAIN_ORDER = Peer(incarnation=1, heard_us=1, linked=True, linked_us=0, life=1)


@given(PEERS, st.integers(0, 9))
def test_a_peer_that_was_heard(peer: Peer, now_us: int) -> None:
    plain = replace(peer, heard_us=now_us, silent=False, dead=peer.dead and not peer.linked)
    assert peer.heard(now_us) == plain


@given(
    st.lists(PEERS | st.just(IN_PLAIN_ORDER), min_size=2, max_size=2),
    st.lists(LIVES, min_size=3, max_size=3),
    st.sampled_from([(1, 2, 3), (1, 2), (1, 3)]),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
def test_at_rest_means_that_no_change_is_due(
    peers: list[Peer], lives: list[int], members: tuple[int, ...], witness: bool, ready: bool, dynamic: bool
) -> None:
    turn, reign = _office()
    state = turn.state
    turn.settings = replace(turn.settings, quorum="dynamic" if dynamic else "static")
    state.peers = {2: peers[0], 3: peers[1]}
    state.witness_ready = ready
    identity = Witness("k", "r", "i") if witness else None
    state.saved = replace(state.saved, record=Record(1, 1, members, identity, 0, tuple(lives[: len(members)])))
    if at_rest(turn):
        assert next_change(state.record, health_of(turn, reign), dynamic) is None


def test_a_cluster_in_plain_order_is_at_rest() -> None:
    turn, _ = _office()
    turn.state.peers = dict.fromkeys((2, 3), IN_PLAIN_ORDER)
    assert not at_rest(turn), "their lives are to be named"
    turn.state.saved = replace(turn.state.saved, record=Record(1, 1, (1, 2, 3), lives=(7, 1, 1)))
    assert at_rest(turn)


def _office() -> tuple[Turn, Reign]:
    """A step of node 1 in office."""
    world = elected_of(3)
    world.feed(1, pong(world, 2))
    machine = world.lives[1].machine
    reign = machine.state.reign
    assert reign is not None
    assert reign.entered_us
    return Turn(machine.settings, machine.state, world.now_us, machine.state.saved, 0), reign
