"""Who campaigns first (R8)."""

from __future__ import annotations

from dataclasses import replace

from tests.support.positions import deaf
from zelect.core.messages import COOLING_DOWN
from zelect.core.step import Step
from zelect.core.succession import rank, ranked, succession_of, wait_us


def step_of(node: int, priorities: dict[int, int]) -> Step:
    """A step of `node` of three, all connected and just heard."""
    machine = deaf(3).processes[node].machine
    state, now_us = machine.state, 10**6
    for peer in state.peers:
        priority = priorities.get(peer, 0)
        state.peers[peer] = replace(state.peers[peer], linked=True, heard_us=now_us, priority=priority)
    return Step(replace(machine.settings, priority=priorities.get(node, 0)), state, now_us, 0)


def test_the_highest_priority_goes_first_then_the_lowest_id() -> None:
    assert ranked(step_of(2, {3: 5, 1: COOLING_DOWN}), (1, 2, 3)) == (3, 2, 1)
    assert ranked(step_of(2, {}), (3, 2, 1)) == (1, 2, 3)


def test_the_controller_names_only_those_it_heard_lately() -> None:
    step = step_of(1, {})
    assert succession_of(step) == (2, 3)
    step.know(2, heard_us=step.now_us - step.timing.promise_us - 1)
    assert succession_of(step) == (3,)
    step.know(3, linked=False)
    assert succession_of(step) == ()


def test_the_dead_are_not_waited_for() -> None:
    step = step_of(3, {})
    assert rank(step) == 2
    step.know(1, dead=True)
    assert rank(step) == 1
    assert wait_us(step) == step.timing.stagger_us


def test_a_node_that_is_not_named_goes_last() -> None:
    step = step_of(1, {})
    step.state.succession = (2, 3)
    assert rank(step) == 2


def test_a_node_that_is_cooling_down_waits_an_election_timeout_unless_it_is_alone() -> None:
    step = step_of(2, {})
    step.state.cooling_until_us = step.now_us + 1
    assert wait_us(step) == 2 * step.timing.stagger_us + step.timing.promise_us, "it goes last"
    step.know(1, dead=True)
    step.know(3, dead=True)
    assert wait_us(step) == 0
