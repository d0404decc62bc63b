"""Hostile connections to a node that speaks plain text, as scripts from a seed.

Each is pieces of bytes with pauses between them, then how it ends. `counts` says what the
node must count for it: such a script asks for the status last, on the same connection, so that the
answer proves that all before it has been read. What makes the connections is attack.py; what is said
to a node that speaks CURVE, curve.py.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

from tools.fuzzer.mutation import Mutator
from tools.fuzzer.positions import target_of
from tools.fuzzer.zmtp import GREETING, MORE, command, frame, greeting, ready
from zelect.core.messages import Envelope, Query
from zelect.wire import encode

_PROTOCOLS = (
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(32),
    b"*1\r\n$4\r\nPING\r\n",
    b"SSH-2.0-x\r\n",
    b"",
)
_ASKS_S = 3.0
_MOST_PARTS = 50_000
"""libzmq hands a message over once it is whole, and reads nothing else before its last part: each part is some
microseconds in which the node hears nothing else, and nothing limits their number (docs/testing.md)."""


AFTER_READY = -1.0
"""The place of seconds to wait: what the script awaits of the other end is waited for."""


@dataclass(frozen=True, slots=True)
class Script:
    """`pieces`: seconds to wait (or `AFTER_READY`), then bytes. `hold_s`: how long it stays afterwards, at
    most. `awaits`: what the other end says at `AFTER_READY`. `counts`: how often the node must count what
    (by the beginning of the counter's name); `cut_off`: it must count a failed handshake if it hangs up."""

    kind: str
    pieces: tuple[tuple[float, bytes], ...]
    hold_s: float = 0.0
    counts: tuple[tuple[str, int], ...] = ()
    awaits: bytes = b"\x05READY"
    cut_off: bool = False


def _greeted(text: bytes) -> tuple[tuple[float, bytes], ...]:
    """A whole handshake, then `text`. What comes before the other end's READY counts as handshake."""
    return ((0, GREETING + ready()), (AFTER_READY, text))


def _noise(dice: random.Random) -> Script:
    return Script("noise", ((0, dice.randbytes(dice.randrange(1, 2000))),))


def _other_protocol(dice: random.Random) -> Script:
    return Script("other protocol", ((0, dice.choice(_PROTOCOLS)),), dice.choice((0, 0.05)))


def _half_greeting(dice: random.Random) -> Script:
    cut = dice.randrange(1, 64)
    rest = dice.choice((b"", dice.randbytes(64 - cut), GREETING))
    return Script("half greeting", ((0, GREETING[:cut] + rest),), dice.choice((0, 0.02, 1.5)))


def _wrong_mechanism(dice: random.Random) -> Script:
    mechanism = dice.choice((b"PLAIN", b"CURVE", b"GSSAPI", b"", b"null", dice.randbytes(20)))
    hello = dice.choice((b"", command(b"HELLO", dice.randbytes(192)), command(b"INITIATE", dice.randbytes(300))))
    opening = greeting(mechanism, as_server=dice.random() < 0.5)
    return Script("wrong mechanism", ((0, opening), (0.002, hello)), 0.01)


def _wrong_version(dice: random.Random) -> Script:
    version = dice.choice(((0, 0), (1, 0), (2, 0), (2, 1), (4, 0), (255, 255)))
    return Script("wrong version", ((0, greeting(version=version) + dice.randbytes(dice.randrange(40))),), 0.01)


def _wrong_socket(dice: random.Random) -> Script:
    kind = dice.choice((b"REP", b"PUB", b"SUB", b"PAIR", b"PUSH", b"", b"\xff" * 200, b"dealer"))
    said = ready(kind, **{"X" * dice.randrange(1, 200): dice.randbytes(dice.randrange(2000))})
    return Script("wrong socket type", ((0, GREETING + said),), 0.01)


def _broken_ready(dice: random.Random) -> Script:
    whole = ready()
    at = dice.randrange(len(whole))
    broken = whole[:at] + dice.randbytes(dice.randrange(1, 9)) + whole[at + dice.randrange(3) :]
    return Script("broken READY", ((0, GREETING + broken),), 0.01)


def hello_like(dice: random.Random, name: bytes) -> bytes:
    """A command of a handshake, of a length that it may or may not have; now and then it claims another."""
    size = dice.choice((0, 1, 8, 40, 193, 194, 195, 257, 300, 1000, 9000))
    said = command(name, dice.randbytes(size))
    cut = dice.choice((0, 0, 0, 1, dice.randrange(len(said))))
    return said[: len(said) - cut]


def _handshake_command(dice: random.Random) -> Script:
    name = dice.choice((b"HELLO", b"WELCOME", b"INITIATE", b"READY", b"ERROR", b"MESSAGE", b"PING"))
    said = hello_like(dice, name) * dice.choice((1, 1, 2, 50))
    return Script("handshake command", ((0, GREETING + said),), 0.01)


def _truncated_frame(dice: random.Random) -> Script:
    claimed = dice.choice((5, 255, 256, 60_000, 131_000))
    part = frame(dice.randbytes(dice.randrange(5)), size=claimed)
    return Script("truncated frame", _greeted(part), dice.choice((0, 0.02)))


def _huge_frame(dice: random.Random) -> Script:
    claimed = dice.choice((140_000, 2**31, 2**32, 2**62, 2**63 - 1, 2**63, 2**64 - 1))
    part = frame(b"x" * dice.choice((0, 10, 140_000)), size=claimed)
    return Script("huge frame", _greeted(part), 0.01)


def _stray_command(dice: random.Random) -> Script:
    name = dice.choice((b"PING", b"PONG", b"SUBSCRIBE", b"ERROR", b"READY", b"JOIN", b"", b"X" * 250))
    said = command(name, dice.randbytes(dice.randrange(20)))
    return Script("stray command", _greeted(said * dice.randrange(1, 40)), 0.01)


def _many_parts(dice: random.Random) -> Script:
    count = dice.choices((_MOST_PARTS, 5000, dice.randrange(2, 300)), (1, 20, 979))[0]
    body = frame(b"x", MORE) * count + frame(b"x")
    return Script("many parts", _greeted(body), _ASKS_S, (("link_wrong_shape", 1),))


def _no_message(dice: random.Random) -> Script:
    count = dice.randrange(1, 8)
    body = b"".join(frame(dice.choice((b"", b"\xc1" + dice.randbytes(90), b"\x91" * 400))) for _ in range(count))
    return Script("no message", _greeted(body), _ASKS_S, (("malformed_", count),))


def _too_big(dice: random.Random) -> Script:
    body = frame(b"\0" * dice.choice((65_537, 100_000, 131_072)))
    return Script("too big", _greeted(body), _ASKS_S, (("link_too_big", 1),))


def _other_cluster(dice: random.Random) -> Script:
    other = encode(Envelope("another-" + str(dice.randrange(9)), 1, 1, 1, 1, Query("status")))
    count = dice.randrange(1, 5)
    body = frame(other) * count
    return Script("another cluster", _greeted(body), _ASKS_S, (("refused_wrong_cluster", count),))


def _slow(dice: random.Random) -> Script:
    said = (GREETING + ready())[: dice.randrange(2, 90)]
    size = dice.choice((1, 1, 4))
    pieces = tuple((dice.choice((0.02, 0.1)), said[at : at + size]) for at in range(0, len(said), size))
    return Script("slow", pieces, 0.5)


def _nothing(dice: random.Random) -> Script:
    return Script("silent", (), dice.choice((0, 0, 0.01, 1.2)))


@cache
def _corpus() -> tuple[tuple[bytes, ...], tuple[tuple[int, int], ...]]:
    target = target_of("follower")
    return target.corpus, target.may_vote


def _mutated(dice: random.Random) -> Script:
    """Mutated messages through a whole handshake, but never in the name of a cluster that could be
    the node's: what members may say is for the machine to bear, and no unknown client's business."""
    mutator = Mutator(dice, *_corpus())
    frames = (mutator.frame((1, 2, 3)) for _ in range(dice.randrange(1, 20)))
    body = b"".join(frame(payload.replace(b"demo", b"fuzz")) for payload in frames)
    return Script("mutated message", _greeted(body), 0.05)


EITHER_WAY: tuple[Callable[[random.Random], Script], ...] = (
    *(_noise, _other_protocol, _half_greeting, _nothing, _wrong_version),
)
"""Those that never get as far as a mechanism."""

GARBAGE: tuple[Callable[[random.Random], Script], ...] = (
    *(_noise, _other_protocol, _half_greeting, _wrong_version, _truncated_frame, _stray_command, _no_message),
)
"""Those that are over at once."""

KINDS: tuple[Callable[[random.Random], Script], ...] = (
    *(_noise, _noise, _other_protocol, _other_protocol, _half_greeting, _half_greeting, _nothing, _nothing),
    *(_wrong_mechanism, _wrong_mechanism, _wrong_version, _wrong_socket, _broken_ready, _broken_ready),
    *(_handshake_command, _handshake_command),
    *(_truncated_frame, _huge_frame, _stray_command, _many_parts, _no_message, _no_message, _too_big),
    *(_other_cluster, _mutated, _mutated, _slow),
)
"""A kind comes as often as it stands here."""


def scripts(seed: int) -> Iterator[Script]:
    """Hostile scripts without end, a function of the seed."""
    dice = random.Random(seed)
    while True:
        yield dice.choice(KINDS)(dice)
