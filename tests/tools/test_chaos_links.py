"""The proxy that chaos runs the links through: what it holds, delays, resets and refuses."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator

import pytest

from tests.support.waiting import wait_until
from tools.chaos_lab.links import REGISTRY, Links, between
from zelect.devcluster.layout import HOST

Ends = tuple[socket.socket, socket.socket]


@contextlib.contextmanager
def listening() -> Iterator[socket.socket]:
    with socket.create_server((HOST, 0)) as server:
        server.settimeout(5)
        yield server


@pytest.fixture
def servers() -> Iterator[dict[int, socket.socket]]:
    """Where node 1, node 2 and Redis listen."""
    with listening() as one, listening() as two, listening() as registry:
        yield {1: one, 2: two, REGISTRY: registry}


@pytest.fixture
def links(servers: dict[int, socket.socket]) -> Iterator[Links]:
    made = Links([(node, *servers[node].getsockname()) for node in (1, 2)], servers[REGISTRY].getsockname())
    try:
        yield made
    finally:
        made.close()


def port(links: Links, a: int, b: int) -> int:
    (place,) = links.dial(a).values()
    return int(place.rpartition(":")[2]) if b else links.registry_of(a)


def joined(links: Links, servers: dict[int, socket.socket], a: int, b: int) -> Ends:
    """A connection from `a` to `b`, both ends."""
    near = socket.create_connection((HOST, port(links, a, b)), timeout=5)
    far, _ = servers[b].accept()
    far.settimeout(5)
    return near, far


def unresponsive(end: socket.socket, for_s: float = 0.15) -> bool:
    """Whether nothing comes, the end of the connection included."""
    end.settimeout(for_s)
    try:
        end.recv(10)
    except TimeoutError:
        return True
    finally:
        end.settimeout(5)
    return False


def test_bytes_and_ends_pass(links: Links, servers: dict[int, socket.socket]) -> None:
    near, far = joined(links, servers, 1, 2)
    near.sendall(b"there")
    assert far.recv(10) == b"there"
    far.sendall(b"back")
    assert near.recv(10) == b"back"
    far.close()
    assert near.recv(10) == b"", "who dies behind the proxy is seen to"
    near.close()


def test_a_cut_holds_what_is_said_refuses_nothing_and_lets_go_afterwards(
    links: Links, servers: dict[int, socket.socket]
) -> None:
    near, far = joined(links, servers, 1, 2)
    links.block("cut", between([1], [2]))
    near.sendall(b"late")
    far.close()
    assert unresponsive(near), "nor does a cut link tell of an end"
    with socket.create_connection((HOST, port(links, 1, 2)), timeout=5) as another:
        another.sendall(b"too")
        servers[2].settimeout(0.15)
        with pytest.raises(TimeoutError):
            servers[2].accept()
        servers[2].settimeout(5)
        links.release("cut")
        with servers[2].accept()[0] as other_far:
            assert other_far.recv(10) == b"too"
    assert near.recv(10) == b""
    near.close()


def test_one_direction_is_that_of_the_bytes_on_every_connection(
    links: Links, servers: dict[int, socket.socket]
) -> None:
    one, two = joined(links, servers, 1, 2), joined(links, servers, 2, 1)
    links.block("one way", {(1, 2)})
    one[0].sendall(b"from 1")
    two[1].sendall(b"from 1")
    one[1].sendall(b"from 2")
    two[0].sendall(b"from 2")
    assert (one[0].recv(10), two[1].recv(10)) == (b"from 2", b"from 2")
    assert unresponsive(one[1])
    assert unresponsive(two[0])
    links.release("one way")
    assert (one[1].recv(10), two[0].recv(10)) == (b"from 1", b"from 1")
    for end in (*one, *two):
        end.close()


def test_two_faults_hold_a_link_until_both_let_go(links: Links, servers: dict[int, socket.socket]) -> None:
    near, far = joined(links, servers, 1, REGISTRY)
    links.block("one", {(1, REGISTRY)})
    links.block("other", {(1, REGISTRY), (2, REGISTRY)})
    near.sendall(b"x")
    links.release("one")
    assert unresponsive(far)
    links.release("other")
    assert far.recv(10) == b"x"
    near.close()
    far.close()


def test_a_delay_keeps_the_order(links: Links, servers: dict[int, socket.socket]) -> None:
    near, far = joined(links, servers, 1, 2)
    links.delay("slow", {(1, 2)}, 120)
    began = time.monotonic()
    near.sendall(b"a")
    far.sendall(b"quick")
    assert near.recv(10) == b"quick"
    assert far.recv(10) == b"a"
    assert time.monotonic() - began >= 0.12
    near.sendall(b"b")
    links.release("slow")
    near.sendall(b"c")
    said = b""
    while len(said) < 2:
        said += far.recv(10)
    assert said == b"bc"
    near.close()
    far.close()


def test_a_reset_is_one_and_a_refusal_is_one_until_it_is_taken_back(
    links: Links, servers: dict[int, socket.socket]
) -> None:
    near, far = joined(links, servers, 1, 2)
    spared = joined(links, servers, 2, 1)
    links.reset({(1, 2)})
    with pytest.raises(ConnectionResetError):
        near.recv(10)
    links.refuse("wall", {(1, 2)})
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((HOST, port(links, 1, 2)), timeout=5)
    spared[0].sendall(b"y")
    assert spared[1].recv(10) == b"y"
    links.release("wall")
    again = joined(links, servers, 1, 2)
    for end in (near, far, *spared, *again):
        end.close()


def test_redis_can_move(links: Links, servers: dict[int, socket.socket]) -> None:
    near, far = joined(links, servers, 1, REGISTRY)
    with listening() as elsewhere:
        links.point(*elsewhere.getsockname())
        wait_until(lambda: ended(near), what="the connection to where Redis was is over")
        with socket.create_connection((HOST, links.registry_of(1)), timeout=5) as again:
            again.sendall(b"z")
            with elsewhere.accept()[0] as there:
                assert there.recv(10) == b"z"
    near.close()
    far.close()


def ended(end: socket.socket) -> bool:
    try:
        return end.recv(10) == b""
    except ConnectionResetError:
        return True
