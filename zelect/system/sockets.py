"""Small things about sockets that several rooms need: endpoints, addresses, and the types of ZeroMQ."""

from __future__ import annotations

import contextlib
import socket
import struct
import sys
from collections.abc import Iterator

import zmq

from zelect.errors import ZelectError

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


@contextlib.contextmanager
def borrowed(descriptor: int) -> Iterator[socket.socket]:
    """The connection behind a descriptor that libzmq owns, which stays open. Raises OSError, or ValueError for a
    negative number."""
    connection = socket.socket(fileno=descriptor)
    try:
        yield connection
    finally:
        connection.detach()


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
