"""The transport, with real sockets and peers in processes of their own: delivery, descriptors, the end."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.support.ports import free_port, free_ports
from tests.support.wires import LIMIT_BYTES, Loop, Pair, at, ends, loop, open_descriptors
from zelect.node.transport.transport import LinkChange


@pytest.fixture
def pair() -> Iterator[Pair]:
    made = Pair()
    yield made
    made.close()


@pytest.fixture
def alone() -> Iterator[Loop]:
    with loop(free_port(), {}) as made:
        yield made


def test_delivers_both_ways(pair: Pair) -> None:
    pair.loop.until_up(2)
    pair.echo(b"hello")
    assert pair.loop.changes == [LinkChange(2, True)]
    assert {peer: link.up for peer, link in pair.loop.transport.links.items()} == {2: True}


def test_keeps_the_order_of_messages(pair: Pair) -> None:
    pair.echo(b"first")
    sent = [b"%d" % number for number in range(50)]
    assert all(pair.loop.transport.links[2].send(payload) for payload in sent)
    pair.loop.until(lambda: b"echo 49" in pair.loop.payloads())
    assert pair.loop.payloads()[-50:] == [b"echo " + payload for payload in sent]


def test_payload_above_the_limit_is_not_sent(pair: Pair) -> None:
    pair.loop.until_up(2)
    assert not pair.loop.transport.links[2].send(b"x" * (LIMIT_BYTES + 1))
    assert pair.loop.transport.counters["too_big_to_send"] == 1
    assert pair.loop.transport.links[2].send(b"x" * LIMIT_BYTES)


def test_sending_never_blocks_and_drops_in_the_end(pair: Pair) -> None:
    pair.loop.until_up(2)
    pair.peer.signal(signal.SIGSTOP)
    payload = b"x" * LIMIT_BYTES
    dropped = sum(not pair.loop.transport.links[2].send(payload) for _ in range(20_000))
    assert dropped > 0
    assert pair.loop.transport.counters["dropped"] == dropped


@pytest.mark.skipif(sys.platform != "linux", reason="counts descriptors in /proc")
def test_close_leaves_nothing_open() -> None:
    before = open_descriptors()
    ports = free_ports(4)
    made = Loop(ports[0], {peer: at(port) for peer, port in enumerate(ports[1:], 2)}).open()
    made.transport.links[2].send(b"nobody is there")
    made.transport.probe(3, 1)
    made.transport.close()
    made.transport.close()
    assert not len(made.poller)
    ends(made.context)
    assert open_descriptors() == before


@pytest.mark.skipif(sys.platform != "linux", reason="counts descriptors in /proc")
def test_fifty_peers_and_their_descriptors() -> None:
    """Every link up at once, with five descriptors a peer when the peer's end is counted too."""
    here, hub = free_ports(2)
    with loop(hub, {}) as far:
        before = open_descriptors()
        with loop(here, dict.fromkeys(range(2, 52), at(hub))) as near:
            near.until_up(*range(2, 52))
            assert all(near.transport.links[peer].send(b"%d" % peer) for peer in range(2, 52))
            far.until(lambda: len(far.received) == 50)
            assert near.transport.counters["rebuilt"] == 0
            own = open_descriptors() - before
            assert own <= 50 * 5 + 16


LIST_SOCKETS = """
import os
for descriptor in os.listdir("/proc/self/fd"):
    try:
        target = os.readlink("/proc/self/fd/" + descriptor)
    except OSError:  # that of the listing itself
        continue
    if target.startswith("socket:"):
        print(target)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="lists descriptors in /proc")
def test_a_child_does_not_inherit_the_sockets(alone: Loop) -> None:
    """A child that held them would hide its parent's death. It is started without closing any."""
    child = subprocess.run(
        [sys.executable, "-c", LIST_SOCKETS],
        close_fds=False,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert child.stdout == ""
