"""The authenticator: libzmq asks it about the key of every new connection (ZAP, RFC 27), before it reads
anything else of that connection.

A REP socket in the node's own poller, so that a change of keys is one assignment. It is open before
the ROUTER binds, and the ROUTER insists on it (ZAP_ENFORCE_DOMAIN): while it does not answer, no
connection is made. Every message of an accepted connection carries its public key as User-Id. What that key may do
is judged for each message (authorization.py), so that a key which leaves the directory is refused
from that moment on, however long its connection has been open.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import zmq
from zmq.utils import z85

from zelect.errors import ZelectError
from zelect.security.keys import Directory
from zelect.system.poller import Poller, has_messages
from zelect.system.sockets import Context, Counters

DOMAIN = b"zelect"
_ENDPOINT = "inproc://zeromq.zap.01"
_VERSION = b"1.0"
_MOST = 64
"""Most questions answered in one turn: many new connections at once must not stop the loop."""


class AuthenticatorFailed(ZelectError):
    """Keys can't be checked any more; the node ends."""

    def __init__(self, why: str) -> None:
        super().__init__(
            f"the authenticator, which checks keys, has failed ({why}): no new connection can be made. Restart the node"
        )


class ZapAuthenticator:
    """Answers for `directory`, which may be replaced at any time. Belongs to the loop's thread."""

    def __init__(self, context: Context, directory: Directory, poller: Poller, counters: Counters) -> None:
        """Raises `AuthenticatorFailed`."""
        self.directory = directory
        self._poller = poller
        self._counters = counters
        self._socket = context.socket(zmq.REP)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._left = False
        try:
            self._socket.bind(_ENDPOINT)
        except zmq.ZMQError as error:
            self._socket.close(0)
            raise AuthenticatorFailed(zmq.strerror(error.errno or 0)) from error
        poller.register(self._socket, zmq.POLLIN)

    @property
    def has_more(self) -> bool:
        """Whether more questions wait than one turn answers."""
        return self._left

    def service(self, ready: Mapping[Any, int]) -> None:
        """Answer the questions that have come. Raises `AuthenticatorFailed`."""
        if self._socket.closed:
            raise AuthenticatorFailed("its socket is closed")
        if not self._left and self._socket not in ready:
            return
        try:
            for _ in range(_MOST):
                question = self._socket.recv_multipart(zmq.NOBLOCK)
                self._socket.send_multipart(self._answer(question), zmq.NOBLOCK)
            self._left = has_messages(self._socket)
        except zmq.Again:
            self._left = False
        except zmq.ZMQError as error:
            raise AuthenticatorFailed(zmq.strerror(error.errno or 0)) from error

    def close(self) -> None:
        """Stop answering. Harmless when repeated."""
        if self._socket in self._poller:
            self._poller.unregister(self._socket)
        self._socket.close(0)

    def _answer(self, question: list[bytes]) -> list[bytes]:
        request = question[1] if len(question) > 1 else b""
        if len(question) != 7 or (question[0], question[2], question[5]) != (_VERSION, DOMAIN, b"CURVE"):
            self._counters["zap_requests_invalid"] += 1
            return [_VERSION, request, b"400", b"no", b"", b""]
        # 32 bytes by construction: the client has proved to own the key.
        key = z85.encode(question[6]) if len(question[6]) == 32 else b""
        if key not in self.directory.owners:
            self._counters["keys_unknown"] += 1
            return [_VERSION, request, b"400", b"unknown key", b"", b""]
        self._counters["keys_accepted"] += 1
        return [_VERSION, request, b"200", b"", key, b""]
