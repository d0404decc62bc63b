"""What answers where a Redis should be, and is none."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.support.ports import free_port


@contextmanager
def listening(serve: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server that hands each connection to `serve`; yields its address as the URL of a Redis."""
    with socket.create_server(("127.0.0.1", free_port())) as server:

        def accept() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                threading.Thread(target=serve, args=(connection,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield f"redis://127.0.0.1:{server.getsockname()[1]}/0"
        server.shutdown(socket.SHUT_RDWR)


def says_http(connection: socket.socket) -> None:
    with connection:
        connection.recv(1000)
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


def says_seven(connection: socket.socket) -> None:
    with connection:
        while connection.recv(10_000):
            connection.sendall(b":7\r\n")


def says_nonsense(connection: socket.socket) -> None:
    with connection:
        while connection.recv(10_000):
            connection.sendall(b"*9\r\n$4\r\ndone\r\n" + b"$2\r\n-1\r\n" * 8)


def drips(connection: socket.socket) -> None:
    with connection:
        connection.recv(1000)
        connection.sendall(b"$1000000\r\n")
        try:
            while True:  # never a whole answer, never a silence as long as the timeout
                connection.sendall(b"x")
                time.sleep(0.02)
        except OSError:
            return


def without_an_end(head: bytes, rest: bytes) -> Callable[[socket.socket], None]:
    """An answer to the first thing that is said, which never ends."""

    def serve(connection: socket.socket) -> None:
        chunk = rest * (65_536 // len(rest))
        with connection, contextlib.suppress(OSError):
            connection.recv(1000)
            connection.sendall(head)
            while True:
                connection.sendall(chunk)

    return serve
