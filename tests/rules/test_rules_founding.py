"""The rules of founding and of memory (R15, R16), one sentence a test."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.support.positions import deaf, founder_of, grant, new_nodes, refusal, sent_by, step
from tests.support.records import made_record, places
from tools.common.founded import CLUSTER_ID
from tools.simulator.small_world import World, packet
from zelect.core.effects import Saved
from zelect.core.events import ControllerHint, LinkDown, MessageReceived, WitnessSeen
from zelect.core.lease import NEVER_US
from zelect.core.messages import (
    Bootstrap,
    CommonResp,
    MemberAction,
    MemberChange,
    NodeOnline,
    NodeOnlineResp,
    Ping,
    Reason,
    Refusal,
    Reset,
    Result,
    Type,
    Voting,
    VotResp,
)
from zelect.core.quorum import NO_RECORD, Record
from zelect.core.state import Role

THREE = places(1, 2, 3)


def _proposed(*members: int, epochs: tuple[int, ...] | None = None) -> Record:
    return made_record(0, 0, members, epochs=epochs or members)


def _asks(world: World, record: Record, *, candidate: int = 3, term: int = 1, pre: bool = False) -> MessageReceived:
    return packet(world, candidate, Voting(pre, 1, term, record, Reason.START, 0, 0), None if pre else term)


def _answer(world: World, voter: int, asked: MessageReceived) -> VotResp:
    (answer,) = sent_by(step(world, voter, asked), VotResp)
    assert isinstance(answer, VotResp)
    return answer


def _of_the_cluster(world: World, sender: int, message: Any, term: int = 0) -> MessageReceived:
    """`message` of `sender` as if that belonged to the cluster already."""
    return MessageReceived(replace(packet(world, sender, message, term).envelope, cluster_id=CLUSTER_ID))


def _clusters(world: World) -> set[int]:
    """The clusters that any node belongs to."""
    return {world.state(n).record.cluster_id for n in world.processes} - {0}


def _is_whole(world: World) -> bool:
    """Whether all nodes vote in the record of one controller."""
    records = {world.state(n).record for n in world.settings if n in world.processes}
    whole = all(state.may_vote(state.record) for state in map(world.state, world.processes))
    return (
        world.controller() is not None and len(records) == 1 and whole and len(world.processes) == len(world.settings)
    )


# -- R15: nobody founds a cluster by accident -------------------------------------------------------------


@pytest.mark.parametrize("nodes", [1, 2, 3, 5])
def test_r15_a_cluster_is_founded_by_all_its_members_together(nodes: int) -> None:
    world = World(nodes, founded=False)
    world.start()
    world.run_until(lambda: _is_whole(world))
    (founded,) = world.happened("cluster_founded")
    record = world.state(1).record
    assert int(founded.details["cluster_id"], 16) == record.cluster_id > 0
    assert founded.details["members"] == record.members == tuple(world.settings)
    assert record.named() == {n: world.state(n).saved.epoch for n in world.settings}
    assert dict(record.addresses) == dict(world.settings[1].addresses)
    assert {state.saved.founding for state in map(world.state, world.settings)} == {()}, "it is over"


@pytest.mark.parametrize("missing", [1, 2, 3])
def test_r15_a_member_that_was_never_there_is_waited_for_by_name(missing: int) -> None:
    """A majority is not enough: with the missing one another majority could found a second cluster."""
    world = World(3, founded=False)
    present = [n for n in world.settings if n != missing]
    world.start(*present)
    world.run(20_000)
    assert not world.happened("campaign_began")
    assert {world.state(n).saved.record for n in present} == {NO_RECORD}
    for n in present:
        status = world.processes[n].machine.status(world.now_us)
        assert (status.belongs, status.missing) == ("new", (missing,))
    world.start(missing)
    world.run_until(lambda: _is_whole(world))


def test_r15_one_vote_less_than_all_founds_nothing() -> None:
    world = founder_of(5)
    for voter in (2, 3, 4):
        world.feed(1, grant(world, voter))
    assert world.state(1).role is Role.PRE_CANDIDATE
    world.feed(1, grant(world, 5))
    assert world.state(1).role is Role.CANDIDATE
    for voter in (2, 3, 5):
        world.feed(1, grant(world, voter))
    assert world.state(1).role is Role.CANDIDATE
    assert world.state(1).is_new
    world.feed(1, grant(world, 4))
    assert world.state(1).role is Role.ELECTED
    assert world.state(1).record.members == (1, 2, 3, 4, 5)


def test_r15_one_refusal_ends_the_attempt_to_found() -> None:
    world = founder_of(5)
    world.feed(1, refusal(world, 4, Refusal.LEAVING))
    assert (world.state(1).role, world.state(1).campaign) == (Role.FOLLOWER, None)
    assert world.state(1).attempts == 1


def test_r15_another_epoch_than_the_one_that_is_named_founds_nothing() -> None:
    world = founder_of(3)
    world.feed(1, grant(world, 2))
    other = VotResp(True, world.state(1).campaign.round, True, None, 0, 33, None)
    world.feed(1, packet(world, 3, other))
    assert world.state(1).role is Role.PRE_CANDIDATE


def test_r15_a_record_that_does_not_name_the_founder_is_one_refusal_and_no_more() -> None:
    world = founder_of(3)
    campaign = world.state(1).campaign
    record = made_record(0, 5, (2, 3))
    answer = VotResp(True, campaign.round, False, Refusal.STALE_VOTERS, 0, 2, record)
    effects = step(world, 1, _of_the_cluster(world, 2, answer))
    assert effects.save is None
    assert (world.state(1).is_new, world.state(1).campaign) == (True, None)
    assert [dict(fact.fields)["answers"] for fact in effects.facts if fact.name == "campaign_failed"] == [
        {1: "yes", 2: "stale_voters"}
    ]


def test_r15_who_joins_a_generation_that_does_not_have_it_founds_nothing() -> None:
    world = new_nodes(3)
    joined = made_record(0, 2, (1,), None, 3, belong=(1, 2))
    effects = step(world, 3, packet(world, 3, Reset(joined, True)))
    assert effects.connect == joined.addresses
    assert (world.state(3).is_new, world.state(3).founders()) == (True, {})
    world.run(5000)
    assert not world.happened("campaign_began", 3)


def test_r15_the_request_names_each_member_with_its_epoch_under_a_fresh_cluster_id() -> None:
    world = founder_of(3)
    asked = world.state(1).campaign.record
    assert asked.proposed
    assert (asked.named(), asked.addresses, asked.witness) == ({1: 1, 2: 2, 3: 3}, THREE, None)
    others = [founder_of(3).state(1).campaign.record.cluster_id]
    again = new_nodes(3)
    again.kill(1)
    again.start(1, forget=True)
    for sender in (2, 3):
        again.run(2)
        again.feed(1, packet(again, sender, NodeOnline(again.settings[sender].address, 0, sender)))
    again.run_until(lambda: again.state(1).campaign is not None)
    others.append(again.state(1).campaign.record.cluster_id)
    assert others[0] == asked.cluster_id, "the same history founds the same cluster"
    assert others[1] != asked.cluster_id


def test_r15_term_vote_and_list_are_saved_in_the_step_that_grants() -> None:
    world = new_nodes(3)
    record = _proposed(1, 2, 3)
    effects = step(world, 2, _asks(world, record, term=4))
    assert [answer.granted for answer in sent_by(effects, VotResp)] == [True]
    assert effects.save == Saved(4, 3, 2, NO_RECORD, 2, 3, ((1, 1), (2, 2), (3, 3)), 500)


def test_r15_a_founding_pre_vote_changes_nothing() -> None:
    world = new_nodes(3)
    before = world.state(2).saved
    effects = step(world, 2, _asks(world, _proposed(1, 2, 3), pre=True))
    assert [answer.granted for answer in sent_by(effects, VotResp)] == [True]
    assert effects.save is None
    assert world.state(2).saved == before


@pytest.mark.parametrize("pre", [True, False])
@pytest.mark.parametrize(
    ("epochs", "granted"),
    [
        ({1: 1, 2: 2, 3: 3}, True),
        ({1: 7, 2: 2, 3: 3}, True),
        ({1: 1, 2: 2, 3: 3, 4: 4}, True),
        ({2: 2, 3: 3}, False),
        ({1: 0, 2: 2, 3: 3}, False),
        ({2: 2, 3: 3, 4: 4}, False),
    ],
)
def test_r15_who_voted_to_found_with_some_is_bound_to_all_of_them(
    epochs: dict[int, int], granted: bool, pre: bool
) -> None:
    """Each may have founded the cluster since, and hold the only copy of its record."""
    world = new_nodes(3)
    assert _answer(world, 2, _asks(world, _proposed(1, 2, 3), candidate=1)).granted
    later = _proposed(*epochs, epochs=tuple(epochs.values()))
    answer = _answer(world, 2, _asks(world, later, term=5, pre=pre))
    assert answer.granted is granted
    assert answer.reason is (None if granted else Refusal.OTHER_FOUNDING)


def test_r15_who_is_bound_to_a_list_asks_for_no_other() -> None:
    world = new_nodes(3)
    world.state(1).saved = replace(world.state(1).saved, founding=((1, 1), (2, 9), (3, 3)))
    world.run(5000)
    assert not world.happened("campaign_began", 1)


@pytest.mark.parametrize("pre", [True, False])
def test_r15_who_has_a_record_refuses_to_found_and_sends_it(pre: bool) -> None:
    world = deaf(3)
    world.run(5)
    record = world.state(2).record
    heard = _asks(world, _proposed(1, 2, 3), pre=pre)
    answer = _answer(world, 2, MessageReceived(replace(heard.envelope, cluster_id=0)))
    assert (answer.granted, answer.reason, answer.record) == (False, Refusal.STALE_VOTERS, record)
    assert world.state(2).record == record


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (_proposed(1, 3), Refusal.NOT_MEMBER),
        (_proposed(1, 2), Refusal.NOT_MEMBER),
        (_proposed(1, 2, 3, epochs=(1, 9, 3)), Refusal.LOST_STATE),
        (_proposed(1, 2, 3, epochs=(1, 1, 3)), Refusal.LOST_STATE),
    ],
)
def test_r15_a_founding_vote_is_given_by_the_epoch_that_is_named(record: Record, reason: Refusal) -> None:
    answer = _answer(new_nodes(3), 2, _asks(new_nodes(3), record))
    assert (answer.granted, answer.reason) == (False, reason)


@pytest.mark.parametrize("pre", [True, False])
def test_r15_a_new_node_that_hears_of_a_cluster_votes_for_no_other(pre: bool) -> None:
    world = new_nodes(3)
    world.feed(2, _of_the_cluster(world, 1, NodeOnline(world.settings[1].address, 0, 1)))
    answer = _answer(world, 2, _asks(world, _proposed(1, 2, 3), pre=pre))
    assert (answer.granted, answer.reason) == (False, Refusal.OTHER_FOUNDING)


def test_r15_a_new_node_that_hears_of_a_cluster_founds_none() -> None:
    world = new_nodes(3)
    world.feed(1, _of_the_cluster(world, 3, NodeOnline(world.settings[3].address, 0, 3)))
    world.run(10_000)
    assert not world.happened("campaign_began", 1)
    status = world.processes[1].machine.status(world.now_us)
    assert (status.belongs, status.missing) == ("joining", ())
    assert [e.details["sender"] for e in world.happened("cluster_heard", 1)] == [3]


def test_r15_who_would_found_a_cluster_alone_leaves_others_time_to_speak() -> None:
    world = World(1, founded=False)
    world.start()
    took_ms = world.run_until(lambda: world.controller() == 1)
    assert took_ms >= world.settings[1].timing.election_timeout_ms


@pytest.mark.parametrize("how", ["message", "redis"])
def test_r15_a_new_node_founds_none_while_it_hears_of_one_that_it_does_not_list(how: str) -> None:
    world = World(1, founded=False)
    world.registry = (7, 3) if how == "redis" else (0, 0)
    world.start()
    world.run(10)
    for _ in range(10):
        if how == "message":
            ping = packet(world, 1, Ping(0, False, None, ()), 3).envelope
            world.feed(1, MessageReceived(replace(ping, sender=7, cluster_id=CLUSTER_ID)))
        world.run(1000)
        assert not world.happened("campaign_began")
        assert world.processes[1].machine.status(world.now_us).belongs == "joining"
    assert next(e.details["sender"] for e in world.happened("cluster_heard")) == 7
    world.registry = (0, 3)
    world.run_until(lambda: world.controller() == 1, 10_000)
    assert world.state(1).term > 3 or how == "message", "terms go on"


def test_r15_a_new_node_connects_to_the_nodes_of_a_record_that_has_it() -> None:
    world = World(1, founded=False)
    world.start()
    world.run(10)
    for nodes, met in (((2, 3), None), ((1, 2, 3), places(1, 2, 3))):
        record = replace(made_record(3, 5, (2, 3)), addresses=places(*nodes))
        ping = packet(world, 1, Ping(1, True, record, (3,)), 3).envelope
        effects = step(world, 1, MessageReceived(replace(ping, sender=2, incarnation=2, cluster_id=CLUSTER_ID)))
        assert effects.connect == met
        assert effects.save is None


@pytest.mark.parametrize("record", [made_record(2, 5, (2, 3)), made_record(2, 5, (1, 2, 3), epochs=(9, 2, 3))])
@pytest.mark.parametrize("how", ["ping", "answer", "refusal", "redis"])
def test_r15_a_node_that_a_record_does_not_name_saves_nothing_of_it(record: Record, how: str) -> None:
    world = new_nodes(3)
    world.feed(1, ControllerHint(0, 5))
    before = world.state(1).saved
    messages: dict[str, Any] = {
        "ping": Ping(1, True, record, (3,)),
        "answer": NodeOnlineResp(2, 5, record),
        "refusal": VotResp(True, 1, False, Refusal.STALE_VOTERS, 0, 2, record),
    }
    seen = WitnessSeen(None, True, False, record)
    effects = step(world, 1, seen if how == "redis" else _of_the_cluster(world, 2, messages[how], before.term))
    assert effects.save is None
    assert (world.state(1).saved, world.state(1).is_new) == (before, True)


@pytest.mark.parametrize("how", ["ping", "answer", "refusal", "redis"])
def test_r15_a_node_joins_by_a_record_that_names_its_epoch_and_takes_its_term(how: str) -> None:
    world = new_nodes(3)
    record = replace(made_record(5, 9, (1, 2, 3)), addresses=((1, "tcp://one:1"), *THREE[1:], (4, "tcp://four:4")))
    messages: dict[str, Any] = {
        "ping": Ping(1, True, record, (3,)),
        "answer": NodeOnlineResp(2, 5, record),
        "refusal": VotResp(True, 1, False, Refusal.STALE_VOTERS, 0, 2, record),
    }
    seen = WitnessSeen(None, True, False, record)
    effects = step(world, 1, seen if how == "redis" else _of_the_cluster(world, 2, messages[how], 5))
    assert effects.save is not None
    assert (effects.save.record, effects.save.term, effects.save.founding) == (record, 5, ())
    assert effects.connect == record.addresses
    assert [fact.name for fact in effects.facts if fact.name == "cluster_joined"]


def test_r15_a_member_that_saved_nothing_yet_votes_as_soon_as_a_record_names_it() -> None:
    """Else the death of the winner, before all have its record, could leave no quorum that may vote (L1)."""
    world = new_nodes(3)
    record = made_record(1, 1, (1, 2, 3))
    question = Voting(False, 1, 2, record, Reason.DEATH, 1, 1)
    effects = step(world, 2, _of_the_cluster(world, 3, question, 2))
    assert [answer.granted for answer in sent_by(effects, VotResp)] == [True]
    assert effects.save is not None
    assert (effects.save.record, effects.save.term, effects.save.voted_for) == (record, 2, 3)


@pytest.mark.parametrize("after_ms", [0.0, 0.2, 0.4, 0.6, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("forgets", [True, False])
def test_r15_a_founder_that_is_lost_in_between_leaves_one_cluster(after_ms: float, forgets: bool) -> None:
    world = World(3, founded=False)
    world.start()
    world.run_until(lambda: world.happened("pre_vote_won"))
    world.run(after_ms)
    world.kill(1)
    world.run(3000)
    assert len(_clusters(world)) <= 1
    world.start(1, forget=forgets)
    world.run_until(lambda: _is_whole(world), 20_000)
    assert len(_clusters(world)) == 1


@pytest.mark.parametrize("seed", range(20))
def test_r15_new_nodes_on_a_bad_network_found_one_cluster(seed: int) -> None:
    world = World(3, founded=False, seed=seed, loss=0.2, duplicates=0.1, reordered=0.1, late_us=50_000)
    world.start(1 + seed % 3)
    world.run(seed * 7)
    world.start(*[n for n in world.settings if n not in world.processes])
    world.run_until(lambda: _is_whole(world), 60_000)
    assert len(_clusters(world)) == 1


def _bootstrap(world: World, node: int, *members: int) -> CommonResp:
    addresses = world.settings[node].addresses
    effects = step(world, node, packet(world, node, Bootstrap(tuple((n, addresses[n]) for n in members))))
    assert isinstance(effects.answer, CommonResp)
    return effects.answer


def test_r15_an_operator_founds_the_cluster_without_a_missing_machine() -> None:
    world = World(3, founded=False)
    world.start(1, 2)
    world.run(2000)
    for node in (1, 2):
        assert _bootstrap(world, node, 1, 2).result is Result.OK
    world.run_until(lambda: world.controller() is not None)
    assert world.happened("cluster_founded")[0].details["members"] == (1, 2)
    world.start(3)
    world.run_until(lambda: _is_whole(world), 10_000)
    assert len(_clusters(world)) == 1


def test_r15_a_bootstrap_alone_founds_at_once() -> None:
    world = World(3, founded=False)
    world.start(2)
    world.run(2000)
    assert _bootstrap(world, 2, 2).detail == "founds the cluster with 1 member"
    world.run_until(lambda: world.controller() == 2)
    assert world.state(2).record.members == (2,)
    assert world.state(2).record.nodes == (1, 2, 3)


def test_r15_a_bootstrap_needs_the_vote_of_each_of_its_members_too() -> None:
    world = World(5, founded=False)
    world.start(1, 2)
    world.run(2000)
    for node in (1, 2):
        assert _bootstrap(world, node, 1, 2, 3).detail == "founds the cluster with 3 members"
    world.run(5000)
    assert not world.happened("cluster_founded")
    assert world.processes[1].machine.status(world.now_us).missing == (3,)


def test_r15_a_bootstrap_is_refused_with_the_reason() -> None:
    world = leadership_free()
    assert _bootstrap(world, 2, 1, 2).detail == "node 2 belongs to cluster 7"
    world = new_nodes(3)
    address = world.settings[2].address
    for members in (((1, "tcp://127.0.0.1:7101"),), ((2, "tcp://elsewhere:1"),)):
        answer = step(world, 2, packet(world, 2, Bootstrap(members))).answer
        assert answer == CommonResp(int(Type.BOOTSTRAP), Result.FORBIDDEN, f"the list must have node 2 at {address}")
    assert _answer(world, 2, _asks(world, _proposed(1, 2, 3), candidate=1)).granted
    answer = _bootstrap(world, 2, 2, 3)
    assert answer.result is Result.FORBIDDEN
    assert answer.detail == "node 2 has voted to found the cluster with 1 too, and is bound to that"
    assert _bootstrap(world, 2, 1, 2, 3).result is Result.OK


def leadership_free() -> World:
    """A founded cluster without a controller."""
    world = deaf(3)
    world.run(5)
    return world


# -- R16: lost or old memory is noticed ---------------------------------------------------------------------


def _settled(**options: Any) -> World:
    world = World(3, priorities={1: 10}, **options)
    world.start()
    world.run_until(lambda: world.controller() == 1)
    world.run(300)
    return world


def test_r16_a_new_storage_epoch_is_in_no_quorum_until_it_is_named() -> None:
    world = deaf(3)
    world.run(5)
    world.kill(2)
    world.start(2, forget=True)
    world.run(600)
    state = world.state(2)
    assert (state.is_new, state.saved.epoch) == (True, 4)
    for pre in (True, False):
        question = Voting(pre, 1, 1, world.state(3).record, Reason.TIMEOUT, 0, 0)
        answer = _answer(world, 2, packet(world, 3, question, None if pre else 1))
        assert (answer.granted, answer.reason) == (False, Refusal.LOST_STATE)


def test_r16_any_sequence_of_losses_of_a_minority_is_survived() -> None:
    world = World(5)
    world.start()
    world.run_until(lambda: world.controller() is not None)
    world.run(300)
    for lost in (1, 2, 3, 4, 5, 1, 2):
        world.kill(lost)
        world.run(100)
        world.start(lost, forget=True)
        world.run_until(lambda: _is_whole(world), 20_000)
        assert world.state(lost).record.epoch_of(lost) == world.state(lost).saved.epoch
    terms = [e.details["term"] for e in world.happened("elected")]
    assert len(terms) == len(set(terms))
    assert _clusters(world) == {CLUSTER_ID}


def test_r16_an_older_copy_of_the_data_is_noticed_by_what_a_peer_heard() -> None:
    world = _settled()
    copied, saves = world.disks[3], world.saves[3]
    world.kill(1)
    world.run_until(lambda: world.controller() == 2)
    world.run(300)
    assert world.saves[3] > saves, "node 3 has voted since"
    world.kill(3)
    world.disks[3], world.saves[3] = copied, saves - 1  # the start itself is saved, too
    since_us = world.now_us
    world.start(3)
    world.run_until(lambda: world.happened("older_copy_found", 3), 1000)
    assert world.state(3).is_new
    assert world.state(3).saved.epoch > copied.epoch
    assert world.happened("epoch_raised", 3)
    world.start(1)
    world.run_until(lambda: _is_whole(world), 20_000)
    granted = [e for e in world.happened("vote_granted", 3) if e.at_us >= since_us]
    named_us = [e.at_us for e in world.happened("cluster_joined", 3)]
    assert all(e.at_us >= named_us[-1] for e in granted)


@pytest.mark.parametrize(
    ("heard", "becomes_new"),
    [((3, 0), False), ((3, 4), False), ((3, 5), True), ((2, 99), False), ((4, 0), True), ((0, 0), False)],
)
def test_r16_the_memory_of_a_peer_tells_an_older_copy_and_a_used_epoch(
    heard: tuple[int, int], becomes_new: bool
) -> None:
    world = deaf(3)
    world.run(5)
    state = world.state(3)
    state.saves_at_start = 5  # the last of them was its own start
    effects = step(world, 3, packet(world, 2, NodeOnlineResp(0, 0, state.record, *heard)))
    assert state.is_new is becomes_new
    if becomes_new:
        assert effects.save is not None
        assert effects.save.epoch == max(heard[0], 3) + 1
        assert [to for to, e in effects.send if isinstance(e.message, NodeOnline)] == [1, 2], "it tells its new epoch"
        assert {e.message.epoch for _, e in effects.send if isinstance(e.message, NodeOnline)} == {effects.save.epoch}
    else:
        assert effects.save is None


def test_r16_a_record_that_comes_with_the_memory_names_no_epoch_that_begins_only_now() -> None:
    world = deaf(3)
    world.run(5)
    state = world.state(3)
    named = replace(state.record, version=state.record.version + 1, epochs=(1, 2, 4))
    effects = step(world, 3, packet(world, 2, NodeOnlineResp(0, 0, named, 3, 99)))
    assert state.is_new
    assert effects.save is not None
    assert (effects.save.epoch, effects.save.record.cluster_id) == (4, 0)


def test_r16_an_epoch_is_raised_above_the_lost_one_where_the_clock_is_behind() -> None:
    world = World(3)
    record = made_record(0, 1, (1, 2, 3), epochs=(1001, 1002, 1003))
    world.disks = {n: Saved(0, 0, 0, record, epoch=1000 + n) for n in world.settings}
    world.start()
    world.run_until(lambda: world.controller() is not None)
    world.run(300)
    world.kill(3)
    world.run(50)
    world.start(3, forget=True)
    assert world.state(3).saved.epoch < 1003
    world.run_until(lambda: _is_whole(world), 20_000)
    assert world.state(3).saved.epoch == world.state(1).record.epoch_of(3) == 1004
    assert world.happened("epoch_raised", 3)[0].details == {"epoch": 1004, "heard": 1003}


def test_r16_the_record_remembers_an_epoch_that_its_holder_never_heard() -> None:
    world = deaf(3)
    world.run(5)
    for told, heard in ((1, (3, 0)), (9, (9, 0)), (1, (9, 0))):
        effects = step(world, 2, packet(world, 3, NodeOnline(world.settings[3].address, 0, told, 4)))
        (answer,) = sent_by(effects, NodeOnlineResp)
        assert (answer.heard_epoch, answer.heard_saves) == heard
    assert (world.state(2).peers[3].epoch, world.state(2).peers[3].saves) == (9, 4), "the newest that it ever told"


def test_r16_the_saves_of_an_epoch_are_told_and_remembered() -> None:
    world = deaf(3)
    world.run(5)
    step(world, 2, LinkDown(3))
    born, address = world.processes[3].incarnation, world.settings[3].address
    for incarnation, told, heard in (
        (born, 7, 0),
        (born, 9, 0),
        (born + 1, 8, 9),
        (born + 1, 12, 9),
        (born + 2, 1, 12),
    ):
        online = packet(world, 3, NodeOnline(address, 0, 3, told)).envelope
        effects = step(world, 2, MessageReceived(replace(online, incarnation=incarnation)))
        (answer,) = sent_by(effects, NodeOnlineResp)
        assert (answer.heard_epoch, answer.heard_saves) == (3, heard), "what earlier processes had saved"


def test_r15_who_hears_of_a_cluster_founds_none_even_with_others_that_are_new() -> None:
    world = new_nodes(3)
    step(world, 1, packet(world, 2, Bootstrap(tuple((node, world.settings[node].address) for node in (1, 2)))))
    assert world.state(1).founders().keys() == {1, 2}
    elsewhere = replace(packet(world, 3, CommonResp(6, Result.NOT_MEMBER, "not here")).envelope, cluster_id=9)
    step(world, 1, MessageReceived(elsewhere))
    assert world.state(1).founders() == {}
    assert world.state(1).campaign_due_us() == NEVER_US


def test_r15_an_unknown_node_with_other_settings_adds_nobody_and_is_not_believed() -> None:
    world = new_nodes(3)
    record = replace(made_record(1, 1, (98,)), addresses=(*THREE, (98, "tcp://10.0.0.98:1")))
    ping = packet(world, 1, Ping(1, True, record, ()), 1).envelope
    effects = step(world, 2, MessageReceived(replace(ping, sender=99, settings=12345, cluster_id=CLUSTER_ID)))
    assert effects.connect is None
    assert world.state(2).founding_members == (1, 2, 3)
    assert not world.state(2).hears_of_cluster()


def test_r10_a_member_takes_a_record_that_it_missed_from_a_node_that_it_does_not_know() -> None:
    world = World(3)
    world.start()
    world.run_until(lambda: world.controller() is not None)
    world.run(1000)
    before = world.state(2).record
    record = replace(before, version=before.version + 1, addresses=(*before.addresses, (4, "tcp://four:4")))
    ping = packet(world, 1, Ping(1, True, record, ())).envelope
    effects = step(world, 2, MessageReceived(replace(ping, sender=4, incarnation=4)))
    assert effects.save is not None
    assert effects.save.record == record
    assert 4 in world.state(2).peers


def test_r10_a_removal_that_leaves_no_quorum_is_refused() -> None:
    world = World(3, quorum="static")
    world.start()
    world.run_until(lambda: world.controller() == 1)
    world.run(1000)
    world.kill(3)
    world.run(100)
    asked = MemberChange(MemberAction.REMOVE, 2, "")
    effects = step(world, 1, MessageReceived(replace(packet(world, 1, asked).envelope, sender=0)))
    assert isinstance(effects.answer, CommonResp)
    assert effects.answer.result is Result.FORBIDDEN
    assert effects.save is None
