"""What a node shows over HTTP, where `[http]` is configured.

The loop publishes a snapshot of its status twice a second, and soon after a change: an immutable value,
replaced as a whole, that other threads read when they like. So however often clients ask, the loop does the
same little work. Whether this node is active is not taken from a snapshot: `NodeHandle` says so, by the
clock, at the moment of answering (R5).
"""

from __future__ import annotations

import errno
import os
import socket
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from zelect.config.http import split
from zelect.core.effects import Fact
from zelect.core.messages import Envelope, Pong
from zelect.core.state import LeaderState
from zelect.node.leadership.handle import NodeHandle
from zelect.status.report import NodeReport
from zelect.system.clock import now_us
from zelect.system.forks import in_child
from zelect.system.log import Log
from zelect.system.sockets import CannotBind

_EVERY_US = 500_000
_SOON_US = 20_000  # an election is over by then
_LATELY_US = 2_000_000
_GAPS_US = (5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000, 2_000_000, 5_000_000, 10_000_000)
_ROUND_TRIPS_US = (200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000)


@dataclass(frozen=True, slots=True)
class Histogram:
    """How often something took how long: `counts` up to each of `bounds_us`, and beyond the last."""

    bounds_us: tuple[int, ...]
    counts: tuple[int, ...]
    sum_us: int

    def with_one(self, us: int) -> Histogram:
        """This one, and `us` once more."""
        at = bisect_left(self.bounds_us, us)
        counts = tuple(count + (place == at) for place, count in enumerate(self.counts))
        return Histogram(self.bounds_us, counts, self.sum_us + us)


@dataclass(frozen=True, slots=True)
class StatusSnapshot:
    """The node at `taken_us`. `elections`: how often this node became active, by reason; `refusals`: how
    often it refused a vote, by reason; `gaps`: from when the previous controller was last heard until this node
    became active; `round_trips`: from a PING to its answer."""

    taken_us: int
    report: NodeReport
    elections: Mapping[str, int]
    refusals: Mapping[str, int]
    gaps: Histogram
    round_trips: Histogram


class RunningServer(Protocol):
    """What answers over HTTP, in threads of its own."""

    def close(self) -> None: ...


class StatusPublisher:
    """The loop's side. Any thread may read `snapshot` (None before the first one), `turned_us` (when the
    loop last ran) and `turned_lately`. Listens on `listen` at once, so that a port that is taken keeps the node from
    starting; `make_server` begins to answer there. Raises `CannotBind`."""

    def __init__(
        self,
        listen: str,
        make_server: Callable[[socket.socket, StatusPublisher, NodeHandle, str, int, Log], RunningServer],
    ) -> None:
        self._make_server = make_server
        self._server: RunningServer | None = None
        self._listener = _listen(listen)
        in_child(self._listener.close)
        self.snapshot: StatusSnapshot | None = None
        self.turned_us = now_us()
        self.due_us = 0
        self._elections: Counter[str] = Counter()
        self._refusals: Counter[str] = Counter()
        self._gaps = Histogram(_GAPS_US, (0,) * (len(_GAPS_US) + 1), 0)
        self._round_trips = Histogram(_ROUND_TRIPS_US, (0,) * (len(_ROUND_TRIPS_US) + 1), 0)

    @property
    def turned_lately(self) -> bool:
        """Whether the loop runs: it turns twice a second at least."""
        return now_us() - self.turned_us < _LATELY_US

    # -- for the loop ---------------------------------------------------------------------------------

    def open(self, cluster: str, node: int, handle: NodeHandle, log: Log) -> None:
        """Begin to answer."""
        handle.subscribe(self._soon)
        self._server = self._make_server(self._listener, self, handle, cluster, node, log)

    def is_due(self) -> bool:
        """The loop has turned: whether a new snapshot is due."""
        self.turned_us = now_us()
        return self.turned_us >= self.due_us

    def publish(self, report: NodeReport) -> None:
        """Replace the snapshot."""
        now = now_us()
        self.due_us = now + _EVERY_US
        elections, refusals = dict(self._elections), dict(self._refusals)
        self.snapshot = StatusSnapshot(now, report, elections, refusals, self._gaps, self._round_trips)

    def count(self, facts: Iterable[Fact]) -> None:
        """Count what happened."""
        for fact in facts:
            if fact.name == "vote_refused":
                self._refusals[str(dict(fact.fields)["reason"])] += 1
            elif fact.name == "became_active":
                fields = dict(fact.fields)
                self._elections[str(fields["reason"])] += 1
                if isinstance(gap_ms := fields["gap_ms"], float):
                    self._gaps = self._gaps.with_one(int(gap_ms * 1000))

    def measure_round_trip(self, leader_state: LeaderState | None, envelope: Envelope) -> None:
        """A message has come. When it answers a PING of `leader_state`, count how long that took."""
        message = envelope.message
        if isinstance(message, Pong) and leader_state is not None and message.of_term == leader_state.term:
            sent_us = leader_state.sent_us.get(message.number)
            if sent_us is not None:
                self._round_trips = self._round_trips.with_one(now_us() - sent_us)

    def close(self) -> None:
        """Stop answering."""
        if self._server is not None:
            self._server.close()
        self._listener.close()

    def _soon(self) -> None:
        self.due_us = min(self.due_us, now_us() + _SOON_US)


def _listen(listen: str) -> socket.socket:
    host, port = split(listen)
    try:
        if host in ("*", "::"):
            if socket.has_dualstack_ipv6():
                return socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
            host = "0.0.0.0"
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        family, _, _, _, address = min(found, key=lambda one: one[0] == socket.AF_INET6)
        return socket.create_server(address, family=family)
    except OSError as error:
        raise CannotBind(f"http://{listen}", error.errno or 0, _explain(error, port)) from error


def _explain(error: OSError, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"the port is taken: `ss -ltnp 'sport = :{port}'` names the program. Stop that one, or choose another "
            "port for http.listen"
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return "not permitted. Ports below 1024 belong to root; choose one from 1024 up for http.listen"
    reason = error.strerror if isinstance(error, socket.gaierror) else os.strerror(error.errno or 0)
    return f"{reason}. http.listen must be an address of this host"
