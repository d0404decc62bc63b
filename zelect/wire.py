"""Bytes to messages and back: one msgpack array in one frame.

    [protocol version, cluster, type, sender, incarnation, settings, cluster id, generation, term, [field, ...], to]

`to`, the node that the message is meant for, always takes the last three bytes: a broadcast is encoded once, and
addressed to each node.

Fields have positions and no names, so that no name can appear twice. Every value is checked for its
exact type, because msgpack decodes True, floats, NaN and extension types where a number belongs.
Whatever is wrong with a frame raises `MalformedMessage`, whose `reason` can be counted, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import msgpack

from zelect.core.messages import (
    MESSAGES,
    PROTOCOL_VERSION,
    AdminAction,
    Envelope,
    MalformedMessage,
    MemberAction,
    Message,
    Reason,
    Refusal,
    Result,
)
from zelect.core.quorum import Record, Witness

MAX_MESSAGE_BYTES = 65_536
_HEADER = 11
_TO_BYTES = 3
_TO_ANY = 0xFFFF  # a number that msgpack writes as a uint16, which takes that many
_RECORD_FIELDS = 8

_Reader = Callable[[Any], Any]

_CODES = {kind: int(code) for code, kind in MESSAGES.items()}
_NAMES = {kind: tuple(item.name for item in fields(kind)) for kind in MESSAGES.values()}


def encode(envelope: Envelope) -> bytes:
    """The frame for `envelope`."""
    message = envelope.message
    body = [_plain(getattr(message, name)) for name in _NAMES[type(message)]]
    header = (PROTOCOL_VERSION, envelope.cluster, _CODES[type(message)], envelope.sender)
    rest = (envelope.incarnation, envelope.settings, envelope.cluster_id, envelope.generation, envelope.term, body)
    packed: bytes = msgpack.packb((*header, *rest, _TO_ANY))
    return addressed(packed, envelope.to)


def addressed(payload: bytes, to: int) -> bytes:
    """`payload`, as `encode` made it, for node `to`."""
    return payload[:-_TO_BYTES] + b"\xcd" + to.to_bytes(2, "big")


def decode(payload: bytes, most: int = MAX_MESSAGE_BYTES) -> Envelope:
    """The envelope in `payload`, of at most `most` bytes.

    Raises `MalformedMessage`; its `reason` is one of oversize, not_msgpack, bad_envelope,
    other_version, unknown_type, bad_field.
    """
    if len(payload) > most:
        raise MalformedMessage("oversize", f"{len(payload)} bytes, at most {most}")
    try:
        frame = msgpack.unpackb(payload, strict_map_key=True, max_ext_len=0, max_map_len=0, max_bin_len=0)
    except (ValueError, RecursionError, msgpack.UnpackException) as error:
        raise MalformedMessage("not_msgpack", type(error).__name__) from None
    if type(frame) is not list or len(frame) < 1:
        raise MalformedMessage("bad_envelope", "not a list")
    if type(frame[0]) is not int or frame[0] != PROTOCOL_VERSION:
        raise MalformedMessage("other_version", f"this node speaks version {PROTOCOL_VERSION}")
    if len(frame) != _HEADER:
        raise MalformedMessage("bad_envelope", f"not {_HEADER} items")
    _, cluster, code, sender, incarnation, settings, cluster_id, generation, term, body, to = frame
    return Envelope(cluster, sender, incarnation, settings, term, _message(code, body), generation, cluster_id, to)


def _message(code: object, body: object) -> Message:
    if type(code) is not int or code not in _TYPES:
        raise MalformedMessage("unknown_type")
    kind, readers = _TYPES[code]
    if type(body) is not list or len(body) != len(readers):
        raise MalformedMessage("bad_field", f"{kind.__name__} has {len(readers)} fields")
    return kind(*[value if read is None else read(value) for read, value in zip(readers, body, strict=True)])


def _plain(value: object) -> object:
    return record_fields(value) if isinstance(value, Record) else value


def record_fields(record: Record) -> list[object]:
    """`record` as lists, numbers and texts, for any format that has these."""
    w = record.witness
    witness = None if w is None else [w.key, w.run_id, w.replid]
    order = [record.cluster_id, record.generation, record.config_term, record.version]
    return [*order, list(record.members), witness, list(record.epochs), [list(entry) for entry in record.addresses]]


def _tuple(value: Any) -> Any:
    return tuple(value) if type(value) is list else value


def _pairs(value: Any) -> Any:
    return tuple(map(_tuple, value)) if type(value) is list else value


def record_of(value: Any) -> Record:
    """The record whose `record_fields` are `value`. Raises `MalformedMessage`."""
    if type(value) is not list or len(value) != _RECORD_FIELDS:
        raise MalformedMessage("bad_field", "not a voter record")
    cluster_id, generation, config_term, version, members, identity, epochs, addresses = value
    if not type(members) is type(epochs) is type(addresses) is list or len(members) != len(epochs):
        raise MalformedMessage("bad_field", "not a voter record")
    numbers = (cluster_id, generation, config_term, version, *members, *epochs)
    pairs = all(type(a) is list and len(a) == 2 and type(a[0]) is int and type(a[1]) is str for a in addresses)
    if not pairs or not all(type(item) is int for item in numbers):
        raise MalformedMessage("bad_field", "not a voter record")
    named, places = tuple(epochs), tuple(map(tuple, addresses))
    try:
        return Record(config_term, version, tuple(members), _witness(identity), generation, named, cluster_id, places)
    except ValueError as error:
        raise MalformedMessage("bad_field", str(error)) from None


def _record(value: Any) -> Record | None:
    return None if value is None else record_of(value)


def _witness(identity: Any) -> Witness | None:
    if identity is None:
        return None
    if type(identity) is not list or len(identity) != 3 or not all(type(part) is str for part in identity):
        raise MalformedMessage("bad_field", "not the identity of a witness")
    return Witness(*identity)


def _one_of(kind: type[Reason] | type[Refusal] | type[Result] | type[AdminAction] | type[MemberAction]) -> _Reader:
    def read(value: Any) -> Any:
        try:
            return kind(value) if type(value) is str else value
        except ValueError:
            raise MalformedMessage("bad_field", f"not a {kind.__name__}") from None

    return read


# By the annotation of the field, so that a new message needs no second description.
_BY_ANNOTATION: dict[str, _Reader | None] = {  # None: taken as it is, the message checks it
    "int": None,
    "bool": None,
    "str": None,
    "tuple[int, ...]": _tuple,
    "tuple[int, int, int]": _tuple,
    "tuple[tuple[int, str], ...]": _pairs,
    "Record": record_of,
    "Record | None": _record,
    "Reason": _one_of(Reason),
    "Refusal | None": _one_of(Refusal),
    "Result": _one_of(Result),
    "AdminAction": _one_of(AdminAction),
    "MemberAction": _one_of(MemberAction),
}

_TYPES: dict[int, tuple[Callable[..., Message], tuple[_Reader | None, ...]]] = {
    int(code): (kind, tuple(_BY_ANNOTATION[str(item.type)] for item in fields(kind))) for code, kind in MESSAGES.items()
}
