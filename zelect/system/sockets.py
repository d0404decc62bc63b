"""Small things about sockets that several rooms need: endpoints, addresses, and the types of ZeroMQ."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import zmq

Context = zmq.Context[zmq.Socket[bytes]]
Counters = dict[str, int]


class CannotBind(Exception):
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


@contextlib.contextmanager
def borrowed(descriptor: int) -> Iterator[socket.socket]:
    """The connection behind a descriptor that libzmq owns, which stays open. Raises OSError, or ValueError for a
    negative number."""
    connection = socket.socket(fileno=descriptor)
    try:
        yield connection
    finally:
        connection.detach()


def addresses_of(descriptor: int) -> tuple[tuple[str, int], tuple[str, int]] | None:
    """Own and peer's address of a connection; None when it is gone."""
    with contextlib.suppress(OSError, ValueError), borrowed(descriptor) as connection:
        own, other = connection.getsockname(), connection.getpeername()
        return (own[0], own[1]), (other[0], other[1])
    return None
