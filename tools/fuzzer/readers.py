"""Hostile input for the readers of what others wrote: JSON, Redis' answers, and text that is shown.

Each input is something honest, mutated. A reader may refuse it with its own kind of error, and nothing else may
happen: no other error, no value that can't be written or shown again, no more read than the limit allows.
"""

from __future__ import annotations

import json
import random
import socket
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import redis

from zelect.core.messages import MalformedMessage
from zelect.core.quorum import Record
from zelect.devcluster.control import Processes
from zelect.devcluster.layout import ClusterPlan, Control
from zelect.redis.bounded_replies import MOST_REPLY_BYTES, BoundedSocket, ReplyTooLong
from zelect.redis.diagnostics import parse_findings
from zelect.redis.errors import explain
from zelect.redis.registry_scripts import parse_node, parse_reply
from zelect.redis.witness_record import RecordTexts, RefusedRecord
from zelect.redis.witness_scripts import parse_witness_reply
from zelect.status.codec import WrongShape, plain, read
from zelect.status.election import NotAnElection, parse_election
from zelect.status.report import parse
from zelect.system.foreign import BadJson, read_json, shown, shown_lines

_URL = "redis://:secret@127.0.0.1:6379/0"
_NUMBERS = ("1e999", "-1e999", "NaN", "9" * 30, "9" * 5000, "-0", "1e400", "1" + "0" * 400, "true", "null", "{}")
_WILD = ('"\\ud800"', '"\\u001b[2J"', '"\\u202e"', "[" * 2000, '{"a":' * 2000, '"' + "x" * 3000 + '"', "\x1b]0;")
_RESP = (b"*9\r\n", b"$-1\r\n", b":7\r\n", b"+OK\r\n", b"-ERR x\r\n", b"$3\r\nabc\r\n", b"*-1\r\n", b"*0\r\n", b"\r\n")
_WITHOUT_END = ((b"$99999999\r\n", b"x"), (b"+", b"x"), (b"*9999999\r\n", b"*0\r\n"), (b"", b"*1\r\n"))
_LENGTHS = (b"-1", b"0", b"1", b"7", b"99", b"65537", b"999999999", b"1e9", b"", b"-9", b"\xd9\xa1")


@dataclass(slots=True)
class Fuzzed:
    """How many inputs had which outcome, and the first of those that went wrong, with what happened."""

    outcomes: Counter[str] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)


# -- JSON ----------------------------------------------------------------------------------------------


def _report(text: str) -> object:
    return parse(text, 0)


def _entry(text: str) -> object:
    table = read_json(text)
    fields = {str(key): value if isinstance(value, str) else json.dumps(value) for key, value in table.items()}
    return parse_election("5-0", fields)


def _record(text: str) -> Record | None:
    return RecordTexts("demo").read(f":{text}")


JSON_READERS: Mapping[str, tuple[Callable[[str], object], tuple[type[Exception], ...]]] = {
    "report": (_report, (MalformedMessage,)),
    "election": (_entry, (BadJson, NotAnElection, AttributeError)),
    "voter record": (_record, (RefusedRecord,)),
    "registry entry": (parse_node, ()),
    "control file": (lambda text: read(Control, read_json(text)), (BadJson, WrongShape)),
    "processes": (lambda text: read(Processes, read_json(text)), (BadJson, WrongShape)),
    "plan": (lambda text: read(ClusterPlan, read_json(text)), (BadJson, WrongShape)),
}
"""Each reader, and how it may refuse; that a whole entry is no object is this module's own to see."""


def mutated_text(rng: random.Random, text: str) -> str:
    """`text` with one to four changes: a piece replaced, dropped, doubled, or something wild in its place."""
    for _ in range(rng.randrange(1, 5)):
        at = rng.randrange(len(text) + 1)
        end = min(len(text), at + rng.randrange(1, 12))
        kind = rng.randrange(6)
        if kind == 0:
            new = rng.choice(_WILD)
        elif kind == 1:
            new = rng.choice(_NUMBERS)
        elif kind == 2:
            new = "".join(chr(rng.choice((rng.randrange(128), rng.randrange(0x11_0000)))) for _ in range(3))
        elif kind == 3:
            new = text[at:end] * 2
        elif kind == 4:
            new = rng.choice('[]{},:"\\-0')
        else:
            new = ""
        text = text[:at] + new + text[end:]
    return text


def fuzz_json(rng: random.Random, count: int, corpus: Mapping[str, Sequence[str]]) -> Fuzzed:
    """`count` texts, each for one of `JSON_READERS`; `corpus`: honest ones of each."""
    done, names = Fuzzed(), list(JSON_READERS)
    for _ in range(count):
        name = rng.choice(names)
        text = mutated_text(rng, rng.choice(corpus[name]))
        reader, refusals = JSON_READERS[name]
        try:
            value = reader(text)
            json.dumps(plain(value), ensure_ascii=False, default=str).encode()  # what was taken can be written
            done.outcomes[f"{name}: taken"] += 1
        except refusals:
            done.outcomes[f"{name}: refused"] += 1
        except Exception as error:
            done.findings.append(f"{name}: {error!r:.200} for {text[:300]!r}")
    return done


# -- Redis' answers --------------------------------------------------------------------------------------


class _Answering:
    """A socket that answers with `answer`, in pieces of random sizes, and then hangs."""

    def __init__(self, rng: random.Random, answer: bytes) -> None:
        self._rng, self._answer, self.given = rng, answer, 0

    def gettimeout(self) -> float:
        return 5.0

    def settimeout(self, limit_s: float | None) -> None:
        """Nothing is waited for."""

    def sendall(self, data: bytes) -> None:
        """Whatever is asked, the answer is the same."""

    def recv(self, size: int) -> bytes:
        if self.given >= len(self._answer):
            raise TimeoutError("timed out")
        piece = self._answer[self.given : self.given + self._rng.choice((1, 7, 100, size))][:size]
        self.given += len(piece)
        return piece

    def shutdown(self, how: int) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Nothing to do."""


def mutated_answer(rng: random.Random, answer: bytes) -> bytes:
    """`answer` with up to three changes; sometimes one without an end instead."""
    if rng.random() < 0.001:
        head, part = rng.choice(_WITHOUT_END)
        return head + part * (2 * MOST_REPLY_BYTES // len(part))
    for _ in range(rng.randrange(4)):
        at = rng.randrange(len(answer) + 1)
        end = min(len(answer), at + rng.randrange(1, 8))
        new = rng.choice((rng.choice(_RESP), rng.choice(_LENGTHS), rng.randbytes(3), answer[at:end] * 2, b""))
        answer = answer[:at] + new + answer[end:]
    return answer


def fuzz_redis(rng: random.Random, count: int, corpus: Sequence[bytes]) -> Fuzzed:
    """`count` answers, read by redis-py over a bounded socket and judged by those who use them."""
    done = Fuzzed()
    judges: tuple[Callable[[Any], object], ...] = (parse_reply, parse_witness_reply, parse_findings)
    connection: Any = redis.Connection(socket_timeout=5.0)  # type: ignore[no-untyped-call]
    for _ in range(count):
        index = rng.randrange(len(corpus))
        answer = mutated_answer(rng, corpus[index])
        index = index if index < len(judges) else rng.randrange(len(judges))
        inner = _Answering(rng, answer)
        connection._sock = BoundedSocket(cast(socket.socket, inner))
        connection._parser.on_connect(connection)
        try:
            value = connection.read_response()
            judges[index](value)
            done.outcomes["taken"] += 1
        except Exception as error:  # as the workers, and the commands, catch everything
            kind = "too long" if isinstance(error, ReplyTooLong) else "refused"
            done.outcomes[kind] += 1
            problem = explain(error, _URL, 100).problem
            if not problem.isprintable() or "secret" in problem or len(problem) > 500:
                done.findings.append(f"said {problem[:300]!r} for {answer[:200]!r}")
        if inner.given > MOST_REPLY_BYTES + 1:
            done.findings.append(f"read {inner.given} bytes of {answer[:200]!r}")
    return done


_CHARACTERS = ((0, 32), (127, 160), (0x2000, 0x2070), (0, 0x11_0000))

# -- what is shown ---------------------------------------------------------------------------------------


def fuzz_shown(rng: random.Random, count: int) -> Fuzzed:
    """`count` texts of all characters, many of them control characters."""
    done = Fuzzed()
    for _ in range(count):
        length, most = rng.choice((0, 1, 5, 30, 100)), rng.choice((1, 20, 2000))
        text = "".join(chr(rng.randrange(*rng.choice(_CHARACTERS))) for _ in range(length))
        line, lines = shown(text, most), shown_lines(text)
        line.encode()
        lines.encode()
        fine = line.isprintable() and len(line) <= most and shown(line, most) == line
        if not fine or not lines.replace("\n", "").replace("\t", "").isprintable():
            done.findings.append(f"{text!r} is shown as {line!r} and {lines!r}")
        done.outcomes["as it is" if line == text else "changed"] += 1
    return done
