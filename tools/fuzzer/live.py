"""Hostile connections against a node that runs, which is asked for its status all the while.

The attacker is a process of its own, so that it does not slow the asking down. Afterwards: the same process
answers, it was never silent for longer than a second, and it has counted what it refused.
"""

from __future__ import annotations

import ipaddress
import json
import multiprocessing
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import zmq

from tools.fuzzer.attack import Done, attack
from tools.fuzzer.curve import Session, record
from zelect.core.messages import Envelope, Query, Report
from zelect.security.keys import ClientKeys
from zelect.system.sockets import parse_endpoint
from zelect.wire import decode, encode

DEAF_S = 1.0
"""Nobody may wait longer than this for an answer."""
_EVERY_S = 0.02
_TIMEOUT_S = 10.0
_SETTLE_S = 5.0


class LiveError(Exception):
    """It could not run; the message says why and what to do."""


@dataclass
class Outcome:
    """What was done and seen. `answers`: how many, with the slowest and the longest silence between
    two of them, in seconds; `grown`: what the node counted meanwhile; `missing`: what it should have
    counted and did not; `let_in`: how often somebody had the right key (None: there are none), which is once, for
    the session that is recorded."""

    done: Done
    pid: tuple[int, int]
    answers: int
    slowest_s: float
    silent_s: float
    grown: Counter[str]
    memory_kb: tuple[int, int]
    let_in: int | None = None
    missing: dict[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def problems(self) -> list[str]:
        """What is wrong; empty when the node bore it."""
        found = []
        if self.pid[0] != self.pid[1]:
            found.append(f"process {self.pid[0]} ended; {self.pid[1] or 'nobody'} answers now")
        if self.silent_s > DEAF_S:
            found.append(f"deaf for {self.silent_s:.2f} s")
        if self.let_in is not None and self.let_in > 1:
            found.append(f"let {self.let_in - 1} in that have no key")
        found += [f"{name}: counted {got} of {due}" for name, (got, due) in self.missing.items()]
        return found


class _Asker:
    """Asks one node for its status over a connection of its own, again when the answer is overdue."""

    def __init__(self, address: str, cluster: str, lock: ClientKeys | None) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, 0)
        if lock is not None:
            lock.apply_to(self._socket, 0)
        self._socket.connect(address)
        self._question = _question(cluster)

    def ask(self, within_s: float = _TIMEOUT_S) -> dict[str, Any] | None:
        """Its report; None when there is none in time."""
        self._socket.send(self._question)
        if not self._socket.poll(int(within_s * 1000)):
            return None
        message = decode(self._socket.recv()).message
        if not isinstance(message, Report):
            raise LiveError("the node answers, but not with a report; is the name of the cluster right?")
        report: dict[str, Any] = json.loads(message.text)
        return report

    def close(self) -> None:
        self._context.destroy(linger=0)


def _question(cluster: str) -> bytes:
    return encode(Envelope(cluster, 0, 0, 0, 0, Query("status")))


def attack_node(
    address: str,
    cluster: str,
    seed: int,
    count: int,
    rate: int = 1000,
    most_s: float = 600.0,
    say: Callable[[str], None] = lambda text: None,
    lock: ClientKeys | None = None,
) -> Outcome:
    """`count` hostile connections to the node at `address` (tcp://HOST:PORT, on loopback), at most `rate`
    a second, for at most `most_s` seconds. `lock`: how somebody who may ask speaks to it, where it
    speaks CURVE. Raises `LiveError`."""
    host, port = parse_endpoint(address)
    if host != "localhost" and not ipaddress.ip_address(host.strip("[]")).is_loopback:
        raise LiveError(f"{address}: only nodes on loopback are attacked; name 127.0.0.1 or [::1]")
    asker = _Asker(address, cluster, lock)
    try:
        before = asker.ask()
        if before is None:
            raise LiveError(f"{address}: nobody answers as a node of cluster {cluster}; start one there first")
        target = (host.strip("[]"), port)
        session = None if lock is None else _recorded(target, cluster, lock)
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            attacking = pool.apply_async(attack, (target, cluster, seed, count, rate, most_s, session))
            answers, slowest_s, silent_s = _watch(asker, attacking.ready, say)
            done = attacking.get()
        after, silent_after_s = _settled(asker, before, done)
        outcome = _outcome(done, before, after, answers, slowest_s, max(silent_s, silent_after_s))
        outcome.let_in = None if lock is None else outcome.grown["link_keys_accepted"]
        return outcome
    finally:
        asker.close()


def _recorded(address: tuple[str, int], cluster: str, lock: ClientKeys) -> Session:
    session = record(address, lock, _question(cluster))
    if session is None:
        raise LiveError(f"{address[0]}:{address[1]}: gave no answer over a proxy; try again")
    return session


def _watch(asker: _Asker, over: Callable[[], bool], say: Callable[[str], None]) -> tuple[int, float, float]:
    answers, slowest_s, silent_s = 0, 0.0, 0.0
    heard_s = said_s = time.monotonic()
    while not over():
        asked_s = time.monotonic()
        report = asker.ask()
        now_s = time.monotonic()
        slowest_s, silent_s = max(slowest_s, now_s - asked_s), max(silent_s, now_s - heard_s)
        if report is None:
            continue
        answers, heard_s = answers + 1, now_s
        if now_s - said_s > 10:
            said_s = now_s
            say(f"{answers} answers, the slowest after {1000 * slowest_s:.0f} ms")
        time.sleep(_EVERY_S)
    return answers, slowest_s, silent_s


def _settled(asker: _Asker, before: dict[str, Any], done: Done) -> tuple[dict[str, Any], float]:
    """The last report, once all that was sent is counted or time is up; and how long it was waited for."""
    end_s = time.monotonic() + _SETTLE_S
    while True:
        asked_s = time.monotonic()
        after = asker.ask()
        waited_s = time.monotonic() - asked_s
        if after is None:
            return {}, waited_s
        if not _missing(done, _grown(before, after)) or time.monotonic() > end_s:
            return after, waited_s
        time.sleep(_EVERY_S)


def _grown(before: dict[str, Any], after: dict[str, Any]) -> Counter[str]:
    return Counter(after.get("counters", {})) - Counter(before.get("counters", {}))


def _missing(done: Done, grown: Counter[str]) -> dict[str, tuple[int, int]]:
    found = {}
    for name, due in done.due.items():
        got = sum(count for counter, count in grown.items() if counter.startswith(name))
        if got < due:
            found[name] = (got, due)
    return found


def _outcome(
    done: Done, before: dict[str, Any], after: dict[str, Any], answers: int, slowest_s: float, silent_s: float
) -> Outcome:
    grown = _grown(before, after)
    return Outcome(
        done=done,
        pid=(before["pid"], after.get("pid", 0)),
        answers=answers,
        slowest_s=slowest_s,
        silent_s=silent_s,
        grown=grown,
        memory_kb=(before.get("rss_kb", 0), after.get("rss_kb", 0)),
        missing=_missing(done, grown),
    )
