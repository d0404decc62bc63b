"""A message is well-formed by construction: what does not fit can't be made."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields, replace
from typing import Any

import pytest
from hypothesis import given, settings

from tests.support.records import made_record, places
from tests.support.samples import EXAMPLES, RECORD, WITNESS, envelope, messages
from zelect.core.messages import (
    COOLING_DOWN,
    MAX_NUMBER,
    Envelope,
    Handover,
    MalformedMessage,
    MemberAction,
    MemberChange,
    Message,
    NodeOnline,
    Ping,
    Pong,
    Query,
    Reason,
    Refusal,
    Reset,
    Voting,
    VotResp,
    check_record,
)
from zelect.core.quorum import Record, Witness
from zelect.core.timing import MAX_NODE_ID, MAX_TERM

ODD: dict[str, tuple[Any, ...]] = {
    "int": (True, False, -1, 2**53, 2**100, 1.0, float("nan"), "1", b"1", None, (1,), [1]),
    "bool": (0, 1, None, "true", 1.0, (), b""),
    "str": (b"text", None, 1, True, ["text"], ("text",), "x" * 60_001),
    "tuple[int, ...]": (None, 1, "12", [1, 2], (True,), (1.0,), (0,), (-1,), (MAX_NODE_ID + 1,), ((1,),), {1, 2}),
    "tuple[int, int, int]": (None, 1, (), (1, 2), (1, 2, 3, 4), [1, 2, 3], (True, 1, 1), (1, 1.0, 1), (0, 0, -1)),
    "Record": (None, (0, 1, 2, (1,), None, ()), 1, "record", True),
    "Record | None": ((0, 1, 2, (1,), None, ()), 1, "record", True),
    "Reason": ("death", Refusal.VOTED, None, 1, True),
    "Refusal | None": ("voted", Reason.DEATH, 1, True),
    "Result": ("ok", Refusal.VOTED, None, 1, True),
    "AdminAction": ("pause", Refusal.VOTED, None, 1, True),
    "MemberAction": ("add", Refusal.VOTED, None, 1, True),
    "tuple[tuple[int, str], ...]": (
        *(None, 1, "12", (), [(1, "tcp://a")], ((1,),), ((1, "tcp://a", 2),), ([1, "tcp://a"],)),
        *(((0, "tcp://a"),), ((MAX_NODE_ID + 1, "tcp://a"),), ((True, "tcp://a"),), ((1, None),), ((1, "a\n"),)),
        *(((2, "tcp://b"), (1, "tcp://a")), ((1, "tcp://a"), (1, "tcp://a"))),
    ),
}
"""For each type of a field what is not of it, or out of any range."""


@pytest.mark.parametrize("message", EXAMPLES, ids=lambda message: type(message).__name__)
def test_no_field_takes_a_value_of_another_type(message: Message) -> None:
    for item in fields(message):
        for odd in ODD[str(item.type)]:
            if (item.name, odd) == ("priority", COOLING_DOWN):
                continue
            with pytest.raises(MalformedMessage) as caught:
                replace(message, **{item.name: odd})
            assert caught.value.reason == "bad_field", f"{item.name} = {odd!r}"


@pytest.mark.parametrize("name", [item.name for item in fields(Envelope) if item.type == "int"])
def test_no_number_of_the_envelope_takes_a_value_of_another_type(name: str) -> None:
    sound = envelope(Query("status"))
    for odd in ODD["int"]:
        with pytest.raises(MalformedMessage):
            replace(sound, **{name: odd})


@pytest.mark.parametrize("odd", [None, 1, b"demo", True, ["demo"], "x" * 65])
def test_the_name_of_the_cluster_is_a_short_text(odd: Any) -> None:
    with pytest.raises(MalformedMessage):
        replace(envelope(Query("status")), cluster=odd)


@pytest.mark.parametrize(
    ("name", "most"),
    [("sender", MAX_NODE_ID), ("incarnation", MAX_NUMBER), ("settings", 2**32 - 1), ("term", MAX_TERM)],
)
def test_each_number_of_the_envelope_may_be_its_limit_and_no_more(name: str, most: int) -> None:
    sound: Any = envelope(Query("status"))
    assert getattr(replace(sound, **{name: most}), name) == most
    assert getattr(replace(sound, **{name: 0}), name) == 0
    with pytest.raises(MalformedMessage):
        replace(sound, **{name: most + 1})


def test_a_record_in_a_message_is_checked_field_by_field() -> None:
    for bad in (
        replace(RECORD, config_term=True),
        replace(RECORD, config_term=MAX_TERM + 1),
        replace(RECORD, version=-1),
        replace(RECORD, version=1.0),  # type: ignore[arg-type]
        replace(RECORD, generation=None),  # type: ignore[arg-type]
        made_record(1, 1, (0, 1, 2)),
        made_record(1, 1, (1, 2, MAX_NODE_ID + 1)),
        made_record(1, 1, (1, 2, 3), belong=(0,)),
        replace(RECORD, addresses=((1, "a"), (2, "b"), (3, "c\n"))),
        replace(RECORD, addresses=((1, "a"), (2, "b"), (3, 7))),  # type: ignore[arg-type]
        replace(RECORD, cluster_id=-1),
        replace(RECORD, cluster_id=2**53),
        replace(RECORD, members=(True, 2, 3)),
        replace(RECORD, epochs=(1, 2, -1)),
        replace(RECORD, epochs=(1, 2, True)),
        replace(RECORD, epochs=(1, 2, 2**53)),
        replace(RECORD, witness=Witness("k", "r", None)),  # type: ignore[arg-type]
        replace(RECORD, witness=Witness("k" * 129, "r", "p")),
        replace(RECORD, witness=("k", "r", "p")),  # type: ignore[arg-type]
    ):
        with pytest.raises(MalformedMessage):
            Ping(1, True, bad, ())


def test_a_record_that_came_by_another_way_is_checked_too() -> None:
    check_record(RECORD)
    with pytest.raises(MalformedMessage):
        check_record(replace(RECORD, version=-1))


@pytest.mark.parametrize("members", [(2, 1), (1, 1), (1, 2, 2), (3, 1, 2)])
def test_a_record_holds_its_members_once_and_in_order(members: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="distinct and in ascending order"):
        made_record(1, 1, members)


def test_a_record_has_one_epoch_for_each_member() -> None:
    assert Record(1, 1, (1, 2, 3), addresses=places(1, 2, 3)).epochs == (0, 0, 0)
    with pytest.raises(ValueError, match="one epoch"):
        made_record(1, 1, (1, 2, 3), WITNESS, 0, (1, 2))


def test_a_numbered_ping_and_no_other_carries_a_record() -> None:
    for number, record in ((0, RECORD), (1, None)):
        with pytest.raises(MalformedMessage):
            Ping(number, False, record, ())


def test_a_refusal_and_no_grant_carries_a_reason() -> None:
    for granted, reason in ((True, Refusal.VOTED), (False, None)):
        with pytest.raises(MalformedMessage):
            VotResp(True, 1, granted, reason, 0, 1, None)


def test_term_zero_can_be_neither_sought_nor_handed_over() -> None:
    with pytest.raises(MalformedMessage):
        Voting(True, 1, 0, RECORD, Reason.START, 0, 0)
    with pytest.raises(MalformedMessage):
        Handover(0, 1)


@pytest.mark.parametrize(
    "record",
    [
        pytest.param(made_record(0, 8, (), None, 2), id="nobody"),
        pytest.param(made_record(0, 8, (1, 2), WITNESS, 2), id="a witness"),
        pytest.param(made_record(0, 8, (1, 2), None, 0), id="no new generation"),
        pytest.param(made_record(0, 0, (1, 2), None, 2), id="only proposed"),
        pytest.param(made_record(0, 8, (1, 2), None, 2, cluster_id=0), id="no cluster"),
        pytest.param(made_record(1, 8, (1, 2), None, 2), id="a term"),
    ],
)
def test_a_reset_names_members_of_a_new_generation_and_no_witness(record: Record) -> None:
    with pytest.raises(MalformedMessage, match="a reset"):
        Reset(record, False)


@pytest.mark.parametrize(
    ("what", "address"), [(MemberAction.ADD, ""), (MemberAction.REPLACE, ""), (MemberAction.REMOVE, "tcp://a:1")]
)
def test_who_is_removed_has_no_address_and_everybody_else_has_one(what: MemberAction, address: str) -> None:
    with pytest.raises(MalformedMessage, match="everybody else has one"):
        MemberChange(what, 4, address)


def test_priorities_lie_between_0_and_1000() -> None:
    assert Pong(0, 0, (0, 0, 0), 1000, 0).priority == NodeOnline("", 1000, 0).priority == 1000
    with pytest.raises(MalformedMessage):
        Pong(0, 0, (0, 0, 0), 1001, 0)
    with pytest.raises(MalformedMessage):
        NodeOnline("", 1001, 0)


@settings(deadline=None, max_examples=100)
@given(messages)
def test_messages_are_values(message: Message) -> None:
    assert replace(message) == message
    assert hash(replace(message)) == hash(message)
    with pytest.raises(FrozenInstanceError):
        setattr(message, fields(message)[0].name, 1)
