"""Seeded mutation of frames: of their bytes, their shape, their types and, above all, their fields.

Bytes alone hardly ever get past the wire; a changed field of an otherwise honest message does, and
meets the rules. So most mutations know the structure: whose voting right it is, which numbers are near
the limits or near what the target waits for, what an voter record is made of.
"""

from __future__ import annotations

import random
from copy import deepcopy
from typing import Any

import msgpack

from zelect.core.messages import MAX_NUMBER, MESSAGES, Reason, Refusal, Result, Type
from zelect.core.timing import MAX_NODE_ID, MAX_TERM, MAX_TERM_HEARD, MAX_TERM_JUMP

_SENDER, _INCARNATION, _TERM, _BODY = 3, 4, 8, 9
_EDGES = (
    *(0, 1, 2, 3, 4, 5, 7, 255, MAX_NODE_ID, MAX_NODE_ID + 1, 2**31, 2**32 - 1, 2**40),
    *(MAX_TERM_JUMP, MAX_TERM_JUMP + 1, MAX_TERM_HEARD, MAX_TERM_HEARD + 1, MAX_TERM, MAX_TERM + 1),
    *(MAX_NUMBER, 2**63 - 1, 2**63, 2**64 - 1, -1, -(2**31), -(2**63)),
)
_WORDS = (
    *(str(one) for kind in (Reason, Refusal, Result) for one in kind),
    *("", "leave", "status", "\x00", "é" * 32, "a" * 512, "a" * 513, "\U0001f600", "demo"),
)
_JUNK: tuple[Any, ...] = (
    *(None, True, False, 0.0, -1.5, float("nan"), float("inf"), "", b"", b"\x00", [], [[]], {}, {1: 1}),
    *(msgpack.ExtType(1, b"x"), [None] * 6, [1] * 6, 2**64 - 1, -(2**63), "7"),
)
_WEIGHTS = (
    {int(code): 12 for code in (Type.PING, Type.PONG, Type.VOTING, Type.VOT_RESP)}
    | {int(code): 6 for code in (Type.NODE_OFFLINE, Type.NODE_ONLINE, Type.NODE_ONLINE_RESP, Type.HANDOVER)}
    | {int(Type.RESET): 1}
)
"""How often a type is begun from: oftener what moves elections, seldom RESET, after which little moves."""


class Mutator:
    """Mutates frames of `corpus`, spoken by `voting right`, with `dice`. Deterministic."""

    def __init__(self, dice: random.Random, corpus: tuple[bytes, ...], may_vote: tuple[tuple[int, int], ...]) -> None:
        self._dice, self._corpus, self._may_vote = dice, corpus, may_vote
        by_code: dict[int, list[bytes]] = {}
        for payload in corpus:
            by_code.setdefault(msgpack.unpackb(payload)[2], []).append(payload)
        self._kinds = tuple(
            by_code[code] for code in by_code for _ in range(_WEIGHTS.get(code, 2 - (code == Type.RESET)))
        )

    def frame(self, near: tuple[int, ...]) -> bytes:
        """One frame; `near`: numbers that mean something to the target at this moment."""
        dice = self._dice
        payload = dice.choice(dice.choice(self._kinds))
        kind = dice.random()
        if kind < 0.05:
            return payload
        if kind < 0.13:
            return self._bytes(payload)
        frame = msgpack.unpackb(payload)
        for _ in range(dice.choice((1, 1, 1, 2, 2, 3, 4))):
            self._change(frame, near)
        try:
            packed: bytes = msgpack.packb(frame)
        except (OverflowError, ValueError):  # beyond 64 bits there is no number in msgpack
            return payload
        return self._bytes(packed) if dice.random() < 0.03 else packed

    # -- structure ----------------------------------------------------------------------------

    def _change(self, frame: list[Any], near: tuple[int, ...]) -> None:
        dice = self._dice
        kind = dice.random()
        if kind < 0.50:
            self._field(frame[_BODY], near)
        elif kind < 0.62:
            self._record(frame[_BODY], near)
        elif kind < 0.74:
            frame[_SENDER], frame[_INCARNATION] = dice.choice(self._may_vote)
            if dice.random() < 0.2:
                frame[_INCARNATION] += dice.choice((-1, 1, 1, 2))
        elif kind < 0.84:
            frame[_TERM] = dice.choice(near) + dice.choice((-1, 0, 0, 1, 1, 2, MAX_TERM_JUMP, MAX_TERM_JUMP + 1))
        elif kind < 0.88:
            self._field(frame, near)
        elif kind < 0.91:
            spot, index = self._spot(frame)
            if spot:
                spot[index] = deepcopy(dice.choice(_JUNK))  # a later change must not reach the next frame
        elif kind < 0.93:
            self._shape(frame)
        else:
            other = msgpack.unpackb(dice.choice(self._corpus))
            frame[2] = dice.choice((frame[2], other[2], dice.randrange(len(MESSAGES) + 2)))
            frame[_BODY] = other[_BODY]

    def _spot(self, frame: Any) -> tuple[list[Any], int]:
        """A place in the tree: a list and an index of it; an empty list when there is none."""
        dice, here = self._dice, frame
        while type(here) is list and here:
            index = dice.randrange(len(here))
            below = here[index]
            if not (type(below) is list and below and dice.random() < 0.7):
                return here, index
            here = below
        return [], 0

    def _field(self, part: Any, near: tuple[int, ...]) -> None:
        """Another value of the same type."""
        dice = self._dice
        spot, index = self._spot(part)
        if not spot:
            return
        value = spot[index]
        if type(value) is bool:
            spot[index] = not value
        elif type(value) is int:
            spot[index] = self._number(value, near)
        elif type(value) is str:
            spot[index] = dice.choice(_WORDS)
        elif type(value) is list:
            dice.shuffle(value)
        else:
            spot[index] = dice.choice((self._number(1, near), None))

    def _number(self, value: int, near: tuple[int, ...]) -> int:
        dice = self._dice
        kind = dice.random()
        if kind < 0.5:
            return dice.choice(near) + dice.choice((0, 0, 1, -1))
        if kind < 0.7:
            return value + dice.choice((1, -1, 2, 1000, 1_000_000))
        return dice.choice(_EDGES) if kind < 0.9 else dice.randrange(2 ** dice.randrange(1, 54))

    def _record(self, body: Any, near: tuple[int, ...]) -> None:
        """Another voter record, consistent in itself: [generation, config_term, version,
        members, witness, lives]."""
        if type(body) is not list:
            return
        records = [one for one in body if type(one) is list and len(one) == 6 and type(one[3]) is list]
        records = [one for one in records if type(one[5]) is list and len(one[3]) == len(one[5]) and one[3]]
        if not records:
            return
        dice, record = self._dice, records[0]
        kind = dice.randrange(6)
        if kind == 0:
            record[1] = self._number(1, near)
        elif kind == 1:
            record[2] = self._number(1, near)
        elif kind == 2:
            index = dice.randrange(len(record[3]))
            del record[3][index], record[5][index]
        elif kind == 3 and all(type(one) is int for one in record[3]):
            node = dice.choice((*range(1, 8), MAX_NODE_ID))
            if node not in record[3]:
                index = sum(one < node for one in record[3])
                record[3].insert(index, node)
                record[5].insert(index, self._number(1, near))
        elif kind == 4:
            record[5][dice.randrange(len(record[5]))] = self._number(1, near)
        else:
            record[4] = dice.choice((None, ["1-1-1-1-1", "run1", "repl"], ["", "", ""], [dice.choice(_WORDS)] * 3))

    def _shape(self, frame: list[Any]) -> None:
        dice = self._dice
        spot, index = self._spot(frame)
        if not spot:
            return
        kind = dice.randrange(4)
        if kind == 0 and spot is not frame:
            del spot[index]
        elif kind == 1:
            spot.insert(index, spot[index])
        elif kind == 2:
            spot[index] = [spot[index]]
        else:
            spot.extend(spot[: dice.choice((1, 2, 40))])

    # -- bytes ----------------------------------------------------------------------------------

    def _bytes(self, payload: bytes) -> bytes:
        dice = self._dice
        kind = dice.randrange(6)
        at = dice.randrange(len(payload))
        if kind == 0:
            return payload[:at] + bytes([payload[at] ^ 1 << dice.randrange(8)]) + payload[at + 1 :]
        if kind == 1:
            return payload[:at]
        if kind == 2:
            return payload[:at] + dice.randbytes(dice.randrange(1, 9)) + payload[at:]
        if kind == 3:
            # A marker of msgpack in the place of one byte: arrays and maps of millions, bin, ext, never used.
            return payload[:at] + dice.choice(_MARKERS) + payload[at + 1 :]
        if kind == 4:
            return payload[:at] + payload[at + dice.randrange(1, 9) :]
        other = dice.choice(self._corpus)
        return payload[:at] + other[dice.randrange(len(other)) :]


_MARKERS = (
    *(bytes([marker]) for marker in range(0xC0, 0xE0)),
    *(b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xff"),
    *(b"\xc9\x00\xff\xff\xff\x01", b"\x91" * 600),
)
