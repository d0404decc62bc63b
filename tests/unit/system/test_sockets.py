"""Endpoints as they are written, and the addresses of connections that libzmq owns."""

from __future__ import annotations

import os
import socket

import pytest

from zelect.system.sockets import addresses_of, borrowed, parse_endpoint


@pytest.mark.parametrize(
    "endpoint", ["127.0.0.1:7101", "tcp://7101", "tcp://:7101", "tcp://host:", "tcp://host:x", "ipc://a:1"]
)
def test_endpoints_of_another_form_are_refused(endpoint: str) -> None:
    with pytest.raises(ValueError, match="not of the form"):
        parse_endpoint(endpoint)


def test_endpoints() -> None:
    assert parse_endpoint("tcp://node-1.example:7101") == ("node-1.example", 7101)
    assert parse_endpoint("tcp://[::1]:7101") == ("::1", 7101)


def test_the_addresses_of_a_connection_which_stays_open() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as near:
        assert addresses_of(near.fileno()) == (near.getsockname(), server.getsockname())
        assert near.send(b"still open") == 10


def test_a_connection_that_is_gone_has_no_addresses() -> None:
    near = socket.socket()
    number = near.fileno()
    near.close()
    assert addresses_of(number) is None
    assert addresses_of(-1) is None


def test_what_is_borrowed_is_given_back() -> None:
    with socket.socket() as own:
        with borrowed(own.fileno()) as same:
            assert os.fstat(same.fileno()).st_ino == os.fstat(own.fileno()).st_ino
            assert same.fileno() != own.fileno()
        assert own.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE) == socket.SOCK_STREAM
