"""Cases that no rule is about, and that still have one right answer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.support.positions import deaf, elected_of, pong, pre_candidate_of, sent_by, step
from tests.support.records import made_record
from tools.simulator.small_world import MS, World, leadership_of, packet
from zelect.core.actors.leadership import keep
from zelect.core.actors.voters import manage, witness_state
from zelect.core.events import HealthChanged, JobEnded, Leave, LinkDown, LinkUp, NamedProcess, Tick, WitnessVoted
from zelect.core.lease import NEVER_US
from zelect.core.messages import (
    CommonResp,
    Handover,
    NodeOnline,
    NodeOnlineResp,
    Ping,
    Pong,
    Reason,
    Refusal,
    Reset,
    Result,
)
from zelect.core.quorum import WITNESS, Witness
from zelect.core.state import PendingHandover, Promise, Role, Status
from zelect.core.step import Step
from zelect.core.transitions import adopt_record, become_follower, publish_self, step_down

IDENTITY = Witness("k", "r", "i")


def active() -> World:
    world = elected_of(3)
    world.feed(1, pong(world, 2))
    assert world.state(1).active(world.now_us)
    return world


def step_of(world: World, node: int = 1) -> Step:
    machine = world.processes[node].machine
    return Step(machine.settings, machine.state, world.now_us, 0)


def names(effects: Any) -> list[str]:
    return [fact.name for fact in effects.facts]


def test_the_same_health_is_no_news() -> None:
    assert names(step(active(), 1, HealthChanged(True))) == []


def test_a_job_that_ended_leaves_a_promise_to_another_alone() -> None:
    world = deaf(3)
    world.state(1).promise = promise = Promise(2, 1, 1, world.now_us + 1000)
    world.state(1).pending_handover = PendingHandover(Handover(1, 2), world.now_us)
    assert "leadership_vacated" in names(step(world, 1, JobEnded()))
    assert world.state(1).promise == promise


def test_a_ping_that_was_sent_before_the_sender_left_is_not_answered() -> None:
    world = deaf(3)
    heard = packet(world, 2, Ping(1, True, world.state(2).record, (1, 3)), 1)
    step(world, 1, heard)
    world.state(1).peers[2] = replace(world.state(1).peers[2], offline=True)
    assert sent_by(step(world, 1, heard), Pong) == []


def test_between_two_rounds_an_elected_node_sends_nothing() -> None:
    turn = step_of(active())
    keep(turn)
    assert turn.outbox == []


def test_a_node_that_leaves_greets_nobody_publishes_nothing_and_leaves_once() -> None:
    world = deaf(3)
    step(world, 1, Leave())
    assert step(world, 1, LinkUp(2)).send == ()
    assert step(world, 1, Leave()).facts == ()
    turn = step_of(world)
    publish_self(turn)
    assert turn.intents == []


def test_a_peer_is_where_it_says() -> None:
    world = deaf(3)
    effects = step(world, 1, packet(world, 2, NodeOnline("tcp://elsewhere:1", 0, 2)))
    assert "address_learned" in names(effects)
    assert effects.connect is not None
    assert dict(effects.connect)[2] == "tcp://elsewhere:1"
    assert sent_by(effects, NodeOnlineResp)
    assert not world.state(1).peers[2].linked, "not there yet"


def test_the_controller_records_where_a_peer_is() -> None:
    world = leadership_of(1)
    effects = step(world, 1, packet(world, 2, NodeOnline("tcp://elsewhere:1", 0, 2)))
    assert effects.save is not None
    assert dict(effects.save.record.addresses)[2] == "tcp://elsewhere:1"
    assert effects.save.record.voters == (1, 2, 3)


def test_a_record_that_says_nothing_new_of_an_address_leaves_it_as_it_was_learned() -> None:
    world = leadership_of(1)
    step(world, 2, packet(world, 3, NodeOnline("tcp://elsewhere:1", 0, 3)))
    turn = step_of(world, 2)
    adopt_record(turn, world.state(2).record.with_address(1, "tcp://other:1"))
    assert (world.state(2).addresses[3], world.state(2).addresses[1]) == ("tcp://elsewhere:1", "tcp://other:1")


def test_a_hint_who_leads_does_not_delay_a_node_that_is_not_voting() -> None:
    world = deaf(3)
    state = world.state(1)
    state.status, state.reason, state.attempts, before_us = Status.IDENTIFYING, Reason.START, 0, state.campaign_at_us
    step(world, 1, packet(world, 2, NodeOnlineResp(3, 1, state.record), state.term))
    assert (state.campaign_at_us, state.attempts) == (before_us, 0)


def test_a_connection_to_somebody_else_says_nothing() -> None:
    """It closes after a member was removed, or opens before one is known."""
    world = deaf(3)
    for event in (LinkUp(9), LinkDown(9)):
        effects = step(world, 1, event)
        assert (effects.facts, effects.send, effects.probe) == ((), (), ())


def test_a_complaint_ends_when_the_peer_takes_messages_again() -> None:
    world = deaf(3)
    step(world, 1, packet(world, 2, CommonResp(6, Result.TERM_JUMP, "elsewhere")))
    assert world.state(1).peers[2].complaint == "term_jump: elsewhere"
    step(world, 1, packet(world, 2, NodeOnlineResp(0, 0, world.state(2).record)))
    assert world.state(1).peers[2].complaint == ""


def test_a_node_that_hears_nothing_from_redis_votes_after_one_election_timeout() -> None:
    world = deaf(3)
    state = world.state(1)
    state.status = Status.STARTING
    waits_us = state.identify_until_us = world.now_us + 1000
    assert names(step(world, 1, Tick(), waits_us - world.now_us - 1)) == []
    assert names(step(world, 1, Tick(), waits_us - world.now_us))[:1] == ["status_changed"]
    assert state.status is Status.VOTING


def test_an_ok_is_not_noted() -> None:
    world = deaf(3)
    assert names(step(world, 1, packet(world, 2, CommonResp(0, Result.OK, "")))) == []


def with_witness() -> World:
    """Node 1 asks for a pre-vote, with a witness among the voters."""
    world = pre_candidate_of(3)
    state = world.state(1)
    state.saved = replace(state.saved, record=made_record(0, 1, (1, 2, 3), IDENTITY))
    return world


def test_a_witness_with_a_newer_term_ends_the_campaign() -> None:
    world = with_witness()
    step(world, 1, WitnessVoted(True, 1, Refusal.OLD_TERM, 7))
    assert (world.state(1).term, world.state(1).role) == (7, Role.FOLLOWER)


def test_an_answer_of_the_witness_to_an_earlier_round_is_ignored() -> None:
    world = with_witness()
    assert names(step(world, 1, WitnessVoted(False, 99, None, 0))) == ["stale_answer_ignored"]


def test_a_controller_that_the_witness_names_and_this_node_does_not_know_is_waited_for() -> None:
    world = with_witness()
    campaign = world.state(1).campaign
    assert campaign is not None
    campaign.witness_asked = True
    step(world, 1, WitnessVoted(True, campaign.round, None, 0, (NamedProcess(99, 1, 5),)))
    answers = world.state(1).campaign.answers
    assert answers[WITNESS].until_us == world.now_us + world.settings[1].timing.promise_us


@pytest.mark.parametrize(
    ("named", "many", "waits_ms"),
    [
        ((), False, 0),
        ((NamedProcess(1, 1, 5),), False, 0),
        ((NamedProcess(2, 2, 5),), False, 500),
        ((NamedProcess(2, 2, 5, 800), NamedProcess(3, 3, 4)), False, 800),
        ((), True, 500),
        ((NamedProcess(1, 1, 5),), True, 500),
    ],
)
def test_everybody_whom_the_witness_names_is_waited_for(
    named: tuple[NamedProcess, ...], many: bool, waits_ms: int
) -> None:
    """The longest of their election timeouts, which may be another one than this node's (R7b, R12)."""
    world = with_witness()
    campaign = world.state(1).campaign
    campaign.witness_asked = True
    step(world, 1, WitnessVoted(True, campaign.round, None, 0, named, many))
    until_us = world.state(1).campaign.answers[WITNESS].until_us
    assert until_us == (world.now_us + waits_ms * MS if waits_ms else 0)


def test_nothing_is_changed_before_the_node_is_active() -> None:
    world = elected_of(3)
    state = world.state(1)
    before = state.record
    state.peers[3] = replace(state.peers[3], epoch=33)
    turn = step_of(world)
    manage(turn)
    assert (state.record, turn.outbox) == (before, [])


def test_the_witness_in_a_word() -> None:
    state = deaf(3).state(1)
    assert (witness_state(state, False), witness_state(state, True)) == ("unused", "unreachable")
    state.witness_ready = True
    assert witness_state(state, True) == "ready"
    state.saved = replace(state.saved, record=made_record(0, 1, (1, 2, 3), IDENTITY))
    assert witness_state(state, True) == "unrecognized"
    state.witness_same = True
    assert witness_state(state, True) == "member"


def test_a_reset_that_leaves_no_place_for_another_is_refused() -> None:
    for generation, result in ((2**48, Result.OK), (2**48 + 1, Result.FORBIDDEN)):
        world = deaf(3)
        answer = step(world, 1, packet(world, 1, Reset(made_record(0, 2, (1,), None, generation), False))).answer
        assert isinstance(answer, CommonResp)
        assert answer.result is result


def test_a_node_outside_the_new_voters_may_be_told_twice_of_a_reset() -> None:
    world = deaf(3)
    record = made_record(0, 2, (1,), None, 3)
    for _ in range(2):
        answer = step(world, 3, packet(world, 3, Reset(record, False))).answer
        assert isinstance(answer, CommonResp)
        assert answer.result is Result.OK
    assert world.state(3).record == record


def test_a_machine_says_what_it_says_when_asked() -> None:
    world = active()
    machine = world.processes[1].machine
    status = machine.status(world.now_us)
    assert status.active
    assert status.voters.age == machine.state.record.id
    lease = machine.lease
    assert lease is not None
    assert lease.lapses_us == world.now_us + status.lease_left_us
    assert world.processes[2].machine.lease is None


def test_a_follower_that_takes_a_higher_term_gets_in_line_once() -> None:
    turn = step_of(deaf(3))
    state = turn.state
    state.status, state.campaign_at_us = Status.VOTING, NEVER_US
    become_follower(turn, state.term + 1)
    assert state.campaign_at_us < NEVER_US


def test_stepping_down_ends_no_promise_to_another() -> None:
    turn = step_of(elected_of(3))
    turn.state.promise = promise = Promise(2, 1, 1, turn.now_us + 1000)
    step_down(turn, "leaving")
    assert turn.state.promise == promise


def test_after_its_controller_was_lost_a_node_follows_no_second_one_of_that_term() -> None:
    """Its promise to the first one runs: a message that claims otherwise is a lie or a fault."""
    world = leadership_of(1)
    state = world.state(2)
    term, promise = state.term, state.promise
    state.controller = None
    effects = step(world, 2, packet(world, 3, Ping(1, True, state.record, ()), term))
    assert names(effects) == ["conflicting_controller_seen"]
    assert effects.send == ()
    assert state.promise == promise
