"""The probe of death (R9) against real listeners, on a clock that the tests hold."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import pytest

from tests.support.ports import free_port
from tests.support.waiting import wait_until
from tests.support.wires import in_namespace
from zelect.core.events import Evidence
from zelect.core.timing import Proof
from zelect.node.transport.death_probe import AGAIN_US, GIVE_UP_AFTER_US, DeathProbe, Verdict
from zelect.system.poller import Poller

Address = tuple[str, int]


class Lock:
    """Says that the lock is free from the attempt `free_at` on."""

    def __init__(self, free_at: int) -> None:
        self.asked = 0
        self._free_at = free_at

    def __call__(self) -> bool:
        self.asked += 1
        return self.asked >= self._free_at


NEVER_FREE = 10**9


def probe_of(
    poller: Poller, address: Address | None, lock: Lock | None = None, proof: Proof = Proof.REFUSED
) -> DeathProbe:
    return DeathProbe(2, 7, address=address, proof=proof, lock_free=lock, poller=poller)


def to_the_end(probe: DeathProbe, poller: Poller) -> Verdict:
    """Step with the probe's own deadlines until the verdict, waiting for answers in between."""
    for turn in range(50):
        verdict = probe.step(turn * AGAIN_US)
        if verdict is not None:
            assert not len(poller)
            return verdict
        poller.poll(5)
    raise AssertionError("no verdict")


@pytest.fixture
def poller() -> Poller:
    return Poller()


@contextlib.contextmanager
def listener(backlog: int = 64) -> Iterator[socket.socket]:
    with socket.socket() as made:
        made.bind(("127.0.0.1", free_port()))
        made.listen(backlog)
        made.setblocking(False)
        yield made


def accepted(server: socket.socket) -> int:
    count = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            server.accept()[0].close()
            count += 1
    return count


def test_nobody_listens_is_a_refusal(poller: Poller) -> None:
    verdict = to_the_end(probe_of(poller, ("127.0.0.1", free_port())), poller)
    assert verdict == Verdict(2, 7, Evidence.REFUSED, "refused")


def test_refusal_over_ipv6(poller: Poller) -> None:
    with socket.socket(socket.AF_INET6) as trial:
        try:
            trial.bind(("::1", 0))
        except OSError:
            pytest.skip("this host has no IPv6 on loopback")
    assert to_the_end(probe_of(poller, ("::1", free_port())), poller).evidence is Evidence.REFUSED


def test_a_living_process_is_asked_again_until_timeout_ends(poller: Poller) -> None:
    with listener() as server:
        verdict = to_the_end(probe_of(poller, server.getsockname()), poller)
        assert (verdict.evidence, verdict.detail) == (None, "alive: accepted")
        assert accepted(server) == GIVE_UP_AFTER_US // AGAIN_US + 1


def test_accepted_connections_are_closed_at_once(poller: Poller) -> None:
    with listener() as server:
        probe = probe_of(poller, server.getsockname())
        assert probe.step(0) is None
        connection = wait_until(lambda: _accept(server))
        assert connection is not None
        poller.poll(1000)
        probe.step(1)
        connection.settimeout(20)
        assert connection.recv(1) == b""
        connection.close()
        probe.close()


def _accept(server: socket.socket) -> socket.socket | None:
    try:
        return server.accept()[0]
    except BlockingIOError:
        return None


def test_dying_process_that_still_accepts(poller: Poller) -> None:
    with listener() as server:
        probe = probe_of(poller, server.getsockname())
        assert probe.step(0) is None
        assert probe.step(AGAIN_US) is None
        assert accepted(server) == 2
        server.close()
        assert to_the_end(probe, poller).evidence is Evidence.REFUSED


def test_it_does_not_ask_more_often_than_it_says(poller: Poller) -> None:
    with listener() as server:
        probe = probe_of(poller, server.getsockname())
        for now_us in range(0, AGAIN_US, 500):
            assert probe.step(now_us) is None
            assert probe.deadline_us() == AGAIN_US
        assert accepted(server) == 1
        probe.close()


def test_full_backlog_gives_no_answer_and_does_not_block(poller: Poller) -> None:
    with listener(backlog=0) as server, contextlib.ExitStack() as held:
        for _ in range(4):
            stuffing = held.enter_context(socket.socket())
            stuffing.setblocking(False)
            stuffing.connect_ex(server.getsockname())
        verdict = to_the_end(probe_of(poller, server.getsockname()), poller)
        assert (verdict.evidence, verdict.detail) == (None, "unknown: no answer")


def test_close_forgets_all_attempts(poller: Poller) -> None:
    with listener(backlog=0) as server, contextlib.ExitStack() as held:
        for _ in range(4):
            stuffing = held.enter_context(socket.socket())
            stuffing.setblocking(False)
            stuffing.connect_ex(server.getsockname())
        probe = probe_of(poller, server.getsockname())
        probe.step(0)
        probe.step(AGAIN_US)
        assert len(poller) == 2
        probe.close()
        probe.close()
        assert not len(poller)


def test_free_lock_is_proof_while_the_port_still_accepts(poller: Poller) -> None:
    lock = Lock(free_at=3)
    with listener() as server:
        verdict = to_the_end(probe_of(poller, server.getsockname(), lock), poller)
        assert verdict == Verdict(2, 7, Evidence.LOCK, "lock free")
        assert (lock.asked, accepted(server)) == (3, 2)


def test_the_lock_is_asked_first(poller: Poller) -> None:
    verdict = to_the_end(probe_of(poller, ("127.0.0.1", free_port()), Lock(free_at=1)), poller)
    assert verdict.evidence is Evidence.LOCK


def test_process_proof_asks_the_lock_only(poller: Poller) -> None:
    lock = Lock(NEVER_FREE)
    verdict = to_the_end(probe_of(poller, ("127.0.0.1", free_port()), lock, Proof.PROCESS), poller)
    assert (verdict.evidence, verdict.detail) == (None, "unknown: no answer")
    assert lock.asked == GIVE_UP_AFTER_US // AGAIN_US + 1


@pytest.mark.parametrize(
    ("address", "lock", "proof"),
    [
        (None, None, Proof.REFUSED),
        (("127.0.0.1", 1), None, Proof.PROCESS),
        (("127.0.0.1", 1), Lock(1), Proof.NONE),
    ],
)
def test_with_nothing_to_ask_the_verdict_comes_at_once(
    poller: Poller, address: Address | None, lock: Lock | None, proof: Proof
) -> None:
    verdict = probe_of(poller, address, lock, proof).step(0)
    assert verdict == Verdict(2, 7, None, "unknown: nothing to ask")
    assert lock is None or lock.asked == 0


def test_answer_that_came_while_we_slept_counts(poller: Poller) -> None:
    """A process frozen in the middle of a probe reads the answers before it looks at the clock."""
    with listener(backlog=0) as server, contextlib.ExitStack() as held:
        for _ in range(4):
            stuffing = held.enter_context(socket.socket())
            stuffing.setblocking(False)
            stuffing.connect_ex(server.getsockname())
        probe = probe_of(poller, server.getsockname())
        assert probe.step(0) is None
        server.close()  # the kernel repeats the unanswered SYN after a second, and gets a reset
        assert poller.poll(20_000)
        verdict = probe.step(60_000_000)
        assert verdict is not None
        assert verdict.evidence is Evidence.REFUSED


BEGIN = """
import select, socket, struct, zmq
from zelect.core.timing import Proof
from zelect.system.poller import Poller
from zelect.node.transport.death_probe import DeathProbe
poller = Poller()
def probe_of(port):
    return DeathProbe(2, 7, address=("127.0.0.1", port), proof=Proof.REFUSED, lock_free=None, poller=poller)
"""


def test_connection_to_itself_is_no_answer() -> None:
    """Two ephemeral ports, the probed one among them: some attempts meet themselves."""
    printed = in_namespace(
        BEGIN
        + """
open("/proc/sys/net/ipv4/ip_local_port_range", "w").write("40000 40001")
for _ in range(200):
    probe = probe_of(40000)
    verdict = probe.step(0)
    if probe._note == "connected to itself":
        print("itself", verdict)
        with socket.socket() as peer:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            peer.bind(("127.0.0.1", 40000))  # the port is free again
    print("alive" if verdict and verdict.detail.startswith("alive") else "ok")
    probe.close()
"""
    )
    lines = printed.splitlines()
    assert "itself None" in lines
    assert "alive" not in lines


def test_refusal_by_icmp_is_no_proof() -> None:
    """A firewall's REJECT answers with ICMP "port unreachable", while the process lives."""
    printed = in_namespace(
        BEGIN
        + """
server = socket.create_server(("127.0.0.1", 20001), backlog=0)  # full: it leaves a SYN unanswered
stuffing = [socket.socket() for _ in range(4)]
for each in stuffing:
    each.setblocking(False)
    each.connect_ex(("127.0.0.1", 20001))
wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
wire.bind(("lo", 0))
probe = probe_of(20001)
assert probe.step(0) is None
(descriptor,) = poller
source = probe._pending[0].getsockname()[1]
while True:
    packet = wire.recv(2000)[14:]
    if packet[9] == 6 and struct.unpack("!H", packet[20:22])[0] == source:
        break
quoted = packet[:28]
total = sum(struct.unpack("!18H", struct.pack("!BBHI", 3, 3, 0, 0) + quoted))
total = (total >> 16) + (total & 0xFFFF)
total = ~(total + (total >> 16)) & 0xFFFF
firewall = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
firewall.sendto(struct.pack("!BBHI", 3, 3, total, 0) + quoted, ("127.0.0.1", 0))
assert poller.poll(20000)
print(probe.step(1), probe._note, len(poller))
"""
    )
    assert printed == "None refused by ICMP, as a firewall does 0\n"
