"""The ROUTER: what it reads, how it answers, why it can't listen, and which messages come from its own host."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import cast

import pytest
import zmq

from tests.support.ports import free_port
from tests.support.waiting import wait_until
from tests.support.wires import LIMIT_BYTES, Loop, UnknownClients, at, ends, loop
from zelect.node.transport.router import Received
from zelect.node.transport.transport import Transport
from zelect.system.clock import now_us
from zelect.system.poller import Poller
from zelect.system.sockets import CannotBind

HOST = "127.0.0.1"


@pytest.fixture
def alone() -> Iterator[Loop]:
    with loop(free_port(), {}) as made:
        yield made


@pytest.fixture
def unknowns() -> Iterator[UnknownClients]:
    made = UnknownClients()
    yield made
    made.close()


def test_answers_to_a_query(alone: Loop, unknowns: UnknownClients) -> None:
    asking = unknowns.dealer(alone)
    asking.send(b"who is controller?")
    alone.until(lambda: alone.received)
    assert alone.transport.router.reply(alone.received[0].route, b"me")
    assert asking.poll(20_000)
    assert asking.recv_multipart() == [b"me"]


def test_answer_to_a_client_that_has_gone_is_counted(alone: Loop, unknowns: UnknownClients) -> None:
    asking = unknowns.dealer(alone)
    asking.send(b"who is controller?")
    alone.until(lambda: alone.received)
    asking.close(0)
    alone.until(lambda: not alone.transport.router.reply(alone.received[0].route, b"me"))
    assert alone.transport.counters["reply_failed"] == 1


def test_reads_at_most_the_limit_and_says_that_more_waits(alone: Loop, unknowns: UnknownClients) -> None:
    sender = unknowns.dealer(alone)
    for number in range(10):
        sender.send(b"%d" % number)
    got: list[bytes] = []
    wait_until(alone.transport.router.backlog)
    while len(got) < 10:
        assert alone.poller.poll(20_000)
        got_now = alone.transport.router.receive(3)
        assert len(got_now) <= 3
        got += [message.payload for message in got_now]
    assert got == [b"%d" % number for number in range(10)]
    assert not alone.transport.router.backlog()


def _cannot_bind(listen: str) -> str:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    poller = Poller()
    transport = Transport(context, listen=listen, max_message_bytes=LIMIT_BYTES, poller=poller)
    try:
        with pytest.raises(CannotBind) as caught:
            transport.router.bind()
    finally:
        transport.close()
        ends(context)
    assert listen in str(caught.value)
    return str(caught.value)


def test_port_taken(alone: Loop) -> None:
    message = _cannot_bind(at(alone.port))
    assert "the port is taken" in message
    assert f"ss -ltnp 'sport = :{alone.port}'" in message


def test_address_of_another_host() -> None:
    assert "no such address" in _cannot_bind("tcp://192.0.2.1:7101")


def test_a_message_that_was_waiting_before_the_first_poll_is_read(unknowns: UnknownClients) -> None:
    """The poller reports only what comes later; the ROUTER says by itself that there may be more."""
    with loop(free_port(), {}) as fresh:
        unknowns.dealer(fresh).send(b"early")
        wait_until(fresh.transport.router.backlog)
        assert fresh.transport.deadline_us() <= now_us()
        fresh.until(lambda: fresh.payloads() == [b"early"])


class Frame:
    """A frame of libzmq's that came from `origin`."""

    def __init__(self, origin: str) -> None:
        self._origin = origin

    def get(self, option: str) -> str:
        assert option == "Peer-Address"
        return self._origin


@pytest.mark.parametrize(
    ("origin", "local"),
    [
        ("127.0.0.1", True),
        ("127.1.2.3", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("192.0.2.7", False),
        ("::ffff:192.0.2.7", False),
        ("2001:db8::7", False),
        ("", False),
        ("localhost", False),
    ],
)
def test_which_messages_come_from_this_host(origin: str, local: bool) -> None:
    """Without other proof only loopback is this host; it is not enough that some connection is open."""
    with socket.create_server((HOST, 0)) as server, socket.create_connection(server.getsockname()) as connection:
        for descriptor in (-1, connection.fileno()):
            received = Received(b"", b"", cast("zmq.Frame", Frame(origin)), b"", descriptor)
            assert received.is_local is local
