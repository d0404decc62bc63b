"""A node's answers over HTTP, from threads of their own. Imported only where `[http]` is configured:
it needs the extra.

Nothing here waits for the loop. Whether this node is active is judged by the clock when the answer is made
(R5), so the answer is never yes after the lease, whatever hangs or was frozen.
"""

from __future__ import annotations

import json
import logging
import socket
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from waitress import wasyncore

from zelect.core.lease import Lease
from zelect.node.http.metrics import CONTENT_TYPE, Metrics
from zelect.node.http.server import CLOSED, Server
from zelect.node.http.snapshot import StatusPublisher
from zelect.node.leadership.handle import NodeHandle
from zelect.status.codec import plain
from zelect.system.clock import now_us
from zelect.system.forks import in_child
from zelect.system.log import Log

_TEXT = "text/plain; charset=utf-8"
_REASONS = {200: "OK", 404: "Not Found", 405: "Method Not Allowed", 500: "Internal Server Error"}
_CLOSE_WITHIN_S = 1.0
Start = Callable[[str, list[tuple[str, str]]], object]


@dataclass(frozen=True, slots=True)
class Response:
    """`status` 200, or why not; `headers` besides those that every answer has."""

    status: int
    body: bytes
    type: str = _TEXT
    headers: tuple[tuple[str, str], ...] = ()


class HttpApp:
    """The WSGI application. Any thread may call it. `closed`: see `Server`."""

    def __init__(self, publisher: StatusPublisher, handle: NodeHandle, cluster: str, node: int, log: Log) -> None:
        self._publisher, self._handle, self._node, self._log = publisher, handle, node, log
        self.closed = dict.fromkeys(CLOSED, 0)
        self._metrics = Metrics(publisher, self._held, handle, cluster, node, self.closed)
        self._pages: Mapping[str, Callable[[], Response]] = {
            "/controller": self._controller,
            "/follower": self._follower,
            "/live": self._live,
            "/ready": self._ready,
            "/v1/status": self._status,
            "/metrics": self._exposition,
        }

    def __call__(self, environ: Mapping[str, Any], start_response: Start) -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        try:
            answer = self._answer(method, path)
        except Exception as error:  # one bad answer must not end the others
            self._log.limited("http_failed", "error", "http_failed", path=path, reason=repr(error))
            answer = Response(500, b"zelect failed to answer; its log says why\n")
        reason = _REASONS.get(answer.status, "Service Unavailable")
        headers = [
            ("Content-Type", answer.type),
            ("Content-Length", str(len(answer.body))),
            ("Cache-Control", "no-store"),
            *answer.headers,
        ]
        start_response(f"{answer.status} {reason}", headers)
        return [] if method == "HEAD" else [answer.body]

    def _answer(self, method: str, path: str) -> Response:
        page = self._pages.get(path)
        if page is None:
            return Response(404, f"no such page; the pages are {' '.join(self._pages)}\n".encode())
        if method not in ("GET", "HEAD"):
            return Response(405, b"use GET or HEAD\n", headers=(("Allow", "GET, HEAD"),))
        return page()

    # -- probes -----------------------------------------------------------------------------------------

    def _held(self) -> tuple[Lease | None, int]:
        """The lease of this node while it is active, and for how many milliseconds more it runs, at least."""
        lease = self._handle.active_lease()
        left_ms = (lease.lapses_us - now_us()) // 1000 if lease is not None else 0
        return (lease, left_ms) if left_ms > 0 else (None, 0)

    def _follows(self) -> int:
        """The node that this one follows (0: none), as long as its loop runs and can know."""
        controller = self._handle.controller.id
        return (
            controller if controller != self._node and self._publisher.turned_lately and not self._handle.ended else 0
        )

    def _controller(self) -> Response:
        lease, left_ms = self._held()
        return self._probe(lease is not None, lease, left_ms)

    def _follower(self) -> Response:
        lease, left_ms = self._held()
        return self._probe(lease is None and bool(self._follows()), lease, left_ms)

    def _ready(self) -> Response:
        """Not before the vote counts: a restarted node follows a controller for one election timeout before (R4)."""
        lease, left_ms = self._held()
        settled = lease is not None or bool(self._follows())
        return self._probe(self._handle.votes and settled, lease, left_ms)

    def _probe(self, yes: bool, lease: Lease | None, left_ms: int) -> Response:
        if lease is not None:
            text = f"node {self._node} is active, term {lease.term}\n"
        elif controller := self._follows():
            votes = "" if self._handle.votes else "; its vote does not count now"
            text = f"node {self._node} follows node {controller}{votes}\n"
        else:
            text = f"node {self._node} knows of no controller\n"
        term = self._handle.controller.term if lease is None else lease.term
        headers = (("X-Zelect-Term", str(term)), ("X-Zelect-Lease-Ms", str(left_ms)))
        return Response(200 if yes else 503, text.encode(), headers=headers)

    def _live(self) -> Response:
        if self._publisher.turned_lately and not self._handle.ended:
            return Response(200, b"the node's loop runs\n")
        return Response(503, b"the node's loop hangs, or has ended\n")

    # -- pages ------------------------------------------------------------------------------------------

    def _status(self) -> Response:
        snapshot = self._publisher.snapshot
        if snapshot is None:
            return Response(503, b"the node is starting\n")
        lease, left_ms = self._held()
        report = plain(snapshot.report)
        report["active"], report["lease_left_ms"] = lease is not None, left_ms
        report["age_ms"] = (now_us() - snapshot.taken_us) // 1000
        return Response(200, json.dumps(report).encode() + b"\n", "application/json")

    def _exposition(self) -> Response:
        text = self._metrics.text()
        if text is None:
            return Response(503, b"the node is starting\n")
        return Response(200, text, CONTENT_TYPE)


class HttpServer:
    """The server: answers on `listener`, which listens already, until it is closed."""

    def __init__(
        self,
        listener: socket.socket,
        publisher: StatusPublisher,
        handle: NodeHandle,
        cluster: str,
        node: int,
        log: Log,
    ) -> None:
        # waitress' own log is for programs that set up logging; without that it would print on standard error.
        logging.getLogger("waitress").addHandler(logging.NullHandler())
        self._sockets: dict[int, Any] = {}
        app = HttpApp(publisher, handle, cluster, node, log)
        self._server = Server(app, self._sockets, listener, app.closed)
        self._thread = threading.Thread(target=self._server.run, name="zelect-http", daemon=True)
        self._thread.start()
        in_child(self._leave_to_parent)

    def _leave_to_parent(self) -> None:
        for one in list(self._sockets.values()):
            one.socket.close()

    def close(self) -> None:
        """Close all connections and end the threads."""
        self._server.trigger.pull_trigger(lambda: wasyncore.close_all(self._sockets, ignore_all=True))
        self._thread.join(_CLOSE_WITHIN_S)
        self._server.task_dispatcher.shutdown(timeout=_CLOSE_WITHIN_S)
