"""Jobs and health: a leadership is handed over once its job has ended (R6); who is healthy goes first (R8)."""

from __future__ import annotations

from typing import Any

from tests.support.positions import sent_by, step
from tools.simulator.small_world import World, packet
from zelect.core.effects import Effects
from zelect.core.events import HealthChanged, JobEnded, Leave, Tick
from zelect.core.messages import UNHEALTHY, Handover, NodeOnline, Ping, Pong, Reason, Refusal, Voting, VotResp
from zelect.core.timing import Timing

LEASE_US, PROMISE_US = Timing().lease_us, Timing().promise_us


def settled(nodes: int = 3, **options: Any) -> World:
    """Node 1 is active, and has been for longer than an election timeout."""
    world = World(nodes, **options)
    world.start()
    world.run_until(lambda: world.controller() == 1)
    world.run(1000)
    return world


def higher_term(world: World) -> Effects:
    """Node 1 hears of a term above its own."""
    return step(world, 1, packet(world, 3, Pong(1, 0, (0, 0, 0), 0, 1), world.state(1).term + 1))


def asks(world: World, term: int) -> Effects:
    """Node 3 asks node 1 for its vote."""
    question = Voting(False, 9, term, world.state(1).record, Reason.TIMEOUT, 1, 1)
    return step(world, 1, packet(world, 3, question, world.state(1).term))


# -- a guarded leadership (R6) ----------------------------------------------------------------------


def test_r6_a_guarded_leadership_is_handed_over_once_its_job_has_ended() -> None:
    world = settled(guarded=True)
    machine, term = world.processes[1].machine, world.state(1).term
    effects = higher_term(world)
    assert not machine.active(world.now_us)
    assert sent_by(effects, Handover) == [], "the job still acts"
    assert machine.pending_handover_term == term
    effects = step(world, 1, JobEnded())
    assert sent_by(effects, Handover) == [Handover(term, 1)] * 2
    assert machine.pending_handover_term == 0
    assert not step(world, 1, JobEnded()).send, "said once"


def test_r6_the_own_promise_binds_until_the_job_has_ended() -> None:
    """Three nodes: the lease may rest on nodes 1 and 2, so node 1's vote for 3 would be enough."""
    world = settled(guarded=True)
    higher_term(world)
    term = world.state(1).term
    (answer,) = sent_by(asks(world, term), VotResp)
    assert (answer.granted, answer.reason) == (False, Refusal.PROMISED)
    assert 0 < answer.wait_us <= PROMISE_US
    (answer,) = sent_by(step(world, 1, JobEnded()), VotResp)
    assert answer.granted, "the request that waited is answered again"


def test_r6_the_own_promise_outlasts_a_lease_that_lapsed() -> None:
    world = settled(guarded=True)
    lapses_us = world.state(1).leader_state.lease_lapses_us
    effects = step(world, 1, Tick(), lapses_us - world.now_us)
    assert world.processes[1].machine.pending_handover_term
    assert not sent_by(effects, Handover)
    promise = world.state(1).promise
    assert promise.to == 1
    assert promise.until_us >= lapses_us


def test_r6_an_unguarded_leadership_is_handed_over_at_once() -> None:
    world = settled()
    effects = higher_term(world)
    assert sent_by(effects, Handover) == [Handover(world.state(1).term - 1, 1)] * 2
    assert world.state(1).promise is None
    assert world.processes[1].machine.pending_handover_term == 0


def test_r6_who_leaves_has_ended_its_job() -> None:
    world = settled(guarded=True)
    term = world.state(1).term
    effects = step(world, 1, Leave())
    assert sent_by(effects, Handover) == [Handover(term, 2)] * 2
    assert effects.leave


def test_r6_leadership_never_entered_has_no_job() -> None:
    world = World(3, guarded=True)
    for other in (2, 3):
        world.cut(other, 1, one_way=True)
    world.start()
    world.run(3000)
    assert world.processes[1].machine.pending_handover_term == 0
    assert not step(world, 1, JobEnded()).send


# -- health (R8) --------------------------------------------------------------------------------


def test_r8_an_unhealthy_controller_hands_over_to_the_first_that_is_well() -> None:
    world = settled(priorities={1: 10, 2: 5})
    world.feed(2, HealthChanged(False))
    world.run(300)  # a heartbeat asks, the answer tells
    term = world.state(1).term
    world.feed(1, HealthChanged(False))
    took_ms = world.run_until(lambda: world.controller() == 3)
    assert took_ms < 50, "no promise to wait for"
    (left,) = world.happened("stopped_being_active", 1)
    assert left.details == {"term": term, "why": "unhealthy", "lease_ended_ms_ago": 0}
    world.run(3000)
    assert world.controller() == 3
    world.feed(1, HealthChanged(True))
    world.run(3000)
    assert world.controller() == 3, "one that is well again never preempts"


def test_r8_a_guarded_unhealthy_controller_hands_over_when_its_job_has_ended() -> None:
    world = settled(guarded=True)
    effects = step(world, 1, HealthChanged(False))
    assert not sent_by(effects, Handover)
    assert sent_by(step(world, 1, JobEnded()), Handover) == [Handover(world.state(1).term, 2)] * 2


def test_l1_where_all_are_unhealthy_the_controller_stays() -> None:
    world = settled()
    for node in (2, 3, 1):
        world.feed(node, HealthChanged(False))
        world.run(300)
    world.run(3000)
    assert world.controller() == 1
    world.feed(3, HealthChanged(True))
    world.run_until(lambda: world.controller() == 3)


def test_l1_an_unhealthy_node_is_elected_where_nobody_else_can() -> None:
    world = settled(priorities={3: 10})
    world.feed(2, HealthChanged(False))
    world.run(300)
    world.kill(1)
    world.run_until(lambda: world.controller() == 3)
    world.run(3000)
    world.kill(3)
    world.run_until(lambda: world.controller() == 2, 10_000)


def test_r8_one_that_comes_unhealthy_into_leadership_gives_the_others_time_to_be_heard() -> None:
    world = World(3)
    world.start(1, 2)
    for node in (1, 2):
        world.feed(node, HealthChanged(False))
    world.run_until(lambda: world.controller() == 1)
    world.feed(2, HealthChanged(True))
    world.run(PROMISE_US / 2000)
    assert world.controller() == 1
    world.run_until(lambda: world.controller() == 2)


def test_r8_health_is_told_by_the_priority() -> None:
    world = settled(priorities={2: 7})
    assert [m.priority for m in sent_by(step(world, 2, _ping(world)), Pong)] == [7]
    step(world, 2, HealthChanged(False))
    assert [m.priority for m in sent_by(step(world, 2, _ping(world)), Pong)] == [UNHEALTHY]
    assert NodeOnline("tcp://127.0.0.1:7102", UNHEALTHY, 1).priority == UNHEALTHY


def _ping(world: World) -> Any:
    leader_state = world.state(1).leader_state
    return packet(world, 1, Ping(leader_state.number, True, world.state(1).record, (2, 3)))
