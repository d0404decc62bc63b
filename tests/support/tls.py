"""A TLS end for a server that has none: certificates made for one test run, and a proxy on loopback."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import trustme

__all__ = ["Papers", "papers", "tls_proxy"]

HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Papers:
    """An authority and what it issued, as files of `directory`."""

    directory: Path
    authority: trustme.CA

    @property
    def ca_file(self) -> str:
        return str(self.directory / "ca.pem")

    def issue(self, name: str) -> tuple[str, str]:
        """The files of a certificate for `name` and of its key."""
        issued = self.authority.issue_cert(name)
        cert, key = self.directory / f"{name}.pem", self.directory / f"{name}.key"
        issued.private_key_pem.write_to_path(str(key))
        key.chmod(0o600)
        cert.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        return str(cert), str(key)


def papers(directory: Path) -> Papers:
    """A new authority whose files lie in `directory`."""
    directory.mkdir()
    made = Papers(directory, trustme.CA())
    made.authority.cert_pem.write_to_path(made.ca_file)
    return made


@contextlib.contextmanager
def tls_proxy(port: int, cert: str, key: str, client_ca: str = "") -> Iterator[int]:
    """A port on which TLS is spoken, in front of plain `port`. `client_ca`: clients must show a
    certificate of that authority."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    if client_ca:
        context.load_verify_locations(client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    with socket.create_server((HOST, 0)) as listener:
        threading.Thread(target=_accept, args=(listener, context, port), daemon=True).start()
        yield listener.getsockname()[1]
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)


def _accept(listener: socket.socket, context: ssl.SSLContext, port: int) -> None:
    with contextlib.suppress(OSError):
        while True:
            client, _ = listener.accept()
            threading.Thread(target=_serve, args=(client, context, port), daemon=True).start()


def _serve(client: socket.socket, context: ssl.SSLContext, port: int) -> None:
    with (
        contextlib.suppress(OSError),
        client,
        context.wrap_socket(client, server_side=True) as inside,
        socket.create_connection((HOST, port)) as outside,
    ):
        back = threading.Thread(target=_pump, args=(outside, inside), daemon=True)
        back.start()
        _pump(inside, outside)
        back.join(5)


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError, ValueError):
        while data := source.recv(65536):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_RDWR)
