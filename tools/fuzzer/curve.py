"""Hostile connections to a node that speaks CURVE, as scripts from a seed.

An unknown client without a key can't make a handshake that is right. But he may have recorded one: so an honest
session is recorded first, and its commands are said again, in another order, mutated, cut, doubled, at
once or after the node's WELCOME. The node answers a recorded HELLO, as it can't tell it from a new one;
nothing after that may be taken.
"""

from __future__ import annotations

import random
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import zmq

from tools.fuzzer.hostile import AFTER_READY, EITHER_WAY, Script, hello_like
from tools.fuzzer.zmtp import GREETING, command, frame, greeting, ready
from zelect.security.keys import ClientKeys

_OPENING = greeting(b"CURVE")
_WELCOME = b"\x07WELCOME"
_NAMES = (b"HELLO", b"WELCOME", b"INITIATE", b"READY", b"ERROR", b"MESSAGE")
_WITHIN_S = 10.0


@dataclass(frozen=True, slots=True)
class Session:
    """An honest session with the node, frame by frame: what the client said after its greeting (HELLO,
    INITIATE, a message), and what the node did (WELCOME, READY, an answer)."""

    there: tuple[bytes, ...]
    back: tuple[bytes, ...]

    @property
    def hello(self) -> bytes:
        return self.there[0]

    @property
    def initiate(self) -> bytes:
        return self.there[1]


def record(address: tuple[str, int], lock: ClientKeys, question: bytes) -> Session | None:
    """Ask the node at `address` over a proxy that keeps every byte; None when there is no answer. Raises
    OSError, zmq.ZMQError."""
    there, back = bytearray(), bytearray()
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(address) as node:
        dealer = context.socket(zmq.DEALER)
        lock.apply_to(dealer, 0)
        dealer.connect(f"tcp://127.0.0.1:{server.getsockname()[1]}")
        dealer.send(question)
        server.settimeout(_WITHIN_S)
        client, _ = server.accept()
        carriers = [threading.Thread(target=_carry, args=way) for way in ((client, node, there), (node, client, back))]
        for carrier in carriers:
            carrier.start()
        answered = dealer.poll(int(_WITHIN_S * 1000))
        context.destroy(linger=0)
        for end in (client, node):
            end.shutdown(socket.SHUT_RDWR)
        for carrier in carriers:
            carrier.join(_WITHIN_S)
        client.close()
    return Session(_frames(bytes(there)), _frames(bytes(back))) if answered else None


def _carry(source: socket.socket, target: socket.socket, kept: bytearray) -> None:
    try:
        while data := source.recv(65_536):
            kept += data
            target.sendall(data)
    except OSError:  # the other end has gone
        return


def _frames(text: bytes) -> tuple[bytes, ...]:
    """The frames of one side, after its greeting."""
    found, at = [], len(GREETING)
    while at < len(text):
        long = text[at] & 2
        size = int.from_bytes(text[at + 1 : at + 9]) + 9 if long else text[at + 1] + 2
        found.append(text[at : at + size])
        at += size
    return tuple(found)


def _mutated(dice: random.Random, said: bytes) -> bytes:
    """`said` with some bytes changed, left out or doubled."""
    text = bytearray(said)
    for _ in range(dice.choice((1, 1, 2, 8))):
        at = dice.randrange(len(text))
        kind = dice.randrange(4)
        if kind == 0:
            text[at] ^= 1 << dice.randrange(8)
        elif kind == 1:
            text[at : at + dice.randrange(1, 9)] = dice.randbytes(dice.randrange(9))
        elif kind == 2:
            del text[at : at + dice.randrange(1, 40)]
        else:
            text[at:at] = text[at : at + dice.randrange(1, 40)]
        text = text or bytearray(1)
    return bytes(text)


def _plain_handshake(dice: random.Random, session: Session) -> Script:
    opening = dice.choice((GREETING, greeting(b"PLAIN"), greeting(b"GSSAPI"), greeting(b"curve")))
    return Script("another mechanism", ((0, opening + ready() + frame(b"hello")),), 0.05, cut_off=True)


def _as_server(dice: random.Random, session: Session) -> Script:
    """Takes itself for the server: what it says is what the node said."""
    said = b"".join(session.back[: dice.randrange(1, 4)])
    return Script("the node's own words", ((0, greeting(b"CURVE", as_server=True) + said),), 0.05, cut_off=True)


def _made_up(dice: random.Random, session: Session) -> Script:
    said = b"".join(hello_like(dice, dice.choice(_NAMES)) for _ in range(dice.choice((1, 1, 3, 40))))
    return Script("commands made up", ((0, _OPENING + said),), 0.02)


def _huge(dice: random.Random, session: Session) -> Script:
    claimed = dice.choice((140_000, 2**31, 2**32, 2**62, 2**63 - 1, 2**63, 2**64 - 1))
    name = dice.choice(_NAMES)
    body = frame(bytes([len(name)]) + name + dice.randbytes(dice.choice((10, 140_000))), 4, size=claimed)
    before = dice.choice((b"", session.hello))
    return Script("huge command", ((0, _OPENING + before + body),), 0.02)


def _error(dice: random.Random, session: Session) -> Script:
    claimed = dice.randrange(256)
    said = command(b"ERROR", bytes([claimed]) + dice.randbytes(dice.choice((0, claimed, 255))))
    return Script("ERROR", ((0, _OPENING + dice.choice((b"", session.hello)) + said),), 0.02)


def _mutated_hello(dice: random.Random, session: Session) -> Script:
    return Script("mutated HELLO", ((0, _OPENING + _mutated(dice, session.hello)),), 0.02)


def _cut(dice: random.Random, session: Session) -> Script:
    whole = session.hello + session.initiate
    return Script("cut off", ((0, _OPENING + whole[: dice.randrange(1, len(whole))]),), dice.choice((0, 0.02, 1.3)))


def _hellos(dice: random.Random, session: Session) -> Script:
    said = _OPENING + session.hello * dice.choice((2, 3, 200))
    return Script("HELLO again and again", ((0, said),), 0.05, cut_off=True)


def _order(dice: random.Random, session: Session) -> Script:
    """An order in which no HELLO comes first."""
    rest = [*session.there[1:], *session.back]
    dice.shuffle(rest)
    said = b"".join(rest[: dice.randrange(1, len(rest) + 1)])
    return Script("another order", ((0, _OPENING + said),), 0.05, cut_off=True)


def _replayed(dice: random.Random, session: Session) -> Script:
    """The session itself, at once or step by step: its cookie was another connection's."""
    if dice.random() < 0.5:
        return Script("replayed", ((0, _OPENING + b"".join(session.there)),), 0.05, cut_off=True)
    pieces = ((0.0, _OPENING + session.hello), (AFTER_READY, b"".join(session.there[1:])))
    return Script("replayed", pieces, 0.05, awaits=_WELCOME, cut_off=True)


def _after_welcome(dice: random.Random, session: Session) -> Script:
    """A HELLO that is taken, and then an INITIATE that is none."""
    others = (
        _mutated(dice, session.initiate),
        hello_like(dice, b"INITIATE"),
        session.back[dice.randrange(2)],
        session.there[-1],
    )
    pieces = ((0.0, _OPENING + session.hello), (AFTER_READY, dice.choice(others)))
    return Script("after WELCOME", pieces, 0.05, awaits=_WELCOME)


def _waits_after_welcome(dice: random.Random, session: Session) -> Script:
    return Script("silent after HELLO", ((0, _OPENING + session.hello),), dice.choice((0, 0.05, 1.3)), awaits=_WELCOME)


def _slow(dice: random.Random, session: Session) -> Script:
    said, size = (_OPENING + session.hello)[: dice.randrange(2, 260)], dice.choice((1, 4, 16))
    pieces = tuple((dice.choice((0.02, 0.1)), said[at : at + size]) for at in range(0, len(said), size))
    return Script("slow", pieces, 0.5)


CURVE_KINDS: tuple[Callable[[random.Random, Session], Script], ...] = (
    *(_plain_handshake, _as_server, _made_up, _made_up, _huge, _error, _mutated_hello, _mutated_hello, _cut),
    *(_hellos, _order, _replayed, _replayed, _after_welcome, _after_welcome, _after_welcome),
    *(_waits_after_welcome, _slow),
)
"""A kind comes as often as it stands here; of five, another that knows no mechanism."""


def curve_scripts(seed: int, session: Session) -> Iterator[Script]:
    """Hostile scripts without end, a function of the seed and the recorded session."""
    dice = random.Random(seed)
    while True:
        if dice.random() < 0.2:
            yield dice.choice(EITHER_WAY)(dice)
        else:
            yield dice.choice(CURVE_KINDS)(dice, session)
