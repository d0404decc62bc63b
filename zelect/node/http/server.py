"""waitress with an end to its patience: who dawdles can't keep others from an answer. Imported only
where `[http]` asks for it: it needs the extra.

waitress itself closes who has sent nothing for long; one byte now and then is enough to stay. And it
closes nobody whose answer can't be sent, as it waits until something can.
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

__all__ = ["CLOSED", "Server"]

CLOSED = ("unfinished", "unread", "full")
_MOST = 64  # connections, the listener and the reason among them: within what is set aside for them
_REQUEST_US = 3_000_000
_ANSWER_US = 3_000_000
_IDLE_US = 30_000_000
_NEW_US = 100_000  # so long every connection has for its request, however many wait
_TURN_US = 1_000_000
_THREADS = 2


class _Request(HTTPRequestParser):  # type: ignore[misc]  # comes without type hints
    """One at a time: of requests sent without waiting for answers the first is answered, and the connection
    closed, or a few clients could order more answers than anybody can make in time."""

    def received(self, data: bytes) -> int:
        taken: int = super().received(data)
        if self.completed and not self.empty and taken < len(data):
            if data[taken:].strip():
                self.headers["CONNECTION"] = "close"
            return len(data)
        return taken


class _Channel(HTTPChannel):  # type: ignore[misc]  # comes without type hints
    """A connection that knows how long it waits for its client."""

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

    # A connection that was closed in this turn must not be polled: its number may be another's soon.

    def readable(self) -> bool:
        return self.connected and bool(super().readable())

    def writable(self) -> bool:
        return self.connected and bool(super().writable())

    def overdue(self, now: int) -> str | None:
        """For what its client took too long."""
        waited_us = now - self.since_us
        if self.total_outbufs_len:
            return "unread" if waited_us > _ANSWER_US else None
        if self.requests:
            return None  # it waits for us
        if self.request is not None:
            return "unfinished" if waited_us > _REQUEST_US else None
        return "idle" if waited_us > _IDLE_US else None

    def may_go(self, now: int) -> bool:
        """Whether it makes room for others: there is no request of it to answer, and there was time for one."""
        return not self.requests and now - self.opened_us > _NEW_US


class Server(TcpWSGIServer):  # type: ignore[misc]  # comes without type hints
    """Answers on `listener` with `application`. `closed`: how many connections it closed, by `CLOSED`;
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
        """Asked once a turn. The listener is, while there is room or somebody to make it."""
        now, before = now_us(), self._turned_us
        self._turned_us = now
        if now - before < 2 * _TURN_US:  # else this process was frozen: first read what came meanwhile
            self._close_overdue(now)
        return bool(self.accepting) and (len(self._map) < _MOST or self._next_to_go(now) is not None)

    def handle_accept(self) -> None:
        super().handle_accept()
        # Not before: the new one could get the number of the old one, and what this turn has seen of that.
        if len(self._map) > _MOST and (channel := self._next_to_go(now_us())) is not None:
            self._close(channel, "full")

    def _close_overdue(self, now: int) -> None:
        channels: Mapping[int, _Channel] = self.active_channels
        for channel in list(channels.values()):
            if (why := channel.overdue(now)) is not None:
                self._close(channel, why)

    def _next_to_go(self, now: int) -> _Channel | None:
        channels: Mapping[int, _Channel] = self.active_channels
        them = [channel for channel in channels.values() if channel.may_go(now)]
        return min(them, key=lambda channel: channel.since_us, default=None)

    def _close(self, channel: _Channel, why: str) -> None:
        if why in self._closed:
            self._closed[why] += 1
        channel.handle_close()
