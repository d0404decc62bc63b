"""What a peer gets wrong is refused and counted; it never ends the node that hears it."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest

from tests.support.positions import both_close, sent_by, step
from tests.support.records import made_record
from tests.support.samples import EXAMPLES
from tools.common.founded import CLUSTER_ID
from tools.simulator.small_world import World, leadership_of, packet
from zelect.core.effects import Effects
from zelect.core.events import DeathProven, Evidence, MessageReceived
from zelect.core.messages import (
    MAX_EPOCH_HEARD,
    MAX_NUMBER,
    MAX_VERSION_HEARD,
    MAX_VERSION_JUMP,
    AdminCommand,
    Bootstrap,
    CommonResp,
    Envelope,
    MemberChange,
    Message,
    NodeOnlineResp,
    Ping,
    Pong,
    Query,
    Reason,
    Reset,
    Result,
    Type,
    Voting,
    VotResp,
)
from zelect.core.quorum import Record, Witness
from zelect.core.state import State, clone
from zelect.core.status import NodeStatus
from zelect.core.timing import MAX_TERM, MAX_TERM_HEARD, MAX_TERM_JUMP

UNRECOGNIZED = 77
OTHER_ID = CLUSTER_ID + 1
VOTERS = made_record(1, 1, (1, 2, 3))


@pytest.mark.parametrize(
    ("sender", "message"),
    [
        pytest.param(1, Ping(5, True, VOTERS, (UNRECOGNIZED,)), id="succession names an unknown client"),
        pytest.param(1, Ping(5, True, replace(VOTERS, cluster_id=OTHER_ID), (2,)), id="record of another cluster"),
        pytest.param(1, Ping(5, True, replace(VOTERS, generation=1), (2,)), id="record of another generation"),
        pytest.param(1, Ping(5, True, replace(VOTERS, cluster_id=0), (2,)), id="record of no cluster"),
        pytest.param(3, NodeOnlineResp(1, 1, made_record(0, 0, (1, 2, 3))), id="record that is only proposed"),
        pytest.param(3, NodeOnlineResp(1, 1, made_record(1, 9, ())), id="record without members"),
        pytest.param(3, NodeOnlineResp(1, 1, made_record(10**6, 9, (1, 2, 3))), id="record of a term to come"),
    ],
)
def test_impossible_voters_from_a_peer_stop_nobody(sender: int, message: Message) -> None:
    world = leadership_of(1)
    world.feed(2, packet(world, sender, message))
    world.run(50)
    world.kill(1)
    world.run_until(lambda: world.controller() is not None)
    assert world.controller() == 2, "node 2 still takes its turn"


@pytest.mark.parametrize("term", [0, MAX_TERM_HEARD + 1, MAX_TERM])
@pytest.mark.parametrize("incarnations_on", [0, 1])
def test_a_complaint_is_not_answered_and_raises_no_term(term: int, incarnations_on: int) -> None:
    """Two nodes that refuse each other would otherwise talk without end."""
    world = leadership_of(1)
    heard = packet(world, 3, CommonResp(int(Type.PING), Result.TERM_JUMP, ""), term)
    envelope = replace(heard.envelope, incarnation=heard.envelope.incarnation + incarnations_on)
    before = world.state(2).saved
    effects = world.processes[2].machine.step(MessageReceived(envelope), world.now_us)
    assert effects.send == ()
    assert effects.save is None
    assert world.state(2).saved == before


# -- each reason -------------------------------------------------------------------------------------------


def _knows(state: State) -> dict[str, object]:
    """All that a node knows, but for what the gate counts."""
    copy = clone(state)
    return {item.name: getattr(copy, item.name) for item in fields(copy) if item.name != "refused"}


def _refused(world: World, node: int, envelope: Envelope) -> tuple[str, Effects]:
    """The reason for which `node` refuses `envelope`; that nothing else happened is checked."""
    state = world.state(node)
    before, counted = _knows(state), dict(state.refused)
    effects = step(world, node, MessageReceived(envelope))
    grown = {reason: count - counted.get(reason, 0) for reason, count in state.refused.items()}
    ((reason, times),) = ((reason, times) for reason, times in grown.items() if times)
    assert times == 1
    assert _knows(state) == before
    assert (effects.save, effects.publish, effects.witness, effects.probe, effects.connect) == (None, (), (), (), None)
    by_address = ("wrong_cluster", "wrong_node", "unknown_sender", "other_cluster")
    assert (effects.answer is not None) is (reason in by_address), "it may not be the node that is known by that id"
    assert [fact.name for fact in effects.facts] == ["message_refused"]
    return reason, effects


def _wrong(world: World, reason: str, message: Message) -> Envelope:
    """`message` from node 3, wrong in one way."""
    sound = packet(world, 3, message).envelope
    term = world.state(2).term
    changes: dict[str, dict[str, Any]] = {
        "wrong_cluster": {"cluster": "demo2"},
        "wrong_node": {"to": 1},
        "own_id": {"sender": 2},
        "unknown_sender": {"sender": UNRECOGNIZED},
        "settings_mismatch": {"settings": sound.settings ^ 1},
        "other_cluster": {"cluster_id": OTHER_ID},
        "other_generation": {"generation": 1},
        "term_jump": {"term": term + MAX_TERM_JUMP + 1},
        "old_incarnation": {"incarnation": sound.incarnation - 1},
        "id_in_use": {"incarnation": sound.incarnation + 1},
    }
    return replace(sound, **changes[reason])


REASONS = (
    "wrong_cluster",
    "wrong_node",
    "own_id",
    "unknown_sender",
    "settings_mismatch",
    "other_cluster",
    "other_generation",
    "term_jump",
    "old_incarnation",
    "id_in_use",
)
"""In the order in which the gate looks."""

FROM_COMMAND_LINE = (Query, Reset, AdminCommand, MemberChange, Bootstrap)
FROM_MEMBERS = [m for m in EXAMPLES if not isinstance(m, (CommonResp, *FROM_COMMAND_LINE))]


@pytest.mark.parametrize("reason", REASONS)
def test_each_reason_is_counted_and_changes_nothing_else(reason: str) -> None:
    world = leadership_of(1)
    for message in FROM_MEMBERS:
        # The examples speak of a record of another time; here it shall not be what is wrong.
        if isinstance(message, Ping | Voting | VotResp | NodeOnlineResp) and message.record is not None:
            message = replace(message, record=world.state(2).record)
        if reason == "term_jump" and isinstance(message, Voting):
            message = replace(message, term_sought=1)
        assert _refused(world, 2, _wrong(world, reason, message))[0] == reason


@pytest.mark.parametrize("reason", REASONS)
def test_a_refused_message_stops_nobody(reason: str) -> None:
    world = leadership_of(1)
    for _ in range(20):
        world.feed(2, MessageReceived(_wrong(world, reason, Pong(0, 0, (0, 0, 0), 0, 1))))
        world.run(50)
        assert world.controller() == 1
    world.kill(1)
    world.run_until(lambda: world.controller() == 2)


def test_the_gate_checks_in_one_order() -> None:
    """What is wrong in several ways is refused for the first of them."""
    world = leadership_of(1)
    envelope = packet(world, 3, Pong(0, 0, (0, 0, 0), 0, 1)).envelope
    seen = []
    for reason in reversed(REASONS[:-2]):
        one = _wrong(world, reason, envelope.message)
        name = next(f.name for f in fields(one) if getattr(one, f.name) != getattr(_sound(world), f.name))
        envelope = replace(envelope, **{name: getattr(one, name)})
        seen.append(_refused(world, 2, envelope)[0])
    assert seen == [*reversed(REASONS[1:-2]), "wrong_cluster"]


def _sound(world: World) -> Envelope:
    return packet(world, 3, Pong(0, 0, (0, 0, 0), 0, 1)).envelope


@pytest.mark.parametrize(
    ("reason", "result"),
    [
        ("settings_mismatch", Result.SETTINGS_MISMATCH),
        ("term_jump", Result.TERM_JUMP),
        ("id_in_use", Result.ID_IN_USE),
        ("old_incarnation", Result.OLD_INCARNATION),
    ],
)
def test_a_sender_that_can_fix_it_gets_an_answer(reason: str, result: Result) -> None:
    world = leadership_of(1)
    _, effects = _refused(world, 2, _wrong(world, reason, Pong(0, 0, (0, 0, 0), 0, 1)))
    ((to, answer),) = effects.send
    assert to == 3
    assert isinstance(answer.message, CommonResp)
    assert (answer.message.about, answer.message.result) == (int(Type.PONG), result)
    assert answer.message.detail


def test_a_sender_that_does_not_belong_is_told_so_on_its_own_connection() -> None:
    """This node holds none to it: it was removed, or is configured for a cluster that never added it (R15)."""
    world = leadership_of(1)
    _, effects = _refused(world, 2, _wrong(world, "unknown_sender", Pong(0, 0, (0, 0, 0), 0, 1)))
    assert effects.send == ()
    assert effects.answer == CommonResp(
        int(Type.PONG), Result.NOT_MEMBER, f"node {UNRECOGNIZED} does not belong to cluster 7: 1, 2, 3"
    )
    new = World(3, founded=False)
    new.start()
    unknown = replace(packet(new, 3, Pong(0, 0, (0, 0, 0), 0, 1)).envelope, sender=UNRECOGNIZED)
    effects = step(new, 2, MessageReceived(unknown))
    assert new.state(2).refused == {"unknown_sender": 1}
    assert (effects.send, effects.answer) == ((), None), "a new node doesn't know who belongs"


def test_a_difference_of_the_settings_is_told_by_key_and_value() -> None:
    world = leadership_of(1)
    _, effects = _refused(world, 2, _wrong(world, "settings_mismatch", Pong(0, 0, (0, 0, 0), 0, 1)))
    (answer,) = sent_by(effects, CommonResp)
    assert answer.detail == "quorum=dynamic election_timeout_ms=500 lease_ms=400 drift_ppm=1000"


@pytest.mark.parametrize(
    ("reason", "result", "detail"),
    [
        ("wrong_cluster", Result.WRONG_CLUSTER, "this is node 2 of cluster demo"),
        ("wrong_node", Result.WRONG_NODE, "this is node 2"),
        ("other_cluster", Result.OTHER_CLUSTER, "this node belongs to cluster 7"),
    ],
)
def test_whom_a_wrong_address_led_here_is_told_so_on_its_own_connection(
    reason: str, result: Result, detail: str
) -> None:
    """This node's connection to the node of that id may lead to another one."""
    world = leadership_of(1)
    _, effects = _refused(world, 2, _wrong(world, reason, Pong(0, 0, (0, 0, 0), 0, 1)))
    assert effects.send == ()
    assert effects.answer == CommonResp(int(Type.PONG), result, detail)


@pytest.mark.parametrize("reason", ["wrong_cluster", "wrong_node"])
def test_a_complaint_that_was_led_here_is_not_answered(reason: str) -> None:
    world = leadership_of(1)
    complaint = _wrong(world, reason, CommonResp(int(Type.PING), Result.TERM_JUMP, ""))
    effects = step(world, 2, MessageReceived(complaint))
    assert (effects.send, effects.answer) == ((), None)


def test_a_vote_for_another_candidate_that_was_led_here_is_not_counted() -> None:
    """Rounds and terms of two candidates may be the same: one vote would count twice (S1)."""
    world = leadership_of(1)
    world.kill(1)
    world.run_until(lambda: world.state(2).campaign is not None)
    campaign = world.state(2).campaign
    assert campaign is not None
    for to, counts in ((3, False), (2, True)):
        granted = VotResp(campaign.pre, campaign.round, True, None, 0, world.state(3).saved.epoch, None)
        heard = replace(packet(world, 3, granted).envelope, to=to)
        step(world, 2, MessageReceived(heard))
        now = world.state(2).campaign
        assert (now is not campaign or 3 in campaign.answers) is counts


def test_what_a_node_remembers_of_another_makes_none_forget_its_data() -> None:
    world = leadership_of(1)
    before = world.state(2).saved
    told = NodeOnlineResp(1, world.state(2).term, world.state(2).record, before.epoch + 5, 1)
    heard = packet(world, 3, told).envelope
    step(world, 2, MessageReceived(replace(heard, to=3)))
    assert world.state(2).saved == before
    step(world, 2, MessageReceived(replace(heard, to=2)))
    assert world.state(2).is_new, "the same, meant for this node"


def test_an_epoch_that_none_could_be_higher_than_is_not_believed() -> None:
    """It would end the node: its own next one could not be told any more."""
    world = leadership_of(1)
    before = world.state(2).saved
    for heard in (MAX_NUMBER, MAX_EPOCH_HEARD + 1):
        step(world, 2, packet(world, 3, NodeOnlineResp(1, world.state(2).term, world.state(2).record, heard, 1)))
        assert world.state(2).saved == before
    step(world, 2, packet(world, 3, NodeOnlineResp(1, world.state(2).term, world.state(2).record, MAX_EPOCH_HEARD, 1)))
    assert world.state(2).saved.epoch == MAX_EPOCH_HEARD + 1


@pytest.mark.parametrize("reason", ["own_id", "other_generation"])
def test_other_refusals_get_no_answer(reason: str) -> None:
    """It could change nothing by what it would read."""
    world = leadership_of(1)
    _, effects = _refused(world, 2, _wrong(world, reason, Pong(0, 0, (0, 0, 0), 0, 1)))
    assert (effects.send, effects.answer) == ((), None)


def test_a_node_of_an_older_generation_learns_of_the_reset() -> None:
    world = leadership_of(1)
    both_close(world, 2, 1)
    step(world, 2, DeathProven(1, world.processes[1].incarnation, Evidence.LOCK))
    forced = replace(world.state(2).record, generation=3, config_term=0)
    step(world, 2, packet(world, 2, Reset(forced, False)))
    assert world.state(2).record == forced
    reason, effects = _refused(world, 2, packet(world, 3, Pong(0, 0, (0, 0, 0), 0, 1)).envelope)
    assert reason == "other_generation"
    (answer,) = sent_by(effects, CommonResp)
    assert answer.result is Result.OTHER_GENERATION
    assert answer.detail == "the cluster was reset to generation 3"


@pytest.mark.parametrize("kind", [Ping, Voting, NodeOnlineResp, VotResp])
@pytest.mark.parametrize(
    "record",
    [
        pytest.param(made_record(1, 9, (1, 2, 3), cluster_id=OTHER_ID), id="of another cluster"),
        pytest.param(made_record(1, 9, (1, 2, 3), cluster_id=0), id="of no cluster"),
        pytest.param(made_record(1, 9, (1, 2, 3), None, 1), id="of another generation"),
        pytest.param(made_record(0, 0, (1, 2, 3)), id="proposed by a node that belongs to a cluster"),
        pytest.param(made_record(1, 9, ()), id="names nobody"),
        pytest.param(made_record(10**6, 9, (1, 2, 3)), id="of a term to come"),
        pytest.param(made_record(1, MAX_VERSION_JUMP + 99, (1, 2, 3)), id="changed too often to be true"),
    ],
)
def test_an_impossible_record_is_refused_in_every_message_that_carries_one(kind: type[Message], record: Record) -> None:
    world = leadership_of(1)
    messages = [m for m in EXAMPLES if isinstance(m, kind) and getattr(m, "record", None) is not None]
    assert messages
    for message in messages:
        changed: Any = replace
        spoilt = packet(world, 3, changed(message, record=record))
        assert _refused(world, 2, spoilt.envelope)[0] == "impossible_voters"


def test_a_record_that_leaves_no_room_for_changes_is_refused_by_a_new_node_too() -> None:
    """It would end the node at its next change: versions stay below 2^53."""
    world = World(3, founded=False)
    world.start()
    for version, expected in ((MAX_VERSION_HEARD + 1, "impossible_voters"), (MAX_VERSION_HEARD, "")):
        record = made_record(0, version, (1, 2, 3))
        heard = replace(packet(world, 3, NodeOnlineResp(0, 0, record)).envelope, cluster_id=CLUSTER_ID)
        effects = step(world, 2, MessageReceived(heard))
        assert (world.state(2).record == record) is (not expected)
        reasons = [dict(fact.fields)["reason"] for fact in effects.facts if fact.name == "message_refused"]
        assert reasons == ([expected] if expected else [])


@pytest.mark.parametrize(
    ("record", "cluster_id"),
    [
        pytest.param(made_record(0, 0, (1, 2, 3), Witness("k", "r", "i")), 0, id="with a witness"),
        pytest.param(made_record(0, 0, (1, 2, 3)), CLUSTER_ID, id="of a node that belongs to a cluster"),
        pytest.param(made_record(0, 0, (1, 2, 3), cluster_id=0), 0, id="of no cluster"),
        pytest.param(made_record(0, 0, ()), 0, id="of nobody"),
    ],
)
def test_a_new_node_refuses_a_proposal_that_none_can_make(record: Record, cluster_id: int) -> None:
    world = World(3, founded=False)
    world.start()
    question = packet(world, 3, Voting(True, 1, 1, record, Reason.START, 0, 0)).envelope
    step(world, 2, MessageReceived(replace(question, cluster_id=cluster_id)))
    assert world.state(2).refused == {"impossible_voters": 1}


def test_only_a_vote_request_carries_a_proposal() -> None:
    world = World(3, founded=False)
    world.start()
    step(world, 2, packet(world, 3, NodeOnlineResp(0, 0, made_record(0, 0, (1, 2, 3)))))
    assert world.state(2).refused == {"impossible_voters": 1}


@pytest.mark.parametrize("changes", [{"settings": 1}, {"generation": 5}, {"term": MAX_TERM}, {"incarnation": 10**6}])
def test_a_complaint_reaches_people_whatever_else_is_wrong(changes: dict[str, int]) -> None:
    world = leadership_of(1)
    changed: Any = replace
    complaint = packet(world, 3, CommonResp(int(Type.PING), Result.SETTINGS_MISMATCH, "fix it")).envelope
    effects = step(world, 2, MessageReceived(changed(complaint, **changes)))
    assert [fact.name for fact in effects.facts] == ["error_received"]
    assert world.state(2).refused == {}


@pytest.mark.parametrize(
    ("told", "noted"),
    [
        (
            "quorum=static election_timeout_ms=500 lease_ms=300 drift_ppm=1000",
            "quorum is dynamic here, static there; lease_ms is 400 here, 300 there",
        ),
        ("quorum=dynamic election_timeout_ms=500 lease_ms=400 drift_ppm=1000", None),
        ("lease_ms=300", None),
        ("lease_ms", None),
        ("", None),
    ],
)
def test_which_settings_differ_is_noted_where_the_peer_tells_its_own(told: str, noted: str | None) -> None:
    world = leadership_of(1)
    complaint = packet(world, 3, CommonResp(int(Type.PING), Result.SETTINGS_MISMATCH, told))
    (fact,) = step(world, 2, complaint).facts
    assert (fact.name, dict(fact.fields)["detail"]) == ("error_received", told if noted is None else noted)
    assert world.state(2).peers[3].complaint == f"settings_mismatch: {told if noted is None else noted}"
    assert step(world, 2, complaint).facts == (), "it is told once"


def test_a_query_of_the_command_line_is_answered_whatever_its_header_says() -> None:
    world = leadership_of(1)
    envelope = replace(packet(world, 3, Query("status")).envelope, sender=0, incarnation=0, settings=0, generation=9)
    for term in (0, MAX_TERM):
        effects = step(world, 2, MessageReceived(replace(envelope, term=term)))
        assert isinstance(effects.answer, NodeStatus)
        assert effects.answer.controller == 1
    assert _refused(world, 2, replace(envelope, cluster="demo2"))[0] == "wrong_cluster"
    assert _refused(world, 2, replace(envelope, to=3))[0] == "wrong_node"
    assert isinstance(step(world, 2, MessageReceived(replace(envelope, to=2))).answer, NodeStatus)


def test_the_status_shows_what_was_refused() -> None:
    world = leadership_of(1)
    for reason in REASONS:
        for _ in range(3):
            _refused(world, 2, _wrong(world, reason, Pong(0, 0, (0, 0, 0), 0, 1)))
    effects = step(world, 2, packet(world, 3, Query("status")))
    assert isinstance(effects.answer, NodeStatus)
    assert effects.answer.refused_by_gate == dict.fromkeys(REASONS, 3)


def test_an_answer_of_an_old_term_is_counted_and_ignored() -> None:
    world = leadership_of(1)
    lapses_us = world.state(1).leader_state.lease_lapses_us
    step(world, 1, packet(world, 2, Pong(1, 0, (0, 0, 0), 0, 2), 0))
    assert world.state(1).refused == {"old_term": 1}
    assert world.state(1).leader_state.lease_lapses_us == lapses_us


def test_only_the_candidate_itself_can_ask_for_votes_for_it() -> None:
    """The vote goes to the sender of the envelope; nothing inside a request can name another."""
    assert {item.name for item in fields(Voting)}.isdisjoint({"candidate", "node", "sender"})
    world = leadership_of(1)
    question = Voting(False, 1, 5, world.state(2).record, Reason.TIMEOUT, 0, 0)
    envelope = packet(world, 3, question).envelope
    assert _refused(world, 2, replace(envelope, sender=UNRECOGNIZED))[0] == "unknown_sender"
