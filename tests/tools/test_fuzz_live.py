"""A short share of the hostile connections, against a living cluster, and the client that makes them."""

from __future__ import annotations

import socket
import threading
from collections import Counter

import pytest
import zmq

from tests.support.clusters import CALM, Cluster, Fleet
from tests.support.marks import long_but
from tests.support.ports import free_port
from tests.support.wires import Keys, loop
from tools.fuzz import main
from tools.fuzzer.curve import CURVE_KINDS, Session, curve_scripts, record
from tools.fuzzer.hostile import EITHER_WAY, KINDS, scripts
from tools.fuzzer.live import LiveError, attack_node
from tools.fuzzer.zmtp import GREETING, MORE, frame, ready
from zelect.security.keys import ClientKeys

CONNECTIONS = 1500


@pytest.fixture
def living(fleet: Fleet) -> Cluster:
    cluster = fleet.cluster(timing=CALM)
    cluster.start()
    return cluster


@pytest.mark.parametrize("role", long_but(["controller", "follower"], "controller"))
def test_hostile_connections_change_nothing(living: Cluster, role: str) -> None:
    head = living.settled()
    target = head.id if role == "controller" else head.id % 3 + 1
    outcome = attack_node(living.addresses[target], living.name, seed=11, count=CONNECTIONS, rate=1000, most_s=60)
    assert not outcome.missing
    assert outcome.pid[0] == outcome.pid[1] == living.processes[target].pid
    # The bound of a second is for a machine with nothing else to do; here it must do for the lease.
    assert outcome.silent_s < int(CALM["lease_ms"]) / 1000
    assert sum(outcome.done.made.values()) + sum(outcome.done.failed.values()) == CONNECTIONS
    assert outcome.answers > 10, "it was asked all the while"
    for name in ("malformed_", "link_too_big", "link_wrong_shape", "refused_wrong_cluster"):
        assert outcome.done.due[name] > 10, "and what it counted was looked at"
    after = living.settled()
    assert (after.id, after.term, after.pid) == (head.id, head.term, head.pid)


@pytest.mark.long
def test_hostile_connections_to_a_node_with_keys_change_nothing(fleet: Fleet) -> None:
    """Recorded handshakes among them, in pieces and whole: nobody gets in, and failures are counted."""
    cluster = fleet.cluster(timing=CALM, secure=True)
    cluster.start()
    head = cluster.settled()
    ring = cluster.keyring
    assert ring is not None
    lock = ring.to(head.id)
    outcome = attack_node(cluster.addresses[head.id], cluster.name, seed=11, count=1000, most_s=60, lock=lock)
    assert not outcome.missing
    assert outcome.let_in == 1, "the recorded session, while it was recorded"
    assert outcome.pid[0] == outcome.pid[1] == cluster.processes[head.id].pid
    assert outcome.silent_s < int(CALM["lease_ms"]) / 1000
    assert sum(outcome.done.made.values()) + sum(outcome.done.failed.values()) == 1000
    assert outcome.done.due["link_handshakes_"] > 100, "and what it counted was looked at"
    after = cluster.settled()
    assert (after.id, after.term, after.pid) == (head.id, head.term, head.pid)


def test_a_session_is_recorded_frame_by_frame() -> None:
    keys = Keys()
    lock = ClientKeys(keys.pairs[2][0], (keys.pairs[1][0].public,))
    with loop(free_port(), {}, keyring=keys.of(1)) as alone:
        sessions: list[Session | None] = []
        thread = threading.Thread(target=lambda: sessions.append(record(("127.0.0.1", alone.port), lock, b"hello")))
        thread.start()
        alone.until(lambda: alone.received)
        assert alone.transport.router.reply(alone.received[0].route, b"hello yourself")
        alone.until(lambda: sessions)
        thread.join(20)
        (session,) = sessions
    assert session is not None
    for side, names in (
        (session.there, (b"HELLO", b"INITIATE", b"MESSAGE")),
        (session.back, (b"WELCOME", b"READY", b"MESSAGE")),
    ):
        for said, name in zip(side, names, strict=True):
            head = 9 if said[0] & 2 else 2
            assert said[head:].startswith(bytes([len(name)]) + name)
    one, same = curve_scripts(3, session), curve_scripts(3, session)
    begun = [next(one) for _ in range(600)]
    assert begun == [next(same) for _ in range(600)]
    assert len({script.kind for script in begun}) == len({kind.__name__ for kind in (*CURVE_KINDS, *EITHER_WAY)})


def test_a_node_is_named_one_way_or_the_other(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["live", "--cluster", "demo"]) == 2
    assert "name the node: -c FILE, or --address and --cluster" in capsys.readouterr().err


def test_only_nodes_on_loopback_are_attacked(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(LiveError, match="only nodes on loopback"):
        attack_node("tcp://192.0.2.1:7101", "demo", seed=1, count=1)
    assert main(["live", "--address", "tcp://192.0.2.1:7101", "--cluster", "demo"]) == 2
    assert "only nodes on loopback" in capsys.readouterr().err


def test_the_seed_decides_what_is_said_and_every_kind_comes() -> None:
    one, same, other = scripts(3), scripts(3), scripts(4)
    begun = [next(one) for _ in range(400)]
    assert begun == [next(same) for _ in range(400)]
    assert begun != [next(other) for _ in range(400)]
    assert len(Counter(script.kind for script in begun)) == len(set(KINDS))


def test_the_raw_client_speaks_zmtp() -> None:
    """libzmq itself understands it: a whole message of three parts arrives."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    router = context.socket(zmq.ROUTER)
    port = free_port()
    router.bind(f"tcp://127.0.0.1:{port}")
    try:
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(GREETING + ready())
            heard = b""
            while b"READY" not in heard:
                heard += connection.recv(500)
            connection.sendall(frame(b"one", MORE) + frame(b"x" * 300, MORE) + frame(b""))
            assert router.poll(20_000)
            _, *parts = router.recv_multipart()
            assert parts == [b"one", b"x" * 300, b""]
    finally:
        context.destroy(linger=0)
