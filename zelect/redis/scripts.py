"""Lua scripts, and the checks that every answer of one passes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass


class GarbledReply(Exception):
    """A script's answer does not have the form that the script gives it."""


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua text and the digest that Redis knows it by."""

    text: str
    sha: str

    @classmethod
    def of(cls, text: str) -> Script:
        return cls(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


def texts_of(value: object, length: int, more: bool = False) -> list[str]:
    """A raw answer of `length` texts, or (`more`) at least so many. Raises `GarbledReply`."""
    if not isinstance(value, Sequence) or not all(isinstance(item, bytes) for item in value):
        raise GarbledReply("a script gave an answer of another form")
    if len(value) != length and not (more and len(value) > length):
        raise GarbledReply("a script gave an answer of another length")
    return [item.decode("utf-8", "replace") for item in value]


def number_in(text: str, most: int) -> int:
    """The number from 0 to `most` that `text` is. Raises `GarbledReply`."""
    if not (text.isascii() and text.isdigit() and len(text) <= 16 and int(text) <= most):
        raise GarbledReply("a script gave a number out of range")
    return int(text)
