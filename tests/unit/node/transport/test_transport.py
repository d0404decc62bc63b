"""The transport, with real sockets and peers in processes of their own: delivery, descriptors, the end."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from tests.support.ports import free_port, free_ports
from tests.support.wires import LIMIT_BYTES, Keys, Loop, Pair, at, ends, loop, open_descriptors
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


# -- members that change while the node runs (R10) --------------------------------------------------


def together(*loops: Loop) -> Callable[[Callable[[], object]], None]:
    """Turn all of `loops` until a condition holds."""
    first, *others = loops

    def until(condition: Callable[[], object]) -> None:
        def turned() -> object:
            for other in others:
                other.turn()
            return condition()

        first.until(turned)

    return until


def test_a_peer_that_is_added_is_connected_to_while_the_others_stay_up() -> None:
    one, two, three = free_ports(3)
    with loop(one, {2: at(two)}) as first, loop(two, {}) as second, loop(three, {}) as third:
        until = together(first, second, third)
        until(lambda: first.transport.links[2].up)
        kept = first.transport.links[2]
        first.transport.connect({2: at(two), 3: at(three)})
        until(lambda: first.transport.links[3].up)
        assert first.changes == [LinkChange(2, True), LinkChange(3, True)]
        assert first.transport.links[2] is kept
        assert all(first.transport.links[peer].send(b"to %d" % peer) for peer in (2, 3))
        until(lambda: second.received and third.received)
        assert (second.payloads(), third.payloads()) == ([b"to 2"], [b"to 3"])


def test_a_peer_that_is_removed_is_let_go_of_while_the_others_stay_up() -> None:
    one, two, three = free_ports(3)
    with loop(one, {2: at(two), 3: at(three)}) as first, loop(two, {}) as second, loop(three, {1: at(one)}) as third:
        until = together(first, second, third)
        until(lambda: first.transport.links[2].up and first.transport.links[3].up)
        first.transport.probe(3, 5)
        first.transport.connect({2: at(two)})
        assert sorted(first.transport.links) == [2]
        first.transport.probe(3, 6)
        assert first.transport.counters["probes"] == 1, "nothing is asked about one that is no peer"
        assert first.transport.links[2].send(b"still here")
        until(lambda: second.payloads() == [b"still here"])
        assert LinkChange(2, False) not in first.changes
        third.transport.links[1].send(b"I was removed")
        until(lambda: b"I was removed" in first.payloads())  # it may speak; the gate refuses it


def test_a_peer_that_moved_is_found_at_its_new_address_while_the_others_stay_up() -> None:
    one, two, three, four = free_ports(4)
    with (
        loop(one, {2: at(two), 3: at(three)}) as first,
        loop(two, {}) as second,
        loop(three, {}) as before,
        loop(four, {}) as after,
    ):
        until = together(first, second, before, after)
        until(lambda: first.transport.links[2].up and first.transport.links[3].up)
        first.transport.connect({2: at(two), 3: at(four)})
        assert not first.transport.links[3].up
        until(lambda: first.transport.links[3].up)
        assert first.transport.links[3].endpoint == at(four)
        assert first.transport.links[3].send(b"moved")
        until(lambda: after.payloads() == [b"moved"])
        assert before.payloads() == []
        assert first.changes.count(LinkChange(2, True)) == 1
        assert LinkChange(2, False) not in first.changes


def test_connecting_to_the_same_peers_again_changes_nothing() -> None:
    one, two = free_ports(2)
    with loop(one, {2: at(two)}) as first, loop(two, {}) as second:
        together(first, second)(lambda: first.transport.links[2].up)
        kept = first.transport.links[2]
        first.transport.connect({2: at(two)})
        assert first.transport.links == {2: kept}
        assert kept.up


def test_a_member_without_a_key_is_connected_to_once_its_key_is_known_and_no_longer_when_it_left() -> None:
    """A member can be in the voter record and not in this node's directory of keys, which a person keeps."""
    one, two = free_ports(2)
    keys = Keys()
    known = keys.pairs.pop(2)
    with loop(one, {2: at(two)}, keyring=keys.of(1)) as first:
        assert first.transport.links == {}
        keys.pairs[2] = known
        with loop(two, {1: at(one)}, keyring=keys.of(2)) as second:
            until = together(first, second)
            first.transport.rekey(keys.of(1))
            until(lambda: first.transport.links[2].up)
            del keys.pairs[2]
            first.transport.rekey(keys.of(1))
            assert first.transport.links == {}
            until(lambda: first.changes == [LinkChange(2, True), LinkChange(2, False)])


@pytest.mark.skipif(sys.platform != "linux", reason="counts descriptors in /proc")
def test_descriptors_of_peers_that_come_and_go_are_closed() -> None:
    ports = free_ports(4)
    with loop(ports[0], {2: at(ports[1])}) as made:
        before = open_descriptors()
        for _ in range(20):
            made.transport.connect({peer: at(port) for peer, port in enumerate(ports[1:], 2)})
            made.transport.connect({2: at(ports[2])})
            made.transport.connect({2: at(ports[1])})
            made.turn()
        made.until(lambda: open_descriptors() <= before + 4)  # libzmq closes them in a thread of its own


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
