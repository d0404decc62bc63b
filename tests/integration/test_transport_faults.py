"""The transport between real processes: death, freezes, restarts, and hostile clients."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator

import pytest
import zmq

from tests.support.ports import free_port
from tests.support.waiting import wait_until
from tests.support.wires import LIMIT_BYTES, Loop, Pair, UnknownClients, at, loop
from zelect.core.events import Evidence
from zelect.core.timing import Proof
from zelect.node.transport.peer_connections import InboundChange
from zelect.node.transport.transport import LinkChange
from zelect.system.clock import now_us


@pytest.fixture
def pair() -> Iterator[Pair]:
    made = Pair()
    yield made
    made.close()


@pytest.fixture
def alone() -> Iterator[Loop]:
    with loop(free_port(), {}) as made:
        yield made


@pytest.fixture
def unknowns() -> Iterator[UnknownClients]:
    made = UnknownClients()
    yield made
    made.close()


# -- death and freezes ------------------------------------------------------------------------------


def test_killed_peer_is_down_and_refused(pair: Pair) -> None:
    pair.loop.until_up(2)
    pair.peer.kill()
    pair.loop.until(lambda: pair.loop.changes[-1] == LinkChange(2, False))
    pair.loop.transport.probe(2, 7)
    pair.loop.until(lambda: pair.loop.verdicts)
    (verdict,) = pair.loop.verdicts
    assert (verdict.peer, verdict.incarnation, verdict.evidence) == (2, 7, Evidence.REFUSED)
    assert pair.loop.transport.counters["probes"] == 1
    assert pair.loop.transport.counters["proofs"] == 1


def test_the_connection_that_a_process_made_stands_until_it_dies(pair: Pair) -> None:
    pair.echo(b"heard")
    made = InboundChange(2, 7, up=True)
    pair.loop.transport.router.mark_process(pair.loop.received[-1], (2, 7))
    pair.loop.until(lambda: made in pair.loop.changes)
    pair.echo(b"again")
    assert pair.loop.received[-1].process == (2, 7)
    pair.peer.signal(signal.SIGSTOP)
    pair.loop.transport.probe(2, 7)
    pair.loop.until(lambda: pair.loop.verdicts)
    assert [change for change in pair.loop.changes if isinstance(change, InboundChange)] == [made], "frozen, not dead"
    pair.peer.kill()
    pair.loop.until(lambda: InboundChange(2, 7, up=False) in pair.loop.changes)
    pair.loop.until(lambda: LinkChange(2, False) in pair.loop.changes)


def test_a_connection_that_is_shut_down_here_is_reported_at_once(pair: Pair) -> None:
    pair.echo(b"heard")
    received = pair.loop.received[-1]
    pair.loop.transport.router.mark_process(received, (2, 7))
    pair.loop.transport.router.disconnect(received, "too_fast")
    assert pair.loop.transport.deadline_us() <= now_us(), "there is something to fetch"
    pair.loop.turn()
    assert [change.up for change in pair.loop.changes if isinstance(change, InboundChange)] == [True, False]


def test_waiting_verdict_is_a_deadline() -> None:
    """A probe begun after the verdicts were fetched may be decided at once: the loop must not sleep."""
    with loop(free_port(), {2: at(free_port())}, Proof.NONE) as made:
        made.transport.probe(2, 7)
        assert made.transport.deadline_us() <= now_us()
        assert [verdict.evidence for verdict in made.transport.take_verdicts()] == [None]
        assert made.transport.deadline_us() > now_us()


def test_restarted_peer_is_up_again(pair: Pair) -> None:
    pair.echo(b"before")
    pair.peer.kill()
    pair.loop.until(lambda: not pair.loop.transport.links[2].up)
    pair.restart()
    pair.loop.until_up(2)
    pair.echo(b"after")
    assert pair.loop.changes == [LinkChange(2, True), LinkChange(2, False), LinkChange(2, True)]
    assert pair.loop.transport.counters["rebuilt"] == 0


def test_down_and_up_in_one_turn_are_both_reported(pair: Pair) -> None:
    pair.loop.until_up(2)
    pair.peer.kill()
    pair.restart()
    # The restarted peer hears from us once our DEALER has reconnected, all without a turn here.
    other: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    asking = other.socket(zmq.DEALER)
    asking.connect(at(pair.there))
    received: list[bytes] = []

    def heard() -> bool:
        asking.send(b"nudge")  # again and again: it may be answered only once its link to us is up
        received.extend(message.payload for message in pair.loop.transport.router.receive(10))
        return bool(received)

    wait_until(heard)
    other.destroy(0)
    assert set(received) == {b"echo nudge"}
    pair.loop.until(lambda: len(pair.loop.changes) >= 3)
    assert [change.up for change in pair.loop.changes] == [True, False, True]


def test_nothing_stale_reaches_a_restarted_peer(pair: Pair) -> None:
    pair.echo(b"before")
    pair.peer.kill()
    for _ in range(100):  # not a turn since: the link still counts as up
        pair.loop.transport.links[2].send(b"stale")
    pair.loop.until(lambda: not pair.loop.transport.links[2].up)
    assert not any(pair.loop.transport.links[2].send(b"stale") for _ in range(100))
    pair.restart()
    pair.loop.until_up(2)
    pair.echo(b"after")
    assert b"stale" not in pair.peer.kill()


def test_frozen_peer_is_neither_down_nor_dead(pair: Pair) -> None:
    pair.loop.until_up(2)
    pair.peer.signal(signal.SIGSTOP)
    pair.loop.transport.probe(2, 7)
    pair.loop.transport.probe(2, 7)  # the same question, still open
    pair.loop.until(lambda: pair.loop.verdicts)
    (verdict,) = pair.loop.verdicts
    assert (verdict.evidence, verdict.detail) == (None, "alive: accepted")
    assert pair.loop.transport.counters["probes"] == 1
    assert pair.loop.changes == [LinkChange(2, True)]
    assert pair.loop.transport.links[2].send(b"thawed")
    pair.peer.signal(signal.SIGCONT)
    pair.echo(b"thawed")
    assert pair.loop.changes == [LinkChange(2, True)]


def test_free_lock_decides(pair: Pair) -> None:
    pair.loop.until_up(2)
    pair.loop.transport.probe(2, 7, lambda: True)
    assert [verdict.evidence for verdict in pair.loop.transport.take_verdicts()] == [Evidence.LOCK]


def test_two_incarnations_are_two_questions(pair: Pair) -> None:
    pair.loop.until_up(2)
    for incarnation in (7, 8):
        pair.loop.transport.probe(2, incarnation)
    pair.loop.until(lambda: len(pair.loop.verdicts) == 2)
    assert sorted(verdict.incarnation for verdict in pair.loop.verdicts) == [7, 8]


# -- unknown clients --------------------------------------------------------------------------------------


def test_message_of_other_shapes_is_dropped(alone: Loop, unknowns: UnknownClients) -> None:
    sender = unknowns.dealer(alone)
    sender.send_multipart([b"", b"as a REQ would"])
    sender.send_multipart([b"a", b"b", b"c"])
    sender.send(b"right")
    alone.until(lambda: alone.received)
    assert alone.payloads() == [b"right"]
    assert alone.transport.counters["wrong_shape"] == 2


def test_message_of_very_many_parts(alone: Loop, unknowns: UnknownClients) -> None:
    """Thrown away over many turns, none of which lasts long."""
    sender = unknowns.dealer(alone)
    for _ in range(100_000):
        sender.send(b"x", zmq.SNDMORE)
    sender.send(b"last")
    sender.send(b"right")
    turns = 0
    while not alone.received:
        turns += 1
        alone.turn()
    assert alone.payloads() == [b"right"]
    assert alone.transport.counters["wrong_shape"] == 1
    assert turns > 90


def test_payload_a_little_above_the_limit_costs_only_itself(alone: Loop, unknowns: UnknownClients) -> None:
    sender = unknowns.dealer(alone)
    sender.send(b"x" * (LIMIT_BYTES + 1))
    sender.send(b"y" * LIMIT_BYTES)
    alone.until(lambda: alone.received)
    assert alone.payloads() == [b"y" * LIMIT_BYTES]
    assert alone.transport.counters["too_big"] == 1


def test_payload_far_above_the_limit_costs_the_connection(alone: Loop, unknowns: UnknownClients) -> None:
    sender = unknowns.dealer(alone)
    events = sender.get_monitor_socket(zmq.EVENT_DISCONNECTED)
    sender.send(b"x" * (100 * LIMIT_BYTES))
    alone.until(lambda: events.poll(0))
    sender.disable_monitor()
    unknowns.is_heard_by(alone)
    assert alone.payloads() == [b"well-behaved"]


@pytest.mark.parametrize("text", [b"GET / HTTP/1.1\r\n\r\n", b"\0" * 5000, b"\xff" * 5000, bytes(range(256)) * 20])
def test_garbage_on_the_port(alone: Loop, unknowns: UnknownClients, text: bytes) -> None:
    talkers = [socket.create_connection(("127.0.0.1", alone.port)) for _ in range(20)]
    for talker in talkers:
        talker.sendall(text)
    unknowns.is_heard_by(alone)
    assert alone.payloads() == [b"well-behaved"]
    for talker in talkers:
        talker.close()


def test_a_thousand_unknown_connections(pair: Pair, unknowns: UnknownClients) -> None:
    """They leave no event behind that could block libzmq, and both links stay up."""
    pair.echo(b"before")
    for number in range(1000):
        with socket.create_connection(("127.0.0.1", pair.here), timeout=20) as stray:
            if number % 2:  # every other one ends in a reset
                stray.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    pair.echo(b"after")
    unknowns.is_heard_by(pair.loop)
    assert pair.loop.changes == [LinkChange(2, True)]
