"""Checks of a message's fields: exact types, ranges, sizes.

`type(x) is int` and not `isinstance`: True is an int, and a decoder that was fed True must not make
a node id of it. What does not fit raises `MalformedMessage`.
"""

from __future__ import annotations

from enum import StrEnum

from zelect.core.quorum import Record, Witness
from zelect.core.timing import MAX_NODE_ID, MAX_TERM

__all__ = [
    "MAX_NUMBER",
    "MAX_VERSION_HEARD",
    "MAX_VERSION_JUMP",
    "MalformedMessage",
    "check_bool",
    "check_int",
    "check_member",
    "check_node",
    "check_nodes",
    "check_record",
    "check_record_id",
    "check_text",
]

MAX_NUMBER = 2**53 - 1
MAX_VERSION_JUMP = 2**24
"""A record of a version further ahead than this is a lie or a fault: nobody missed so many changes."""
MAX_VERSION_HEARD = MAX_NUMBER - MAX_VERSION_JUMP
"""A record of a version above this is believed of nobody: there would be no room left for changes."""
MAX_TEXT = 512


class MalformedMessage(ValueError):
    """The peer sent something that is not a message of this protocol; `reason` is for counting."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason


def check_int(name: str, value: object, least: int, most: int) -> None:
    if type(value) is not int or not least <= value <= most:  # bool is an int; it is refused
        raise MalformedMessage("bad_field", f"{name} must be an integer from {least} to {most}")


def _check_ints(name: str, values: tuple[object, ...], least: int, most: int) -> None:
    # All at once first: a record of a thousand members comes with every PING.
    kinds = set(map(type, values))
    if kinds == {int} and least <= min(values) and max(values) <= most:  # type: ignore[type-var, operator]
        return
    for value in values:
        check_int(name, value, least, most)


def check_node(name: str, value: object, least: int = 1) -> None:
    check_int(name, value, least, MAX_NODE_ID)


def check_bool(name: str, value: object) -> None:
    if type(value) is not bool:
        raise MalformedMessage("bad_field", f"{name} must be true or false")


def check_text(name: str, value: object, most: int = MAX_TEXT) -> None:
    if not isinstance(value, str) or len(value) > most:
        raise MalformedMessage("bad_field", f"{name} must be a text of at most {most} characters")


def check_nodes(name: str, value: object) -> None:
    if type(value) is not tuple:
        raise MalformedMessage("bad_field", f"{name} must be a list of node ids")
    _check_ints(name, value, 1, MAX_NODE_ID)


def check_member(name: str, value: object, kind: type[StrEnum]) -> None:
    if type(value) is not kind:
        raise MalformedMessage("bad_field", f"{name} must be one of {', '.join(kind)}")


def check_record(name: str, value: object, optional: bool = False) -> None:
    if value is None and optional:
        return
    if type(value) is not Record:
        raise MalformedMessage("bad_field", f"{name} must be an voter record")
    check_int(f"{name}.config_term", value.config_term, 0, MAX_TERM)
    check_int(f"{name}.version", value.version, 0, MAX_NUMBER)
    check_int(f"{name}.generation", value.generation, 0, MAX_NUMBER)
    check_nodes(f"{name}.members", value.members)
    _check_ints(f"{name}.lives", value.epochs, 0, MAX_NUMBER)
    if value.witness is not None:
        if type(value.witness) is not Witness:
            raise MalformedMessage("bad_field", f"{name}.witness must be the identity of a witness")
        for part in ("key", "run_id", "replid"):
            check_text(f"{name}.witness.{part}", getattr(value.witness, part), 128)


def check_record_id(name: str, value: object) -> None:
    if type(value) is not tuple or len(value) != 3:
        raise MalformedMessage("bad_field", f"{name} must be (generation, config_term, version)")
    check_int(f"{name}.generation", value[0], 0, MAX_NUMBER)
    check_int(f"{name}.config_term", value[1], 0, MAX_TERM)
    check_int(f"{name}.version", value[2], 0, MAX_NUMBER)
