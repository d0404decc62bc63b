"""Encrypted links: which keys are accepted, what can be seen on the wire, and links that are repaired."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import zmq

from tests.support.ports import free_port, free_ports
from tests.support.samples import envelope
from tests.support.wires import BadListener, HistoryRecorder, Keys, Loop, UnknownClients, at, loop
from zelect.core.messages import NodeOnline
from zelect.node.transport.transport import LinkChange
from zelect.security.keys import ClientKeys, KeyPair, Keyring
from zelect.security.zap_authenticator import DOMAIN, AuthenticatorFailed
from zelect.wire import encode

REPAIRED_WITHIN_S = 2.0


@pytest.fixture
def keys() -> Keys:
    return Keys()


@pytest.fixture
def unknowns() -> Iterator[UnknownClients]:
    made = UnknownClients()
    yield made
    made.close()


@pytest.fixture
def alone(keys: Keys) -> Iterator[Loop]:
    """Node 1, which nobody has met yet."""
    with loop(free_port(), {}, keyring=keys.of(1)) as made:
        yield made


def also(other: Loop, condition: Callable[[], object]) -> Callable[[], object]:
    """`condition`, with a turn of `other` before each look at it."""

    def looked() -> object:
        other.turn()
        return condition()

    return looked


def lock_to(keys: Keys, pair: KeyPair) -> ClientKeys:
    """How somebody with `pair` speaks to node 1."""
    return ClientKeys(pair, (keys.pairs[1][0].public,))


def shut_out(alone: Loop) -> int:
    """Handshakes that failed; which counter tells depends on who notices first."""
    return alone.transport.counters["handshakes_failed"] + alone.transport.counters["handshakes_aborted"]


def is_heard(keys: Keys, unknowns: UnknownClients, alone: Loop) -> None:
    """Node 2's key gets a message through, and nothing else has come before it."""
    unknowns.dealer(alone, lock_to(keys, keys.pairs[2][0])).send(b"from node 2")
    alone.until(lambda: alone.received)
    assert alone.payloads() == [b"from node 2"]
    assert alone.received[0].key == keys.pairs[2][0].public


# -- who gets in ------------------------------------------------------------------------------------


def test_members_and_operators_are_known_by_their_keys(keys: Keys, unknowns: UnknownClients, alone: Loop) -> None:
    is_heard(keys, unknowns, alone)
    unknowns.dealer(alone, lock_to(keys, keys.operator)).send(b"from the operator")
    alone.until(lambda: len(alone.received) == 2)
    assert alone.received[1].key == keys.operator.public
    assert alone.transport.counters["keys_accepted"] == 2


def test_plain_text_is_refused(keys: Keys, unknowns: UnknownClients, alone: Loop) -> None:
    unknowns.dealer(alone).send(b"plain")
    alone.until(lambda: shut_out(alone))
    is_heard(keys, unknowns, alone)


def test_an_unknown_key_is_refused(keys: Keys, unknowns: UnknownClients, alone: Loop) -> None:
    unknowns.dealer(alone, lock_to(keys, KeyPair.new())).send(b"unknown")
    alone.until(lambda: alone.transport.counters["keys_unknown"])
    is_heard(keys, unknowns, alone)


def test_a_public_key_without_its_secret_is_refused(keys: Keys, unknowns: UnknownClients, alone: Loop) -> None:
    forged = KeyPair(keys.pairs[2][0].public, KeyPair.new().secret)
    unknowns.dealer(alone, lock_to(keys, forged)).send(b"forged")
    alone.until(lambda: shut_out(alone))
    is_heard(keys, unknowns, alone)


def test_a_client_with_another_servers_key_is_refused(keys: Keys, unknowns: UnknownClients, alone: Loop) -> None:
    unknowns.dealer(alone, ClientKeys(keys.pairs[2][0], (KeyPair.new().public,))).send(b"mistaken")
    alone.until(lambda: shut_out(alone))
    is_heard(keys, unknowns, alone)


def test_a_replayed_session_is_refused(keys: Keys, unknowns: UnknownClients, alone: Loop) -> None:
    recorder = HistoryRecorder(alone.port)
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    dealer = context.socket(zmq.DEALER)
    lock_to(keys, keys.pairs[2][0]).apply_to(dealer, 0)
    dealer.connect(at(recorder.port))
    dealer.send(b"once")
    alone.until(lambda: alone.payloads() == [b"once"])
    context.destroy(0)
    recorder.close()
    tape = bytes(recorder.there)
    let_in = alone.transport.counters["keys_accepted"]
    replayers = [socket.create_connection(("127.0.0.1", alone.port)) for _ in range(4)]
    for size, replayer in zip((len(tape), len(tape) // 2, 64, 64 + 200), replayers, strict=True):
        replayer.sendall(tape[:size])
    alone.until(lambda: shut_out(alone))
    for replayer in replayers:
        replayer.close()
    assert alone.transport.counters["keys_accepted"] == let_in
    unknowns.dealer(alone, lock_to(keys, keys.pairs[2][0])).send(b"from node 2")
    alone.until(lambda: len(alone.received) == 2)
    assert alone.payloads() == [b"once", b"from node 2"]


def test_a_broken_authenticator_accepts_no_connection(keys: Keys, unknowns: UnknownClients, alone: Loop) -> None:
    """And the node that turns its loop gets the error."""
    authenticator = alone.transport.router._authenticator
    assert authenticator is not None
    authenticator.close()
    dealers = [unknowns.dealer(alone, lock_to(keys, pair)) for pair in (keys.pairs[2][0], KeyPair.new())]
    for dealer in dealers:
        dealer.send(b"nobody asked")
    with pytest.raises(AuthenticatorFailed, match="its socket is closed"):
        alone.turn()
    end = time.monotonic() + 1.5  # longer than a handshake may take
    while time.monotonic() < end:
        ready = alone.poller.poll(20)
        assert alone.transport.router.receive(10) == []
        alone.transport.router._connections.service(ready, 0)
    assert alone.transport.counters["handshakes_aborted"] >= 1
    assert alone.transport.counters["keys_accepted"] == 0


def test_an_authenticator_that_cannot_answer_is_broken(alone: Loop) -> None:
    """Somebody else has taken a question away from it, and it answers that one first."""
    authenticator = alone.transport.router._authenticator
    assert authenticator is not None
    asker = alone.context.socket(zmq.DEALER)
    try:
        asker.connect("inproc://zeromq.zap.01")
        asker.send_multipart([b"", b"1.0", b"1", DOMAIN, b"127.0.0.1", b"", b"CURVE", bytes(32)])
        assert authenticator._socket.poll(20_000)
        authenticator._socket.recv_multipart()
        with pytest.raises(AuthenticatorFailed, match="cannot be accomplished in current state"):
            authenticator.service({authenticator._socket: zmq.POLLIN})
    finally:
        asker.close(0)


# -- what a wire shows ------------------------------------------------------------------------------


@pytest.mark.parametrize("secure", [True, False])
def test_the_bytes_on_a_link_show_neither_cluster_nor_ids_nor_terms(keys: Keys, secure: bool) -> None:
    """Recorded by a proxy between two nodes; in plain text the same look finds all of it."""
    one, two = free_ports(2)
    message = envelope(NodeOnline("tcp://127.0.0.1:7101", 10, 11))
    payload = encode(message)
    rings: tuple[Keyring | None, Keyring | None] = (keys.of(1), keys.of(2)) if secure else (None, None)
    recorder = HistoryRecorder(two)
    with loop(two, {}, keyring=rings[1]) as listener, loop(one, {2: at(recorder.port)}, keyring=rings[0]) as speaker:
        speaker.until(also(listener, lambda: speaker.transport.links[2].up))
        for _ in range(20):
            assert speaker.transport.links[2].send(payload)
        speaker.until(also(listener, lambda: len(listener.received) == 20))
        assert set(listener.payloads()) == {payload}
    recorder.close()
    seen = bytes(recorder.there + recorder.back)
    assert len(seen) > 20 * len(payload)
    header = payload[: payload.index(b"tcp://")]  # cluster, type, sender, incarnation, settings, term
    for secret in (message.cluster.encode(), b"tcp://127.0.0.1:7101", header, header[-8:]):
        assert (secret in seen) is not secure
    for pairs in keys.pairs.values():
        assert pairs[0].secret not in seen


# -- links that are repaired --------------------------------------------------------------------------


@contextlib.contextmanager
def talks(port: int, text: bytes, hold: bool = True) -> Iterator[Callable[[], object]]:
    listener = BadListener(port, text, hold)
    yield lambda: listener.accepted
    listener.close()


@contextlib.contextmanager
def router(
    port: int, pair: KeyPair | None, answer: bytes | None, enforce: bool = True
) -> Iterator[Callable[[], object]]:
    """A ROUTER on `port`, whose authenticator gives every key the answer `answer` (None: it does not answer)."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    stop = threading.Event()
    authenticator = context.socket(zmq.REP)
    authenticator.bind("inproc://zeromq.zap.01" if answer is not None else "inproc://unused")

    def serve() -> None:
        while not stop.is_set():
            if authenticator.poll(20):
                version, request, *_ = authenticator.recv_multipart()
                authenticator.send_multipart([version, request, answer or b"", b"", b"", b""])

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    made = context.socket(zmq.ROUTER)
    if pair is not None:
        made.setsockopt(zmq.CURVE_SERVER, 1)
        made.setsockopt(zmq.CURVE_SECRETKEY, pair.secret)
        made.setsockopt(zmq.ZAP_DOMAIN, DOMAIN)
        made.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
    monitor = made.get_monitor_socket(zmq.EVENT_DISCONNECTED)
    made.bind(at(port))
    yield lambda: monitor.poll(0)
    stop.set()
    thread.join(20)
    made.disable_monitor()
    context.destroy(0)


OBSTACLES: dict[str, Callable[[int, Keys], contextlib.AbstractContextManager[Callable[[], object]]]] = {
    "garbage": lambda port, keys: talks(port, b"HTTP/1.1 400 Bad Request\r\n\r\n"),
    "silence": lambda port, keys: talks(port, b""),
    "closes at once": lambda port, keys: talks(port, b"", hold=False),
    "half a greeting": lambda port, keys: talks(port, b"\xff" + bytes(8) + b"\x7f\x03\x00CURVE"),
    "plain text": lambda port, keys: router(port, None, None),
    "another key": lambda port, keys: router(port, KeyPair.new(), b"200"),
    "says 300": lambda port, keys: router(port, keys.pairs[2][0], b"300"),
    "says 400": lambda port, keys: router(port, keys.pairs[2][0], b"400"),
    "says 500": lambda port, keys: router(port, keys.pairs[2][0], b"500"),
    "says nonsense": lambda port, keys: router(port, keys.pairs[2][0], b"999"),
    "nobody at the authenticator": lambda port, keys: router(port, keys.pairs[2][0], None),
}


@pytest.mark.parametrize("name", OBSTACLES)
@pytest.mark.parametrize("two_keys", [False, True], ids=["one key", "two keys"])
def test_a_peer_that_met_an_obstacle_is_connected_again_within_two_seconds(
    keys: Keys, name: str, two_keys: bool
) -> None:
    if two_keys:
        keys.pairs[2].append(KeyPair.new())
    here, there = free_ports(2)
    with loop(here, {2: at(there)}, keyring=keys.of(1)) as made:
        with OBSTACLES[name](there, keys) as met:
            made.until(met, what=f"met {name}")
            end = time.monotonic() + 0.7
            made.until(lambda: time.monotonic() > end)
            assert not made.transport.links[2].up
        with loop(there, {}, keyring=keys.of(2, turn=-1)) as right:
            began = time.monotonic()
            made.until(also(right, lambda: made.transport.links[2].up))
            assert time.monotonic() - began < REPAIRED_WITHIN_S
            assert made.transport.links[2].send(b"at last")
            made.until(also(right, lambda: right.payloads() == [b"at last"]))


# -- new keys ---------------------------------------------------------------------------------------


def test_new_keys_take_over_without_a_refusal_or_a_gap(keys: Keys) -> None:
    """Node 1 changes its key while both are accepted: its link to node 2 never goes down, its port
    never refuses, and node 2 finds it again."""
    one, two = free_ports(2)
    with (
        loop(one, {2: at(two)}, keyring=keys.of(1)) as first,
        loop(two, {1: at(one)}, keyring=keys.of(2)) as second,
    ):
        first.until(also(second, lambda: first.transport.links[2].up and second.transport.links[1].up))
        keys.pairs[1].append(KeyPair.new())
        second.transport.rekey(keys.of(2))
        first.until(also(second, lambda: not second.transport._replacements))
        assert second.changes == [LinkChange(1, True)], "another key of the peer is no reason to let go of it"
        refused: list[OSError] = []
        stop = threading.Event()

        def knock() -> None:
            while not stop.is_set():
                try:
                    socket.create_connection(("127.0.0.1", one), timeout=5).close()
                except OSError as error:
                    refused.append(error)

        knocker = threading.Thread(target=knock)
        knocker.start()
        first.transport.rekey(keys.of(1, turn=1))
        began = time.monotonic()
        first.until(also(second, lambda: len(second.changes) >= 3))
        gap_s = time.monotonic() - began
        first.until(also(second, lambda: not first.transport._replacements))
        stop.set()
        knocker.join(20)
        assert not refused
        assert gap_s < REPAIRED_WITHIN_S
        assert second.changes == [LinkChange(1, True), LinkChange(1, False), LinkChange(1, True)]
        assert first.changes == [LinkChange(2, True)]
        del keys.pairs[1][0]
        second.transport.rekey(keys.of(2))
        assert first.transport.links[2].send(b"with the new key")
        assert second.transport.links[1].send(b"to the new key")
        first.until(also(second, lambda: first.received and second.received))
        assert second.received[-1].key == keys.pairs[1][0].public


def test_a_key_that_left_the_directory_is_refused(keys: Keys, unknowns: UnknownClients, alone: Loop) -> None:
    is_heard(keys, unknowns, alone)
    keys.pairs[2] = [KeyPair.new()]
    gone = alone.received[0].key
    alone.transport.rekey(keys.of(1))
    assert gone not in keys.directory.owners
    before = alone.transport.counters["keys_unknown"]
    alone.transport.router.disconnect(alone.received[0], "key_removed")  # as a node does when it speaks again
    alone.until(lambda: alone.transport.counters["keys_unknown"] > before)
