"""Makes hostile connections, many at a time, and does what their scripts say."""

from __future__ import annotations

import select
import socket
import struct
import time
from collections import Counter
from dataclasses import dataclass, field, replace

from tools.fuzzer.curve import Session, curve_scripts
from tools.fuzzer.hostile import AFTER_READY, Script, scripts
from tools.fuzzer.zmtp import frame
from zelect.core.messages import Envelope, Query
from zelect.wire import encode

_RESET = struct.pack("ii", 1, 0)
_DRAIN_BYTES = 65_536
_MOST_OPEN = 256
_GIVE_UP_S = 4.0
_AGAIN_S = 0.002
_ANSWERED = b'"incarnation":'


@dataclass
class Done:
    """What was done: connections by kind, and what the node must have counted for those whose last
    question it answered, or that it hung up on. `unanswered`: those that were thrown out, or gave up,
    before. `hung_up`: by kind, those that the node ended. `failed`: connections that the system
    refused, by its reason."""

    made: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    due: Counter[str] = field(default_factory=Counter)
    unanswered: Counter[str] = field(default_factory=Counter)
    hung_up: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0


@dataclass(slots=True)
class _Open:
    connection: socket.socket
    script: Script
    piece: int = 0
    sent: int = 0
    ready_s: float = 0.0
    until_s: float = 0.0
    closing: bool = False
    answered: bool = False
    greeted: bool = False
    hung_up: bool = False
    tail: bytes = b""


def attack(
    address: tuple[str, int],
    cluster: str,
    seed: int,
    count: int,
    rate: int,
    most_s: float,
    session: Session | None = None,
) -> Done:
    """`count` connections to the node of `cluster` at `address`, at most `rate` begun in a second and some
    hundred open at once, for at most `most_s` seconds. `session`: it speaks CURVE, and this is an honest session."""
    done, began_s = Done(), time.monotonic()
    source = scripts(seed) if session is None else curve_scripts(seed, session)
    question = frame(encode(Envelope(cluster, 0, 0, 0, 0, Query("status"))))
    open_: dict[int, _Open] = {}
    begun = 0
    while (begun < count or open_) and time.monotonic() - began_s < most_s:
        now_s = time.monotonic()
        while begun < count and len(open_) < _MOST_OPEN and begun < (now_s - began_s) * rate + 1:
            begun += 1
            one = _begin(address, _asking(next(source), question), now_s, done)
            if one is not None:
                open_[one.connection.fileno()] = one
        for number in _due(open_, now_s):
            one = open_[number]
            if not _go_on(one, time.monotonic()):
                del open_[number]
                _end(one, done)
    for one in open_.values():
        _end(one, done)
    done.seconds = time.monotonic() - began_s
    return done


def _asking(script: Script, question: bytes) -> Script:
    return replace(script, pieces=(*script.pieces, (0.0, question))) if script.counts else script


def _begin(address: tuple[str, int], script: Script, now_s: float, done: Done) -> _Open | None:
    try:
        connection = socket.create_connection(address, timeout=1.0)
    except OSError as error:
        done.failed[type(error).__name__] += 1
        return None
    connection.setblocking(False)
    wait_s = script.pieces[0][0] if script.pieces else 0.0
    total_s = sum(max(0.0, pause_s) for pause_s, _ in script.pieces) + script.hold_s
    return _Open(connection, script, ready_s=now_s + wait_s, until_s=now_s + total_s + _GIVE_UP_S)


def _due(open_: dict[int, _Open], now_s: float) -> list[int]:
    """The connections that may go on: those with something to read, with room to write, or whose pause is over."""
    writers = [number for number, one in open_.items() if not one.closing and one.ready_s <= now_s]
    readable, writable, _ = select.select(list(open_), writers, [], 0.002)
    # One whose bytes the node no longer takes is neither readable nor writable, until its time is up.
    over = [n for n, one in open_.items() if now_s > one.until_s or (one.closing and one.ready_s <= now_s)]
    return list({*readable, *writable, *over})


def _go_on(one: _Open, now_s: float) -> bool:
    """One step of a script; False when it is over."""
    try:
        _listen(one)
        if one.answered or now_s > one.until_s:
            return False
        if now_s < one.ready_s:
            return True
        if one.closing:
            return False
        if one.piece < len(one.script.pieces):
            wait_s, text = one.script.pieces[one.piece]
            if wait_s == AFTER_READY and not one.greeted:
                one.ready_s = now_s + _AGAIN_S
                return True
            one.sent += one.connection.send(text[one.sent :]) if text else 0
            if one.sent >= len(text):
                one.piece, one.sent = one.piece + 1, 0
                if one.piece < len(one.script.pieces):
                    one.ready_s = now_s + max(0.0, one.script.pieces[one.piece][0])
            return True
        one.closing, one.ready_s = True, now_s + one.script.hold_s
    except BlockingIOError:
        return True
    except OSError:  # thrown out, as it should be
        one.hung_up = True
        return False
    return True


def _listen(one: _Open) -> None:
    """Read what the node says. Raises OSError once it has hung up."""
    try:
        heard = one.connection.recv(_DRAIN_BYTES)
    except BlockingIOError:
        return
    if not heard:
        raise ConnectionResetError
    one.tail = (one.tail + heard)[-_DRAIN_BYTES:]
    one.greeted = one.greeted or one.script.awaits in one.tail
    one.answered = bool(one.script.counts) and _ANSWERED in one.tail


def _end(one: _Open, done: Done) -> None:
    done.made[one.script.kind] += 1
    done.hung_up[one.script.kind] += one.hung_up
    if one.hung_up and one.script.cut_off:
        done.due["link_handshakes_"] += 1
    if one.answered:
        done.due.update(dict(one.script.counts))
    elif one.script.counts:
        done.unanswered[one.script.kind] += 1
    # A reset, so that a hundred thousand connections don't use up the ports by TIME_WAIT.
    one.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    one.connection.close()
