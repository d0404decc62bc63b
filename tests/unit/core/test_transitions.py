"""The only ways into leadership, and out of it: each refuses what its rule forbids."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.support.positions import elected_of, founder_of, pre_candidate_of
from tests.support.records import made_record
from tools.simulator.small_world import World
from zelect.core.invariants import RuleBroken
from zelect.core.quorum import NO_RECORD
from zelect.core.state import Campaign, KnownController, LeaderState, Promise, Role, VoteAnswer
from zelect.core.step import Step
from zelect.core.transitions import (
    accept_reset,
    acknowledge,
    adopt_record,
    become_active,
    become_candidate,
    become_elected,
    become_follower,
    follow,
    forget,
    leave_election,
    step_down,
)


def step_of(world: World) -> Step:
    machine = world.processes[1].machine
    return Step(machine.settings, machine.state, world.now_us, 0)


def pre_candidate() -> tuple[Step, Campaign]:
    step = step_of(pre_candidate_of(3))
    assert step.state.campaign is not None
    return step, step.state.campaign


def elected() -> tuple[Step, LeaderState]:
    step = step_of(elected_of(3))
    assert step.state.leader_state is not None
    return step, step.state.leader_state


def broken(rule: str, act: Callable[[], None]) -> None:
    with pytest.raises(RuleBroken, match=rf"^{rule}: "):
        act()


def test_a_vote_for_oneself_needs_a_pre_vote_no_promise_and_no_grace_period() -> None:
    step, campaign = pre_candidate()
    broken("R3", lambda: become_candidate(step, replace(campaign, pre=False)))
    step.state.promise = Promise(2, 1, 1, step.now_us + 1)
    broken("R3", lambda: become_candidate(step, campaign))
    step.state.promise, step.state.grace_until_us = None, step.now_us + 1
    broken("R4", lambda: become_candidate(step, campaign))
    step.state.grace_until_us = 0
    broken(
        "R16", lambda: become_candidate(step, replace(campaign, record=made_record(1, 1, (1, 2, 3), epochs=(99, 2, 3))))
    )
    broken("R16", lambda: become_candidate(step, replace(campaign, record=made_record(1, 1, (2, 3)))))


def test_a_founding_vote_for_oneself_binds_to_its_list() -> None:
    step = step_of(founder_of(3))
    campaign = step.state.campaign
    assert campaign is not None
    step.save(founding=((1, 1), (2, 9)))
    broken("R15", lambda: become_candidate(step, campaign))
    step.save(founding=((1, 1), (2, 2)))
    become_candidate(step, campaign)
    assert step.state.saved.founding == ((1, 1), (2, 2), (3, 3))


def test_a_win_needs_the_votes_of_a_quorum() -> None:
    step, campaign = pre_candidate()
    become_candidate(step, campaign)
    asked = step.state.campaign
    assert asked is not None
    broken("R2", lambda: become_elected(step, asked))
    asked.answers[2] = VoteAnswer(True, None, 0)
    become_elected(step, asked)
    assert step.state.role is Role.ELECTED


def test_a_founding_is_won_by_the_votes_of_all() -> None:
    step = step_of(founder_of(3))
    campaign = step.state.campaign
    assert campaign is not None
    become_candidate(step, campaign)
    asked = step.state.campaign
    assert asked is not None
    asked.answers[2] = VoteAnswer(True, None, 0, 2)
    broken("R2", lambda: become_elected(step, asked))
    asked.answers[3] = VoteAnswer(True, None, 0, 3)
    become_elected(step, asked)
    assert step.state.record == replace(asked.record, config_term=1, version=1)


def test_the_votes_for_another_record_elect_nobody() -> None:
    step, campaign = pre_candidate()
    become_candidate(step, campaign)
    asked = step.state.campaign
    assert asked is not None
    asked.answers[2] = VoteAnswer(True, None, 0)
    broken("R10", lambda: become_elected(step, replace(asked, record=replace(asked.record, version=9))))
    proposed = replace(asked, record=replace(asked.record, version=0))
    proposed.answers[3] = VoteAnswer(True, None, 0)
    broken("R15", lambda: become_elected(step, proposed))


def test_active_needs_a_saved_record_and_no_earlier_promise() -> None:
    step, leader_state = elected()
    broken("R7", lambda: become_active(step, leader_state))
    leader_state.saved_by[2] = step.state.record.id
    leader_state.promises_end_us = step.now_us + 1
    broken("R7", lambda: become_active(step, leader_state))
    leader_state.promises_end_us = 0
    broken("R5", lambda: become_active(step, leader_state))  # nobody has answered a PING yet


def test_only_the_controller_of_the_present_term_is_followed() -> None:
    step, _ = pre_candidate()
    for other in (KnownController(2, 1, step.state.term + 1), KnownController(1, 1, step.state.term)):
        broken("R3", lambda unknown=other: follow(step, unknown, ()))  # type: ignore[misc]


def test_only_a_higher_term_is_adopted() -> None:
    step, _ = pre_candidate()
    broken("R1", lambda: become_follower(step, step.state.term))


def test_nobody_steps_down_twice() -> None:
    step, _ = elected()
    step_down(step, "leaving")
    assert (step.state.role, step.state.leader_state) == (Role.FOLLOWER, None)
    broken("R6", lambda: step_down(step, "leaving"))


def test_an_older_record_is_not_taken() -> None:
    step, _ = elected()
    record = step.state.record
    adopt_record(step, replace(record, version=record.version - 1))
    assert step.state.record is record


def test_a_record_of_another_cluster_is_not_taken() -> None:
    step, _ = elected()
    record = step.state.record
    adopt_record(step, replace(record, version=record.version + 9, cluster_id=99))
    assert step.state.record is record


def test_a_record_is_taken_with_its_term() -> None:
    """In an older term the node could vote for a second controller of that term (R10)."""
    step, _ = pre_candidate()
    record = replace(step.state.record, config_term=7)
    adopt_record(step, record)
    assert (step.state.record, step.state.term, step.state.saved.voted_for) == (record, 7, 0)
    assert (step.state.role, step.state.campaign) == (Role.FOLLOWER, None)


def test_who_acknowledges_a_controller_has_voted_for_it_unless_it_voted_before() -> None:
    step, _ = pre_candidate()
    step.save(term=4)
    acknowledge(step, KnownController(3, 1, 5))
    assert step.state.saved.voted_for == 0, "that is another term"
    acknowledge(step, KnownController(3, 1, 4))
    assert (step.state.saved.voted_for, step.state.saved.voted_epoch) == (3, 3)
    acknowledge(step, KnownController(2, 1, 4))
    assert step.state.saved.voted_for == 3


def test_a_storage_epoch_only_grows() -> None:
    step, _ = elected()
    epoch = step.state.saved.epoch
    for other in (epoch, epoch - 1):
        broken("R16", lambda older=other: forget(step, older))  # type: ignore[misc]
    term = step.state.term
    forget(step, epoch + 5)
    saved = step.state.saved
    assert (saved.record, saved.epoch, saved.term, saved.voted_for) == (NO_RECORD, epoch + 5, term, 1)
    assert (step.state.role, step.state.saves, step.state.is_new) == (Role.FOLLOWER, 0, True)


def test_a_reset_ends_a_leadership_and_names_new_voters() -> None:
    step, _ = elected()
    forced = made_record(0, 9, (1,), None, 5)
    accept_reset(step, forced)
    assert (step.state.record, step.state.leader_state, step.state.controller) == (forced, None, None)


def test_a_node_that_leaves_takes_no_more_part() -> None:
    step, _ = pre_candidate()
    leave_election(step)
    assert (step.state.role, step.state.campaign, step.state.leaving) == (Role.FOLLOWER, None, True)
