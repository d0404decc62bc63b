"""Evidence that a peer's process is dead: its kernel is asked, without waiting (R9).

This file only asks; zelect/core/actors/membership.py judges whether the process is dead, by its connections too.

Two kinds of first-hand evidence are looked for. The lock on the peer's data_dir, on the same host, is
free once its process has ended; it counts where it was seen held before (zelect/node/storage/peer_locks.py).
And a TCP connection to the peer's address is refused once no process listens there. Everything else
(accepted, no answer, no route) is evidence of nothing: silence is never proof.

What makes a refusal less simple than it looks:

- A dying process may still accept for some milliseconds after its connections closed. So an
  accepted connection is closed and the question asked again every 5 ms, for 50 ms.
- A SYN that gets lost is repeated by the kernel only after a second. So a new attempt starts every
  5 ms whether or not the last one was answered, and the answers of all of them count: each began
  after the probe did, so a refusal of any is news.
- ECONNREFUSED also comes from a firewall's ICMP "port unreachable", the default of REJECT, while
  the process lives. Where the kernel keeps the ICMP message (Linux, IP_RECVERR), such a refusal is
  not taken for a real RST, and is no evidence. A forged RST can't be recognized; it proves no death while the
  peer's own connection stands, and networks that cut that one too need ``proof = "process"``.
- A connection to a free port inside the ephemeral range can connect to itself: the kernel gives it that
  very port as its own. That only happens where no process holds the port, but it is no answer of the
  peer's kernel, so it counts neither as accepted nor as refused. It is reset, which
  frees the port for the peer, and the next attempt, from another port, is refused properly.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass

import zmq

from zelect.core.events import Evidence
from zelect.core.lease import NEVER_US
from zelect.core.timing import Proof
from zelect.system.poller import Poller

AGAIN_US = 5_000
"""A new attempt starts this often."""
GIVE_UP_AFTER_US = 50_000
"""The probe gives up after so long."""

_IP_RECVERR = 11
_IPV6_RECVERR = 25
_MSG_ERRQUEUE = getattr(socket, "MSG_ERRQUEUE", 0)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a probe found out about process `incarnation` of `peer`.

    `evidence` is None when death is not proven; `detail` then begins with "alive" (it accepted)
    or "unknown". Only the evidence decides anything; the detail is for people.
    """

    peer: int
    incarnation: int
    evidence: Evidence | None
    detail: str


class DeathProbe:
    """One question about one process, advanced by `step`, which never blocks.

    Sockets still waiting for an answer are registered in `poller`, so that its next poll returns
    when one comes. `lock_free` is asked at each attempt and must neither block nor raise. The
    caller steps the probe until it returns a verdict, or calls `close`.
    """

    __slots__ = (
        "_accepted",
        "_address",
        "_again_us",
        "_end_us",
        "_incarnation",
        "_lock_free",
        "_note",
        "_peer",
        "_pending",
        "_poller",
    )

    def __init__(
        self,
        peer: int,
        incarnation: int,
        *,
        address: tuple[str, int] | None,
        proof: Proof,
        lock_free: Callable[[], bool] | None,
        poller: Poller,
    ) -> None:
        self._peer = peer
        self._incarnation = incarnation
        self._address = address if proof is Proof.REFUSED else None
        self._lock_free = None if proof is Proof.NONE else lock_free
        self._poller = poller
        self._pending: list[socket.socket] = []
        self._accepted = False
        self._note = "no answer"
        self._again_us = 0
        self._end_us = NEVER_US

    def step(self, now_us: int) -> Verdict | None:
        """Look at the answers, ask again when it is time; the verdict once there is one."""
        if self._address is None and self._lock_free is None:
            return self._conclude(None, "unknown: nothing to ask")
        if self._end_us == NEVER_US:
            self._end_us = now_us + GIVE_UP_AFTER_US
        if self._answered():
            return self._conclude(Evidence.REFUSED, "refused")
        if now_us >= self._again_us:
            self._again_us = now_us + AGAIN_US
            if self._lock_free is not None and self._lock_free():
                return self._conclude(Evidence.LOCK, "lock free")
            # On loopback the answer is there as soon as the question is asked.
            if self._ask() or self._answered():
                return self._conclude(Evidence.REFUSED, "refused")
        if now_us >= self._end_us:
            return self._conclude(None, "alive: accepted" if self._accepted else f"unknown: {self._note}")
        return None

    def deadline_us(self) -> int:
        """When it wants to be stepped next, at the latest."""
        return min(self._again_us, self._end_us)

    def close(self) -> None:
        """Give up all attempts. Harmless when repeated."""
        for attempt in self._pending:
            self._forget(attempt)
        self._pending.clear()

    def _conclude(self, evidence: Evidence | None, detail: str) -> Verdict:
        self.close()
        return Verdict(self._peer, self._incarnation, evidence, detail)

    def _forget(self, attempt: socket.socket) -> None:
        self._poller.unregister(attempt.fileno())
        attempt.close()

    def _ask(self) -> bool:
        """Start one attempt to connect; whether it was refused at once."""
        if self._address is None:
            return False
        family = socket.AF_INET6 if ":" in self._address[0] else socket.AF_INET
        try:
            attempt = socket.socket(family, socket.SOCK_STREAM)
        except OSError as error:  # out of descriptors: says nothing about the peer
            self._note = _name(error.errno or 0)
            return False
        attempt.setblocking(False)
        _keep_icmp(attempt, family)
        code = attempt.connect_ex(self._address)
        if code == errno.EINPROGRESS:
            self._poller.register(attempt.fileno(), zmq.POLLOUT)
            self._pending.append(attempt)
            return False
        refused = self._judge(attempt, code)
        attempt.close()
        return refused

    def _answered(self) -> bool:
        """Take the answers that have come; whether one of them is a refusal by the peer's host."""
        refused = False
        for attempt in list(self._pending):
            code = _outcome(attempt)
            if code is not None:
                refused |= self._judge(attempt, code)
                self._pending.remove(attempt)
                self._forget(attempt)
        return refused

    def _judge(self, attempt: socket.socket, code: int) -> bool:
        """Whether a finished attempt is a refusal; anything else is noted."""
        if code == errno.ECONNREFUSED:
            if not _said_by_icmp(attempt):
                return True
            self._note = "refused by ICMP, as a firewall does"
        elif code != 0:
            self._note = _name(code)
        elif _is_itself(attempt):
            self._note = "connected to itself"
            # Closed without a reset it would keep the peer's port for a minute, in TIME_WAIT.
            attempt.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        else:
            self._accepted = True
        return False


def _outcome(attempt: socket.socket) -> int | None:
    """The error number of a finished attempt (0: connected); None while it has no answer."""
    poll = select.poll()
    poll.register(attempt, select.POLLOUT)
    if not poll.poll(0):
        return None
    return attempt.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


def _keep_icmp(attempt: socket.socket, family: int) -> None:
    """Have the kernel keep the ICMP message that ends this attempt, if one does."""
    if not _MSG_ERRQUEUE:
        return
    with contextlib.suppress(OSError):
        if family == socket.AF_INET6:
            attempt.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVERR, 1)
        else:
            attempt.setsockopt(socket.IPPROTO_IP, _IP_RECVERR, 1)


def _said_by_icmp(attempt: socket.socket) -> bool:
    """Whether an ICMP message, and not a TCP reset, ended the attempt."""
    if not _MSG_ERRQUEUE:
        return False
    try:
        attempt.recvmsg(0, 512, _MSG_ERRQUEUE)
    except OSError:
        return False
    return True


def _is_itself(attempt: socket.socket) -> bool:
    try:
        return bool(attempt.getsockname() == attempt.getpeername())
    except OSError:  # accepted, and reset since
        return False


def _name(code: int) -> str:
    return f"{errno.errorcode.get(code, code)} ({os.strerror(code)})"
