"""Host names are looked up by threads that nothing waits for, and not too often."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable

import pytest

from tests.support.waiting import wait_until
from zelect.system.names import Names, endpoint_of, is_numeric, unmapped


class Server:
    """Stands for the system's resolver. `knows`: what it answers; it answers nothing unless `answers` is set."""

    def __init__(self) -> None:
        self.knows: dict[str, list[str]] = {}
        self.answers = threading.Event()
        self.answers.set()
        self.asked: list[float] = []

    def look_up(self, host: str) -> list[str]:
        self.asked.append(time.monotonic())
        self.answers.wait()
        if host not in self.knows:
            raise socket.gaierror(-2, "Name or service not known")
        return self.knows[host]


@pytest.fixture
def server() -> Server:
    return Server()


def _soon_again(server: Server) -> Names:
    return Names(server.look_up, again_after_us=1_000, at_most_us=20_000)


def _known(asked: Names, host: str, *addresses: str) -> Callable[[], bool]:
    return lambda: asked.addresses(host) == addresses


def test_an_address_needs_nobody(server: Server) -> None:
    asked = Names(server.look_up)
    for host in ("127.0.0.1", "::1", "fe80::1%eth0"):
        assert asked.addresses(host) == (host,)
    assert server.asked == []


def test_a_name_is_known_once_it_was_looked_up(server: Server) -> None:
    server.knows["n1"] = ["10.0.0.1", "10.0.0.2"]
    asked = Names(server.look_up)
    assert asked.addresses("n1") == ()
    wait_until(_known(asked, "n1", "10.0.0.1", "10.0.0.2"))
    assert not asked.failed("n1")


def test_a_silent_name_server_is_waited_for_by_no_caller(server: Server) -> None:
    server.answers.clear()
    asked = Names(server.look_up)
    began = time.monotonic()
    for _ in range(1000):
        assert asked.addresses("n1") == ()
    assert time.monotonic() - began < 5.0
    assert len(server.asked) <= 1, "one question at a time"
    assert not asked.failed("n1"), "no answer is no refusal"
    server.knows["n1"] = ["10.0.0.1"]
    server.answers.set()
    wait_until(_known(asked, "n1", "10.0.0.1"))


def test_a_name_that_appears_late_is_found(server: Server) -> None:
    asked = _soon_again(server)
    wait_until(lambda: asked.addresses("n1") == () and asked.failed("n1"))
    server.knows["n1"] = ["10.0.0.1"]
    wait_until(_known(asked, "n1", "10.0.0.1"))
    assert not asked.failed("n1")


def test_a_name_that_moves_is_followed_and_one_that_goes_keeps_its_last_address(server: Server) -> None:
    asked = _soon_again(server)
    for address in ("10.0.0.1", "10.0.0.2"):
        server.knows["n1"] = [address]
        wait_until(_known(asked, "n1", address))
    del server.knows["n1"]
    before = len(server.asked)
    wait_until(lambda: asked.addresses("n1") and len(server.asked) > before + 1)
    assert asked.addresses("n1") == ("10.0.0.2",)
    assert not asked.failed("n1")


def test_a_name_is_looked_up_less_and_less_often(server: Server) -> None:
    now = [10**9]
    asked = Names(server.look_up, clock=lambda: now[0])
    counts = []
    for _ in range(4):
        before = len(server.asked)
        for _ in range(1000):  # ten seconds, asked a hundred times a second
            now[0] += 10_000
            asked.addresses("n1")
            wait_until(lambda: not asked._names["n1"].busy)
        counts.append(len(server.asked) - before)
    assert counts[0] <= 6
    assert counts[-1] <= 2


def test_a_label_that_is_no_name_is_a_problem_and_no_crash() -> None:
    asked = Names()
    name = "a" * 70 + ".example"
    wait_until(lambda: asked.addresses(name) or asked.failed(name))
    assert asked.addresses(name) == ()


def test_the_systems_resolver_gives_addresses_of_ipv4_first() -> None:
    asked = Names()
    wait_until(lambda: asked.addresses("localhost"))
    assert asked.addresses("localhost")[0] == "127.0.0.1"


@pytest.mark.parametrize(("host", "numeric"), [("127.0.0.1", True), ("::1", True), ("localhost", False), ("1", False)])
def test_what_is_an_address(host: str, numeric: bool) -> None:
    assert is_numeric(host) is numeric


def test_an_endpoint_has_brackets_around_ipv6() -> None:
    assert (endpoint_of("10.0.0.1", 7), endpoint_of("::1", 7)) == ("tcp://10.0.0.1:7", "tcp://[::1]:7")


@pytest.mark.parametrize(
    ("address", "plain"),
    [
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("::FFFF:127.0.0.1", "127.0.0.1"),
        ("192.0.2.1", "192.0.2.1"),
        ("::1", "::1"),
        ("::ffff:1:2", "::ffff:1:2"),
        ("", ""),
    ],
)
def test_an_address_of_ipv4_is_shown_as_one_whatever_the_socket_calls_it(address: str, plain: str) -> None:
    assert unmapped(address) == plain


def test_who_waits_for_a_name_waits_so_long_at_most() -> None:
    server = Server()
    server.knows["n1"] = ["192.0.2.1"]
    names = Names(server.look_up)
    assert names.wait("192.0.2.9", 0) == ("192.0.2.9",)
    assert names.wait("n1", 30) == ("192.0.2.1",)
    with pytest.raises(OSError, match="has no address"):
        names.wait("nobody", 30)
    server.answers.clear()
    began = time.monotonic()
    with pytest.raises(TimeoutError, match="not looked up in time"):
        names.wait("n2", 0.2)
    assert 0.2 <= time.monotonic() - began < 5
    assert names.wait("n1", 0) == ("192.0.2.1",), "what was known once is better than nothing"
    server.answers.set()
