"""One link and its watchdog, against peers that are there, are not, or are something else."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
import zmq

from tests.support.floods import endless_messages
from tests.support.ports import free_port
from tests.support.wires import LIMIT_BYTES, BadListener, at, ends, in_namespace
from zelect.core.lease import NEVER_US
from zelect.node.transport.peer_link import LINK_COUNTERS, REJECTED_PAUSE_US, RETRY_TIMEOUT_US, PeerLink
from zelect.system.clock import now_us
from zelect.system.poller import Poller
from zelect.system.sockets import Context, Counters


class Rig:
    """A link with its poller, turned as the transport turns it."""

    def __init__(self) -> None:
        self.context: Context = zmq.Context()
        self.poller = Poller()
        self.counters: Counters = dict.fromkeys(LINK_COUNTERS, 0)
        self.changes: list[bool] = []
        self.sockets: list[zmq.Socket[bytes]] = []
        self.link: PeerLink | None = None

    def open(self, endpoint: str, other: str = "") -> PeerLink:
        self.link = PeerLink(
            self.context,
            2,
            endpoint,
            max_message_bytes=LIMIT_BYTES,
            poller=self.poller,
            counters=self.counters,
            other=other,
        )
        self.link.open(now_us())
        return self.link

    def socket(self, kind: int, port: int, **options: int) -> zmq.Socket[bytes]:
        """A listener of a peer, which may have to wait until the port is free again."""
        made = self.context.socket(kind)
        self.sockets.append(made)
        made.setsockopt(zmq.LINGER, 0)
        for name, value in options.items():
            made.setsockopt(getattr(zmq, name), value)
        self.until(lambda: _bound(made, port), what="bound")
        return made

    def until(self, condition: Callable[[], object], within_s: float = 30.0, what: str = "") -> None:
        end = time.monotonic() + within_s
        while not condition():
            assert time.monotonic() < end, f"not within {within_s} s: {what}; {self.counters}"
            ready = self.poller.poll(10)
            if self.link is not None:
                self.changes += self.link.service(ready, now_us())

    def for_s(self, duration_s: float) -> None:
        """Turn for so long: only to see that something does not happen."""
        end = time.monotonic() + duration_s
        self.until(lambda: time.monotonic() > end)

    def close(self) -> None:
        if self.link is not None:
            self.link.close()
            self.link.close()
        for each in self.sockets:
            each.close(0)
        assert not len(self.poller)
        ends(self.context)


def _bound(made: zmq.Socket[bytes], port: int) -> bool:
    try:
        made.bind(at(port))
    except zmq.ZMQError:
        return False
    return True


@pytest.fixture
def rig() -> Iterator[Rig]:
    made = Rig()
    yield made
    made.close()


def test_up_then_down_then_up(rig: Rig) -> None:
    port = free_port()
    router = rig.socket(zmq.ROUTER, port)
    link = rig.open(at(port))
    rig.until(lambda: link.up)
    assert link.send(b"one")
    assert router.poll(20_000)
    assert router.recv_multipart()[1] == b"one"
    router.close(0)
    rig.until(lambda: not link.up)
    assert not link.send(b"lost")
    rig.socket(zmq.ROUTER, port)
    rig.until(lambda: link.up)
    assert rig.changes == [True, False, True]
    assert rig.counters == dict.fromkeys(LINK_COUNTERS, 0) | {
        "sent": 1,
        "dropped": 1,
        "connected": 2,
        "disconnected": 1,
    }


def test_nothing_wakes_the_loop_while_the_link_is_up(rig: Rig) -> None:
    port = free_port()
    rig.socket(zmq.ROUTER, port)
    link = rig.open(at(port))
    assert link.deadline_us() < NEVER_US
    rig.until(lambda: link.up)
    assert link.deadline_us() == NEVER_US
    assert not rig.poller.poll(300)


def test_peer_that_is_not_there_is_left_to_libzmq(rig: Rig) -> None:
    port = free_port()
    link = rig.open(at(port))
    rig.for_s(2.5)
    assert (rig.counters["rebuilt"], rig.changes) == (0, [])
    rig.socket(zmq.ROUTER, port)
    rig.until(lambda: link.up)
    assert rig.counters["rebuilt"] == 0


def test_frozen_peer_is_left_to_libzmq(rig: Rig) -> None:
    """Its kernel accepts, nobody shakes hands: libzmq gives up after HANDSHAKE_IVL and retries."""
    port = free_port()
    unresponsive = BadListener(port, b"")
    link = rig.open(at(port))
    rig.until(lambda: unresponsive.accepted >= 4)
    assert (rig.counters["rebuilt"], rig.changes) == (0, [])
    assert not link.send(b"to nobody")
    unresponsive.close()


ZMTP3 = b"\xff\0\0\0\0\0\0\0\x01\x7f\x03\x00"


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(b"HTTP/1.1 400 Bad Request\r\n\r\n", id="text, taken for ZMTP 1.0"),
        pytest.param(b"\x01\x00" + b"\x05\x00abcd" * 10, id="ZMTP 1.0"),
        pytest.param(b"\xff\0\0\0\0\0\0\0\x01\x7f\x01\x06\0\0\0\x05hello", id="ZMTP 2.0"),
        pytest.param(b"\0" * 200, id="zeros"),
        pytest.param(b"\xff" * 200, id="no mechanism"),
        pytest.param(ZMTP3 + b"NULL".ljust(52, b"\0") + b"\x04\x05\x04ABCD", id="no handshake"),
        pytest.param(ZMTP3 + b"OTHER".ljust(52, b"\0"), id="unknown mechanism"),
    ],
)
def test_link_recovers_from_garbage(rig: Rig, text: bytes) -> None:
    port = free_port()
    garbage = BadListener(port, text)
    link = rig.open(at(port))
    rig.until(lambda: rig.counters["rebuilt"] >= 2, what="rebuilt while garbage is there")
    assert not link.up
    garbage.close()
    rig.socket(zmq.ROUTER, port)
    rig.until(lambda: link.up, what="up with the real peer")
    assert rig.changes == [True]


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        pytest.param(zmq.PUB, {}, id="wrong socket type"),
        pytest.param(zmq.ROUTER, {"PLAIN_SERVER": 1}, id="wrong mechanism"),
    ],
)
def test_link_recovers_from_a_mismatch(rig: Rig, kind: int, options: dict[str, int]) -> None:
    port = free_port()
    other = rig.socket(kind, port, **options)
    link = rig.open(at(port))
    rig.until(lambda: rig.counters["rebuilt"] >= 2, what="rebuilt while the mismatch is there")
    assert not link.up
    other.close(0)
    rig.socket(zmq.ROUTER, port)
    rig.until(lambda: link.up, what="up with the real peer")


def test_link_recovers_from_an_oversize_frame(rig: Rig) -> None:
    port = free_port()
    router = rig.socket(zmq.ROUTER, port)
    link = rig.open(at(port))
    rig.until(lambda: link.up)
    link.send(b"here I am")
    assert router.poll(20_000)
    route, _ = router.recv_multipart()
    router.send_multipart([route, b"x" * (LIMIT_BYTES + 1)])
    rig.until(lambda: not link.up)
    assert link.deadline_us() <= now_us() + RETRY_TIMEOUT_US  # silence after DISCONNECTED tells at once
    rig.until(lambda: link.up)
    assert rig.changes == [True, False, True]
    assert rig.counters["rebuilt"] == 1


def test_repairs_pause_longer_while_they_do_not_help(rig: Rig) -> None:
    port = free_port()
    garbage = BadListener(port, b"\xff" * 200)
    rig.open(at(port))
    rig.for_s(2.5)
    assert rig.counters["rebuilt"] <= 6
    garbage.close()


def test_what_arrives_on_the_dealer_is_dropped(rig: Rig) -> None:
    """More than its queue holds, and still the end of the connection is noticed."""
    port = free_port()
    router = rig.socket(zmq.ROUTER, port, SNDHWM=0)
    link = rig.open(at(port))
    rig.until(lambda: link.up)
    link.send(b"here I am")
    assert router.poll(20_000)
    route, _ = router.recv_multipart()
    for _ in range(1000):
        router.send_multipart([route, b"stray"])
    rig.until(lambda: rig.counters["unexpected_frames"] == 1000)
    router.close(0)
    rig.until(lambda: not link.up)


def test_a_message_without_an_end_closes_the_link_for_a_while(rig: Rig) -> None:
    port = free_port()
    link = rig.open(at(port))
    with endless_messages("listen", port, 4000):
        rig.until(lambda: link.up and not rig.poller.poll(1), what="the first is read no more")
        rig.until(lambda: link.audit(now_us()) == [False], what="more came than a node says")
        assert not link.up
        assert link.deadline_us() > now_us(), "it isn't connected again at once"
        rig.until(lambda: link.up)
    rig.until(lambda: not link.up)
    rig.socket(zmq.ROUTER, port)
    rig.until(lambda: link.up)
    assert link.audit(now_us()) == []
    assert rig.counters["flooded"] == 1


def test_address_of_a_name_is_that_of_the_last_connection(rig: Rig) -> None:
    port = free_port()
    link = rig.open(f"tcp://localhost:{port}")
    assert link.address is None
    router = rig.socket(zmq.ROUTER, port)
    rig.until(lambda: link.up)
    assert link.address == ("127.0.0.1", port)
    router.close(0)
    rig.until(lambda: not link.up)
    assert link.address == ("127.0.0.1", port)


def test_a_peer_is_found_where_the_other_endpoint_says_and_is_not_looked_for_elsewhere_then(rig: Rig) -> None:
    dead, port = free_port(), free_port()
    router = rig.socket(zmq.ROUTER, port)
    link = rig.open(at(dead), other=at(port))
    rig.until(lambda: link.up)
    assert link.address == ("127.0.0.1", port)
    tried = rig.counters["other_address_tried"]
    assert tried >= 1
    router.close(0)
    rig.until(lambda: not link.up)
    rig.socket(zmq.ROUTER, port)
    rig.until(lambda: link.up)
    assert rig.counters["other_address_tried"] == tried


def test_a_rejected_link_is_tried_again_ever_less_often_and_at_another_endpoint(rig: Rig) -> None:
    wrong, right = free_port(), free_port()
    for port in (wrong, right):
        rig.socket(zmq.ROUTER, port)
    link = rig.open(at(wrong), at(right))
    rig.until(lambda: link.up, what="up")
    link.reject("wrong_node: answers as node 1", now_us())
    assert (link.up, link.problem) == (False, "wrong_node: answers as node 1")
    assert not link.send(b"x"), "nothing goes to the wrong node"
    rig.until(lambda: link.up, what="up at the other endpoint")
    assert (link.address, link.problem) == (("127.0.0.1", right), "")
    pauses = []
    for _ in range(9):
        link.reject("wrong_node: answers as node 1", now := now_us())
        pauses.append(link.deadline_us() - now)
    assert pauses == sorted(pauses)
    assert 7_900_000 < pauses[-1] <= REJECTED_PAUSE_US, "rarely, and not never"


@pytest.mark.parametrize("text", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"", b"220 ready\r\n" * 30])
def test_another_program_at_the_address_is_told_until_it_has_gone(rig: Rig, text: bytes) -> None:
    port = free_port()
    listener = BadListener(port, text)
    link = rig.open(at(port))
    rig.until(lambda: link.problem.startswith("no_handshake: "), what="told")
    listener.close()
    rig.until(lambda: not link.problem, what="gone")
    rig.socket(zmq.ROUTER, port)
    rig.until(lambda: link.up, what="up")
    assert not link.problem


def test_numeric_address_is_known_before_any_connection(rig: Rig) -> None:
    assert rig.open("tcp://192.0.2.7:7101").address == ("192.0.2.7", 7101)


def test_out_of_sockets_is_survived(rig: Rig) -> None:
    """With no socket left the link can't be made; it is made once there are some again."""
    port = free_port()
    rig.context.set(zmq.MAX_SOCKETS, 5)
    rig.socket(zmq.ROUTER, port)
    taken = [rig.context.socket(zmq.PAIR) for _ in range(3)]
    link = rig.open(at(port))
    rig.until(lambda: rig.counters["not_opened"] >= 2)
    assert not link.send(b"nowhere")
    for each in taken:
        each.close(0)
    rig.until(lambda: link.up)


def test_a_dealer_connected_to_itself_frees_the_port() -> None:
    printed = in_namespace(
        """
import zmq
from tests.unit.node.transport.test_peer_link import Rig
from tests.support.wires import at
open("/proc/sys/net/ipv4/ip_local_port_range", "w").write("40000 40001")
rig = Rig()
link = rig.open(at(40000))
rig.until(lambda: rig.counters["self_connects"] >= 1)
assert rig.changes == []
rig.socket(zmq.ROUTER, 40000)
rig.until(lambda: link.up)
print(rig.changes)
rig.close()
"""
    )
    assert printed == "[True]\n"
