"""The quick answer that most heartbeats get is the one that the full question would give."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from tests.support.positions import elected_of, pong
from tests.support.records import made_record
from zelect.core.actors.voters import health_of, nothing_to_change
from zelect.core.quorum import Witness
from zelect.core.state import LeaderState, Peer
from zelect.core.step import Step
from zelect.core.voters import next_change

EPOCHS = st.integers(0, 2)
WHEN = st.integers(-1, 5)
PEERS = st.builds(
    Peer,
    incarnation=st.integers(0, 3),
    heard_us=WHEN,
    priority=st.integers(0, 2),
    linked=st.booleans(),
    linked_us=WHEN,
    dead=st.booleans(),
    epoch=EPOCHS,
    offline=st.booleans(),
    unresponsive=st.booleans(),
)
STEADY = Peer(incarnation=1, heard_us=1, linked=True, linked_us=0, epoch=1)


@given(
    st.lists(PEERS | st.just(STEADY), min_size=2, max_size=2),
    st.lists(EPOCHS, min_size=3, max_size=3),
    st.sampled_from([(1, 2, 3), (1, 2), (1, 3)]),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
def test_nothing_to_change_means_that_no_change_is_due(
    peers: list[Peer], epochs: list[int], members: tuple[int, ...], witness: bool, ready: bool, dynamic: bool
) -> None:
    step, leader_state = _active()
    state = step.state
    step.settings = replace(step.settings, quorum="dynamic" if dynamic else "static")
    state.peers = {2: peers[0], 3: peers[1]}
    state.witness_ready = ready
    identity = Witness("k", "r", "i") if witness else None
    state.saved = replace(state.saved, record=made_record(1, 1, members, identity, 0, tuple(epochs[: len(members)])))
    if nothing_to_change(step):
        assert next_change(state.record, health_of(step, leader_state), dynamic) is None


def test_a_complete_living_and_odd_cluster_has_nothing_to_change() -> None:
    step, _ = _active()
    step.state.peers = dict.fromkeys((2, 3), STEADY)
    assert not nothing_to_change(step), "their epochs are to be named"
    step.state.saved = replace(step.state.saved, record=made_record(1, 1, (1, 2, 3), epochs=(7, 1, 1)))
    assert nothing_to_change(step)


def _active() -> tuple[Step, LeaderState]:
    """A step of node 1 active."""
    world = elected_of(3)
    world.feed(1, pong(world, 2))
    machine = world.processes[1].machine
    leader_state = machine.state.leader_state
    assert leader_state is not None
    assert leader_state.active_since_us
    return Step(machine.settings, machine.state, world.now_us, 0), leader_state
