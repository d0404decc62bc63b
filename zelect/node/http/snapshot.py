"""What a node shows over HTTP, for whoever has configured it.

The loop paints a picture of itself twice a second, and soon after a change: an immutable value,
replaced whole, that other threads read when they like. So however often somebody asks, the loop
does the same little work. Whether this node is active is no part of a picture: that is asked of
`Leadership`, by the clock, at the moment of answering (R5).
"""

from __future__ import annotations

import errno
import os
import socket
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from zelect.config.http import split
from zelect.config.loading import Config, ConfigError
from zelect.core.actors.query import status_of
from zelect.core.effects import Fact
from zelect.core.messages import Envelope, Pong
from zelect.core.state import LeaderState
from zelect.status.encode import report_of
from zelect.system.clock import now_us
from zelect.system.sockets import CannotBind

if TYPE_CHECKING:
    from zelect.node.http.app import HttpServer
    from zelect.node.loop import NodeLoop

__all__ = ["Histogram", "StatusPublisher", "StatusSnapshot"]

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
    """The node at `taken_us`. `report`: JSON, see `zelect.status.encode`. `elections`: how often this
    node became active, by what it was elected for; `refusals`: how often it refused a vote, by why;
    `gaps`: from the last word of the controller before to this node's leadership; `trips`: from a PING
    to its answer."""

    taken_us: int
    report: str
    elections: Mapping[str, int]
    refusals: Mapping[str, int]
    gaps: Histogram
    round_trips: Histogram


class StatusPublisher:
    """The loop's side; anybody may read `picture` (None before the first one), `turned_us` (when the
    loop was last seen at work) and `turned_lately`. Listens at once, so that a port that is taken
    keeps the node from starting. Raises `CannotBind`, and `ConfigError` without the extra."""

    def __init__(self, config: Config) -> None:
        try:
            from zelect.node.http.app import HttpServer
        except ModuleNotFoundError as error:
            raise ConfigError(
                f"{config.path}: http.listen: {error.name} is not installed; pip install 'zelect[http]', "
                'or set it to ""'
            ) from error
        self._make_web: type[HttpServer] = HttpServer
        self._web: HttpServer | None = None
        self._listener = _listen(config.http.listen)
        self.picture: StatusSnapshot | None = None
        self.turned_us = now_us()
        self.due_us = 0
        self._elections: Counter[str] = Counter()
        self._refusals: Counter[str] = Counter()
        self._gaps = Histogram(_GAPS_US, (0,) * (len(_GAPS_US) + 1), 0)
        self._round_trips = Histogram(_ROUND_TRIPS_US, (0,) * (len(_ROUND_TRIPS_US) + 1), 0)

    @property
    def turned_lately(self) -> bool:
        """Whether the loop works: it turns twice a second at least."""
        return now_us() - self.turned_us < _LATELY_US

    # -- for the loop ---------------------------------------------------------------------------------

    def open(self, node: NodeLoop) -> None:
        """Begin to answer."""
        node.handle.subscribe(self._soon)
        self._web = self._make_web(self._listener, self, node.handle, node.settings.node, node.log)

    def look(self, node: NodeLoop) -> None:
        """The loop has turned: paint a new picture if one is due."""
        self.turned_us = now = now_us()
        if now < self.due_us:
            return
        self.due_us = now + _EVERY_US
        report = report_of(node, status_of(node.settings, node.machine.state, now))
        elections, refusals = dict(self._elections), dict(self._refusals)
        self.picture = StatusSnapshot(now, report, elections, refusals, self._gaps, self._round_trips)

    def note(self, facts: Iterable[Fact]) -> None:
        """Count what happened."""
        for fact in facts:
            if fact.name == "vote_refused":
                self._refusals[str(dict(fact.fields)["reason"])] += 1
            elif fact.name == "became_active":
                fields = dict(fact.fields)
                self._elections[str(fields["reason"])] += 1
                if isinstance(gap_ms := fields["gap_ms"], float):
                    self._gaps = self._gaps.with_one(int(gap_ms * 1000))

    def hear(self, leader_state: LeaderState | None, envelope: Envelope) -> None:
        """A message came, and `leadership` does not know of it yet."""
        message = envelope.message
        if isinstance(message, Pong) and leader_state is not None and message.of_term == leader_state.term:
            sent_us = leader_state.sent_us.get(message.number)
            if sent_us is not None:
                self._round_trips = self._round_trips.with_one(now_us() - sent_us)

    def close(self) -> None:
        """Answer no more."""
        if self._web is not None:
            self._web.close()
        self._listener.close()

    def _soon(self) -> None:
        self.due_us = min(self.due_us, now_us() + _SOON_US)


def _listen(listen: str) -> socket.socket:
    host, port = split(listen)
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
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
    why = error.strerror if isinstance(error, socket.gaierror) else os.strerror(error.errno or 0)
    return f"{why}. http.listen must be an address of this host"
