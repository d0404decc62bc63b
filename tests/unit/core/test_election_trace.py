"""What a candidate keeps for people who ask why it was, or was not, elected."""

from __future__ import annotations

from tests.support.positions import elected_of, pre_candidate_of, refusal, step
from tools.simulator.small_world import World, packet
from zelect.core.election_trace import MOST_ROUNDS, Vote
from zelect.core.messages import Query, Refusal
from zelect.core.status import NodeStatus


def test_a_first_election_is_a_pre_vote_and_a_vote() -> None:
    world = elected_of(3)
    rounds = world.state(1).leader_state.rounds
    assert [(one.term, one.pre, one.outcome) for one in rounds] == [(1, True, "won"), (1, False, "won")]
    assert [one.votes for one in rounds] == 2 * [(Vote(1, True, ""), Vote(2, True, ""))]
    assert all(one.began_us <= one.ended_us for one in rounds)
    assert world.state(1).rounds == (), "they belong to the leadership now"


def test_a_failed_round_keeps_every_refusal_with_its_reason() -> None:
    world = pre_candidate_of(3)
    for voter in (2, 3):
        world.feed(1, refusal(world, voter, Refusal.STALE_VOTERS))
    (failed,) = world.state(1).rounds
    assert (failed.pre, failed.outcome) == (True, "failed")
    assert failed.votes == (
        Vote(1, True, ""),
        Vote(2, False, "stale_voters"),
        Vote(3, False, "stale_voters"),
    )


def test_the_trace_counts_from_the_last_message_of_the_controller_before() -> None:
    world = World(3)
    world.start()
    world.run_until(lambda: world.controller() == 1)
    world.run(500)
    world.kill(1)
    world.run_until(lambda: world.controller() == 2)
    head = 2
    trace = _asked(world, head).trace
    assert trace is not None
    assert 0 <= trace.heard_us <= trace.lost_us <= trace.rounds[0].began_us
    assert trace.rounds[-1].ended_us == trace.elected_us <= trace.active_since_us
    others = [_asked(world, node) for node in world.processes if node != head]
    assert [other.trace for other in others] == [None] * len(others), "only who is active has one"
    assert [other.rounds for other in others] == [()] * len(others), "who follows asked nothing since"


def test_only_the_newest_rounds_are_kept() -> None:
    world = pre_candidate_of(3)
    for _ in range(MOST_ROUNDS + 5):
        for voter in (2, 3):
            world.feed(1, refusal(world, voter, Refusal.STALE_VOTERS))
        world.run_until(lambda: world.state(1).campaign is not None)
    assert len(world.state(1).rounds) == MOST_ROUNDS


def _asked(world: World, node: int) -> NodeStatus:
    """What `node` says of itself."""
    view = step(world, node, packet(world, node, Query("status"), 0)).answer
    assert isinstance(view, NodeStatus)
    return view
