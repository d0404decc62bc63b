"""The rules of death, voters, witness, registry and distrust (R9 to R14), one sentence a test."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.support.positions import (
    Watched,
    both_close,
    deaf,
    elected_of,
    pong,
    pre_candidate_of,
    sent_by,
    step,
    walk_to,
)
from tests.support.records import made_record
from tools.simulator.small_world import MS, World, packet
from zelect.core.effects import (
    Effects,
    MarkOffline,
    Probe,
    PublishController,
    WitnessCreate,
    WitnessLook,
    WitnessPing,
    WitnessVote,
)
from zelect.core.events import (
    ControllerHint,
    DeathProven,
    Event,
    Evidence,
    LinkDown,
    LinkUp,
    MessageReceived,
    PeerConnected,
    PeerDisconnected,
    Tick,
    WitnessAnswered,
    WitnessCreated,
    WitnessSeen,
    WitnessVoted,
)
from zelect.core.invariants import RuleBroken, check
from zelect.core.messages import (
    CommonResp,
    NodeOffline,
    NodeOnline,
    NodeOnlineResp,
    Ping,
    Pong,
    Reason,
    Refusal,
    Reset,
    Result,
    Type,
    Voting,
    VotResp,
)
from zelect.core.quorum import Record, Witness
from zelect.core.state import Role
from zelect.core.step import Step
from zelect.core.timing import MAX_TERM, MAX_TERM_HEARD, MAX_TERM_JUMP, Proof, Timing

PROMISE_US = Timing().promise_us
HEARTBEAT_US = Timing().heartbeat_us


def _settled(nodes: int = 3, **options: Any) -> World:
    """Node 1 is active of the whole members."""
    world = World(nodes, priorities={1: 10}, **options)
    world.start()
    world.run_until(lambda: world.controller() == 1)
    world.run(300)
    return world


def _until_active(world: World, node: int) -> float:
    """How many milliseconds it takes until `node` is active."""
    return world.run_until(lambda: world.controller() == node)


# -- R9: proof of death --------------------------------------------------------------------------------

KINDS = (Evidence.LOCK, Evidence.REAPED, Evidence.REFUSED, Evidence.RESTARTED)


@pytest.mark.parametrize(
    ("proof", "believed"),
    [
        (Proof.REFUSED, {Evidence.LOCK, Evidence.REAPED, Evidence.REFUSED, Evidence.RESTARTED}),
        (Proof.PROCESS, {Evidence.LOCK, Evidence.REAPED, Evidence.RESTARTED}),
        (Proof.NONE, {Evidence.RESTARTED}),
    ],
)
@pytest.mark.parametrize("evidence", KINDS)
def test_r9_only_evidence_of_a_kind_that_is_configured_proves_a_death(
    evidence: Evidence, proof: Proof, believed: set[Evidence]
) -> None:
    world = _settled(timing=Timing(proof=proof))
    both_close(world, 2, 1)
    step(world, 2, DeathProven(1, world.processes[1].incarnation, evidence))
    assert world.state(2).peers[1].dead is (evidence in believed)
    assert (world.state(2).promise is None) is (evidence in believed)


def test_r9_a_refused_connection_proves_nothing_while_the_standing_one_lives() -> None:
    world = _settled()
    born = world.processes[1].incarnation
    step(world, 2, DeathProven(1, born, Evidence.REFUSED))
    assert not world.state(2).peers[1].dead
    assert world.state(2).controller.id == 1
    both_close(world, 2, 1)
    step(world, 2, DeathProven(1, born, Evidence.REFUSED))
    assert world.state(2).peers[1].dead


def _closings(world: World) -> list[Event]:
    """The connection that node 2 made to node 1 closes, and the one that node 1 made to node 2."""
    return [LinkDown(1), PeerDisconnected(1, world.processes[1].incarnation)]


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("evidence", [Evidence.LOCK, Evidence.REAPED, Evidence.REFUSED])
def test_r9_a_standing_connection_contradicts_a_proof_whoever_made_it(evidence: Evidence, first: int) -> None:
    world = _settled()
    closings, proof = _closings(world), DeathProven(1, world.processes[1].incarnation, evidence)
    effects = step(world, 2, proof)
    assert [fact.name for fact in effects.facts] == ["death_contradicted"]
    assert not step(world, 2, closings[first]).probe, "what it found would not be believed"
    step(world, 2, proof)
    assert not world.state(2).peers[1].dead
    assert (world.state(2).controller.id, world.state(2).promise.to) == (1, 1)
    assert step(world, 2, closings[1 - first]).probe == (Probe(1, world.processes[1].incarnation),)
    step(world, 2, proof)
    assert world.state(2).peers[1].dead
    assert world.state(2).promise is None


def test_r9_the_connections_of_an_earlier_process_say_nothing_of_the_present_one() -> None:
    world = _settled()
    born = world.processes[1].incarnation
    step(world, 2, LinkDown(1))
    assert not step(world, 2, PeerDisconnected(1, born - 1)).probe
    assert world.state(2).peers[1].inbound
    step(world, 2, PeerDisconnected(1, born))
    step(world, 2, PeerConnected(1, born - 1))
    assert not world.state(2).peers[1].inbound


def test_r9_a_process_that_speaks_over_a_connection_of_its_own_is_not_dead() -> None:
    world = _settled()
    born = world.processes[1].incarnation
    both_close(world, 2, 1)
    step(world, 2, DeathProven(1, born, Evidence.REFUSED))
    assert world.state(2).peers[1].dead
    step(world, 2, PeerConnected(1, born))
    assert not world.state(2).peers[1].dead
    step(world, 2, packet(world, 1, Ping(9, True, world.state(1).record, (2, 3))))
    assert world.state(2).controller.id == 1, "it leads on, though its address still refuses"


def test_r9_a_second_process_with_the_id_of_one_that_is_connected_is_none() -> None:
    """As where an address moves to another host: what answers there is no proof that the first one died."""
    world = _settled()
    born = world.processes[1].incarnation
    step(world, 2, LinkDown(1))
    step(world, 2, LinkUp(1))
    heard = packet(world, 1, Pong(0, 0, (0, 0, 0), 0, 1))
    step(world, 2, MessageReceived(replace(heard.envelope, incarnation=born + 10)))
    assert (world.state(2).peers[1].incarnation, world.state(2).refused) == (born, {"id_in_use": 1})
    assert world.state(2).promise.to == 1


def test_r9_a_proof_about_an_earlier_process_is_none() -> None:
    world = _settled()
    both_close(world, 2, 1)
    for evidence in KINDS:
        step(world, 2, DeathProven(1, world.processes[1].incarnation - 1, evidence))
        step(world, 2, DeathProven(1, world.processes[1].incarnation + 1, evidence))
    assert not world.state(2).peers[1].dead


@pytest.mark.parametrize("unresponsive", [1, 3])
def test_r9_silence_is_never_proof(unresponsive: int) -> None:
    world = _settled()
    for other in world.settings:
        if other != unresponsive:
            world.cut(unresponsive, other)
    world.run(20_000)
    for other in world.settings:
        if other != unresponsive:
            assert not world.state(other).peers[unresponsive].dead
    assert not world.happened("peer_died")


def test_r9_a_closed_connection_is_a_reason_to_look_and_no_proof() -> None:
    world = _settled()
    effects = both_close(world, 2, 1)
    assert effects.probe == (Probe(1, world.processes[1].incarnation),)
    assert not world.state(2).peers[1].dead
    assert world.state(2).controller.id == 1
    assert world.state(2).promise.to == 1


@pytest.mark.parametrize("dead", [1, 3])
def test_r9_hearsay_starts_a_probe_and_proves_nothing(dead: int) -> None:
    world = _settled()
    teller = 4 - dead
    effects = step(world, 2, packet(world, teller, NodeOffline(dead, world.processes[dead].incarnation, "refused")))
    assert effects.probe == (Probe(dead, world.processes[dead].incarnation),)
    assert not world.state(2).peers[dead].dead
    assert world.state(2).promise.to == 1


def test_r9_news_of_a_death_that_overtakes_the_end_of_the_connections_is_looked_into_once_they_close() -> None:
    world = _settled()
    gone = DeathProven(3, world.processes[3].incarnation, Evidence.LOCK)
    step(world, 2, packet(world, 1, NodeOffline(3, gone.incarnation, "lock")))
    step(world, 2, gone)
    assert not world.state(2).peers[3].dead, "its connections still stood"
    assert both_close(world, 2, 3).probe == (Probe(3, gone.incarnation),)
    step(world, 2, gone)
    assert world.state(2).peers[3].dead


def test_r9_a_candidate_that_speaks_of_a_death_makes_its_voter_look() -> None:
    world = _settled()
    question = Voting(True, 1, world.state(2).term + 1, world.state(2).record, Reason.DEATH, 1, 1)
    effects = step(world, 2, packet(world, 3, question))
    assert effects.probe == (Probe(1, world.processes[1].incarnation),)
    assert [answer.granted for answer in sent_by(effects, VotResp)] == [False]


def test_r9_the_candidate_is_answered_again_once_the_voter_has_its_own_proof() -> None:
    world = _settled()
    question = Voting(True, 1, world.state(2).term + 1, world.state(2).record, Reason.DEATH, 1, 1)
    step(world, 2, packet(world, 3, question))
    both_close(world, 2, 1, 500)
    effects = step(world, 2, DeathProven(1, world.processes[1].incarnation, Evidence.LOCK), after_us=900)
    assert [answer.granted for answer in sent_by(effects, VotResp)] == [True]


def test_r9_a_new_process_under_an_id_proves_the_old_one_dead() -> None:
    world = _settled()
    born = world.processes[1].incarnation
    both_close(world, 2, 1)
    heard = packet(world, 1, Pong(0, 0, (0, 0, 0), 0, 1))
    step(world, 2, MessageReceived(replace(heard.envelope, incarnation=born + 10)))
    assert world.state(2).peers[1].incarnation == born + 10
    assert world.state(2).promise is None
    assert world.state(2).controller is None


def test_r9_without_proof_nobody_is_probed_and_promises_run_out() -> None:
    world = Watched(3, timing=Timing(proof=Proof.NONE))
    world.start()
    world.run_until(lambda: world.controller() == 1)
    world.run(300)
    world.kill(1)
    took_ms = world.run_until(lambda: world.controller() is not None)
    assert not [effects for _, _, effects in world.steps if effects.probe]
    assert took_ms * MS >= PROMISE_US - HEARTBEAT_US


def test_r9_a_wrong_proof_is_taken_back_when_the_same_process_speaks_over_a_new_connection() -> None:
    world = _settled()
    both_close(world, 2, 3)
    step(world, 2, DeathProven(3, world.processes[3].incarnation, Evidence.REFUSED))
    idle = packet(world, 3, Ping(0, False, None, ()))
    step(world, 2, idle)
    assert world.state(2).peers[3].dead, "these may be its last words"
    step(world, 2, LinkUp(3))
    step(world, 2, idle)
    assert not world.state(2).peers[3].dead


def test_r9_the_controller_tells_the_others_of_a_death_and_publishes_it() -> None:
    world = _settled()
    born = world.processes[3].incarnation
    both_close(world, 1, 3)
    effects = step(world, 1, DeathProven(3, born, Evidence.REFUSED))
    assert NodeOffline(3, born, "refused") in sent_by(effects, NodeOffline)
    assert MarkOffline(3, world.state(1).term) in effects.publish


# -- R10: the voters change without a log -------------------------------------------------------------


@pytest.fixture(scope="module")
def eventful() -> Watched:
    """Five nodes and Redis through deaths, leave, cuts and returns; each step is kept."""
    world = Watched(5, seed=11, loss=0.01)
    world.start()
    world.run(1500)
    for n in (5, 4, 3):
        world.kill(n)
        world.run(1500)
    for n in (4, 3, 5):
        world.start(n)
        world.run(2500)
    world.leave(world.controller() or 1)
    world.run(2500)
    world.cut(2, 3)
    world.cut(2, 4)
    world.run(2500)
    world.heal()
    world.run(2500)
    world.kill(lost := world.controller() or 2)
    world.run(2500)
    world.start(lost)
    world.run(2500)
    world.redis.restart()
    world.run(2500)
    world.registry_up = world.redis.up = False
    world.run(2500)
    assert len(world.happened("voters_changed")) > 15, "enough has happened"
    return world


def _records(world: Watched, node: int) -> list[Record]:
    """The records that a node wrote or took, in order."""
    saved = [effects.save.record for n, _, effects in world.steps if n == node and effects.save is not None]
    return [record for at, record in enumerate(saved) if at == 0 or record != saved[at - 1]]


def test_r10_each_change_of_a_controller_is_one_voter(eventful: Watched) -> None:
    changes = 0
    for node in eventful.settings:
        for before, after in zip(_records(eventful, node), _records(eventful, node)[1:], strict=False):
            assert after.id > before.id, "no record is replaced by an older one"
            if after.config_term == before.config_term and after.version == before.version + 1:
                changes += 1
                assert len(set(after.voters) ^ set(before.voters)) <= 1
    assert changes > 15


def test_r10_a_winner_writes_the_record_again_in_its_own_term_first(eventful: Watched) -> None:
    for node, _, effects in eventful.steps:
        won = [fact for fact in effects.facts if fact.name == "elected"]
        if won:
            assert effects.save is not None, f"n{node}"
            assert effects.save.record.config_term == effects.save.term
    assert len(eventful.happened("elected")) > 2


def test_r10_the_next_change_waits_until_a_quorum_has_saved_the_one_before() -> None:
    world = World(5, priorities={1: 10})
    world.redis.up = False
    world.start()
    world.run_until(lambda: world.controller() == 1)
    world.run(300)
    for voter in (2, 3, 4, 5):
        world.cut(voter, 1)
    version = world.state(1).record.version
    for peer in (4, 5):
        both_close(world, 1, peer)
        step(world, 1, DeathProven(peer, world.processes[peer].incarnation, Evidence.LOCK))
    assert world.state(1).record.version == version + 1
    for voter in (2, 3):
        step(world, 1, pong(world, voter, record_id=(0, world.state(1).term, version)))
    assert world.state(1).record.version == version + 1, "they answered, but have the record before"
    step(world, 1, pong(world, 2))
    assert world.state(1).record.version == version + 1
    step(world, 1, pong(world, 3))
    assert world.state(1).record.version == version + 2


def test_r10_who_is_elected_but_not_active_changes_nothing() -> None:
    world = elected_of(5)
    for peer in (4, 5):
        both_close(world, 1, peer)
        step(world, 1, DeathProven(peer, world.processes[peer].incarnation, Evidence.LOCK))
    assert world.state(1).record.members == (1, 2, 3, 4, 5)


def test_r10_who_waits_for_promises_changes_nothing_though_a_quorum_has_its_record() -> None:
    world = elected_of(4, wait_us=300 * MS)
    world.feed(1, packet(world, 4, Ping(0, False, None, ())))
    for peer in (2, 3):
        world.feed(1, pong(world, peer))
    state = world.state(1)
    assert {node for node, saved in state.leader_state.saved_by.items() if saved == state.record.id} == {1, 2, 3}
    both_close(world, 1, 4)
    step(world, 1, DeathProven(4, world.processes[4].incarnation, Evidence.LOCK))
    assert state.peers[4].dead
    assert state.record.members == (1, 2, 3, 4)


@pytest.mark.parametrize("pre", [True, False])
def test_r10_a_candidate_with_an_older_record_is_refused_and_sent_the_newer(pre: bool) -> None:
    world = deaf(3)
    world.run(5)
    newer = made_record(3, 8, (1, 2, 3), epochs=tuple(world.processes[n].incarnation for n in (1, 2, 3)))
    world.feed(2, packet(world, 3, NodeOnlineResp(0, 0, newer), 3))
    assert world.state(2).record == newer
    older = replace(newer, version=7)
    effects = step(world, 2, packet(world, 3, Voting(pre, 1, 9, older, Reason.TIMEOUT, 0, 0), 9))
    (answer,) = sent_by(effects, VotResp)
    assert (answer.granted, answer.reason, answer.record) == (False, Refusal.STALE_VOTERS, newer)
    assert world.state(2).saved.voted_for == 0


def test_r10_the_record_is_older_by_term_before_version() -> None:
    world = deaf(3)
    world.run(5)
    newer = made_record(3, 8, (1, 2, 3), epochs=tuple(world.processes[n].incarnation for n in (1, 2, 3)))
    world.feed(2, packet(world, 3, NodeOnlineResp(0, 0, newer), 3))
    older = replace(newer, config_term=2, version=1000)
    effects = step(world, 2, packet(world, 3, Voting(True, 1, 9, older, Reason.TIMEOUT, 0, 0), 9))
    assert [answer.reason for answer in sent_by(effects, VotResp)] == [Refusal.STALE_VOTERS]


def test_r10_a_candidate_that_hears_of_a_newer_record_takes_it_and_gives_up() -> None:
    world = pre_candidate_of(3)
    campaign = world.state(1).campaign
    newer = made_record(3, 8, (1, 2, 3), epochs=tuple(world.processes[n].incarnation for n in (1, 2, 3)))
    answer = VotResp(True, campaign.round, False, Refusal.STALE_VOTERS, 0, 1, newer)
    world.feed(1, packet(world, 2, answer, 3))
    assert world.state(1).record == newer
    assert world.state(1).campaign is None
    assert world.state(1).role is Role.FOLLOWER


@pytest.mark.parametrize("members", [(1, 2), (1, 3)])
def test_r10_the_newer_of_two_records_says_who_votes_for_whom(members: tuple[int, ...]) -> None:
    """Node 2 is asked by node 3, by whose record one of the two is no member."""
    world = deaf(3)
    world.run(5)
    newer = made_record(3, 8, members, epochs=tuple(world.processes[n].incarnation for n in members))
    effects = step(world, 2, packet(world, 3, Voting(True, 1, 9, newer, Reason.TIMEOUT, 0, 0), 9))
    assert [answer.reason for answer in sent_by(effects, VotResp)] == [Refusal.NOT_MEMBER]


def test_r10_who_hears_of_a_newer_record_asks_for_it() -> None:
    """Node 3, no voter itself, is the only one that the last record of a dead controller reached."""
    world = deaf(3)
    world.run(5)
    mine = world.state(2).record
    newer = made_record(4, 9, (1, 2), epochs=(0, 0))
    for record_id, asks in ((mine.id, False), (newer.id, True)):
        effects = step(world, 2, packet(world, 3, Pong(0, 0, record_id, 0, 1), 4))
        assert [to for to, e in effects.send if isinstance(e.message, NodeOnline)] == [3] * asks
    step(world, 2, packet(world, 3, NodeOnlineResp(0, 0, newer), 4))
    assert world.state(2).record == newer


def test_r10_a_record_that_is_replaced_by_an_older_one_ends_the_node() -> None:
    world = _settled()
    machine = world.processes[1].machine
    step = Step(machine.settings, machine.state, world.now_us, 0)
    step.save(record=replace(machine.state.record, version=0))
    with pytest.raises(RuleBroken, match=r"^R10"):
        check(step)


# -- R11: dynamic quorum ----------------------------------------------------------------------------------


def _kill(world: World, node: int) -> None:
    world.kill(node)


def _leave(world: World, node: int) -> None:
    world.leave(node)


def _freeze(world: World, node: int) -> None:
    world.freeze(node)


def _back(world: World, node: int) -> None:
    if node not in world.processes:
        world.start(node)
    else:
        world.thaw(node)


@pytest.mark.parametrize("goes", [_kill, _leave, _freeze])
@pytest.mark.parametrize("order", [(3, 2), (1, 2), (2, 3), (2, 1)])
def test_r11_three_go_down_to_one_and_back_and_somebody_is_always_active(
    order: tuple[int, int], goes: Callable[[World, int], None]
) -> None:
    world = _settled()
    (last,) = {1, 2, 3} - set(order)
    first, second = order
    goes(world, first)
    two = tuple(sorted((second, last)))
    walk_to(world, *two, witness=True)
    goes(world, second)
    world.run_until(lambda: world.controller() == last)
    world.run(5000)
    assert world.controller() == last
    walk_to(world, *two, witness=True)  # the floor: no member is taken out any more
    _back(world, second)
    world.run(3000)
    walk_to(world, *two, witness=True)
    _back(world, first)
    walk_to(world, 1, 2, 3, witness=False)


def test_r11_on_the_way_the_witness_comes_before_a_member_goes() -> None:
    world = _settled()
    world.kill(3)
    walk_to(world, 1, 2, witness=True)
    changes = [(e.details["members"], e.details["witness"]) for e in world.happened("voters_changed")]
    assert changes[-2:] == [((1, 2, 3), True), ((1, 2), True)]
    world.start(3)
    walk_to(world, 1, 2, 3, witness=False)
    changes = [(e.details["members"], e.details["witness"]) for e in world.happened("voters_changed")]
    assert changes[-2:] == [((1, 2, 3), True), ((1, 2, 3), False)]


@pytest.mark.parametrize("gone", [(1, 2), (1, 3), (2, 3)])
@pytest.mark.parametrize("redis_up", [True, False])
def test_r11_two_of_three_lost_at_once_elect_nobody(gone: tuple[int, int], redis_up: bool) -> None:
    world = _settled()
    world.redis.up = world.registry_up = redis_up
    terms = len(world.happened("elected"))
    world.kill(*gone)
    world.run(20_000)
    assert world.controller() is None
    assert len(world.happened("elected")) == terms
    world.start(gone[0])
    world.run_until(lambda: world.controller() is not None)


@pytest.mark.parametrize("redis_up", [True, False])
def test_r11_the_last_of_two_needs_redis(redis_up: bool) -> None:
    world = _settled()
    world.kill(3)
    walk_to(world, 1, 2, witness=True)
    world.redis.up = redis_up
    world.kill(1)
    if redis_up:
        world.run_until(lambda: world.controller() == 2)
    else:
        world.run(10_000)
        assert world.controller() is None


def test_r11_five_go_down_to_one() -> None:
    world = _settled(5)
    for gone in (1, 2, 3, 4):
        world.kill(gone)
        world.run_until(lambda: world.controller() is not None)
        left = [n for n in world.settings if n > gone]
        if len(left) >= 2:
            walk_to(world, *left, witness=len(left) % 2 == 0)
    world.run(3000)
    assert world.controller() == 5


def test_r11_without_redis_five_go_down_to_two_of_three() -> None:
    world = _settled(5)
    world.redis.up = world.registry_up = False
    for gone in (5, 4):
        world.kill(gone)
        world.run(4000)
    assert len(world.state(1).record.members) % 2 == 1
    world.kill(3)
    world.run(4000)
    assert world.controller() == 1


def test_r11_a_static_voters_is_the_members() -> None:
    world = _settled(quorum="static")
    world.kill(3)
    world.run(10_000)
    assert world.state(1).record.members == (1, 2, 3)
    assert world.state(1).record.witness is None
    assert not world.happened("voters_changed") or all(
        e.details["members"] == (1, 2, 3) for e in world.happened("voters_changed")
    )
    world.kill(2)
    world.run(10_000)
    assert world.controller() is None


def test_r11_a_member_is_taken_out_after_its_silence_of_down_after() -> None:
    world = _settled()
    heard_us = world.state(1).peers[3].heard_us
    world.cut(3, 1)
    world.cut(3, 2)
    world.run_until(lambda: 3 not in world.state(1).record.members)
    assert world.now_us - heard_us >= world.settings[1].timing.down_after_us


def test_r11_a_node_is_taken_in_once_it_was_heard_steadily_for_a_moment() -> None:
    world = _settled()
    world.kill(3)
    walk_to(world, 1, 2, witness=True)
    world.run(1000)
    world.start(3)
    took_ms = world.run_until(lambda: 3 in world.state(1).record.members)
    assert took_ms * MS >= PROMISE_US


def test_r11_an_operator_resets_a_lost_voters_again_and_the_old_one_is_refused() -> None:
    world = _settled()
    world.redis.up = world.registry_up = False
    world.kill(1, 2)
    world.run(2000)
    forced = replace(_forced(world, 3), members=(3,), epochs=(3,))
    effects = step(world, 3, packet(world, 3, Reset(forced, False)))
    assert isinstance(effects.answer, CommonResp)
    assert effects.answer.result is Result.OK
    assert effects.save is not None
    assert effects.save.record == forced
    world.disks[3] = effects.save
    world.run_until(lambda: world.controller() == 3)
    world.start(1)
    world.run(10_000)
    assert world.controller() == 3
    assert world.state(3).refused["other_generation"] > 0
    assert world.state(1).refused["other_generation"] > 0
    epoch = world.state(1).saved.epoch
    world.feed(1, packet(world, 1, Reset(forced, True)))
    assert world.state(1).is_new, "what it had is of the generation that is over"
    assert world.state(1).saved.epoch > epoch
    world.redis.up = True
    walk_to(world, 1, 3, witness=True)
    assert world.state(1).record.epoch_of(1) == world.state(1).saved.epoch


def _forced(world: World, node: int, generation: int = 1) -> Record:
    """The record of `node`, as an operator would force it."""
    record: Record = world.state(node).record
    return replace(record, generation=generation, config_term=0, version=record.version + 1, witness=None)


def _loses_the_controller(world: World, node: int) -> None:
    both_close(world, node, 1)
    step(world, node, DeathProven(1, world.processes[1].incarnation, Evidence.LOCK))


@pytest.mark.parametrize("node", [1, 2])
@pytest.mark.parametrize("joins", [True, False])
def test_r11_a_reset_is_refused_while_a_controller_lives(node: int, joins: bool) -> None:
    """Nothing is lost then, and two sets of voters would each elect."""
    world = _settled()
    before = world.state(node).saved
    effects = step(world, node, packet(world, node, Reset(_forced(world, node), joins)))
    assert effects.answer == CommonResp(
        int(Type.RESET), Result.CONTROLLER_LIVES, "node 1 is controller: nothing is lost"
    )
    assert effects.save is None
    assert (world.state(node).saved, world.controller()) == (before, 1)
    if node == 2:
        _loses_the_controller(world, node)
        effects = step(world, node, packet(world, node, Reset(_forced(world, node), joins)))
        assert isinstance(effects.answer, CommonResp)
        assert effects.answer.result is Result.OK


def test_r11_a_reset_of_another_cluster_is_refused() -> None:
    world = _settled()
    _loses_the_controller(world, 3)
    record = world.state(3).record
    forced = replace(_forced(world, 3), cluster_id=record.cluster_id + 1)
    for joins in (True, False):
        effects = step(world, 3, packet(world, 3, Reset(forced, joins)))
        assert effects.answer == CommonResp(int(Type.RESET), Result.OTHER_CLUSTER, "this node belongs to cluster 7")
    assert world.state(3).record == record


def test_r11_who_is_of_the_forced_generation_need_not_join_it() -> None:
    world = _settled()
    _loses_the_controller(world, 3)
    forced = _forced(world, 3)
    step(world, 3, packet(world, 3, Reset(forced, False)))
    newer = replace(forced, config_term=world.state(3).term + 5, version=forced.version + 9)
    for told in (newer, forced):
        effects = step(world, 3, packet(world, 3, Reset(told, True)))
        assert effects.answer == CommonResp(int(Type.RESET), Result.OK, "generation 1 already")
        assert (effects.save, world.state(3).record) == (None, forced), "it gets the newer one from the controller"


def test_r11_who_joins_a_generation_introduces_itself_to_all_as_a_new_node() -> None:
    world = _settled()
    _loses_the_controller(world, 3)
    effects = step(world, 3, packet(world, 3, Reset(_forced(world, 3), True)))
    said = {to: e.message for to, e in effects.send if isinstance(e.message, NodeOnline)}
    assert said.keys() == {1, 2}, "so that what it was told before is out of date"
    assert {message.epoch for message in said.values()} == {world.state(3).saved.epoch}


@pytest.mark.parametrize("generation", [1, 2])
def test_r11_an_older_or_the_present_generation_is_not_created_again(generation: int) -> None:
    world = _settled()
    _loses_the_controller(world, 3)
    step(world, 3, packet(world, 3, Reset(_forced(world, 3, 2), False)))
    record = world.state(3).record
    assert record.generation == 2
    effects = step(world, 3, packet(world, 3, Reset(_forced(world, 3, generation), False)))
    assert isinstance(effects.answer, CommonResp)
    assert effects.answer.result is Result.FORBIDDEN
    assert world.state(3).record == record


@pytest.mark.parametrize("how", ["frozen", "cut off"])
@pytest.mark.parametrize("lost", [2, 3])
def test_l1_a_follower_that_falls_silent_does_not_cost_leadership(lost: int, how: str) -> None:
    """Two of three stay connected; when the third has been silent for down_after the witness joins."""
    world = _settled()
    if how == "frozen":
        world.freeze(lost)
    else:
        for other in {1, 2, 3} - {lost}:
            world.cut(lost, other)
    for _ in range(500):
        world.run(10)
        assert world.controller() == 1


def test_l1_the_last_of_two_replaces_a_frozen_controller_with_the_vote_of_the_witness() -> None:
    world = _settled()
    world.kill(3)
    walk_to(world, 1, 2, witness=True)
    world.run(500)
    world.freeze(1)
    world.run_until(lambda: world.controller() == 2)


# -- R12: the witness ---------------------------------------------------------------------------------------


def _two_and_the_witness(nodes: int = 3) -> Watched:
    """Nodes 1 (active) and 2 live, the voters are {1, 2, W}."""
    world = Watched(nodes, priorities={1: 10})
    world.start()
    world.run_until(lambda: world.controller() == 1)
    world.run(300)
    world.kill(3)
    walk_to(world, 1, 2, witness=True)
    world.run(500)
    world.steps.clear()
    return world


def _asked(world: Watched, kind: type[WitnessVote] | type[WitnessPing] | type[WitnessCreate]) -> list[object]:
    return [ask for _, _, effects in world.steps for ask in effects.witness if isinstance(ask, kind)]


def test_r12_while_the_nodes_do_the_witness_is_asked_for_nothing() -> None:
    world = _two_and_the_witness()
    world.run(2000)
    world.start(3)
    walk_to(world, 1, 2, 3, witness=False)
    world.run(1000)
    world.kill(1)
    world.run_until(lambda: world.controller() is not None)
    assert not _asked(world, WitnessVote)
    pings = _asked(world, WitnessPing)
    assert len(pings) <= 2, "at most while a new member had not answered yet"


def test_r12_when_the_nodes_fall_short_the_witness_votes_and_answers_pings() -> None:
    world = _two_and_the_witness()
    world.kill(2)
    world.run(3000)
    assert world.controller() == 1
    assert not _asked(world, WitnessVote), "leadership goes on"
    assert len(_asked(world, WitnessPing)) > 20
    world = _two_and_the_witness()
    world.kill(1)
    world.run_until(lambda: world.controller() == 2)
    assert [ask.pre for ask in _asked(world, WitnessVote) if isinstance(ask, WitnessVote)] == [True, False]


def test_r12_a_cut_between_two_nodes_deposes_no_controller_that_the_witness_acknowledges() -> None:
    world = _two_and_the_witness()
    term = world.state(1).term
    world.cut(1, 2)
    world.run(5000)
    assert world.controller() == 1
    assert [fact.details["reason"] for fact in world.happened("witness_answered", 2)][-1:] == ["promised"]
    assert not [ask for ask in _asked(world, WitnessVote) if isinstance(ask, WitnessVote) and not ask.pre]
    assert not [fact for fact in world.happened("became_active") if fact.details["term"] > term]
    world.kill(1)  # and node 2 is not told: nothing proves it
    took_ms = world.run_until(lambda: world.controller() == 2)
    assert took_ms * MS < 3 * PROMISE_US


def test_r12_a_proof_of_death_outweighs_what_the_witness_acknowledged_a_moment_ago() -> None:
    world = _two_and_the_witness()
    world.cut(1, 2)
    world.run(1000)
    world.heal()
    world.run_until(lambda: world.state(2).controller is not None)
    world.kill(1)
    took_ms = world.run_until(lambda: world.controller() == 2)
    assert took_ms * MS < PROMISE_US / 4
    asked = [ask.pre for ask in _asked(world, WitnessVote) if isinstance(ask, WitnessVote)]
    assert asked[-2:] == [True, False]


def test_r12_the_witness_is_asked_after_the_nodes_had_their_time() -> None:
    world = _two_and_the_witness()
    world.cut(1, 2)
    world.run_until(lambda: world.happened("campaign_began", 2)[-1:] != [] and bool(_asked(world, WitnessVote)))
    began_us = world.happened("campaign_began", 2)[-1].at_us
    assert world.now_us >= began_us + world.settings[2].timing.vote_wait_us


def test_r12_the_vote_of_unrecognized_is_void() -> None:
    world = _two_and_the_witness()
    world.redis.restart()
    world.kill(1)
    world.run(10_000)
    assert world.controller() is None
    assert not world.happened("elected", 2)
    world.start(1)
    world.run_until(lambda: world.controller() is not None)
    walk_to(world, 1, 2, witness=True)


@pytest.mark.parametrize("reason", [Refusal.UNRECOGNIZED, Refusal.UNREACHABLE, Refusal.STALE_VOTERS, Refusal.VOTED])
def test_r12_a_refusal_of_the_witness_elects_nobody(reason: Refusal) -> None:
    world = _two_and_the_witness()
    world.kill(1)
    world.run_until(lambda: world.state(2).campaign is not None and world.state(2).campaign.witness_asked)
    world.redis.up = False
    for _ in range(3):
        campaign = world.state(2).campaign
        if campaign is not None:
            world.feed(2, WitnessVoted(True, campaign.round, reason, 0))
    world.run(50)
    assert world.state(2).role is not Role.CANDIDATE
    assert not world.happened("elected", 2)


@pytest.mark.parametrize("reason", [None, Refusal.UNRECOGNIZED, Refusal.STALE_VOTERS, Refusal.VOTED])
def test_r12_only_an_acknowledgement_of_the_witness_renews_a_lease(reason: Refusal | None) -> None:
    world = _two_and_the_witness()
    world.kill(2)
    world.run(1000)
    world.redis.up = False
    world.run(150)
    leader_state = world.state(1).leader_state
    lapses_us, number = leader_state.lease_lapses_us, leader_state.number
    record_id = world.state(1).record.id
    step(world, 1, WitnessAnswered(number, leader_state.term, record_id, reason, leader_state.term))
    assert (leader_state.lease_lapses_us > lapses_us) is (reason is None)
    for stale in (
        WitnessAnswered(number + 1, leader_state.term, record_id, None, leader_state.term),
        WitnessAnswered(number, leader_state.term - 1, record_id, None, leader_state.term),
    ):
        lapses_us = leader_state.lease_lapses_us
        step(world, 1, stale)
        assert leader_state.lease_lapses_us == lapses_us


@pytest.mark.parametrize("harm", ["restart", "flush", "re_replicate"])
def test_r12_a_witness_that_forgot_is_put_in_again_by_a_quorum_of_nodes(harm: str) -> None:
    world = _two_and_the_witness()
    before = world.state(1).record.witness
    getattr(world.redis, harm)()
    world.run_until(lambda: world.state(1).record.witness not in (None, before))
    walk_to(world, 1, 2, witness=True)
    changes = [(e.details["members"], e.details["witness"]) for e in world.happened("voters_changed")]
    assert changes[-2:] == [((1, 2), False), ((1, 2), True)], "another witness is two changes"
    world.kill(1)
    world.run_until(lambda: world.controller() == 2)


@pytest.mark.parametrize("harm", ["restart", "flush", "re_replicate"])
def test_r12_a_controller_alone_with_a_witness_that_forgot_leaves_its_leadership(harm: str) -> None:
    world = _two_and_the_witness()
    world.kill(2)
    world.run(1000)
    assert world.controller() == 1
    getattr(world.redis, harm)()
    world.run(5000)
    assert world.controller() is None
    world.start(2)
    world.run_until(lambda: world.controller() is not None)


def test_r12_the_controller_that_the_witness_acknowledged_is_waited_out() -> None:
    """Nodes 1 and 2 don't hear each other; both reach Redis. Whoever wins waits for the other's lease."""
    world = _two_and_the_witness()
    world.cut(1, 2)
    leaderships = 0
    for _ in range(400):
        world.run(10)  # the world asserts S2 after every event
        leaderships += world.controller() is not None
    assert leaderships > 100, "one of them and the witness are a majority"
    for entered in world.happened("became_active")[1:]:
        left = [
            e.at_us
            for e in world.happened("stopped_being_active")
            if e.at_us <= entered.at_us and e.node != entered.node
        ]
        assert left or entered.node == 1


def test_r12_a_witness_of_an_older_record_is_no_help() -> None:
    """The voters have moved on without the witness; its record is of no use to a node that lags behind."""
    world = _two_and_the_witness()
    old = world.redis.memory
    world.start(3)
    walk_to(world, 1, 2, 3, witness=False)
    world.kill(1, 2)
    world.redis.memory = old
    world.run(10_000)
    assert world.controller() is None


@pytest.mark.parametrize("by", ["vote", "unrecognized", "ping", "look"])
def test_r12_whatever_answer_of_the_witness_brings_a_newer_record_it_is_taken_with_its_term(by: str) -> None:
    world = _two_and_the_witness()
    term, mine = world.state(2).term, world.state(2).record
    newer = mine.rewritten(term + 3)
    events: dict[str, Event] = {
        "vote": WitnessVoted(True, 1, Refusal.STALE_VOTERS, term, record=newer),
        "unrecognized": WitnessVoted(False, 1, Refusal.UNRECOGNIZED, 0, record=newer),
        "ping": WitnessAnswered(1, term, mine.id, Refusal.STALE_VOTERS, term, newer),
        "look": WitnessSeen(Witness("another", "run", "repl"), ready=True, same=False, record=newer),
    }
    effects = step(world, 2, events[by])
    assert effects.save is not None
    assert (effects.save.record, effects.save.term, effects.save.voted_for) == (newer, term + 3, 0), "in one save"
    assert effects.save == world.state(2).saved
    assert step(world, 2, events[by]).save is None, "once"


def test_r12_the_witness_hands_its_record_to_those_that_come_back_without_the_last() -> None:
    world = _two_and_the_witness()
    world.kill(1)
    world.run_until(lambda: world.controller() == 2)
    world.run(1000)
    world.kill(2)
    kept = world.redis.memory
    assert kept is not None
    assert kept.record == world.disks[2].record != world.disks[1].record
    world.start(3, 1)  # node 3 was out of the voters before node 1 was
    world.run_until(lambda: world.controller() == 1)
    assert world.state(3).record.config_term > kept.record.config_term


def test_r12_a_winner_waits_for_each_that_the_witness_voted_for_since_it_last_acknowledged() -> None:
    """A process of node 2 that node 1 never heard got the witness's vote: a lease may rest on it."""
    world = _two_and_the_witness()
    world.kill(2)
    world.run(500)
    memory = world.redis.memory
    assert memory is not None
    other = (2, world.disks[2].incarnation + 1)
    voted = memory.term + 1
    ask = WitnessVote(memory.identity, False, 1, voted, memory.record)
    world.redis.carry_out(other, ask)
    world.run_until(lambda: world.state(1).role is Role.ELECTED and world.state(1).term > voted)
    elected_us = world.now_us
    world.run_until(lambda: world.controller() == 1)
    assert world.now_us - elected_us >= world.settings[1].timing.promise_us - 10 * MS
    world.run(1000)
    memory = world.redis.memory
    assert memory is not None
    assert [name.node for name in memory.names] == [1], "an acknowledgement leaves one name"


def test_r12_the_witness_is_looked_at_from_time_to_time_without_being_asked_to_vote() -> None:
    world = _two_and_the_witness()
    world.run(5000)
    looks = [ask for _, _, effects in world.steps for ask in effects.witness if isinstance(ask, WitnessLook)]
    assert len(looks) >= 8
    assert not _asked(world, WitnessVote)
    assert not _asked(world, WitnessPing)


def test_r12_a_witness_is_created_only_by_who_is_active(eventful: Watched) -> None:
    founders = [(n, at_us) for n, at_us, e in eventful.steps if any(isinstance(a, WitnessCreate) for a in e.witness)]
    assert founders
    for node, at_us in founders:
        entered = [e.at_us for e in eventful.happened("became_active", node) if e.at_us <= at_us]
        left = [e.at_us for e in eventful.happened("stopped_being_active", node) if e.at_us <= at_us]
        assert entered
        assert not left or max(left) < max(entered)


def test_r12_a_memory_that_was_asked_for_in_an_earlier_leadership_is_not_put_in() -> None:
    """Who asked may have been replaced since, and somebody's vote may be in it."""
    world = _settled()
    world.feed(1, WitnessCreated(Witness("1-1-1-2-3", "run", "history")))
    world.kill(3)
    world.run_until(lambda: world.state(1).record.witness is not None)
    assert world.state(1).record.witness.run_id != "run"


# -- R13: a registry --------------------------------------------------------------------------------------


def _published(effects: Effects) -> list[PublishController]:
    return [intent for intent in effects.publish if isinstance(intent, PublishController)]


def test_r13_only_who_is_active_publishes_and_its_word_ends_with_its_lease(eventful: Watched) -> None:
    published = [(n, at_us, intent) for n, at_us, effects in eventful.steps for intent in _published(effects)]
    assert len(published) > 20
    for node, at_us, intent in published:
        assert intent.active_since_us <= at_us < intent.valid_until_us, f"n{node}"
        entered = {e.details["term"]: e.at_us for e in eventful.happened("became_active", node)}
        assert entered[intent.term] == intent.active_since_us


def test_r13_a_lapsed_controller_publishes_nothing_whatever_happens_first() -> None:
    world = _settled()
    leader_state = world.state(1).leader_state
    late_us = leader_state.lease_lapses_us - world.now_us
    for event in (LinkUp(2), ControllerHint(0, 0), Tick()):
        assert not _published(step(world, 1, event, after_us=late_us + 1_000_000))


def test_r13_nothing_in_redis_decides_an_election() -> None:
    world = _settled()
    term = world.state(1).term
    for node in (2, 3):
        before = world.state(node).promise
        effects = step(world, node, ControllerHint(5 - node, term + 50))
        assert (effects.save, effects.send) == (None, ())
        assert world.state(node).promise == before
        assert world.state(node).controller.id == 1


def test_r13_elections_go_on_without_redis_and_as_fast() -> None:
    took = []
    for up in (True, False):
        world = World(3, seed=3)
        world.registry_up = world.redis.up = up
        world.start()
        first = _until_active(world, 1)
        world.run(400)
        world.kill(1)
        took.append((first, _until_active(world, 2)))
    assert max(took[1]) < 60
    assert abs(took[0][1] - took[1][1]) < 1


def test_r13_after_an_outage_the_controller_asserts_its_record_again() -> None:
    world = _settled()
    world.registry = (0, 0)
    world.run(1100)
    assert world.registry == (1, world.state(1).term)


def test_r13_a_new_cluster_goes_on_from_the_term_in_redis() -> None:
    world = World(3)
    world.registry = (0, 41)
    world.start()
    world.run_until(lambda: world.controller() is not None)
    assert world.state(1).term == 42


# -- R14: distrust yourself -------------------------------------------------------------------------------------


def test_r14_a_late_turn_does_not_campaign() -> None:
    world = _settled()
    machine = world.processes[2].machine
    due_us = machine.deadline_us()
    for peer in (1, 3):
        world.cut(peer, 2)
    late_us = world.now_us + 10 * PROMISE_US
    assert due_us < late_us
    effects = machine.step(Tick(late=True), late_us)
    assert not sent_by(effects, Voting)
    assert machine.state.role is Role.FOLLOWER
    effects = machine.step(Tick(), late_us + 1)
    assert sent_by(effects, Voting), "the next one does, unless the inbox has a PING"


def test_r14_a_thawed_follower_reads_its_inbox_before_it_judges_the_controllers_silence() -> None:
    world = _settled()
    began = len(world.happened("campaign_began"))
    for frozen_ms in (600, 1500):
        world.freeze(2)
        world.run(frozen_ms)
        world.thaw(2)
        world.run(1000)
        assert world.controller() == 1
        assert len(world.happened("campaign_began")) == began


def test_r14_a_thawed_controller_is_no_controller() -> None:
    world = _settled()
    world.freeze(1)
    world.run_until(lambda: world.controller() == 2)
    machine = world.processes[1].machine
    assert not machine.active(world.now_us)
    world.thaw(1)
    world.run(1000)
    assert world.controller() == 2
    assert world.state(1).controller.id == 2


def test_r14_a_late_turn_still_ends_a_lapsed_leadership() -> None:
    world = _settled()
    machine = world.processes[1].machine
    machine.step(Tick(late=True), world.now_us + PROMISE_US)
    assert machine.state.role is Role.FOLLOWER


@pytest.mark.parametrize(("ahead", "passes"), [(MAX_TERM_JUMP, True), (MAX_TERM_JUMP + 1, False)])
def test_r14_a_term_too_far_ahead_is_refused(ahead: int, passes: bool) -> None:
    world = _settled()
    term = world.state(2).term
    effects = step(world, 2, packet(world, 3, Pong(0, 0, (0, 0, 0), 0, 1), term + ahead))
    assert (world.state(2).term == term + ahead) is passes
    assert ([m.result for m in sent_by(effects, CommonResp)] == [Result.TERM_JUMP]) is not passes


@pytest.mark.parametrize(("term", "passes"), [(MAX_TERM_HEARD, True), (MAX_TERM_HEARD + 1, False), (MAX_TERM, False)])
def test_r14_a_term_that_leaves_no_room_for_elections_is_refused_even_by_a_fresh_node(term: int, passes: bool) -> None:
    world = deaf(3)
    world.run(5)
    effects = step(world, 2, packet(world, 3, Pong(0, 0, (0, 0, 0), 0, 1), term))
    assert (world.state(2).term == term) is passes
    assert ([m.result for m in sent_by(effects, CommonResp)] == [Result.TERM_JUMP]) is not passes


@pytest.mark.parametrize("pre", [True, False])
def test_r14_a_term_sought_too_far_ahead_is_refused_before_anybody_votes(pre: bool) -> None:
    world = _settled()
    term = world.state(2).term
    question = Voting(pre, 1, term + MAX_TERM_JUMP + 1, world.state(2).record, Reason.TIMEOUT, 0, 0)
    effects = step(world, 2, packet(world, 3, question))
    assert not sent_by(effects, VotResp)
    assert world.state(2).refused["term_jump"] == 1
    assert world.state(2).term == term


def test_r14_a_fresh_node_joins_a_cluster_of_any_age() -> None:
    world = _settled()
    for node in (1, 2):
        world.disks[node] = replace(world.disks[node], term=MAX_TERM_JUMP * 5)
    world.kill(1, 2, 3)
    del world.disks[3]
    world.registry = (0, 0)
    world.start()
    world.run_until(lambda: world.controller() is not None)
    world.run(2000)
    assert world.state(3).term > MAX_TERM_JUMP * 5
    assert world.state(3).controller is not None


def test_r14_of_two_living_processes_with_one_id_the_second_is_refused() -> None:
    world = _settled()
    heard = packet(world, 3, Ping(0, False, None, ()))
    effects = step(world, 2, MessageReceived(replace(heard.envelope, incarnation=heard.envelope.incarnation + 1)))
    assert [m.result for m in sent_by(effects, CommonResp)] == [Result.ID_IN_USE]
    assert world.state(2).peers[3].incarnation == heard.envelope.incarnation
