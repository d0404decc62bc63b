"""Bytes to messages and back; whatever is wrong with a frame is refused with a reason, and nothing else happens."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import msgpack
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.support.samples import EXAMPLES, envelope, envelopes
from tools.common.founded import CLUSTER_ID
from zelect.core.messages import MAX_NUMBER, MESSAGES, PROTOCOL_VERSION, Envelope, MalformedMessage, Message, Query
from zelect.core.timing import MAX_NODE_ID
from zelect.wire import MAX_MESSAGE_BYTES, addressed, decode, encode

REASONS = {"oversize", "not_msgpack", "bad_envelope", "other_version", "unknown_type", "bad_field"}

ODD_VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    -1,
    2**53,
    2**64 - 1,
    -(2**63),
    1.0,
    0.5,
    float("nan"),
    float("inf"),
    "",
    "x",
    "x" * 5000,
    b"",
    b"x",
    [],
    [[]],
    [1],
    [True],
    [1, 1],
    [2, 1],
    [0],
    [[1, 2, 3]],
    [None, None, None],
    [1, 2, 3, 4, 5, 6],
    {},
    {"a": 1},
    {1: {}},
    msgpack.ExtType(5, b""),
    msgpack.ExtType(5, b"x"),
    msgpack.Timestamp(0),
)
"""What msgpack can carry into any field."""


example_messages = pytest.mark.parametrize("message", EXAMPLES, ids=lambda message: type(message).__name__)


def frame_of(message: Message) -> list[Any]:
    """The frame of a message as plain values, to be spoilt."""
    frame = msgpack.unpackb(encode(envelope(message)))
    assert isinstance(frame, list)
    return frame


def refused(payload: bytes) -> str:
    """The reason for which `payload` is refused."""
    with pytest.raises(MalformedMessage) as caught:
        decode(payload)
    assert caught.value.reason in REASONS
    return caught.value.reason


def judged(payload: bytes) -> Envelope | None:
    """The envelope in `payload`, or None when it was refused in an orderly way."""
    try:
        return decode(payload)
    except MalformedMessage as error:
        refusal = error
    assert refusal.reason in REASONS
    return None


def places(value: Any, path: tuple[int, ...] = ()) -> Iterator[tuple[int, ...]]:
    """The path of each value in a frame, lists included."""
    yield path
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from places(item, (*path, index))


def replaced(value: Any, path: tuple[int, ...], by: Any) -> Any:
    if not path:
        return by
    head, *rest = path
    return [replaced(item, tuple(rest), by) if index == head else item for index, item in enumerate(value)]


def same(a: Any, b: Any) -> bool:
    """Equal, and of one type all the way down: True is not 1."""
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and bool(a == b)


# -- what is right comes through -------------------------------------------------------------------


def test_there_is_an_example_of_every_type() -> None:
    assert {type(message) for message in EXAMPLES} == set(MESSAGES.values())


@example_messages
def test_an_example_comes_back_as_it_went(message: Message) -> None:
    assert decode(encode(envelope(message))) == envelope(message)


@settings(deadline=None, max_examples=300)
@given(envelopes)
def test_every_message_comes_back_as_it_went(sent: Envelope) -> None:
    payload = encode(sent)
    assert decode(payload) == sent
    assert encode(decode(payload)) == payload


def test_the_codes_of_the_first_version_are_fixed() -> None:
    names = ["CommonResp", "Ping", "Pong", "Voting", "VotResp", "NodeOffline", "NodeOnline", "NodeOnlineResp"]
    assert [MESSAGES[code].__name__ for code in sorted(MESSAGES)][:8] == names
    assert [int(code) for code in sorted(MESSAGES)] == list(range(len(MESSAGES)))


def test_one_frame_is_one_flat_list() -> None:
    body = ["status"]
    assert frame_of(Query("status")) == [PROTOCOL_VERSION, "demo", 8, 2, 7, 0xCAFE, CLUSTER_ID, 1, 5, body, 0]


# -- what is wrong is refused ------------------------------------------------------------------------


@example_messages
def test_a_wrong_value_in_any_place_is_refused_or_is_another_message(message: Message) -> None:
    """Where the odd value is a right one for its field, the message says just that; nowhere is a
    value taken for another: not True for 1, not 1.0 for 1."""
    frame = frame_of(message)
    for path in places(frame):
        for odd in ODD_VALUES:
            spoilt = replaced(frame, path, odd)
            got = judged(msgpack.packb(spoilt))
            if got is not None:
                assert same(msgpack.unpackb(encode(got)), _plain(spoilt)), (
                    f"{path} = {odd!r} was taken for another value"
                )


def _plain(frame: Any) -> Any:
    """The frame as it is written: a record without epochs gets an unknown one for each member."""
    return msgpack.unpackb(msgpack.packb(_with_lives(frame)))


def _with_lives(value: Any) -> Any:
    if not isinstance(value, list):
        return value
    if len(value) == 6 and isinstance(value[3], list) and value[5] == []:
        return [*value[:5], [0] * len(value[3])]
    return [_with_lives(item) for item in value]


@example_messages
@pytest.mark.parametrize("odd", [True, 1.0, float("nan"), None, 2**64 - 1, -1, b"1", [[1]], {"a": 1}, "1"], ids=repr)
def test_no_odd_value_passes_for_a_number_of_the_envelope(message: Message, odd: object) -> None:
    frame = frame_of(message)
    for place in (0, 2, 3, 4, 5, 6, 7):
        assert refused(msgpack.packb([*frame[:place], odd, *frame[place + 1 :]]))


@example_messages
def test_a_frame_cut_short_anywhere_is_refused(message: Message) -> None:
    payload = encode(envelope(message))
    for length in range(len(payload)):
        assert refused(payload[:length]) in ("not_msgpack", "bad_envelope", "other_version")


@example_messages
def test_a_frame_with_something_behind_it_is_refused(message: Message) -> None:
    payload = encode(envelope(message))
    assert refused(payload + b"\x00") == "not_msgpack"
    assert refused(payload + payload) == "not_msgpack"


@example_messages
def test_a_flipped_bit_is_refused_or_makes_another_message(message: Message) -> None:
    payload = encode(envelope(message))
    for at in range(len(payload)):
        for bit in range(8):
            judged(payload[:at] + bytes([payload[at] ^ 1 << bit]) + payload[at + 1 :])


@example_messages
def test_a_field_too_many_or_too_few_is_refused(message: Message) -> None:
    frame = frame_of(message)
    *header, body, to = frame
    for other in (body[:-1], [*body, 0], [], body * 2, dict(enumerate(body)), None, 3):
        assert refused(msgpack.packb([*header, other, to])) in ("bad_field", "not_msgpack")
    assert refused(msgpack.packb(frame[:-1])) == "bad_envelope"
    assert refused(msgpack.packb([*frame, 0])) == "bad_envelope"


@pytest.mark.parametrize("version", [0, PROTOCOL_VERSION + 1, 2**40, -1, True, 1.0, "1", None, [1]], ids=repr)
def test_another_version_is_refused_whatever_follows(version: object) -> None:
    assert refused(msgpack.packb([version])) == "other_version"
    assert refused(msgpack.packb([version, *frame_of(Query("status"))[1:]])) == "other_version"
    assert refused(msgpack.packb([version, "a", "format", "to", "come"])) == "other_version"


@pytest.mark.parametrize("code", [len(MESSAGES), 255, 256, -1, 2**40, True, 1.0, "1", None, [1]], ids=repr)
def test_a_type_of_no_meaning_is_refused(code: object) -> None:
    frame = frame_of(Query("status"))
    assert refused(msgpack.packb([*frame[:2], code, *frame[3:]])) == "unknown_type"


@pytest.mark.parametrize("value", [None, 5, "text", {}, 1.5, True], ids=repr)
def test_what_is_no_list_is_refused(value: object) -> None:
    assert refused(msgpack.packb(value)) in ("bad_envelope", "not_msgpack")


def test_an_oversize_frame_is_refused_before_it_is_read() -> None:
    payload = encode(envelope(Query("status")))
    assert refused(payload + bytes(MAX_MESSAGE_BYTES)) == "oversize"
    assert decode(payload, most=len(payload))
    with pytest.raises(MalformedMessage) as caught:
        decode(payload, most=len(payload) - 1)
    assert caught.value.reason == "oversize"


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\x91" * 60_000 + b"\x00", id="nested lists"),
        pytest.param(b"\xdd\xff\xff\xff\xff", id="a list of four thousand million"),
        pytest.param(b"\xdf\xff\xff\xff\xff", id="a map of four thousand million"),
        pytest.param(b"\xdb\xff\xff\xff\xff", id="a text of four thousand million"),
        pytest.param(b"\xc9\xff\xff\xff\xff\x05", id="an extension of four thousand million"),
        pytest.param(b"\xc1", id="never used"),
        pytest.param(b"\xa2\xff\xfe", id="no utf-8"),
        pytest.param(b"\x82\x01\x01\x01\x01", id="a key twice"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", id="http"),
    ],
)
def test_what_misleads_a_decoder_is_refused(payload: bytes) -> None:
    assert refused(payload)


@settings(deadline=None, max_examples=500)
@given(st.binary(max_size=200))
@example(b"\x99\x01")
def test_random_bytes_are_refused_in_an_orderly_way(payload: bytes) -> None:
    judged(payload)


ODD: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 7, 2**31, MAX_NUMBER, MAX_NUMBER + 1, 2**64 - 1, -(2**63), 0.0, 1.5, -1e300),
    *(float("inf"), float("nan"), "", "demo", "\x00", "\u00e9\U0001f600", b"", b"\xc1", b"demo", [], {}),
)


def odd(chance: random.Random, depth: int = 3) -> Any:
    """A value of any type, or up to nine of them inside each other."""
    if not depth or chance.random() < 0.6:
        return chance.choice(ODD)
    inner = [odd(chance, depth - 1) for _ in range(chance.randrange(10))]
    return inner if chance.random() < 0.8 else {str(chance.choice(ODD)): value for value in inner}


@pytest.mark.parametrize("code", range(len(MESSAGES)))
def test_random_values_in_the_right_frame_are_refused_in_an_orderly_way(code: int) -> None:
    chance = random.Random(code)
    for _ in range(300):
        body = [odd(chance) for _ in range(chance.randrange(9))]
        judged(msgpack.packb([PROTOCOL_VERSION, "demo", code, *(odd(chance) for _ in range(6)), body, odd(chance)]))
        judged(msgpack.packb([PROTOCOL_VERSION, "demo", code, 2, 7, 0xCAFE, 1, 1, 5, body, 0]))


@example_messages
@pytest.mark.parametrize("to", [0, 1, 127, 128, 255, 256, MAX_NODE_ID])
def test_one_frame_can_be_addressed_to_each_node(message: Message, to: int) -> None:
    sent = replace(envelope(message), to=to)
    payload = encode(envelope(message))
    assert decode(addressed(payload, to)) == sent
    assert addressed(addressed(payload, MAX_NODE_ID), to) == encode(sent)
    assert len(encode(sent)) == len(payload)


@pytest.mark.parametrize("to", [-1, MAX_NODE_ID + 1, True, 1.0, "1", None, [1]], ids=repr)
def test_what_is_no_node_is_no_recipient(to: object) -> None:
    assert refused(msgpack.packb([*frame_of(Query("status"))[:-1], to])) == "bad_field"


@pytest.mark.parametrize("place", [*range(3, 9)])
def test_a_number_of_the_envelope_beyond_its_range_is_refused(place: int) -> None:
    frame = frame_of(Query("status"))
    for odd in (-1, MAX_NUMBER + 1):
        assert refused(msgpack.packb([*frame[:place], odd, *frame[place + 1 :]])) == "bad_field"
