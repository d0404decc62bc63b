"""The poller against real sockets: nothing that waits is overlooked, whatever the descriptor says."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import zmq

from zelect.system.poller import Poller, has_messages

Socket = zmq.Socket[bytes]


@pytest.fixture
def pair() -> Iterator[tuple[Socket, Socket]]:
    """Two connected ends; what is sent at the second can be read at the first at once."""
    context: zmq.Context[Socket] = zmq.Context()
    near, far = context.socket(zmq.PAIR), context.socket(zmq.PAIR)
    near.bind("inproc://pair")
    far.connect("inproc://pair")
    yield near, far
    context.destroy(0)


@pytest.fixture
def poller() -> Poller:
    return Poller()


def test_reports_a_message_that_came_before_it_was_watched(poller: Poller, pair: tuple[Socket, Socket]) -> None:
    near, far = pair
    far.send(b"early")
    assert has_messages(near)  # which takes the news from the descriptor
    poller.register(near)
    assert poller.poll(0) == {near: zmq.POLLIN}


def test_reports_again_what_was_not_read(poller: Poller, pair: tuple[Socket, Socket]) -> None:
    near, far = pair
    poller.register(near)
    far.send(b"one")
    far.send(b"two")
    for _ in range(3):
        assert near in poller.poll(20_000)
    near.recv()
    assert near in poller.poll(0)
    near.recv()
    assert not poller.poll(0)
    far.send(b"three")
    assert near in poller.poll(20_000)


def test_waits_for_descriptors_too(poller: Poller, pair: tuple[Socket, Socket]) -> None:
    read, write = os.pipe()
    poller.register(read)
    poller.register(write, zmq.POLLOUT)
    poller.register(pair[0])
    assert poller.poll(0) == {write: zmq.POLLOUT}
    os.write(write, b"x")
    pair[1].send(b"x")
    assert set(poller.poll(0)) == {read, write, pair[0]}
    for descriptor in (read, write):
        poller.unregister(descriptor)
        os.close(descriptor)
    assert list(poller) == [pair[0]]


def test_an_eager_socket_can_be_left_aside(poller: Poller, pair: tuple[Socket, Socket]) -> None:
    near, far = pair
    read, write = os.pipe()
    poller.register(near, eager=True)
    poller.register(read)
    far.send(b"x")
    assert not poller.poll(1, eager=False)
    os.write(write, b"x")
    assert poller.poll(20_000, eager=False) == {read: zmq.POLLIN}
    assert set(poller.poll(20_000)) == {near, read}
    assert poller.poll(0, eager=False) == {read: zmq.POLLIN}  # also one that was told before
    assert near in poller.poll(0)
    os.close(read)
    os.close(write)
    poller.unregister(near)
    assert near not in poller


def test_an_eager_socket_is_reported_until_it_is_read(poller: Poller, pair: tuple[Socket, Socket]) -> None:
    near, far = pair
    poller.register(near, eager=True)
    assert not poller.poll(0)
    far.send(b"x")
    assert near in poller.poll(20_000)
    assert near in poller.poll(0)  # not asked yet: its descriptor still speaks
    assert near.recv() == b"x"
    while has_messages(near):  # whoever asks has taken the news
        near.recv()
    assert not poller.poll(0)
    far.send(b"y")
    assert near in poller.poll(20_000)


def test_what_is_not_watched_any_more_is_not_reported(poller: Poller, pair: tuple[Socket, Socket]) -> None:
    near, far = pair
    poller.register(near)
    far.send(b"x")
    assert near in poller.poll(20_000)
    poller.unregister(near)
    assert not poller.poll(0)
    assert near not in poller
    assert len(poller) == 0
    with pytest.raises(KeyError):
        poller.unregister(near)


@pytest.mark.parametrize("flags", [0, zmq.POLLIN | zmq.POLLOUT, zmq.POLLOUT, zmq.POLLERR])
def test_refuses_what_it_cannot_do(poller: Poller, pair: tuple[Socket, Socket], flags: int) -> None:
    with pytest.raises(ValueError, match="can't be watched"):
        poller.register(pair[0], flags)


def test_refuses_to_watch_a_thing_twice(poller: Poller, pair: tuple[Socket, Socket]) -> None:
    poller.register(pair[0])
    with pytest.raises(ValueError, match="can't be watched"):
        poller.register(pair[0])
