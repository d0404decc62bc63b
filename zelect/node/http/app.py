"""A node's answers over HTTP, from threads of their own. Imported only where `[http]` asks for it:
it needs the extra.

Nothing here waits for the loop. Whether this node is in office is judged by the clock when the
answer is made (R5), so that it is never yes after the lease, whatever hangs or was frozen.
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

from zelect.core.lease import Tenure
from zelect.node.http.metrics import CONTENT_TYPE, Metrics
from zelect.node.http.server import CLOSED, Server
from zelect.node.http.snapshot import Window
from zelect.node.leadership.shared import Office
from zelect.system.clock import now_us
from zelect.system.log import Log

__all__ = ["Answer", "Pages", "Web"]

_TEXT = "text/plain; charset=utf-8"
_REASONS = {200: "OK", 404: "Not Found", 405: "Method Not Allowed", 500: "Internal Server Error"}
_CLOSE_WITHIN_S = 1.0
Start = Callable[[str, list[tuple[str, str]]], object]


@dataclass(frozen=True, slots=True)
class Answer:
    """`status` 200, or why not; `headers` besides those that every answer has."""

    status: int
    body: bytes
    type: str = _TEXT
    headers: tuple[tuple[str, str], ...] = ()


class Pages:
    """The WSGI application. Any thread may call it. `closed`: see `Server`."""

    def __init__(self, window: Window, office: Office, node: int, log: Log) -> None:
        self._window, self._office, self._node, self._log = window, office, node, log
        self.closed = dict.fromkeys(CLOSED, 0)
        self._metrics = Metrics(window, self._held, office, node, self.closed)
        self._pages: Mapping[str, Callable[[], Answer]] = {
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
        except Exception as error:  # one bad answer must not be the end of the others
            self._log.limited("http_failed", "error", "http_failed", path=path, reason=repr(error))
            answer = Answer(500, b"zelect failed to answer; its log says why\n")
        reason = _REASONS.get(answer.status, "Service Unavailable")
        headers = [
            ("Content-Type", answer.type),
            ("Content-Length", str(len(answer.body))),
            ("Cache-Control", "no-store"),
            *answer.headers,
        ]
        start_response(f"{answer.status} {reason}", headers)
        return [] if method == "HEAD" else [answer.body]

    def _answer(self, method: str, path: str) -> Answer:
        page = self._pages.get(path)
        if page is None:
            return Answer(404, f"no such page; there are {' '.join(self._pages)}\n".encode())
        if method not in ("GET", "HEAD"):
            return Answer(405, b"use GET or HEAD\n", headers=(("Allow", "GET, HEAD"),))
        return page()

    # -- probes -----------------------------------------------------------------------------------------

    def _held(self) -> tuple[Tenure | None, int]:
        """The office that this node holds, and for how many milliseconds still, at least."""
        tenure = self._office.held()
        left_ms = (tenure.lapses_us - now_us()) // 1000 if tenure is not None else 0
        return (tenure, left_ms) if left_ms > 0 else (None, 0)

    def _follows(self) -> int:
        """Whom this node follows (0: nobody), as long as its loop is there to know."""
        head = self._office.controller.id
        return head if head != self._node and self._window.turned_lately and not self._office.ended else 0

    def _controller(self) -> Answer:
        tenure, left_ms = self._held()
        return self._probe(tenure is not None, tenure, left_ms)

    def _follower(self) -> Answer:
        tenure, left_ms = self._held()
        return self._probe(tenure is None and bool(self._follows()), tenure, left_ms)

    def _ready(self) -> Answer:
        tenure, left_ms = self._held()
        return self._probe(tenure is not None or bool(self._follows()), tenure, left_ms)

    def _probe(self, yes: bool, tenure: Tenure | None, left_ms: int) -> Answer:
        if tenure is not None:
            text = f"node {self._node} is in office, term {tenure.term}\n"
        elif head := self._follows():
            text = f"node {self._node} follows node {head}\n"
        else:
            text = f"node {self._node} knows of no controller\n"
        term = self._office.controller.term if tenure is None else tenure.term
        headers = (("X-Zelect-Term", str(term)), ("X-Zelect-Lease-Ms", str(left_ms)))
        return Answer(200 if yes else 503, text.encode(), headers=headers)

    def _live(self) -> Answer:
        if self._window.turned_lately and not self._office.ended:
            return Answer(200, b"the node's loop turns\n")
        return Answer(503, b"the node's loop hangs, or has ended\n")

    # -- pages ------------------------------------------------------------------------------------------

    def _status(self) -> Answer:
        picture = self._window.picture
        if picture is None:
            return Answer(503, b"the node is starting\n")
        tenure, left_ms = self._held()
        report = json.loads(picture.report)
        report["in_office"], report["lease_left_ms"] = tenure is not None, left_ms
        report["age_ms"] = (now_us() - picture.taken_us) // 1000
        return Answer(200, json.dumps(report).encode() + b"\n", "application/json")

    def _exposition(self) -> Answer:
        text = self._metrics.text()
        if text is None:
            return Answer(503, b"the node is starting\n")
        return Answer(200, text, CONTENT_TYPE)


class Web:
    """The server: answers on `listener`, which listens already, until it is closed."""

    def __init__(self, listener: socket.socket, window: Window, office: Office, node: int, log: Log) -> None:
        # What it has to say of itself is for a program that set up logging, and else for nobody.
        logging.getLogger("waitress").addHandler(logging.NullHandler())
        self._sockets: dict[int, Any] = {}
        pages = Pages(window, office, node, log)
        self._server = Server(pages, self._sockets, listener, pages.closed)
        self._thread = threading.Thread(target=self._server.run, name="zelect-http", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Close all connections and end the threads."""
        self._server.trigger.pull_trigger(lambda: wasyncore.close_all(self._sockets, ignore_all=True))
        self._thread.join(_CLOSE_WITHIN_S)
        self._server.task_dispatcher.shutdown(timeout=_CLOSE_WITHIN_S)
