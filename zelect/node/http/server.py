"""waitress with time limits, so that slow clients can't keep others from an answer. Imported only where
`[http]` is configured: it needs the extra.

waitress itself closes a connection on which nothing was sent for long, but one byte now and then keeps it
open; and it never closes one whose client does not read its answer. It has no public way to change that, so
classes of its inside are extended here. tests/unit/node/http/test_server.py pins what is used of them, and
setup.py bounds the version.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from typing import Any

from waitress import wasyncore
from waitress.adjustments import Adjustments
from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser
from waitress.server import TcpWSGIServer
from waitress.task import ThreadedTaskDispatcher

from zelect.system.clock import now_us

CLOSED = ("unfinished", "unread", "full")
_MOST = 64  # sockets, the listener and the trigger included: so many descriptors are reserved
_REQUEST_US = 3_000_000
_ANSWER_US = 3_000_000
_IDLE_US = 30_000_000
_NEW_US = 100_000  # every connection has this long for its request, however many wait
_TURN_US = 1_000_000
_THREADS = 2


class _Request(HTTPRequestParser):  # type: ignore[misc]  # comes without type hints
    """One request at a time: of several sent without waiting for answers the first is answered and the
    connection closed. Otherwise a few clients could ask for more answers than can be made in time."""

    def received(self, data: bytes) -> int:
        taken: int = super().received(data)
        if self.completed and not self.empty and taken < len(data):
            if data[taken:].strip():
                self.headers["CONNECTION"] = "close"
            return len(data)
        return taken


class _Channel(HTTPChannel):  # type: ignore[misc]  # comes without type hints
    """A connection that knows how long it has waited for its client."""

    parser_class = _Request

    def __init__(self, *args: Any, **more: Any) -> None:
        self.opened_us = self.since_us = now_us()
        super().__init__(*args, **more)

    def received(self, data: bytes) -> bool:
        before = self.request
        taken: bool = super().received(data)
        if self.request is not before:  # one is complete, or the next has begun
            self.since_us = now_us()
        return taken

    def service(self) -> None:
        super().service()
        self.since_us = now_us()

    # A connection that was closed in this turn must not be polled: its descriptor may be another's soon.

    def readable(self) -> bool:
        return self.connected and bool(super().readable())

    def writable(self) -> bool:
        return self.connected and bool(super().writable())

    def overdue(self, now: int) -> str | None:
        """The reason to close it: what its client took too long for; None if nothing."""
        waited_us = now - self.since_us
        if self.total_outbufs_len:
            return "unread" if waited_us > _ANSWER_US else None
        if self.requests:
            return None  # the client waits for us
        if self.request is not None:
            return "unfinished" if waited_us > _REQUEST_US else None
        return "idle" if waited_us > _IDLE_US else None

    def can_be_replaced(self, now: int) -> bool:
        """Whether it may be closed to make room: it has no request to answer, and had time for one."""
        return not self.requests and now - self.opened_us > _NEW_US


class Server(TcpWSGIServer):  # type: ignore[misc]  # comes without type hints
    """Answers on `listener` with `application`. `closed`: how many connections it closed, by reason (`CLOSED`);
    `sockets`: all that it has open."""

    channel_class = _Channel

    def __init__(
        self,
        application: Callable[..., Any],
        sockets: dict[int, Any],
        listener: socket.socket,
        closed: dict[str, int],
    ) -> None:
        self._closed, self._turned_us = closed, now_us()
        dispatcher = ThreadedTaskDispatcher()
        dispatcher.set_thread_count(_THREADS)
        adjustments = Adjustments(
            sockets=[listener],
            ident="zelect",
            max_request_header_size=8192,
            max_request_body_size=1024,
        )
        super().__init__(
            application,
            sockets,
            _sock=listener,
            dispatcher=dispatcher,
            adj=adjustments,
            sockinfo=(listener.family, listener.type, listener.proto, listener.getsockname()),
            bind_socket=False,
        )

    def run(self) -> None:
        while self._map:
            wait_us = _NEW_US if len(self._map) >= _MOST else _TURN_US
            wasyncore.loop(timeout=wait_us / 1e6, use_poll=True, map=self._map, count=1)

    def readable(self) -> bool:
        """Called once a turn: whether to accept. Yes while there is room, or a connection that can be replaced."""
        now, before = now_us(), self._turned_us
        self._turned_us = now
        if now - before < 2 * _TURN_US:  # otherwise this process was frozen: first read what has come
            self._close_overdue(now)
        return bool(self.accepting) and (len(self._map) < _MOST or self._to_replace(now) is not None)

    def handle_accept(self) -> None:
        super().handle_accept()
        # Not before: the new one could get the descriptor of the old one, and the events of this turn with it.
        if len(self._map) > _MOST and (channel := self._to_replace(now_us())) is not None:
            self._close(channel, "full")

    def _close_overdue(self, now: int) -> None:
        channels: Mapping[int, _Channel] = self.active_channels
        for channel in list(channels.values()):
            if (reason := channel.overdue(now)) is not None:
                self._close(channel, reason)

    def _to_replace(self, now: int) -> _Channel | None:
        channels: Mapping[int, _Channel] = self.active_channels
        idle = [channel for channel in channels.values() if channel.can_be_replaced(now)]
        return min(idle, key=lambda channel: channel.since_us, default=None)

    def _close(self, channel: _Channel, reason: str) -> None:
        if reason in self._closed:
            self._closed[reason] += 1
        channel.handle_close()
