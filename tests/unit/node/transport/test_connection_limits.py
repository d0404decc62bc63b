"""What the connections of unknown clients may take up (connection_limits.py), with a ROUTER of small limits."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
from collections.abc import Iterator

import pytest

from tests.support.ports import free_port
from tests.support.wires import Keys, Loop, UnknownClients, loop
from zelect.node.transport.connection_limits import Connection, ConnectionLimits, Connections, room_for
from zelect.security.keys import ClientKeys

GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
READY = b"\x04\x1c\x05READY\x0bSocket-Type\x00\x00\x00\x06DEALER"
LIMITS = ConnectionLimits(connections=20, messages_per_s=100, unread_bytes=1 << 20)


@pytest.fixture
def alone() -> Iterator[Loop]:
    with loop(free_port(), {}, limits=LIMITS) as made:
        yield made


@pytest.fixture
def unknowns() -> Iterator[UnknownClients]:
    made = UnknownClients()
    yield made
    made.close()


def hears(alone: Loop, count: int) -> None:
    alone.until(lambda: len(alone.received) == count, what=f"{count} messages")


def connections(alone: Loop) -> Connections:
    return alone.transport.router._connections


def test_over_the_limit_connections_that_sent_something_valid_stay(alone: Loop, unknowns: UnknownClients) -> None:
    known = unknowns.dealer(alone)
    known.send(b"valid")
    alone.until(lambda: alone.received)
    alone.transport.router.mark_valid(alone.received[0])
    clients = [socket.create_connection(("127.0.0.1", alone.port)) for _ in range(100)]
    alone.until(lambda: alone.transport.counters["connections_over_limit"] >= 81, what="the oldest unknown clients go")
    assert len(connections(alone).entries) <= LIMITS.connections
    assert connections(alone).entries[alone.received[0].descriptor].key == b"", "on the connection that it had"
    known.send(b"still here")
    unknowns.dealer(alone).send(b"and a new one gets in")
    alone.until(lambda: len(alone.received) == 3)
    assert sorted(alone.payloads()) == [b"and a new one gets in", b"still here", b"valid"]
    for one in clients:
        one.close()
    alone.until(lambda: len(connections(alone).entries) == 2, what="what is closed is forgotten")


def test_a_number_that_is_something_else_by_now_is_left_alone(alone: Loop) -> None:
    """libzmq closes a connection, and the program around the node opens another: it gets the same number."""
    listener = socket.create_server(("127.0.0.1", 0))
    client = socket.create_connection(listener.getsockname())
    accepted, _ = listener.accept()
    pair = socket.socketpair()
    read, write = os.pipe()
    limits = connections(alone)
    for number in (client.fileno(), pair[0].fileno(), read):
        limits.entries[number] = Connection()
        limits.close_one(number, "over_limit")
    client.sendall(b"still")
    assert accepted.recv(9) == b"still"
    pair[0].sendall(b"open")
    assert pair[1].recv(9) == b"open"
    os.write(write, b"too")
    assert os.read(read, 9) == b"too"
    for one in (listener, client, accepted, *pair):
        one.close()
    os.close(read)
    os.close(write)


def test_connections_are_closed_although_no_descriptor_is_free(alone: Loop) -> None:
    clients = [socket.create_connection(("127.0.0.1", alone.port)) for _ in range(3)]
    alone.until(lambda: len(connections(alone).entries) == 3)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1, hard))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            os.dup(0)
        for number in list(connections(alone).entries):
            connections(alone).close_one(number, "over_limit")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    for one in clients:
        one.settimeout(5)
        with contextlib.suppress(ConnectionResetError):
            while one.recv(200):  # the greeting, and then the end
                pass
        one.close()


def test_clients_that_send_close_and_reconnect_leave_nothing_behind(alone: Loop, unknowns: UnknownClients) -> None:
    """libzmq closes no connection before what it read of it has been read here: while too many wait for
    that, a new connection is closed before it could send anything."""
    known = unknowns.dealer(alone)
    known.send(b"valid")
    alone.until(lambda: alone.received)
    alone.transport.router.mark_valid(alone.received[0])
    talk = (b"\0\x01x" * 200) + b"\0\x01y"
    for _ in range(10):
        clients = []
        for _ in range(2 * LIMITS.connections):
            one = socket.create_connection(("127.0.0.1", alone.port))
            one.settimeout(5)
            with contextlib.suppress(OSError):  # thrown out already
                one.sendall(GREETING + READY)
                while READY[2:7] not in one.recv(200):
                    pass
                one.sendall(talk)
            clients.append(one)
        alone.turn()
        for one in clients:
            one.close()
    assert len(connections(alone).closing) >= 2 * LIMITS.connections
    before, count = set(connections(alone).entries), alone.transport.counters["connections_over_limit"]
    with socket.create_connection(("127.0.0.1", alone.port)):
        alone.until(lambda: alone.transport.counters["connections_over_limit"] > count)
        assert set(connections(alone).entries) <= before, "nobody older made room for it"
    alone.until(
        lambda: len(connections(alone).entries) == 1 and not connections(alone).closing, what="all are forgotten"
    )
    known.send(b"still here")
    alone.until(lambda: b"still here" in alone.payloads())


def test_among_valid_connections_the_newest_is_closed(alone: Loop, unknowns: UnknownClients) -> None:
    dealers = []
    for number in range(LIMITS.connections):
        dealers.append(unknowns.dealer(alone))
        dealers[-1].send(b"%d" % number)
        hears(alone, number + 1)
        alone.transport.router.mark_valid(alone.received[-1])
    with socket.create_connection(("127.0.0.1", alone.port)):
        alone.until(lambda: alone.transport.counters["connections_over_limit"] == 1)
    for dealer in dealers:
        dealer.send(b"still here")
    alone.until(lambda: alone.payloads().count(b"still here") == len(dealers))
    assert alone.transport.counters["connections_over_limit"] == 1


def test_a_message_without_an_end_is_closed_before_it_fills_the_memory(alone: Loop, unknowns: UnknownClients) -> None:
    """No part of it is ever read, as libzmq hands over whole messages only; nor would libzmq send
    it, so it is spelt out here."""
    part = b"\x03" + (4000).to_bytes(8, "big") + b"x" * 4000  # a long frame, more to follow
    with socket.create_connection(("127.0.0.1", alone.port)) as endless:
        endless.settimeout(20)
        endless.sendall(GREETING + READY)
        heard = b""
        while b"READY" not in heard:  # until then a frame would be a fault of the protocol
            heard += endless.recv(4096)
        endless.setblocking(False)
        sent = 0

        def gone() -> bool:
            nonlocal sent
            with contextlib.suppress(BlockingIOError, ConnectionError):
                for _ in range(100):
                    sent = (sent + endless.send(part[sent:])) % len(part)
            return bool(alone.transport.counters["connections_unread"])

        alone.until(gone)
    assert alone.received == []
    unknowns.is_heard_by(alone)


def test_above_the_rate_messages_are_dropped_and_far_above_the_connection_is_closed(
    alone: Loop, unknowns: UnknownClients
) -> None:
    dealer = unknowns.dealer(alone)
    dealer.send(b"valid")
    alone.until(lambda: alone.received)
    alone.transport.router.mark_valid(alone.received[0])
    for number in range(3000):
        dealer.send(b"%d" % number)
    alone.until(lambda: alone.transport.counters["connections_too_fast"])
    assert len(alone.received) <= 2 * LIMITS.messages_per_s
    assert alone.transport.counters["too_fast"] >= 900
    unknowns.is_heard_by(alone)


def test_one_key_has_one_rate_and_few_connections_however_often_it_connects(unknowns: UnknownClients) -> None:
    keys = Keys()
    with loop(free_port(), {}, keyring=keys.of(1), limits=LIMITS) as alone:
        lock = ClientKeys(keys.pairs[2][0], (keys.pairs[1][0].public,))
        dealers = []
        for number in range(18):
            dealers.append(unknowns.dealer(alone, lock))
            dealers[-1].send(b"hello")
            hears(alone, number + 1)
            alone.transport.router.mark_valid(alone.received[-1])
        assert alone.transport.counters["connections_over_key_limit"] == 2
        for dealer in dealers[5:15]:
            for _ in range(30):
                dealer.send(b"more")
        alone.until(lambda: alone.transport.counters["too_fast"] >= 100)
        operator = unknowns.dealer(alone, ClientKeys(keys.operator, (keys.pairs[1][0].public,)))
        operator.send(b"another key has a rate of its own")
        alone.until(lambda: b"another key has a rate of its own" in alone.payloads())


def test_a_connection_that_never_sends_anything_valid_is_closed(alone: Loop, unknowns: UnknownClients) -> None:
    with loop(free_port(), {}, limits=ConnectionLimits(20, 100_000, 1 << 20)) as generous:
        dealer = unknowns.dealer(generous)
        for _ in range(1500):
            dealer.send(b"blah")
        generous.until(lambda: generous.transport.counters["connections_never_valid"])
        assert len(generous.received) == 1000


def test_few_descriptors_make_room_for_fewer_connections() -> None:
    assert room_for(512, 2) in range(1, 513)
    assert room_for(10**9, 2) < 10**9
    assert room_for(10**9, 200) < room_for(10**9, 2)
