"""JSON of others is read or refused, with one kind of error; their text does nothing to a terminal."""

from __future__ import annotations

import json
from typing import Any

import pytest

from zelect.system.foreign import BadJson, read_json, read_object, shown, shown_lines


@pytest.mark.parametrize(
    "value", [None, True, 0, -(2**63), 1.5, "text", "\U0001f600", [], {}, [1, [2, {"a": ["b"]}]], "\\u"]
)
def test_what_is_written_here_is_read(value: Any) -> None:
    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False), json.dumps(value).encode()):
        assert read_json(text) == value


@pytest.mark.parametrize(
    "text",
    [
        *("", "garbage", "[" * 60_000, '{"a":' * 60_000, "[1", "1 2", '"\n"', "\ufeff1"),
        *("1e999", "-1e999", "[1e400]", "NaN", "Infinity", "-Infinity", "9" * 41, "9" * 5000),
        *('"\\ud800"', '"\ud800"', '{"\\udfff": 1}', '[["\\ud800x"]]'),
        *(b"\xff", b"\xed\xa0\x80", b"1\x00"),
    ],
)
def test_everything_else_is_refused_in_words_that_can_be_shown(text: str | bytes) -> None:
    with pytest.raises(BadJson) as refused:
        read_json(text)
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 60


def test_there_is_a_limit_and_an_object_may_be_due() -> None:
    assert read_json("[1]", 3) == [1]
    with pytest.raises(BadJson, match="longer"):
        read_json("[1] ", 3)
    assert read_object('{"a": 1}') == {"a": 1}
    for text in ("[]", "1", '"a"', "null"):
        with pytest.raises(BadJson, match="object"):
            read_object(text)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("plain, även så", "plain, även så"),
        ("\x1b[2J\x1b]0;title\x07", "\\x1b[2J\\x1b]0;title\\x07"),
        ("two\nlines\tand\r", "two lines and "),
        ("\x9b31m\u202ekcab\u2028", "\\x9b31m\\u202ekcab\\u2028"),
        ("\ud800", "\\ud800"),
    ],
)
def test_control_characters_are_spelt_out(text: str, what: str) -> None:
    assert shown(text) == what
    assert shown(text).isprintable()


def test_a_long_text_is_cut_off_and_lines_of_a_file_stay_lines() -> None:
    assert shown("x" * 30, 10) == "x" * 9 + "…"
    assert shown_lines("a\tb\nc\x1b[1m\r") == "a\tb\nc\\x1b[1m "
    assert shown_lines("a b") == "a b"
