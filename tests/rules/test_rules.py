"""The rules of the election, one sentence a test; each fails when its rule is broken on purpose."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from tests.support.positions import (
    Watched,
    both_close,
    deaf,
    elected_of,
    grant,
    numbered,
    pong,
    pre_candidate_of,
    refusal,
    sent_by,
    step,
)
from tests.support.records import made_record
from tools.simulator.small_world import MS, World, leadership_of, packet
from zelect.core.effects import Effects, PublishController, Saved, WithdrawController, WitnessPing
from zelect.core.events import (
    ControllerHint,
    DeathProven,
    Event,
    Evidence,
    LinkDown,
    LinkUp,
    MessageReceived,
    NamedProcess,
    PriorityChanged,
    Tick,
    WitnessVoted,
)
from zelect.core.invariants import RuleBroken, check
from zelect.core.messages import (
    Envelope,
    Handover,
    NodeOffline,
    NodeOnlineResp,
    Ping,
    Pong,
    Reason,
    Refusal,
    Voting,
    VotResp,
)
from zelect.core.quorum import Witness
from zelect.core.state import Role, State, clone
from zelect.core.step import Step
from zelect.core.succession import jitter_us
from zelect.core.timing import MAX_TERM, Timing

PROMISE_US = Timing().promise_us
LEASE_US = Timing().lease_us
HEARTBEAT_US = Timing().heartbeat_us
STAGGER_US = Timing().stagger_us


def _ask(world: World, candidate: int, *, term: int, pre: bool = False, voter: int = 2) -> MessageReceived:
    """A request of `candidate`, which has the record that `voter` has."""
    question = Voting(pre, 1, term, world.state(voter).record, Reason.TIMEOUT, 0, 0)
    return packet(world, candidate, question, None if pre else term)


def _answer(effects: Effects) -> VotResp:
    (answer,) = sent_by(effects, VotResp)
    assert isinstance(answer, VotResp)
    return answer


def _until_active(world: World, node: int) -> float:
    """How many milliseconds it takes until `node` is active."""
    return world.run_until(lambda: world.controller() == node)


def _turn(world: World, node: int) -> Step:
    """A step that has not begun, for changes that no message can cause."""
    machine = world.processes[node].machine
    return Step(machine.settings, machine.state, world.now_us, 0)


# -- R1: save, then speak ----------------------------------------------------------------------------


def test_r1_effects_are_carried_out_from_save_over_send_and_witness_to_publish() -> None:
    names = [item.name for item in fields(Effects)]
    assert names[:5] == ["save", "connect", "send", "witness", "publish"]


@pytest.fixture(scope="module")
def eventful() -> Watched:
    """Five nodes through most of what can happen to them, each step kept."""
    world = Watched(5, seed=7, loss=0.02, duplicates=0.05)
    world.start()
    world.run(2000)
    for n in (1, 3, 2):
        world.kill(n)
        world.run(1500)
        world.start(n)
        world.run(2500)
    for a in (1, 2):
        for b in (3, 4, 5):
            world.cut(a, b)
    world.run(1500)
    world.heal()
    world.run(1500)
    world.freeze(4)
    world.run(3000)
    world.thaw(4)
    world.run(1000)
    world.leave(world.controller() or 5)
    world.run(3000)
    assert len({e.details["term"] for e in world.happened("became_active")}) >= 4, "enough has happened"
    return world


def test_r1_whatever_durable_changed_is_to_be_saved_before_anything_is_said(eventful: Watched) -> None:
    """Each message carries the term on disk at the moment it leaves, and speaks of no newer record."""
    disks: dict[int, Saved] = {}
    for node, at_us, effects in eventful.steps:
        if effects.save is not None:
            assert effects.save != disks.get(node), "saved without need"
            disks[node] = effects.save
        for _, envelope in effects.send:
            if node not in disks or envelope.incarnation != disks[node].incarnation:
                continue  # what a new process found on its disk has not changed yet
            assert envelope.term == disks[node].term, f"n{node} at {at_us}"
            message = envelope.message
            if isinstance(message, Ping) and message.record is not None:
                assert message.record.id <= disks[node].record.id
            if isinstance(message, Pong):
                assert message.record_id <= disks[node].record.id
    for node, process in eventful.processes.items():
        assert eventful.disks[node] == process.machine.state.saved


def test_r1_a_vote_is_saved_in_the_step_that_grants_it() -> None:
    world = deaf(3)
    world.run(5)
    effects = step(world, 2, _ask(world, 3, term=4))
    assert _answer(effects).granted
    assert effects.save is not None
    assert (effects.save.term, effects.save.voted_for) == (4, 3)


def test_r1_a_candidates_own_vote_is_saved_in_the_step_that_asks_for_others() -> None:
    world = pre_candidate_of(3)
    effects = step(world, 1, grant(world, 2))
    assert sent_by(effects, Voting)
    assert effects.save is not None
    assert (effects.save.term, effects.save.voted_for) == (1, 1)


def test_r1_a_newer_record_is_saved_in_the_step_that_answers_for_it() -> None:
    world = leadership_of(1)
    newer = replace(world.state(1).record, version=99)
    effects = step(world, 2, packet(world, 1, Ping(1000, True, newer, (2, 3))))
    (answer,) = sent_by(effects, Pong)
    assert effects.save is not None
    assert effects.save.record == newer
    assert answer.record_id == newer.id


@pytest.mark.parametrize(("term", "rule"), [(0, "R1:"), (MAX_TERM + 1, "R14:")])
def test_r1_a_term_that_falls_or_overflows_ends_the_node(term: int, rule: str) -> None:
    world = leadership_of(1)
    step = _turn(world, 2)
    step.save(term=term)
    with pytest.raises(RuleBroken, match=f"^{rule}"):
        check(step)


def _may_vote(world: World, node: int) -> bool:
    state = world.state(node)
    return bool(state.may_vote(state.record))


def test_r16_a_node_without_its_data_neither_votes_nor_campaigns_until_it_was_taken_out_and_in() -> None:
    world = World(3)
    world.redis.up = world.registry_up = False
    world.start()
    world.run_until(lambda: world.controller() == 1)
    world.run(500)
    world.kill(1, 3)
    again_us = world.now_us
    world.start(3, forget=True)
    world.run(5000)
    assert world.controller() is None, "node 2 needs a vote that node 3 may have given already"
    since = [e for e in world.history if e.at_us >= again_us and e.node == 3]
    assert not {e.name for e in since} & {"vote_granted", "campaign_began"}
    refused = [e.details["reason"] for e in since if e.name == "vote_refused"]
    assert refused
    assert set(refused) == {"lost_state"}
    world.start(1)
    world.run_until(lambda: world.controller() is not None and _may_vote(world, 3))
    members = [e.details["members"] for e in world.happened("voters_changed")]
    assert members[-2:] == [(1, 2), (1, 2, 3)], "the old epoch goes out before the new one comes in"
    assert world.state(1).record.epoch_of(3) == world.state(3).saved.epoch > 3


# -- R2: one vote ------------------------------------------------------------------------------------


def test_r2_a_second_candidate_of_the_term_is_refused() -> None:
    world = deaf(3)
    world.run(5)
    assert _answer(step(world, 2, _ask(world, 3, term=4))).granted
    answer = _answer(step(world, 2, _ask(world, 1, term=4)))
    assert (answer.granted, answer.reason) == (False, Refusal.VOTED)
    assert world.state(2).saved.voted_for == 3


def test_r2_the_same_candidate_is_told_again_what_it_was_told() -> None:
    world = deaf(3)
    world.run(5)
    answers = [_answer(step(world, 2, _ask(world, 3, term=4))) for _ in range(3)]
    assert [answer.granted for answer in answers] == [True] * 3


def test_r2_a_vote_is_remembered_over_a_restart() -> None:
    world = deaf(3)
    world.run(5)
    world.feed(2, _ask(world, 3, term=4))
    world.kill(2)
    world.start(2)
    world.run(PROMISE_US / MS + 1)
    answer = _answer(step(world, 2, _ask(world, 1, term=4)))
    assert (answer.granted, answer.reason) == (False, Refusal.VOTED)


def test_r2_a_candidate_that_voted_for_itself_votes_for_nobody_else_in_the_term() -> None:
    world = pre_candidate_of(3)
    world.feed(1, grant(world, 2))
    assert world.state(1).role is Role.CANDIDATE
    answer = _answer(step(world, 1, _ask(world, 3, term=1, voter=1)))
    assert (answer.granted, answer.reason) == (False, Refusal.VOTED)


def test_r2_a_duplicated_answer_counts_once_of_five() -> None:
    """With three nodes, a count of messages instead of voters would go unnoticed."""
    world = pre_candidate_of(5)
    for _ in range(4):
        world.feed(1, grant(world, 2))
    assert world.state(1).role is Role.PRE_CANDIDATE
    world.feed(1, grant(world, 3))
    assert world.state(1).role is Role.CANDIDATE
    for _ in range(4):
        world.feed(1, grant(world, 2))
    assert world.state(1).role is Role.CANDIDATE
    world.feed(1, grant(world, 3))
    assert world.state(1).role is Role.ELECTED


def test_r2_an_answer_to_another_question_does_not_count() -> None:
    world = pre_candidate_of(3)
    early = grant(world, 2)
    world.feed(1, early)
    assert world.state(1).role is Role.CANDIDATE
    campaign = world.state(1).campaign
    for pre, round_ in ((True, campaign.round), (False, campaign.round - 1), (False, campaign.round + 1)):
        world.feed(1, packet(world, 2, VotResp(pre, round_, True, None, 0, world.processes[2].incarnation, None), 1))
    world.feed(1, early)
    assert world.state(1).role is Role.CANDIDATE


@pytest.mark.parametrize("term", [0, 2])
def test_r2_a_grant_from_another_term_elects_nobody(term: int) -> None:
    world = pre_candidate_of(3)
    world.feed(1, grant(world, 2))
    heard = grant(world, 2)
    world.feed(1, MessageReceived(replace(heard.envelope, term=term)))
    assert world.state(1).role is not Role.ELECTED


def test_r2_a_node_that_is_no_voter_elects_nobody() -> None:
    world = World(3)
    voters = made_record(1, 5, (1, 2), epochs=(1, 2))
    world.disks = {n: Saved(1, 0, 0, voters, epoch=n) for n in (1, 2, 3)}
    for a in world.settings:
        for b in world.settings:
            world.cut(a, b)
    world.start()
    world.run_until(lambda: world.state(1).role is Role.PRE_CANDIDATE)
    for _ in range(3):
        world.feed(1, grant(world, 3))
    assert world.state(1).role is Role.PRE_CANDIDATE


def test_r2_a_vote_that_changes_within_its_term_ends_the_node() -> None:
    world = deaf(3)
    world.run(5)
    world.feed(2, _ask(world, 3, term=4))
    step = _turn(world, 2)
    step.save(voted_for=1)
    with pytest.raises(RuleBroken, match=r"^R2"):
        check(step)


def test_r2_in_no_term_two_are_elected(eventful: Watched) -> None:
    terms = [e.details["term"] for e in eventful.happened("elected")]
    assert len(terms) == len(set(terms))


# -- R3: pre-vote and promises -----------------------------------------------------------------------


def _but_for_hearing(state: State) -> dict[str, object]:
    """Everything that a node knows, except when it heard its peers and which vote requests wait."""
    copy = clone(state)
    return {
        item.name: getattr(copy, item.name) for item in fields(copy) if item.name not in ("peers", "waiting_requests")
    }


@pytest.mark.parametrize("term", [1, 2, 3, 1000])
@pytest.mark.parametrize("settled", [True, False])
def test_r3_a_pre_vote_changes_nothing_at_the_voter(settled: bool, term: int) -> None:
    world = leadership_of(1) if settled else deaf(3)
    world.run(5)
    machine = world.processes[2].machine
    before, due_us = _but_for_hearing(machine.state), machine.deadline_us()
    effects = step(world, 2, _ask(world, 3, term=term, pre=True))
    assert _answer(effects).granted is not settled
    assert effects.save is None
    assert _but_for_hearing(machine.state) == before
    assert machine.deadline_us() == due_us


def test_r3_a_pre_candidate_has_neither_raised_its_term_nor_voted() -> None:
    world = pre_candidate_of(3)
    assert (world.state(1).term, world.state(1).saved.voted_for) == (0, 0)
    world.run(3000)
    assert (world.state(1).term, world.state(1).saved.voted_for) == (0, 0), "an isolated node raises no term"


@pytest.mark.parametrize("pre", [True, False])
@pytest.mark.parametrize("candidate", [2, 3])
def test_r3_who_answered_a_ping_grants_nobody_else_a_vote(candidate: int, pre: bool) -> None:
    world = leadership_of(1)
    voter = 5 - candidate
    term = world.state(voter).term
    answer = _answer(step(world, voter, _ask(world, candidate, term=term + 1, pre=pre, voter=voter)))
    assert (answer.granted, answer.reason) == (False, Refusal.PROMISED)
    assert 0 < answer.wait_us <= PROMISE_US
    assert world.state(voter).term == term, "a request does not cut a voter off from its controller"


def test_r3_a_refusal_carries_the_voters_term() -> None:
    world = leadership_of(1)
    effects = step(world, 2, _ask(world, 3, term=world.state(2).term + 5))
    assert [envelope.term for _, envelope in effects.send] == [world.state(2).term]


def test_r3_a_promise_lasts_one_election_timeout_from_the_ping_on_the_voters_clock() -> None:
    world = leadership_of(1)
    world.feed(2, packet(world, 1, Ping(1000, True, world.state(1).record, (2, 3))))
    machine, term = world.processes[2].machine, world.state(2).term
    asked = _ask(world, 3, term=term + 1, pre=True)
    last, after = machine.step(asked, world.now_us + PROMISE_US - 1), machine.step(asked, world.now_us + PROMISE_US)
    assert (_answer(last).granted, _answer(last).wait_us) == (False, 1)
    assert sent_by(after, VotResp)[-1].granted


def _is_promised(world: World, voter: int = 2) -> bool:
    answer = _answer(step(world, voter, _ask(world, 3, term=world.state(voter).term + 1, pre=True, voter=voter)))
    assert answer.granted or answer.reason is Refusal.PROMISED
    return not answer.granted


def test_r3_proof_of_the_controllers_death_ends_the_promise_at_once() -> None:
    world = leadership_of(1)
    both_close(world, 2, 1)
    assert _is_promised(world), "a closed connection alone proves nothing"
    world.feed(2, DeathProven(1, world.processes[1].incarnation, Evidence.REFUSED))
    assert not _is_promised(world)


def test_r3_the_controllers_leave_ends_the_promise_at_once() -> None:
    world = leadership_of(1)
    world.feed(2, packet(world, 1, NodeOffline(1, world.processes[1].incarnation, "leave")))
    assert not _is_promised(world)


def test_r3_the_controllers_handover_ends_the_promise_at_once() -> None:
    world = leadership_of(1)
    world.feed(2, packet(world, 1, Handover(world.state(1).term, 3)))
    assert not _is_promised(world)


@pytest.mark.parametrize(
    "what",
    [
        "a connection closed",
        "somebody else's leave",
        "hearsay of its death",
        "hearsay of another controller",
        "a handover of somebody else",
        "a handover of an earlier term",
        "proof of an earlier process's death",
        "a graceful leave of an earlier process",
        "a word of Redis",
        "a late turn of the loop",
    ],
)
def test_r3_nothing_else_ends_a_promise_early(what: str) -> None:
    world = World(3, priorities={1: 10})
    world.start()
    world.run_until(lambda: world.controller() == 1)
    world.run(1000)
    world.kill(1)
    world.run(300)
    world.start(1)
    world.run(1500)
    world.leave(world.controller() or 0)
    world.run_until(lambda: world.controller() == 1)
    world.run(300)
    born, term = world.processes[1].incarnation, world.state(1).term
    world.start(2) if 2 not in world.processes else world.start(3)
    world.run(2000)
    assert term > 1, "there is an earlier term to speak of"
    record = world.state(2).record
    events: dict[str, Event] = {
        "a connection closed": LinkDown(1),
        "somebody else's leave": packet(world, 3, NodeOffline(3, world.processes[3].incarnation, "leave")),
        "hearsay of its death": packet(world, 3, NodeOffline(1, born, "refused")),
        "hearsay of another controller": packet(world, 3, NodeOnlineResp(3, term, record)),
        "a handover of somebody else": packet(world, 3, Handover(term, 3)),
        "a handover of an earlier term": packet(world, 1, Handover(term - 1, 3)),
        "proof of an earlier process's death": DeathProven(1, born - 1, Evidence.LOCK),
        "a graceful leave of an earlier process": packet(world, 1, NodeOffline(1, born - 1, "leave")),
        "a word of Redis": ControllerHint(3, term),
        "a late turn of the loop": Tick(late=True),
    }
    world.feed(2, events[what])
    assert _is_promised(world)


# -- R4: silence after a restart ---------------------------------------------------------------------


@pytest.mark.parametrize("pre", [True, False])
def test_r4_a_restarted_node_grants_nothing_for_one_election_timeout(pre: bool) -> None:
    world = deaf(3)
    world.run(50)
    world.kill(2)
    world.start(2)
    world.run(2)
    began_us = world.now_us - 2 * MS
    machine = world.processes[2].machine
    asked = _ask(world, 3, term=9, pre=pre)
    refused = _answer(machine.step(asked, began_us + PROMISE_US - 1))
    assert (refused.granted, refused.reason, refused.wait_us) == (False, Refusal.GRACE_PERIOD, 1)
    assert machine.state.term == 0
    assert _answer(machine.step(asked, began_us + PROMISE_US)).granted


def test_r4_restarted_nodes_do_not_campaign_for_one_election_timeout() -> None:
    world = World(3)
    world.start()
    world.run_until(lambda: world.controller() is not None)
    world.run(300)
    world.kill(1, 2, 3)
    world.start()
    again_us = world.now_us
    world.run_until(lambda: world.controller() is not None)
    began_us = [e.at_us for e in world.happened("campaign_began") if e.at_us >= again_us]
    assert min(began_us) >= again_us + PROMISE_US


def test_r4_a_vote_does_not_count_before_the_grace_period_is_over_though_the_node_follows() -> None:
    """What /ready waits for: an election that starts earlier can't count on this node."""
    world = leadership_of(1)
    state = world.state(3)
    assert state.votes(world.now_us)
    world.kill(3)
    world.start(3)
    began_us = world.now_us
    world.run_until(lambda: world.state(3).controller is not None)
    state = world.state(3)
    assert state.may_vote(state.record)
    assert not state.votes(world.now_us)
    world.run_until(lambda: world.state(3).votes(world.now_us))
    assert world.now_us >= began_us + PROMISE_US


def test_r4_a_node_that_never_ran_need_not_wait() -> None:
    world = World(3)
    world.start()
    assert world.run_until(lambda: world.controller() is not None) < 50


# -- R5: lease ---------------------------------------------------------------------------------------


def test_r5_authority_is_a_deadline_that_passes_without_any_event() -> None:
    world = leadership_of(1)
    machine = world.processes[1].machine
    lapses_us = machine.state.leader_state.lease_lapses_us if machine.state.leader_state else 0
    assert machine.active(lapses_us - 1)
    assert not machine.active(lapses_us)


def test_r5_the_lease_rests_on_the_newest_ping_that_a_quorum_answered() -> None:
    world = elected_of(5)
    leader_state = world.state(1).leader_state
    first_us = leader_state.sent_us[1]
    for voter in (2, 3):
        world.feed(1, pong(world, voter))
    world.run_until(lambda: leader_state.number == 2)
    assert world.controller() == 1
    world.feed(1, pong(world, 2))
    assert leader_state.lease_lapses_us == first_us + LEASE_US, "two of five are no quorum"
    world.feed(1, pong(world, 2))
    assert leader_state.lease_lapses_us == first_us + LEASE_US, "the same one twice neither"
    world.feed(1, pong(world, 3))
    assert leader_state.lease_lapses_us == leader_state.sent_us[2] + LEASE_US


def test_r5_a_stale_echo_renews_nothing() -> None:
    world = leadership_of(1)
    leader_state = world.state(1).leader_state
    world.cut(2, 1)
    world.cut(3, 1)
    world.run(120)
    numbers = dict(leader_state.sent_us)
    answered_us, lapses_us = dict(leader_state.answered_us), leader_state.lease_lapses_us
    for number in (min(numbers) - 1, max(numbers) + 1, 0):
        for voter in (2, 3):
            world.feed(1, pong(world, voter, number=number))
    for voter in (2, 3):
        world.feed(1, pong(world, voter, number=min(numbers)))
        world.feed(1, pong(world, voter, of_term=leader_state.term - 1))
        heard = pong(world, voter)
        world.feed(1, MessageReceived(replace(heard.envelope, term=leader_state.term - 1)))
    assert {n: leader_state.answered_us[n] for n in (2, 3)} == {n: answered_us[n] for n in (2, 3)}
    assert leader_state.lease_lapses_us == lapses_us


def test_r5_the_answer_of_a_epoch_without_a_voting_right_renews_nothing() -> None:
    world = leadership_of(1)
    leader_state = world.state(1).leader_state
    world.cut(1, 2)
    world.cut(1, 3)
    world.run(150)
    lapses_us = leader_state.lease_lapses_us
    for voter in (2, 3):
        world.feed(1, pong(world, voter, epoch=world.state(voter).saved.epoch + 1000))
    assert leader_state.lease_lapses_us == lapses_us


def test_r5_an_answer_that_comes_after_the_lease_has_ended_renews_nothing() -> None:
    world = leadership_of(1)
    machine, leader_state = world.processes[1].machine, world.state(1).leader_state
    answers = [pong(world, voter) for voter in (2, 3)]
    world.cut(1, 2)
    world.cut(1, 3)
    late_us = max(leader_state.sent_us.values()) + LEASE_US
    for answer in answers:
        machine.step(answer, late_us)
    assert not machine.active(late_us)


# -- R6: step down -----------------------------------------------------------------------------------


def test_r6_a_controller_whose_lease_lapsed_is_silent_and_a_follower() -> None:
    world = Watched(3, priorities={1: 10})
    world.start()
    world.run_until(lambda: world.controller() == 1)
    world.run(300)
    leader_state, cut_us = world.state(1).leader_state, world.now_us
    world.cut(1, 2)
    world.cut(1, 3)
    world.run(3000)
    assert world.state(1).role is not Role.ELECTED
    (left,) = world.happened("stopped_being_active", 1)
    assert left.details["why"] == "lease_lapsed"
    assert left.at_us == leader_state.lease_lapses_us <= cut_us + LEASE_US
    late = [effects for n, at_us, effects in world.steps if n == 1 and at_us >= left.at_us]
    assert not [envelope for effects in late for _, envelope in effects.send if numbered(envelope)]


def test_r6_a_higher_term_ends_leadership_and_is_said_to_all() -> None:
    world = leadership_of(1)
    term = world.state(1).term
    effects = step(world, 1, packet(world, 3, Pong(1, 0, (0, 0, 0), 0, 1), term + 1))
    assert not world.processes[1].machine.active(world.now_us)
    assert (world.state(1).role, world.state(1).term) == (Role.FOLLOWER, term + 1)
    assert WithdrawController(term, "higher_term") in effects.publish
    assert [to for to, e in effects.send if isinstance(e.message, Handover) and e.message.of_term == term] == [2, 3]


def test_r6_losing_the_connections_to_a_majority_suspends_until_a_fresh_round_is_answered() -> None:
    world = leadership_of(1)
    machine, leader_state = world.processes[1].machine, world.state(1).leader_state
    before = [pong(world, voter) for voter in (2, 3)]
    step(world, 1, LinkDown(2))
    assert machine.active(world.now_us), "two of three are connected still"
    step(world, 1, LinkDown(3))
    assert not machine.active(world.now_us)
    for answer in before:
        step(world, 1, answer)
    assert not machine.active(world.now_us), "these answered a PING from before"
    for peer in (2, 3):
        step(world, 1, LinkUp(peer))
    assert not machine.active(world.now_us), "a connection is no answer"
    number = leader_state.number
    step(world, 1, Tick(), after_us=1)
    assert leader_state.number == number + 1, "it asks again at once"
    step(world, 1, pong(world, 2), after_us=300)
    assert machine.active(world.now_us + 300)


def test_r6_a_ping_of_an_old_term_is_answered_with_the_newer_one() -> None:
    world = leadership_of(1)
    term, promise = world.state(2).term, world.state(2).promise
    old = packet(world, 3, Ping(5, True, replace(world.state(3).record, config_term=0), (2,)), term - 1)
    effects = step(world, 2, old)
    ((to, envelope),) = effects.send
    assert (to, envelope.term) == (3, term)
    assert isinstance(envelope.message, Pong)
    assert envelope.message.of_term == term - 1
    assert world.state(2).promise == promise
    assert world.state(2).controller.id == 1


# -- R7: elected is not active ----------------------------------------------------------------------


def test_r7_who_was_just_elected_is_not_active_and_says_so() -> None:
    world = pre_candidate_of(3)
    world.feed(1, grant(world, 2))
    effects = step(world, 1, grant(world, 2))
    assert world.state(1).role is Role.ELECTED
    assert not world.processes[1].machine.active(world.now_us)
    assert {ping.active for ping in sent_by(effects, Ping)} == {False}
    assert not [intent for intent in effects.publish if isinstance(intent, PublishController)]


def test_r7_a_winner_rewrites_the_record_in_its_own_term_and_waits_until_a_quorum_has_saved_it() -> None:
    world = elected_of(5)
    record = world.state(1).record
    assert record.config_term == world.state(1).term == 1
    world.feed(1, pong(world, 2, record_id=(0, 0, 0)))
    world.feed(1, pong(world, 3, record_id=(0, 0, 0)))
    assert world.state(1).leader_state.lease_lapses_us > world.now_us, "the lease runs"
    assert world.controller() is None, "but nobody has the record"
    world.feed(1, pong(world, 2))
    assert world.controller() is None
    effects = step(world, 1, pong(world, 3))
    assert world.controller() == 1
    assert [intent for intent in effects.publish if isinstance(intent, PublishController)]


def test_r7_promises_to_an_earlier_controller_that_voters_reported_run_out_first() -> None:
    wait_us = 300 * MS
    world = elected_of(3, wait_us=wait_us)
    promises_end_us = world.state(1).leader_state.promises_end_us
    assert promises_end_us == world.now_us + wait_us
    while world.now_us < promises_end_us:
        world.feed(1, pong(world, 2))
        assert world.controller() is None
        world.run(min(10, (promises_end_us - world.now_us) / MS))
    world.run(1)
    world.feed(1, pong(world, 2))
    assert world.controller() == 1


def test_r7_the_longest_of_the_reported_promises_counts() -> None:
    world = pre_candidate_of(5)
    for _ in ("pre-vote", "vote"):
        world.feed(1, grant(world, 2, wait_us=200 * MS))
        world.feed(1, grant(world, 3, wait_us=100 * MS))
    assert world.state(1).leader_state.promises_end_us == world.now_us + 200 * MS


def test_r7_no_voter_can_report_a_promise_longer_than_promises_are() -> None:
    world = elected_of(3, wait_us=2**53 - 1)
    assert world.state(1).leader_state.promises_end_us == world.now_us + PROMISE_US
    world.run(PROMISE_US / MS)
    world.feed(1, pong(world, 2))
    assert world.controller() == 1


WITNESS_NOW = Witness("1-1-1-1-1", "run1", "repl")


def _asks_the_witness() -> World:
    """Node 1 of {1, 2, W}, alone, has voted for itself and waits for the witness."""
    world = World(2)
    voters = made_record(4, 5, (1, 2), WITNESS_NOW, 0, (1, 2))
    world.disks = {n: Saved(4, 0, 0, voters, epoch=n) for n in (1, 2)}
    world.redis.up = False
    world.cut(1, 2)
    world.start()
    world.run_until(lambda: world.state(1).role is Role.PRE_CANDIDATE)
    world.feed(1, refusal(world, 2, Refusal.LEAVING))
    world.feed(1, WitnessVoted(True, world.state(1).campaign.round, None, 4))
    assert world.state(1).role is Role.CANDIDATE
    world.feed(1, refusal(world, 2, Refusal.LEAVING))
    return world


@pytest.mark.parametrize("known_dead", [True, False])
def test_r7_the_controller_that_the_witness_acknowledged_is_waited_out_unless_proven_dead(known_dead: bool) -> None:
    world = _asks_the_witness()
    born = world.processes[2].incarnation
    if known_dead:
        both_close(world, 1, 2)
        world.feed(1, DeathProven(2, born, Evidence.REFUSED))
    world.feed(1, WitnessVoted(False, world.state(1).campaign.round, None, 5, (NamedProcess(2, born, 4),)))
    assert world.state(1).role is Role.ELECTED
    assert world.state(1).leader_state.promises_end_us == (0 if known_dead else world.now_us + PROMISE_US)


def test_r7_the_death_of_one_of_those_that_the_witness_names_does_not_excuse_the_other() -> None:
    world = _asks_the_witness()
    born = world.processes[2].incarnation
    world.feed(1, LinkDown(2))
    world.feed(1, DeathProven(2, born, Evidence.REFUSED))
    named = (NamedProcess(2, born, 4), NamedProcess(2, born + 1, 5, 700))
    world.feed(1, WitnessVoted(False, world.state(1).campaign.round, None, 5, named))
    assert world.state(1).leader_state.promises_end_us == world.now_us + 700 * MS


@pytest.mark.parametrize(("handed_over", "waits"), [(3, True), (4, False)])
def test_r7_only_a_handover_of_the_term_that_the_witness_names_excuses(handed_over: int, waits: bool) -> None:
    """An earlier one of the same node says nothing about its later leadership."""
    world = _asks_the_witness()
    world.state(1).handed_over[2] = handed_over
    named = (NamedProcess(2, world.processes[2].incarnation, 4),)
    world.feed(1, WitnessVoted(False, world.state(1).campaign.round, None, 5, named))
    assert world.state(1).leader_state.promises_end_us == (world.now_us + PROMISE_US if waits else 0)


def test_r7_where_the_witness_can_not_name_all_it_voted_for_nobody_is_known_to_be_harmless() -> None:
    world = _asks_the_witness()
    born = world.processes[2].incarnation
    world.feed(1, LinkDown(2))
    world.feed(1, DeathProven(2, born, Evidence.REFUSED))
    world.feed(1, WitnessVoted(False, world.state(1).campaign.round, None, 5, (NamedProcess(2, born, 4),), True))
    assert world.state(1).leader_state.promises_end_us == world.now_us + PROMISE_US


def test_r7_a_winner_that_waits_leaves_the_witness_its_memory_of_whom_it_waits_for() -> None:
    """If this winner dies meanwhile, the next one must learn of that controller, too."""
    world = _asks_the_witness()
    born = world.processes[2].incarnation
    named = (NamedProcess(2, born, 4),)
    asked = step(world, 1, WitnessVoted(False, world.state(1).campaign.round, None, 5, named)).witness
    promises_end_us = world.state(1).leader_state.promises_end_us - world.now_us
    assert promises_end_us == PROMISE_US
    for after_us in range(HEARTBEAT_US, promises_end_us, HEARTBEAT_US):
        asked += step(world, 1, Tick(), after_us).witness
    assert not [ask for ask in asked if isinstance(ask, WitnessPing)]
    asked = step(world, 1, Tick(), promises_end_us).witness
    assert [ask for ask in asked if isinstance(ask, WitnessPing)], "then it needs the acknowledgement itself"


# -- R8: candidates in order ---------------------------------------------------------------------------


def test_r8_the_ping_names_the_highest_priority_then_the_lowest_id() -> None:
    world = World(5, priorities={1: 50, 4: 7, 5: 7})
    world.start()
    world.run_until(lambda: world.controller() == 1)
    world.run(300)
    assert world.state(2).succession == (4, 5, 2, 3)
    world.kill(4)
    world.run(300)
    assert world.state(2).succession == (5, 2, 3)


def test_r8_successor_r_waits_r_times_the_stagger() -> None:
    world = World(5, priorities={1: 10})
    world.start()
    world.run_until(lambda: world.controller() == 1)
    world.run(300)
    born = world.processes[1].incarnation
    for rank, node in enumerate((2, 3, 4, 5)):
        both_close(world, node, 1)
        step(world, node, DeathProven(1, born, Evidence.REFUSED))
        assert world.state(node).campaign_at_us == world.now_us + rank * STAGGER_US


def test_r8_who_is_known_to_be_gone_is_not_waited_for() -> None:
    world = World(5, priorities={1: 10})
    world.start()
    world.run_until(lambda: world.controller() == 1)
    world.run(300)
    for peer in (2, 1):
        both_close(world, 3, peer)
        step(world, 3, DeathProven(peer, world.processes[peer].incarnation, Evidence.REFUSED))
    assert world.state(3).campaign_at_us == world.now_us


def test_r8_a_returning_node_never_preempts() -> None:
    world = leadership_of(1)
    world.kill(1)
    world.run_until(lambda: world.controller() == 2)
    world.run(300)
    world.start(1)
    world.run(10_000)
    assert world.settings[1].priority > world.settings[2].priority
    assert world.controller() == 2
    assert len(world.happened("became_active")) == 2


def test_r8_one_campaign_is_enough_when_the_controller_dies() -> None:
    for seed in range(10):
        world = World(5, seed=seed)
        world.start()
        _until_active(world, 1)
        world.run(300 + seed)
        began = len(world.happened("campaign_began"))
        world.kill(1)
        _until_active(world, 2)
        assert len(world.happened("campaign_began")) == began + 1


def test_r8_only_repeated_failures_add_a_little_randomness() -> None:
    world = leadership_of(1)
    step = _turn(world, 2)
    seen = set()
    for attempts in range(12):
        step.state.attempts = attempts
        seen.add(jitter_us(step))
        assert jitter_us(step) == jitter_us(step), "a run can be replayed"
        assert 0 <= jitter_us(step) < STAGGER_US << min(attempts, 4) or attempts == jitter_us(step) == 0
    assert len(seen) > 8
    step.state.attempts = 0
    assert jitter_us(step) == 0
    others = [_turn(world, n) for n in (2, 3)]
    for other in others:
        other.state.attempts = 3
    assert jitter_us(others[0]) != jitter_us(others[1])


@pytest.mark.parametrize("after_us", [0, 150])
def test_l1_two_of_three_elect_each_other_though_the_third_died_after_its_first_vote(after_us: int) -> None:
    """Node 2 elects node 1 in the first election ever and dies at once: nodes 1 and 3 are a majority."""
    world = World(3)
    world.redis.up = False
    world.start()
    world.run_until(lambda: world.happened("elected"))
    world.run(after_us / 1000)
    world.kill(2)
    world.run_until(lambda: world.controller() is not None)


# -- found by breaking things on purpose ---------------------------------------------------------------


def _second_leadership() -> tuple[World, list[Envelope]]:
    """Node 1 is active for the second time (term 3), node 2 cut off; and the numbered PINGs of
    its first leadership (term 1) to node 3, which a network may deliver again or late."""
    world = World(3)
    world.start()
    world.run_until(lambda: world.controller() == 1)
    world.run(2500)
    early = [e for a, b, e in world.sent if (a, b) == (1, 3) and isinstance(e.message, Ping) and e.message.number]
    world.cut(1, 2)
    world.cut(1, 3)
    world.run_until(lambda: world.controller() == 2)
    world.heal()
    world.run(300)
    world.cut(2, 1)
    world.cut(2, 3)
    world.run_until(lambda: world.controller() == 1)
    world.run(200)
    assert world.state(1).term == world.state(3).term == 3
    return world, early


def _same_number(world: World, early: list[Envelope]) -> Envelope:
    """The PING of the first leadership that has the number of the newest one of this leadership."""
    number = world.state(1).leader_state.number
    return next(e for e in early if isinstance(e.message, Ping) and e.message.number == number)


def test_r5_the_answer_to_a_ping_of_an_earlier_leadership_renews_nothing() -> None:
    world, early = _second_leadership()
    world.cut(1, 3, one_way=True)  # from here on node 3 hears nothing new, so it promises nothing new
    world.run(150)
    leader_state = world.state(1).leader_state
    lapses_us, promise = leader_state.lease_lapses_us, world.state(3).promise
    world.feed(3, MessageReceived(_same_number(world, early)))
    world.run(2)
    assert world.state(3).promise == promise, "a PING of an old term binds nobody"
    assert leader_state.lease_lapses_us == lapses_us, "a lease grew by an answer that carried no promise"


def test_r5_replayed_pings_of_an_earlier_leadership_do_not_put_two_active() -> None:
    world, early = _second_leadership()
    world.cut(1, 3, one_way=True)
    for _ in range(35):
        if world.state(1).leader_state is not None:
            world.feed(3, MessageReceived(_same_number(world, early)))
        world.run(20)
    world.cut(1, 3)
    world.cuts -= {(2, 3), (3, 2)}
    world.run(1000)  # the world asserts S2 after every event
    assert world.controller() in (2, 3)


@pytest.mark.parametrize("pre", [True, False])
def test_r3_a_controller_that_is_asked_for_a_vote_because_of_its_own_death_refuses(pre: bool) -> None:
    world = leadership_of(1)
    question = Voting(pre, 1, world.state(1).term + 1, world.state(2).saved.record, Reason.DEATH, 1, 1)
    world.feed(1, packet(world, 2, question))
    assert world.happened("vote_refused", 1)[-1].details["reason"] == "promised"
    assert world.controller() == 1


@pytest.mark.parametrize("seed", [92])
def test_r8_a_restarted_controller_survives_the_campaign_about_its_former_death(seed: int) -> None:
    """Node 3 is down, node 1 dies and comes back while node 2 still campaigns because of that death;
    node 1 wins, and node 2's next vote request crosses the news of it."""
    world = World(3, seed=seed)
    world.start()
    world.run_until(lambda: world.controller() == 1)
    world.run(700)
    world.kill(3)
    world.run(50 + seed)
    world.kill(1)
    world.run(30 + seed % 97)
    world.start(1)
    world.run(1500)
    assert world.controller() is not None


def test_r6_a_lapsed_controller_sends_no_numbered_ping_whatever_happens_first() -> None:
    world = leadership_of(1)
    machine = world.processes[1].machine
    late_us = world.state(1).leader_state.lease_lapses_us + 1
    assert not machine.active(late_us)
    effects = machine.step(LinkUp(2), late_us)  # before the Tick that would notice the lapse
    pings = [e.message for _, e in effects.send if isinstance(e.message, Ping) and e.message.number]
    assert pings == [], "its heartbeat binds the voters for another election timeout"


@pytest.mark.parametrize("term", [MAX_TERM, MAX_TERM + 1, 2**60])
def test_r14_a_term_at_the_end_of_its_range_in_redis_ends_no_node(term: int) -> None:
    world = World(3)
    world.registry = (0, term)
    world.start()
    world.run(3000)
    assert all(world.state(n).term <= MAX_TERM for n in (1, 2, 3))


def test_r14_a_node_at_the_last_term_does_not_campaign_beyond_it() -> None:
    world = World(3)
    last = Saved(MAX_TERM, 0, 0, made_record(1, 1, (1, 2, 3)))
    world.disks = {n: replace(last) for n in (1, 2, 3)}
    world.start()
    world.run(3000)
    assert world.controller() is None


def test_r5_an_answer_counts_from_the_time_the_ping_was_sent() -> None:
    world = leadership_of(1)
    machine, leader_state = world.processes[1].machine, world.state(1).leader_state
    number = max(leader_state.sent_us)
    sent_us = leader_state.sent_us[number]
    machine.step(pong(world, 2, number=number), sent_us + 90 * MS)
    assert leader_state.lease_lapses_us == sent_us + machine.settings.timing.lease_us


def _cut_off(world: World, nodes: tuple[int, ...], others: tuple[int, ...]) -> None:
    for a in nodes:
        for b in others:
            world.cut(a, b)


def _join(world: World, *pairs: tuple[int, int]) -> None:
    for a, b in pairs:
        world.cuts -= {(a, b), (b, a)}


def _node_2_missed_that_3_is_back() -> World:
    """Five nodes without Redis, node 1 active. Node 3 lost its state, was removed from the
    voters and added again; node 2 was cut off in between and still holds the record without it."""
    world = World(5, priorities={1: 9, 4: 5})
    world.redis.up = world.registry_up = False
    world.start()
    world.run_until(lambda: world.controller() == 1)
    world.run(500)
    world.kill(3)
    world.run(50)
    world.start(3, forget=True)
    world.run_until(lambda: 3 not in world.state(1).record.members)
    _cut_off(world, (2,), (1, 3, 4, 5))
    world.run_until(lambda: 3 in world.state(5).record.members and _may_vote(world, 3))
    assert 3 not in world.state(2).record.members
    world.run(300)
    return world


def test_r16_an_old_record_followed_by_the_present_one_is_no_admission() -> None:
    """Node 3 votes and loses its state. A peer that lags behind shows it a set of voters without
    it, another one the voters in which it voted: nobody has removed and added it since."""
    world = _node_2_missed_that_3_is_back()
    world.kill(5)
    world.kill(1)
    world.start(1)
    world.run_until(lambda: world.controller() is not None)
    term = world.state(3).term
    assert world.state(3).saved.voted_for == world.controller(), "two of five are down: no majority without node 3"
    world.kill(3)
    _cut_off(world, (1, 4), (2, 3, 5))
    _join(world, (2, 3), (2, 5))
    world.start(3, forget=True)
    world.run(100)
    world.start(5)
    world.run(100)
    assert not _may_vote(world, 3), "it may vote a second time in a term"
    for _ in range(3):
        world.run(3000)
        world.kill(2)
        world.start(2)
    world.run(3000)
    assert world.state(2).term < term, "nobody could be elected without the node that lost its state"
    terms = [e.details["term"] for e in world.happened("elected")]
    assert len(terms) == len(set(terms)), f"S1 broken: {terms}"


def test_r16_a_wiped_node_that_sees_first_an_old_record_without_itself_does_not_vote() -> None:
    """Node 3 promised node 1 and lost its whole data_dir, so that it takes itself for new. After an
    old voter record without it, it believes that it may vote, and votes while node 1's lease runs."""
    world = _node_2_missed_that_3_is_back()
    _cut_off(world, (5,), (1, 3, 4))
    world.run(1000)
    assert world.controller() == 1
    world.kill(3)
    del world.disks[3]
    _cut_off(world, (3,), (1, 4))
    _join(world, (2, 3))
    world.start(3)
    world.run(5)
    _join(world, (2, 5), (3, 5))
    world.run(3000)  # the world asserts S2 after every event
    assert not [e for e in world.happened("vote_granted", 3) if e.details["candidate"] == 5 and not e.details["pre"]]


def test_r8_a_changed_priority_is_told_with_the_next_answer_and_honoured() -> None:
    world = World(3)
    world.start()
    world.run_until(lambda: world.controller() == 1)
    world.run(500)
    assert world.state(2).succession == (2, 3)
    saved = {node: world.state(node).saved for node in (1, 2, 3)}
    world.feed(3, PriorityChanged(9))
    world.run(500)
    assert world.state(2).succession == (3, 2)
    assert {node: world.state(node).saved for node in (1, 2, 3)} == saved
    world.kill(1)
    world.run_until(lambda: world.controller() == 3)
