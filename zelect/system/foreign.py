"""What others wrote, and this process reads or shows: JSON of any sender, and text that may reach a terminal.

`json.loads` alone is not enough: 60 kB of "[" end in RecursionError, which is no ValueError, 1e999 becomes an
infinity that no integer can hold, and "\\ud800" a text that can't be written.
"""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

MOST_JSON_BYTES = 1 << 20
_MOST_DIGITS = 40
_SURROGATES = re.compile("[\ud800-\udfff]")
_MOST_SHOWN = 2000


class BadJson(ValueError):
    """It is no JSON that anybody here writes; the text says why, in a few printable words."""


def read_json(text: str | bytes, most: int = MOST_JSON_BYTES) -> Any:
    """The value in `text` of at most `most` bytes (or characters): finite numbers, texts that can be written. Raises
    `BadJson`, and nothing else."""
    if len(text) > most:
        raise BadJson(f"longer than {most} bytes")
    try:
        if isinstance(text, bytes):
            text = text.decode()
        value = _DECODER.decode(text)
        if _SURROGATES.search(text) or ("\\u" in text and _has_surrogates(value)):
            raise BadJson("a text that can't be written")
    except BadJson:
        raise
    except RecursionError:
        raise BadJson("nested too deeply") from None
    except ValueError:  # UnicodeDecodeError is one
        raise BadJson("not JSON") from None
    return value


def read_object(text: str | bytes, most: int = MOST_JSON_BYTES) -> dict[str, Any]:
    """The same, where an object is due."""
    value = read_json(text, most)
    if type(value) is not dict:
        raise BadJson("not an object")
    return value


def shown(text: str, most: int = _MOST_SHOWN) -> str:
    """`text` of somebody else in one line that does nothing to a terminal but fill it: line ends and tabulators become
    spaces, other control characters, direction marks and what can't be written are spelt out, and beyond `most`
    characters it is cut off."""
    text = text[: most + 1]
    if not text.isprintable():
        text = "".join(one if one.isprintable() else _spelt(one) for one in text)
    return text if len(text) <= most else text[: most - 1] + "…"


def shown_lines(text: str) -> str:
    """The same for a file that has lines: their ends and tabulators stay."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() or one in "\n\t" else _spelt(one) for one in text)


def _spelt(character: str) -> str:
    if character in "\r\n\t":
        return " "
    return character.encode("unicode_escape").decode()


def _number(text: str) -> float:
    value = float(text)
    if value - value != 0:  # an infinity
        raise BadJson("a number out of range")
    return value


def _integer(text: str) -> int:
    if len(text) > _MOST_DIGITS:
        raise BadJson("a number out of range")
    return int(text)


def _constant(text: str) -> NoReturn:
    raise BadJson(f"{text} is no JSON")


_DECODER = json.JSONDecoder(parse_float=_number, parse_int=_integer, parse_constant=_constant)


def _has_surrogates(value: object) -> bool:
    """Whether a text in `value` has half of a pair: the decoder joins whole ones."""
    left = [value]
    while left:
        one = left.pop()
        if isinstance(one, str):
            if _SURROGATES.search(one):
                return True
        elif isinstance(one, list):
            left.extend(one)
        elif isinstance(one, dict):
            left.extend(one)
            left.extend(one.values())
    return False
