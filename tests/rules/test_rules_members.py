"""Who belongs to the cluster changes while it runs: members, leaves, and what a record brings (R10, R11, R14)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import pytest

from tests.support.positions import (
    both_close,
    deaf,
    elected_of,
    grant,
    new_nodes,
    pong,
    pre_candidate_of,
    sent_by,
    step,
    walk_to,
)
from tests.support.records import made_record
from tools.simulator.small_world import MS, World, leadership_of, packet
from zelect.core.effects import Depart, Intent, PublishNode, Saved
from zelect.core.events import (
    DeathProven,
    Evidence,
    Leave,
    LinkDown,
    LinkUp,
    MessageReceived,
    PeerConnected,
    PeerDisconnected,
    Tick,
    WitnessAnswered,
    WitnessSeen,
    WitnessVoted,
)
from zelect.core.invariants import RuleBroken
from zelect.core.messages import (
    MAX_VERSION_JUMP,
    CommonResp,
    MemberAction,
    MemberChange,
    Message,
    NodeOffline,
    NodeOnline,
    NodeOnlineResp,
    Ping,
    Pong,
    Reason,
    Refusal,
    Result,
    Type,
    Voting,
    VotResp,
)
from zelect.core.quorum import Record, Witness
from zelect.core.state import MOST_DOUBLINGS, LeaderState, Role
from zelect.core.timing import MAX_TERM_JUMP, Timing

PROMISE_US = Timing().promise_us
HEARTBEAT_US = Timing().heartbeat_us
IDENTITY = Witness("k", "r", "i")


def _place(node: int) -> str:
    return f"tcp://127.0.0.1:{7100 + node}"


def _cluster_of(members: int, nodes: int) -> World:
    """Machines for `nodes`; the first of them are a founded cluster, node 1 is active."""
    world = World(nodes, priorities={1: 10})
    first = tuple(range(1, members + 1))
    record = made_record(0, 1, first, belong=())
    world.disks = {n: Saved(0, 0, 0, record, epoch=n) for n in first}
    world.start(*first)
    world.run_until(lambda: world.controller() == 1)
    world.run(300)
    return world


def _asked(world: World, node: int, what: MemberAction, other: int, address: str = "") -> CommonResp:
    """What `node` answers the operator; the effects are carried out."""
    process = world.processes[node]
    effects = process.machine.step(packet(world, node, MemberChange(what, other, address)), world.now_us)
    world._carry_out(node, effects)
    assert isinstance(effects.answer, CommonResp)
    assert effects.answer.about == int(Type.MEMBERS)
    return effects.answer


def _add(world: World, other: int, node: int = 1) -> CommonResp:
    return _asked(world, node, MemberAction.ADD, other, _place(other))


def _remove(world: World, other: int, node: int = 1) -> CommonResp:
    return _asked(world, node, MemberAction.REMOVE, other)


def _leading(world: World, node: int = 1) -> LeaderState:
    leader_state = world.state(node).leader_state
    assert isinstance(leader_state, LeaderState)
    return leader_state


def _always_active(world: World, for_ms: int) -> None:
    for _ in range(for_ms // 10):
        world.run(10)
        assert world.controller() is not None


# -- R10: the operator changes who belongs --------------------------------------------------------------


def test_r10_one_becomes_three_and_five_and_one_again_and_somebody_is_always_active() -> None:
    world = _cluster_of(1, 5)
    for other in (2, 3, 4, 5):
        world.start(other)
        assert _add(world, other).result is Result.OK
        _always_active(world, 2000)
        voters = tuple(range(1, other + 1))
        walk_to(world, *voters, witness=len(voters) % 2 == 0)
    for other in (5, 4, 3, 2):
        assert _remove(world, other).result is Result.OK
        _always_active(world, 2000)
        voters = tuple(range(1, other))
        walk_to(world, *voters, witness=len(voters) % 2 == 0)
        assert world.state(1).record.nodes == voters
        status = world.processes[other].machine.status(world.now_us)
        assert status.belongs == "removed", "it was told"
    assert len(world.happened("became_active")) == 1


def test_r10_a_static_cluster_changes_its_members_too() -> None:
    world = World(4, quorum="static", priorities={1: 10})
    record = made_record(0, 1, (1, 2, 3), belong=())
    world.disks = {n: Saved(0, 0, 0, record, epoch=n) for n in (1, 2, 3)}
    world.start()
    world.run_until(lambda: world.controller() == 1)
    world.run(300)
    assert _add(world, 4).result is Result.OK
    walk_to(world, 1, 2, 3, 4, witness=False)
    world.run(100)
    assert _remove(world, 2).result is Result.OK
    walk_to(world, 1, 3, 4, witness=False)


def test_r10_a_node_that_is_added_has_no_vote_before_it_has_answered_steadily() -> None:
    world = _cluster_of(3, 4)
    world.start(4)
    answer = _add(world, 4)
    record = world.state(1).record
    assert (answer.result, answer.detail) == (Result.OK, f"voter record {record.config_term}.{record.version}")
    assert (record.members, record.nodes) == ((1, 2, 3), (1, 2, 3, 4))
    took_ms = world.run_until(lambda: 4 in world.state(1).record.members)
    assert took_ms * MS >= PROMISE_US
    walk_to(world, 1, 2, 3, 4, witness=True)
    assert world.happened("member_added", 1)[0].details == {"peer": 4, "address": _place(4)}


def test_r10_who_is_removed_loses_its_vote_and_its_place_in_one_change() -> None:
    world = _cluster_of(3, 3)
    version = world.state(1).record.version
    assert _remove(world, 3).result is Result.OK
    record = world.state(1).record
    assert (record.version, record.members, record.nodes) == (version + 1, (1, 2), (1, 2))
    assert 3 in world.state(1).peers, "it is told first, so that it knows"
    world.run(20)
    assert world.state(3).record.nodes == (1, 2)
    assert 3 not in world.state(1).peers.keys() | world.state(2).peers.keys()
    world.run(3000)
    assert world.controller() == 1
    assert not [e for e in world.happened("campaign_began", 3) if e.at_us >= world.now_us - 3_000_000]


def test_r10_the_connection_to_a_node_that_was_removed_is_closed() -> None:
    """Nothing else may happen in the step in which it has saved that it was removed. A connection that was kept
    would not be reported as opened once the node is added again."""
    world = _cluster_of(3, 3)
    assert _remove(world, 3).result is Result.OK
    parted = [step(world, 1, pong(world, voter)) for voter in (2, 3)]
    assert 3 not in world.state(1).peers
    assert [dict(effects.connect).keys() for effects in parted if effects.connect is not None] == [{1, 2}]


def test_r13_only_who_belongs_to_the_cluster_has_an_entry_in_redis() -> None:
    world = _cluster_of(3, 4)
    world.start(4)
    world.run(100)
    new, removed = world.processes[4].machine, world.processes[3].machine
    assert not _entries(new.step(Tick(False), world.now_us + 2_000_000).publish)
    after = world.state(3).record.without_node(3)
    effects = removed.step(packet(world, 1, Ping(2**20, True, after, (2,))), world.now_us)
    assert [intent for intent in effects.publish if isinstance(intent, Depart)] == [Depart(last=False)]
    assert not _entries(removed.step(Tick(False), world.now_us + 2_000_000).publish)


def _entries(intents: Sequence[Intent]) -> list[PublishNode]:
    return [intent for intent in intents if isinstance(intent, PublishNode)]


@pytest.mark.parametrize("event", [PeerConnected, PeerDisconnected, LinkUp, LinkDown])
def test_r10_the_connections_of_a_node_that_was_removed_mean_nothing_any_more(event: type[Any]) -> None:
    world = _cluster_of(3, 3)
    born = (world.processes[3].incarnation,) if event in (PeerConnected, PeerDisconnected) else ()
    assert _remove(world, 3).result is Result.OK
    world.run(20)
    for node in (1, 2):
        assert 3 not in world.state(node).peers
        assert not step(world, node, event(3, *born)).probe
    assert world.controller() == 1


def test_r10_a_replaced_host_comes_in_by_two_changes_of_the_voters() -> None:
    world = _cluster_of(3, 3)
    world.kill(3)
    walk_to(world, 1, 2, witness=True)
    world.run(100)
    version = world.state(1).record.version
    assert _asked(world, 1, MemberAction.REPLACE, 3, "tcp://elsewhere:7103").result is Result.OK
    record = world.state(1).record
    assert (record.version, record.members) == (version + 1, (1, 2))
    assert dict(record.addresses)[3] == world.state(1).addresses[3] == "tcp://elsewhere:7103"
    assert world.state(1).peers[3].incarnation == 0, "the host that it was is forgotten"
    assert world.happened("member_replaced", 1)[0].details == {"peer": 3, "address": "tcp://elsewhere:7103"}
    addresses = {**world.settings[3].addresses, 3: "tcp://elsewhere:7103"}
    world.settings[3] = replace(world.settings[3], addresses=addresses)
    world.start(3, forget=True)
    walk_to(world, 1, 2, 3, witness=False)
    assert world.state(1).record.epoch_of(3) == world.state(3).saved.epoch


def test_r10_the_record_decides_where_a_member_is_whatever_the_configuration_says() -> None:
    world = _cluster_of(3, 4)
    world.start(4)
    assert _add(world, 4).result is Result.OK
    walk_to(world, 1, 2, 3, 4, witness=True)
    assert set(world.state(2).addresses) == set(world.state(4).addresses) == {1, 2, 3, 4}
    world.settings[2] = replace(world.settings[2], addresses={2: _place(2)})
    world.kill(2)
    world.start(2)
    assert dict(world.state(2).addresses) == {n: _place(n) for n in (1, 2, 3, 4)}


@pytest.mark.parametrize("node", [1, 2], ids=["controller", "follower"])
def test_r10_a_node_says_again_where_it_is_to_a_peer_that_was_not_heard_since_it_connected(node: int) -> None:
    """It may have missed the introduction, and with it where this node is: then it can't connect, nor answer."""
    world = _cluster_of(3, 3)
    step(world, node, LinkDown(3))
    assert len(sent_by(step(world, node, LinkUp(3), 1), NodeOnline)) == 1
    idle_us = world.settings[node].timing.idle_ping_us
    again = step(world, node, Tick(False), idle_us + 1)
    assert [(to, e.message.address) for to, e in again.send if isinstance(e.message, NodeOnline)] == [(3, _place(node))]
    step(world, node, packet(world, 3, Ping(0, False, None, ())), idle_us + 2)
    assert not sent_by(step(world, node, Tick(False), 3 * idle_us), NodeOnline), "it was heard since"


@pytest.mark.parametrize("what", [MemberAction.ADD, MemberAction.REMOVE, MemberAction.REPLACE])
def test_r10_one_change_at_a_time_and_the_next_waits_until_a_quorum_has_the_one_before(what: MemberAction) -> None:
    world = _cluster_of(3, 5)
    for voter in (2, 3):
        world.cut(voter, 1)
    if what is MemberAction.REPLACE:
        step(world, 1, LinkDown(3))  # it is gone: one that lives at its address is not replaced
    before = world.state(1).record
    assert _add(world, 4).result is Result.OK
    after = world.state(1).record
    address = "" if what is MemberAction.REMOVE else _place(9)
    answer = _asked(world, 1, what, 5 if what is MemberAction.ADD else 3, address)
    assert (answer.result, world.state(1).record) == (Result.BUSY, after)
    step(world, 1, pong(world, 2, record_id=before.id))
    assert _add(world, 5).result is Result.BUSY, "it answered, but has the record before"
    step(world, 1, pong(world, 2))
    assert _asked(world, 1, what, 5 if what is MemberAction.ADD else 3, address).result is Result.OK
    assert world.state(1).record.version == after.version + 1


def test_r10_what_is_so_already_is_no_change() -> None:
    world = _cluster_of(3, 3)
    before = world.state(1).record
    for answer, detail in (
        (_add(world, 2), f"node 2 belongs to the cluster, at {_place(2)}"),
        (_asked(world, 1, MemberAction.REPLACE, 2, _place(2)), f"node 2 belongs to the cluster, at {_place(2)}"),
        (_remove(world, 9), "node 9 does not belong to the cluster"),
    ):
        assert (answer.result, answer.detail) == (Result.OK, detail)
    assert world.state(1).record == before


@pytest.mark.parametrize(
    ("what", "node", "address", "detail"),
    [
        (MemberAction.ADD, 2, _place(9), f"node 2 belongs to the cluster already, at {_place(2)}"),
        (MemberAction.ADD, 9, _place(2), f"{_place(2)} is the address of node 2"),
        (MemberAction.REPLACE, 3, _place(2), f"{_place(2)} is the address of node 2"),
        (MemberAction.REPLACE, 9, _place(9), "node 9 does not belong to the cluster"),
        (MemberAction.REPLACE, 1, _place(9), "node 1 is the controller; transfer its leadership first"),
        (MemberAction.REMOVE, 1, "", "node 1 is the controller; transfer its leadership first"),
    ],
)
def test_r10_a_change_that_makes_no_sense_is_refused_with_the_reason(
    what: MemberAction, node: int, address: str, detail: str
) -> None:
    world = _cluster_of(3, 3)
    before = world.state(1).record
    answer = _asked(world, 1, what, node, address)
    assert (answer.result, answer.detail) == (Result.FORBIDDEN, detail)
    assert world.state(1).record == before


def test_r10_the_only_member_is_not_removed() -> None:
    world = _cluster_of(1, 1)
    answer = _asked(world, 1, MemberAction.REMOVE, 1, "")
    assert answer.result is Result.FORBIDDEN
    assert answer.detail == "node 1 is the only member; a cluster ends when its last node is stopped for good"


def test_r10_only_an_active_controller_changes_who_belongs() -> None:
    world = _cluster_of(3, 3)
    answer = _add(world, 4, node=2)
    assert (answer.result, answer.detail) == (Result.NOT_CONTROLLER, "node 2 is not active; node 1 is")
    late_us = _leading(world).lease_lapses_us
    message = packet(world, 1, MemberChange(MemberAction.ADD, 4, _place(4)))
    effects = world.processes[1].machine.step(message, late_us)
    assert isinstance(effects.answer, CommonResp)
    assert effects.answer.detail == "node 1 is not active and knows of no controller"
    world = elected_of(3)
    assert _add(world, 4).result is Result.NOT_CONTROLLER


class _RemovesTwo(Record):
    """A record that takes two votes away where one node is to go."""

    def without_node(self, node: int) -> Record:
        return self.without_member(node).without_member(node - 1)


def test_r10_a_change_of_two_voters_ends_the_node() -> None:
    world = _cluster_of(5, 5)
    state = world.state(1)
    given = {item.name: getattr(state.record, item.name) for item in fields(state.record) if item.init}
    state.saved = replace(state.saved, record=_RemovesTwo(**given))
    with pytest.raises(RuleBroken, match=r"^R10"):
        _remove(world, 5)


# -- R10: a record brings its term, and to acknowledge is to vote -------------------------------------


def test_r10_who_takes_a_record_takes_its_term_in_the_same_save() -> None:
    """The record comes from Redis, which has no term of its own that would be taken first."""
    world = deaf(3)
    world.run(5)
    record = replace(world.state(2).record, config_term=7, version=9)
    effects = step(world, 2, WitnessSeen(None, True, False, record))
    assert effects.save is not None
    assert (effects.save.record, effects.save.term, effects.save.voted_for) == (record, 7, 0)
    asked = packet(world, 3, Voting(False, 1, 6, record, Reason.TIMEOUT, 0, 0), 7)
    (answer,) = sent_by(step(world, 2, asked), VotResp)
    assert answer.reason is Refusal.OLD_TERM


@pytest.mark.parametrize("answered", ["vote", "ping", "look"])
def test_r10_a_newer_record_of_redis_ends_the_leadership_that_did_not_write_it(answered: str) -> None:
    world = leadership_of(1)
    term = world.state(1).term
    record = replace(world.state(1).record, config_term=term + 1)
    events: dict[str, Any] = {
        "vote": WitnessVoted(False, 1, Refusal.STALE_VOTERS, 0, (), False, record),
        "ping": WitnessAnswered(1, term, record.id, Refusal.STALE_VOTERS, 0, record),
        "look": WitnessSeen(None, True, False, record),
    }
    step(world, 1, events[answered])
    assert (world.state(1).record, world.state(1).term) == (record, term + 1)
    assert world.state(1).role is Role.FOLLOWER


def test_r10_to_acknowledge_a_controller_is_to_vote_for_it() -> None:
    world = deaf(3)
    world.run(5)
    record = replace(world.state(2).record, config_term=4, version=2)
    effects = step(world, 2, packet(world, 1, Ping(1, True, record, (2, 3)), 4))
    assert effects.save is not None
    assert (effects.save.record, effects.save.term) == (record, 4)
    assert (effects.save.voted_for, effects.save.voted_epoch) == (1, 1)
    assert [answer.record_id for answer in sent_by(effects, Pong)] == [record.id]
    step(world, 2, LinkDown(1))
    step(world, 2, DeathProven(1, world.processes[1].incarnation, Evidence.LOCK))
    asked = packet(world, 3, Voting(False, 1, 4, record, Reason.DEATH, 1, 4), 4)
    (answer,) = sent_by(step(world, 2, asked), VotResp)
    assert (answer.granted, answer.reason) == (False, Refusal.VOTED), "a second controller of term 4"


def test_r10_who_voted_for_another_acknowledges_without_another_vote() -> None:
    world = deaf(3)
    world.run(5)
    record = world.state(2).record
    step(world, 2, packet(world, 3, Voting(False, 1, 4, record, Reason.TIMEOUT, 0, 0), 4))
    step(world, 2, packet(world, 1, Ping(1, True, replace(record, config_term=4, version=2), (2, 3)), 4))
    assert (world.state(2).saved.voted_for, world.state(2).controller.id) == (3, 1)


def test_r10_who_has_a_newer_record_than_its_controller_does_not_vote_for_it() -> None:
    world = deaf(3)
    world.run(5)
    record = world.state(2).record
    step(world, 2, packet(world, 3, NodeOnlineResp(0, 0, replace(record, config_term=4, version=9)), 4))
    effects = step(world, 2, packet(world, 1, Ping(1, True, replace(record, config_term=4, version=2), (2, 3)), 4))
    assert world.state(2).controller.id == 1
    assert world.state(2).saved.voted_for == 0
    assert [answer.record_id for answer in sent_by(effects, Pong)] == [(0, 4, 9)]


def test_r10_a_vote_is_for_one_storage_epoch_of_the_candidate() -> None:
    """Its next one knows nothing of the first one's leadership of that term (R16)."""
    world = deaf(3)
    world.run(5)
    record = world.state(2).record
    (answer,) = sent_by(step(world, 2, packet(world, 3, Voting(False, 1, 4, record, Reason.TIMEOUT, 0, 0), 4)), VotResp)
    assert answer.granted
    assert world.state(2).saved.voted_epoch == 3
    newer = replace(record, config_term=4, version=5, epochs=(1, 2, 33))
    (answer,) = sent_by(step(world, 2, packet(world, 3, Voting(False, 2, 4, newer, Reason.TIMEOUT, 0, 0), 4)), VotResp)
    assert (answer.granted, answer.reason) == (False, Refusal.VOTED)


def test_r10_who_stands_in_its_record_with_another_epoch_is_no_candidate() -> None:
    world = deaf(3)
    world.run(5)
    state = world.state(1)
    state.saved = replace(state.saved, epoch=9)
    began = len(world.happened("campaign_began", 1))
    world.run(5000)
    assert len(world.happened("campaign_began", 1)) == began


# -- R11: leaves -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("node", [2, 3])
def test_r11_a_member_that_left_stays_a_voter_for_down_after(node: int) -> None:
    """Most come back at once, and until then nothing is less available than with static voters."""
    world = leadership_of(1)
    heard_us = world.state(1).peers[node].heard_us
    world.leave(node)
    world.run_until(lambda: node not in world.state(1).record.members)
    assert world.now_us - heard_us >= world.settings[1].timing.down_after_us
    assert world.happened("peer_unresponsive", 1)


def test_r11_one_that_left_and_is_then_proven_dead_is_expected_back_as_well() -> None:
    world = leadership_of(1)
    step(world, 1, packet(world, 3, NodeOffline(3, world.processes[3].incarnation, "leave")))
    both_close(world, 1, 3)
    step(world, 1, DeathProven(3, world.processes[3].incarnation, Evidence.LOCK))
    peer = world.state(1).peers[3]
    assert (peer.dead, peer.offline, peer.gone, peer.lost) == (True, True, True, False)
    assert world.state(1).record.members == (1, 2, 3)


def test_r11_in_a_stop_of_the_whole_cluster_all_stay_voters_until_they_were_back_once() -> None:
    world = leadership_of(1)
    for node in (2, 3):
        world.feed(node, Leave(cluster_stop=True))
        world.run(1)
    assert {world.state(1).peers[n].cluster_stop for n in (2, 3)} == {True}
    world.run(5)
    world.kill(3)
    world.run(50)
    assert world.state(1).record.members == (1, 2, 3)
    world.kill(1, 2)
    world.start(1, 2)
    world.run_until(lambda: world.controller() is not None)
    walk_to(world, 1, 2, witness=True)  # the new controller was not told of any leave, and goes by silence


def test_r11_a_controller_that_is_told_of_a_stop_shrinks_nothing_until_the_member_was_back() -> None:
    world = leadership_of(1)
    world.feed(3, Leave(cluster_stop=True))
    world.run(5)
    world.kill(3)
    world.run(20_000)
    assert world.state(1).record.members == (1, 2, 3)
    assert not world.happened("peer_unresponsive", 1)
    world.start(3)
    world.run(2000)
    assert not world.state(1).peers[3].cluster_stop
    world.kill(3)
    walk_to(world, 1, 2, witness=True)


# -- R14: what Redis says passes the same gate -----------------------------------------------------------


def _too_far(world: World, node: int = 1) -> int:
    return int(world.state(node).term) + MAX_TERM_JUMP + 1


@pytest.mark.parametrize("beyond", [0, 1])
def test_r14_a_term_of_the_witness_too_far_ahead_is_refused(beyond: int) -> None:
    for event in ("vote", "ping"):
        world = leadership_of(1)
        term = world.state(1).term + MAX_TERM_JUMP + beyond
        events: dict[str, Any] = {
            "vote": WitnessVoted(False, 1, Refusal.OLD_TERM, term),
            "ping": WitnessAnswered(1, world.state(1).term, (0, 0, 0), Refusal.OLD_TERM, term),
        }
        effects = step(world, 1, events[event])
        assert (world.state(1).term == term) is (not beyond)
        assert (effects.save is None) is bool(beyond)
        if beyond:
            (fact,) = [fact for fact in effects.facts if fact.name == "witness_refused"]
            assert dict(fact.fields)["reason"] == "term_jump"


@pytest.mark.parametrize(
    ("changes", "taken"),
    [
        ({"config_term": 1 + MAX_TERM_JUMP}, True),
        ({"config_term": 2 + MAX_TERM_JUMP}, False),
        ({"version": 1 + MAX_VERSION_JUMP}, True),
        ({"version": 10**12}, False),
        ({"cluster_id": 99}, False),
        ({"generation": 1}, False),
        ({"members": (), "epochs": ()}, False),
    ],
)
def test_r14_a_record_of_redis_that_can_not_be_this_clusters_is_refused(changes: dict[str, Any], taken: bool) -> None:
    world = leadership_of(1)
    assert world.state(1).term == 1
    changed: Any = replace
    record = changed(world.state(2).record, **{"version": world.state(2).record.version + 1, **changes})
    effects = step(world, 2, WitnessSeen(None, True, False, record))
    assert (world.state(2).record == record) is taken
    assert (effects.save is not None) is taken


# -- R8: rounds follow the disk --------------------------------------------------------------------------


def _rounds_ms(world: World) -> tuple[float, float]:
    timing = world.settings[1].timing
    return world.state(1).round_us(timing, pre=True) / MS, world.state(1).round_us(timing, pre=False) / MS


def test_r8_a_round_lasts_as_long_as_the_disks_need() -> None:
    world = pre_candidate_of(3)
    assert _rounds_ms(world) == (100, 100)
    world.processes[1].machine.saved_in(50 * MS)
    assert _rounds_ms(world) == (100, 250), "a pre-vote saves nothing"
    world.processes[1].machine.saved_in(1 * MS)
    assert _rounds_ms(world) == (100, 100 + 3 * 43.75), "one slow save counts for the next few"
    world.processes[1].machine.saved_in(500 * MS)
    world.feed(1, grant(world, 2))
    campaign = world.state(1).campaign
    assert (campaign.pre, campaign.give_up_us - campaign.round_began_us) == (False, 1600 * MS)


def test_r8_each_failed_attempt_doubles_the_round_up_to_a_limit() -> None:
    world = pre_candidate_of(3)
    world.processes[1].machine.saved_in(100 * MS)
    seen = []
    for attempts in range(MOST_DOUBLINGS + 3):
        world.state(1).attempts = attempts
        seen.append(_rounds_ms(world))
    assert [pre for pre, _ in seen] == [100, 200, *[400] * (MOST_DOUBLINGS + 1)]
    assert [vote for _, vote in seen] == [400 << min(n, MOST_DOUBLINGS) for n in range(MOST_DOUBLINGS + 3)]


def test_r8_a_winner_gives_the_disks_of_the_voters_time_to_save_its_record() -> None:
    world = pre_candidate_of(3)
    world.processes[1].machine.saved_in(200 * MS)
    for _ in ("pre-vote", "vote"):
        world.feed(1, grant(world, 2))
    leader_state = _leading(world)
    assert leader_state.disks_us == 600 * MS
    over_us = leader_state.elected_us + PROMISE_US + 600 * MS
    assert leader_state.over_us(PROMISE_US) == over_us
    step(world, 1, Tick(), over_us - 1 - world.now_us)
    assert world.state(1).role is Role.ELECTED
    step(world, 1, Tick(), over_us - world.now_us)
    assert world.state(1).role is Role.FOLLOWER


@pytest.mark.parametrize(("took_ms", "waits_ms"), [(0, 0), (200, 400)])
def test_r8_who_would_vote_gives_the_candidate_time_to_save_its_own_vote(took_ms: int, waits_ms: int) -> None:
    world = deaf(3)
    world.run(5)
    world.processes[2].machine.saved_in(took_ms * MS)
    before_us = world.state(2).campaign_at_us = world.now_us
    step(world, 2, packet(world, 3, Voting(True, 1, 4, world.state(2).record, Reason.TIMEOUT, 0, 0)))
    assert world.state(2).campaign_at_us == before_us + waits_ms * MS


def test_r8_a_voter_gives_the_winner_the_same_time() -> None:
    world = deaf(3)
    world.run(5)
    world.processes[2].machine.saved_in(200 * MS)
    step(world, 2, packet(world, 3, Voting(False, 1, 4, world.state(2).record, Reason.TIMEOUT, 0, 0), 4))
    assert world.state(2).campaign_at_us >= world.now_us + 700 * MS


# -- R4: the longest promise is saved ----------------------------------------------------------------------


@pytest.mark.parametrize(("promise_ms", "grace_ms"), [(0, 500), (500, 500), (2000, 2000)])
def test_r4_the_promises_of_an_earlier_configuration_are_outwaited(promise_ms: int, grace_ms: int) -> None:
    world = World(3)
    world.disks = {n: replace(saved, promise_ms=promise_ms) for n, saved in world.disks.items()}
    world.ran = {2}
    world.start()
    world.run(1)
    assert world.state(2).grace_until_us == 1_000_000 + grace_ms * MS
    assert (world.state(1).grace_until_us, world.state(3).grace_until_us) == (0, 0), "they never ran"
    early = step(world, 2, Tick(), grace_ms * MS - 2 * MS)
    assert early.save is None
    world.run(grace_ms + 1000)
    assert world.state(2).saved.promise_ms == 500, "no longer one can be left"


def test_r4_what_a_new_node_may_promise_is_in_its_first_save() -> None:
    world = World(3, founded=False, timing=Timing(election_timeout_ms=900))
    world.start(1)
    assert world.disks[1].promise_ms == 900


# -- who was removed, whose address is another's, who lives elsewhere -------------------------------------


def _removed_of_three() -> World:
    """Node 3 was removed, and runs."""
    world = _cluster_of(3, 3)
    assert _remove(world, 3).result is Result.OK
    world.run(500)
    assert world.state(3).removed
    return world


def _from_new(world: World, sender: int, message: Message) -> MessageReceived:
    """`message` of a node that belongs to no cluster."""
    envelope = packet(world, 1, message).envelope
    return MessageReceived(replace(envelope, sender=sender, incarnation=9, cluster_id=0))


def test_r15_a_removed_node_introduces_itself_to_nobody() -> None:
    world = _removed_of_three()
    assert not sent_by(step(world, 3, LinkUp(1)), NodeOnline)
    assert sent_by(step(world, 2, LinkUp(1)), NodeOnline)


@pytest.mark.parametrize("sender", [1, 9], ids=["known", "unknown"])
def test_r15_a_removed_node_tells_a_new_one_that_it_was_removed(sender: int) -> None:
    world = _removed_of_three()
    effects = step(world, 3, _from_new(world, sender, NodeOnline(_place(sender), 0, 9)))
    (answer,) = sent_by(effects, CommonResp) if sender == 1 else [effects.answer]
    assert isinstance(answer, CommonResp)
    assert (answer.result, answer.detail) == (Result.REMOVED, "node 3 was removed from cluster 7")
    assert not sent_by(effects, NodeOnlineResp)
    assert world.state(3).refused["removed"] == 1
    assert not step(world, 3, _from_new(world, 1, CommonResp(6, Result.TERM_JUMP, ""))).send, "an error is for people"


def test_r15_a_new_node_does_not_wait_for_the_cluster_of_a_removed_one() -> None:
    world = new_nodes()
    told = packet(world, 2, CommonResp(6, Result.NOT_MEMBER, "")).envelope
    step(world, 1, MessageReceived(replace(told, cluster_id=7)))
    assert world.state(1).hears_of_cluster()
    removed = replace(told, cluster_id=7, message=CommonResp(6, Result.REMOVED, ""))
    step(world, 1, MessageReceived(removed))
    assert not world.state(1).hears_of_cluster()
    assert not world.state(1).founders(), "nor does it found one with that node"


@pytest.mark.parametrize("lost", [True, False])
def test_r16_who_answers_from_another_cluster_loses_its_vote_once_it_is_not_heard(lost: bool) -> None:
    world = leadership_of(1, nodes=2)
    world.run(5000)
    assert world.state(1).record.witness is not None
    if lost:
        world.cut(2, 1)
        world.run(5000)
        assert world.state(1).members == (1, 2), "the floor"
    step(
        world,
        1,
        MessageReceived(replace(packet(world, 2, CommonResp(6, Result.OTHER_CLUSTER, "")).envelope, cluster_id=99)),
    )
    assert world.state(1).members == ((1,) if lost else (1, 2))
    step(world, 1, packet(world, 2, CommonResp(6, Result.ID_IN_USE, "")))
    assert not world.state(1).peers[2].foreign


def test_r10_whose_address_is_another_nodes_is_told_so_and_keeps_its_own() -> None:
    world = _cluster_of(3, 3)
    before = world.state(1).record
    effects = step(world, 1, packet(world, 3, NodeOnline(_place(2), 0, 3)))
    (told,) = sent_by(effects, CommonResp)
    assert (told.result, told.detail) == (Result.ADDRESS_IN_USE, f"{_place(2)} is the address of node 2")
    assert effects.connect is None
    assert world.state(1).addresses[3] == _place(3)
    assert world.state(1).record == before
    effects = step(world, 1, packet(world, 3, NodeOnline(_place(1), 0, 3)))
    assert sent_by(effects, CommonResp)[0].detail == f"{_place(1)} is the address of node 1"
    step(world, 1, packet(world, 2, NodeOnline(_place(9), 0, 2)))
    effects = step(world, 1, packet(world, 3, NodeOnline(_place(2), 0, 3)))
    assert not sent_by(effects, CommonResp), "node 2 is elsewhere now"
    assert world.state(1).addresses[3] == _place(2)


def test_r10_who_answers_at_its_address_is_not_replaced() -> None:
    world = _cluster_of(3, 3)
    answer = _asked(world, 1, MemberAction.REPLACE, 3, _place(9))
    assert (answer.result, answer.detail) == (
        Result.FORBIDDEN,
        f"node 3 answers at {_place(3)}; stop that process first",
    )
    world.cut(3, 1)
    world.run(1000)
    assert _asked(world, 1, MemberAction.REPLACE, 3, _place(9)).result is Result.OK, "it is not heard any more"


def test_r15_the_list_of_a_member_may_change_while_it_runs() -> None:
    world = _cluster_of(3, 3)
    machine = world.processes[1].machine
    machine.list_members({1: _place(1), 4: _place(4)})
    assert (machine.state.founding_members, machine.settings.address) == ((1, 4), _place(1))
    assert set(machine.state.addresses) == {1, 2, 3}
    with pytest.raises(RuleBroken, match="R15"):
        new_nodes().processes[1].machine.list_members({1: _place(1)})
