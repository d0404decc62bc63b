"""Small things about sockets that several rooms need: endpoints, addresses, and the types of ZeroMQ."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
import sys
import threading
from collections.abc import Iterator

import zmq

from zelect.errors import ZelectError
from zelect.system.forks import in_child

Context = zmq.Context[zmq.Socket[bytes]]
Counters = dict[str, int]
_RECEIVED_AT = 128  # tcpi_bytes_received in struct tcp_info of Linux


class CannotBind(ZelectError):
    """The node can't listen on `address`, with errno `code`. The message says why and names the fix."""

    def __init__(self, address: str, code: int, why: str) -> None:
        super().__init__(f"cannot listen on {address}: {why}")
        self.address = address
        self.code = code


def parse_endpoint(endpoint: str) -> tuple[str, int]:
    """Host and port of ``tcp://host:port`` (IPv6 in brackets); raises ValueError on anything else."""
    host, colon, port = endpoint.removeprefix("tcp://").rpartition(":")
    if not endpoint.startswith("tcp://") or not colon or not host or not port.isascii() or not port.isdigit():
        raise ValueError(f"{endpoint!r} is not of the form tcp://host:port")
    return host.removeprefix("[").removesuffix("]"), int(port)


class _Spare:
    """A descriptor that is kept for when no other is free. `copy` puts a copy of another one in its place."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._fds: tuple[int, int] | None = None
        in_child(self._leave_to_parent)

    def reserve(self) -> None:
        with self._lock:
            if self._fds is None:
                self._fds = os.open(os.devnull, os.O_RDONLY), os.open(os.devnull, os.O_RDONLY)

    @contextlib.contextmanager
    def copy(self, descriptor: int) -> Iterator[int]:
        with self._lock:
            if self._fds is None:
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            null, spare = self._fds
            os.dup2(descriptor, spare, inheritable=False)
            try:
                yield spare
            finally:
                os.dup2(null, spare, inheritable=False)

    def _leave_to_parent(self) -> None:
        fds, self._fds, self._lock = self._fds, None, threading.Lock()
        for fd in fds or ():
            os.close(fd)


_spare = _Spare()


def reserve_descriptor() -> None:
    """Keep a descriptor for `borrowed`, which works then even where a flood has used up all others."""
    _spare.reserve()


@contextlib.contextmanager
def borrowed(descriptor: int) -> Iterator[socket.socket]:
    """A copy of the connection whose descriptor libzmq told. That may have closed it since, and the number may be that
    of something else in this process, so look whose connection it is before changing anything: the copy stays what it
    is. Raises OSError."""
    try:
        copy = os.dup(descriptor)
    except OSError as error:
        if error.errno != errno.EMFILE:
            raise
        with _spare.copy(descriptor) as copy:
            connection = socket.socket(fileno=copy)
            try:
                yield connection
            finally:
                connection.detach()
    else:
        try:
            connection = socket.socket(fileno=copy)
        except OSError:  # no socket any more
            os.close(copy)
            raise
        with connection:
            yield connection


def received_bytes(descriptor: int) -> int:
    """How many bytes have come over a connection; 0 when it is gone, or where the system doesn't tell."""
    if sys.platform != "linux":
        return 0
    with contextlib.suppress(OSError, ValueError, struct.error):
        with borrowed(descriptor) as connection:
            info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _RECEIVED_AT + 8)
        (came,) = struct.unpack_from("=Q", info, _RECEIVED_AT)
        return int(came)
    return 0


def wire_bytes(size: int, encrypted: bool) -> int:
    """What a frame of `size` bytes takes on a connection."""
    return size + (9 if size > 200 else 2) + (33 if encrypted else 0)


def addresses_of(descriptor: int) -> tuple[tuple[str, int], tuple[str, int]] | None:
    """Own and peer's address of a connection; None when it is gone."""
    with contextlib.suppress(OSError, ValueError), borrowed(descriptor) as connection:
        own, other = connection.getsockname(), connection.getpeername()
        return (own[0], own[1]), (other[0], other[1])
    return None
