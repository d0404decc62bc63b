"""Unknown clients that talk to living nodes: whatever they send is refused and counted, and changes nothing."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace

import msgpack
import pytest
import zmq

from tests.support.clusters import CALM, Cluster, Fleet, fleet_of
from tests.support.records import made_record
from tests.support.waiting import wait_until
from zelect.core.messages import (
    PROTOCOL_VERSION,
    Envelope,
    Message,
    NodeOffline,
    Ping,
    Query,
    Reason,
    Voting,
    VotResp,
)
from zelect.core.timing import MAX_TERM, MAX_TERM_JUMP
from zelect.wire import encode

# -- unknown clients that talk to living nodes --------------------------------------------------------


@pytest.fixture(scope="module")
def living(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three nodes that nothing that follows may disturb."""
    with fleet_of(request, tmp_path_factory.mktemp("living")) as fleet:
        cluster = fleet.cluster(timing=CALM)
        cluster.start()
        cluster.settled()
        yield cluster


class UnknownClient:
    """Speaks to `node` with a raw DEALER, in the name of whomever it likes."""

    def __init__(self, cluster: Cluster, node: int) -> None:
        self.node = node
        self._cluster = cluster
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.SNDTIMEO, 20_000)
        self._socket.connect(cluster.addresses[node])

    def send(self, *frames: bytes) -> None:
        self._socket.send_multipart(list(frames))

    def close(self) -> None:
        self._context.destroy(linger=5000)


@contextlib.contextmanager
def undisturbed(cluster: Cluster, *counters: str) -> Iterator[Callable[[bytes], None]]:
    """Yields a function that sends a frame to every node. Afterwards each of `counters` has grown
    on each node, nobody has ended, and the same controller is active in the same term."""
    head = cluster.settled()
    before = {node: cluster.counters(node) for node in cluster.ids}
    saved = {node: cluster.saved(node) for node in cluster.ids}
    unknowns = [UnknownClient(cluster, node) for node in cluster.ids]

    def send(frame: bytes) -> None:
        for unknown in unknowns:
            unknown.send(frame)

    try:
        yield send
        wait_until(
            lambda: all(_grown(cluster, node, before[node], counters) for node in cluster.ids), 20, what=str(counters)
        )
    finally:
        for unknown in unknowns:
            unknown.close()
    assert cluster.running() == set(cluster.ids)
    after = cluster.settled()
    assert (after.id, after.term, after.pid) == (head.id, head.term, head.pid)
    assert {node: cluster.saved(node) for node in cluster.ids} == saved


def _grown(cluster: Cluster, node: int, before: Counter[str], names: tuple[str, ...]) -> bool:
    now = cluster.counters(node)
    return all(now[name] > before[name] for name in names)


def test_bytes_that_are_no_message(living: Cluster) -> None:
    header = [PROTOCOL_VERSION, living.name, 1, 2, 1, 1, 0, 0, 1]
    frames = {
        "malformed_not_msgpack": [b"", b"\xc1", b"\x00" * 100, b"hello", b"\x91" * 500, b"\xdd\xff\xff\xff\xff"],
        "malformed_bad_envelope": [msgpack.packb(7), msgpack.packb([]), msgpack.packb([PROTOCOL_VERSION, 2])],
        "malformed_other_version": [msgpack.packb([one, *header[1:], [], 0]) for one in (0, 99, -1, True, 1.0)],
        "malformed_unknown_type": [
            msgpack.packb([*header[:2], kind, *header[3:], [], 0]) for kind in (11, 255, -1, "1")
        ],
        "link_too_big": [b"\x00" * 65_537],
    }
    with undisturbed(living, *frames) as send:
        for group in frames.values():
            for frame in group:
                send(frame)


def test_wrong_types_inside_messages(living: Cluster) -> None:
    frames = []
    wrong: tuple[object, ...] = (
        None,
        True,
        1.5,
        float("nan"),
        -1,
        2**53,
        2**63,
        "1",
        b"1",
        [],
        [[]],
        {},
        msgpack.ExtType(1, b"x"),
    )
    for index in (1, 3, 4, 5, 6, 7, 8, 10):  # cluster, sender, incarnation, settings, cluster id, generation, term, to
        for value in wrong:
            if not (index == 1 and isinstance(value, str)):
                envelope = [PROTOCOL_VERSION, living.name, 1, 2, 1, 1, 0, 0, 1, [0, False, None, []], 0]
                envelope[index] = value
                frames.append(msgpack.packb(envelope))
    bodies: tuple[object, ...] = (None, {}, "body", [], [None] * 3, [1.5] * 4, [[1]] * 6, [2**63] * 7)
    for kind in range(15):
        for body in bodies:
            frames.append(msgpack.packb([PROTOCOL_VERSION, living.name, kind, 2, 1, 1, 0, 0, 1, body, 0]))
    with undisturbed(living, "malformed_bad_field") as send:
        before = {node: living.counters(node) for node in living.ids}
        for frame in frames:
            send(frame)
        wait_until(
            lambda: all(_malformed(living, node) - _count(before[node]) >= len(frames) for node in living.ids), 20
        )


def _count(counters: Counter[str]) -> int:
    return sum(count for name, count in counters.items() if name.startswith("malformed_"))


def _malformed(cluster: Cluster, node: int) -> int:
    return _count(cluster.counters(node))


def forged(cluster: Cluster, sender: int, message: Message, /, **changes: object) -> bytes:
    """A message as `sender` would say it now, but for `changes` of the envelope."""
    said = cluster.ask(sender)
    digest = cluster.config(sender).settings().digest()
    envelope = Envelope(cluster.name, sender, said["incarnation"], digest, said["term"], message)
    return encode(replace(envelope, **changes))  # type: ignore[arg-type]


def test_senders_that_do_not_belong(living: Cluster) -> None:
    idle, term = Ping(0, False, None, ()), living.settled().term
    leading = Ping(1, True, made_record(term, 9, (1, 2, 3)), ())
    with undisturbed(living, "refused_wrong_cluster", "refused_unknown_sender", "refused_settings_mismatch") as send:
        for message in (idle, leading, NodeOffline(1, 2**53 - 1, "leave")):
            send(forged(living, 1, message, cluster="another"))
            send(forged(living, 1, message, sender=4))
            send(forged(living, 1, message, sender=0))
            send(forged(living, 1, message, settings=1))
            send(forged(living, 2, message, settings=1))
        send(encode(Envelope("another", 0, 0, 0, 0, Query("status"))))


@pytest.mark.parametrize("target", [1, 2, 3])
def test_old_processes_and_terms_that_jump(living: Cluster, target: int) -> None:
    sender = target % 3 + 1
    head = living.settled()
    record = made_record(head.term, 1, (1, 2, 3))
    vote = Voting(False, 1, head.term + MAX_TERM_JUMP + 1, record, Reason.DEATH, head.id, head.term)
    with undisturbed(living):
        before = living.counters(target)
        unknown = UnknownClient(living, target)
        try:
            unknown.send(forged(living, sender, Ping(0, False, None, ()), incarnation=1))
            unknown.send(forged(living, sender, NodeOffline(sender, 1, "leave"), incarnation=1))
            unknown.send(forged(living, sender, Ping(0, False, None, ()), term=head.term + MAX_TERM_JUMP + 1))
            unknown.send(forged(living, sender, Ping(0, False, None, ()), term=MAX_TERM))
            unknown.send(forged(living, sender, vote))
            unknown.send(forged(living, target, Ping(0, False, None, ())))
            names = ("refused_old_incarnation", "refused_term_jump", "refused_own_id")
            wait_until(lambda: _grown(living, target, before, names), 20, what=str(names))
        finally:
            unknown.close()


@pytest.mark.parametrize("target", [1, 2, 3])
def test_messages_of_old_terms(living: Cluster, target: int) -> None:
    """A controller, votes and answers of a term that is over; needs a second term to have an old one."""
    if living.settled().term < 2:
        head = living.settled()
        living.term(head.id)
        living.exit_code(head.id)
        living.settled(*set(living.ids) - {head.id}, term_above=head.term)
        living.start(head.id)
    head = living.settled()
    sender, old = target % 3 + 1, head.term - 1
    record = made_record(old, 1, (1, 2, 3))
    with undisturbed(living):
        before = living.counters(target)
        unknown = UnknownClient(living, target)
        try:
            unknown.send(forged(living, sender, Ping(7, True, record, (2, 3)), term=old))
            unknown.send(forged(living, sender, Voting(False, 1, old, record, Reason.DEATH, 0, 0), term=old))
            unknown.send(forged(living, sender, Voting(True, 1, head.term, record, Reason.DEATH, 0, 0), term=old))
            unknown.send(forged(living, sender, VotResp(False, 1, True, None, 0, 0, None), term=old))
            wait_until(lambda: living.counters(target)["received"] >= before["received"] + 4, 20)
        finally:
            unknown.close()


def test_no_multipart_and_no_million_parts(living: Cluster) -> None:
    with undisturbed(living, "link_wrong_shape"):
        unknowns = [UnknownClient(living, node) for node in living.ids]
        for unknown in unknowns:
            unknown.send(b"one", b"two")
            unknown.send(*[b"x"] * 5000)
        wait_until(lambda: all(living.counters(node)["link_wrong_shape"] >= 2 for node in living.ids), 20)
        for unknown in unknowns:
            unknown.close()


def test_what_is_no_zeromq_on_the_port(living: Cluster) -> None:
    noise = random.Random(2).randbytes(4096)
    with undisturbed(living):
        for node in living.ids:
            for text in (b"GET / HTTP/1.1\r\n\r\n", noise, b"\xff" + bytes(8) + b"\x7f", b"", struct.pack(">Q", 2**63)):
                connection = socket.create_connection(("127.0.0.1", living.ports[node]), timeout=10)
                with connection, contextlib.suppress(OSError):  # it may be thrown out at once
                    connection.sendall(text)
        frame = b"x" * 200_000  # beyond what ZeroMQ itself lets in
        for node in living.ids:
            unknown = UnknownClient(living, node)
            unknown.send(frame)
            unknown.close()


def test_a_flood_of_garbage(living: Cluster) -> None:
    noise, count = random.Random(3), 900
    with undisturbed(living) as send:
        before = {node: _malformed(living, node) for node in living.ids}
        for _ in range(count):
            send(b"\xc1" + noise.randbytes(40))
        assert living.active() is not None
        wait_until(lambda: all(_malformed(living, node) >= before[node] + count for node in living.ids), 30)


def test_a_client_that_never_sends_anything_valid_is_disconnected(living: Cluster) -> None:
    with undisturbed(living, "link_connections_never_valid") as send:
        for _ in range(3000):
            send(b"\xc1" * 41)


@pytest.mark.long
def test_a_flood_of_what_is_well_formed(fleet: Fleet) -> None:
    """Beyond `limits.max_messages_per_s` of one sender they are dropped, and at ten times that it goes. The lowest
    limit that there is: a busy machine can send and read ten times as many too."""
    cluster = fleet.cluster(timing=CALM)
    for node in cluster.ids:
        with cluster.conf(node).open("a", encoding="utf-8") as conf:
            conf.write("\n[limits]\nmax_messages_per_s = 100\n")
    cluster.start()
    with undisturbed(cluster, "link_too_fast", "link_connections_too_fast") as send:
        frame = forged(cluster, 1, Ping(0, False, None, ()), sender=4)
        for _ in range(30_000):
            send(frame)
