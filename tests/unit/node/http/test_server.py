"""Clients that send or read slowly, or not at all, can't shut out others from what a node answers over HTTP."""

from __future__ import annotations

import inspect
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from waitress import wasyncore
from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser
from waitress.server import BaseWSGIServer, TcpWSGIServer
from waitress.task import ThreadedTaskDispatcher

from tests.integration.test_http import HOST, QUIET, Served, Stand
from tests.support.clusters import Fleet
from tests.support.reports import report
from tests.support.waiting import wait_until
from zelect.node.http.app import HttpServer
from zelect.node.http.snapshot import Histogram, StatusSnapshot
from zelect.system.clock import now_us

ASK = b"HEAD /live HTTP/1.1\r\n\r\n"


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    """Where the pages of a `Stand` are served; its loop stays live, and its status is much to read."""
    stand = Stand(tmp_path)
    histogram = Histogram((), (0,), 0)
    large = report(1, reload_problem="a" * 10_000_000)
    stand.publisher.snapshot = StatusSnapshot(now_us(), large, {}, {}, histogram, histogram)
    stand.publisher.turned_us += 1_000_000_000_000
    listener = socket.create_server((HOST, 0))
    web = HttpServer(listener, stand.publisher, stand.handle, "demo", 1, QUIET)
    yield listener.getsockname()[1]
    web.close()
    stand.publisher.close()


def test_what_is_used_of_the_inside_of_waitress_is_there() -> None:
    """`zelect.node.http.server` extends classes that waitress does not document."""
    channel = inspect.signature(HTTPChannel.received).parameters
    parser = inspect.signature(HTTPRequestParser.received).parameters
    loop = inspect.signature(wasyncore.loop).parameters
    server = inspect.signature(TcpWSGIServer.__init__).parameters
    assert (list(channel), list(parser)) == (["self", "data"], ["self", "data"])
    assert {"timeout", "use_poll", "map", "count"} <= loop.keys()
    assert {"_sock", "dispatcher", "adj", "sockinfo", "bind_socket"} <= server.keys()
    for owner, names in (
        (HTTPChannel, "parser_class request requests total_outbufs_len service readable writable handle_close"),
        (HTTPRequestParser, "completed empty"),
        (TcpWSGIServer, "channel_class handle_accept readable accepting"),
        (ThreadedTaskDispatcher, "set_thread_count shutdown"),
        (wasyncore, "close_all"),
    ):
        for name in names.split():
            used = hasattr(owner, name) or f"self.{name} =" in inspect.getsource(owner)
            assert used, f"{owner.__name__}.{name}"
    source = inspect.getsource(BaseWSGIServer)
    assert all(f"self.{name} =" in source for name in ("active_channels", "trigger", "task_dispatcher"))


def lost(client: socket.socket, more: bytes) -> bool:
    """Whether the server has closed the connection of `client`, which sends `more` if it can."""
    client.setblocking(False)
    try:
        client.send(more)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return False


def test_a_request_that_never_ends_is_closed(port: int) -> None:
    starts = (b"GET /live HTTP/1.1\r\nX: ", b"\r\n\r\nGET /live?", b"GET /live HTTP/1.1\r\nContent-Length: 999\r\n\r\n")
    clients = [socket.create_connection((HOST, port)) for _ in starts]
    for client, start in zip(clients, starts, strict=True):
        client.sendall(start)
    wait_until(lambda: all(map(lost, clients, [b"a"] * 3)), within_s=10, every_s=0.1)
    assert asked(socket.create_connection((HOST, port), 5)).startswith(b"HTTP/1.1 200 ")


def test_who_never_reads_is_closed(port: int) -> None:
    client = socket.create_connection((HOST, port))
    client.sendall(b"GET /v1/status HTTP/1.1\r\n\r\n")
    wait_until(lambda: lost(client, b"a"), within_s=10, every_s=0.1)
    assert asked(socket.create_connection((HOST, port), 5)).startswith(b"HTTP/1.1 200 ")


def test_of_requests_sent_together_one_is_answered(port: int) -> None:
    client = socket.create_connection((HOST, port), 5)
    client.sendall(b"\r\n\r\n" + ASK * 40)
    with client.makefile("rb") as answers:
        text = answers.read()
    assert (text.count(b"HTTP/1.1 200 "), text.count(b"Connection: close")) == (1, 1)


def test_of_idle_connections_the_oldest_makes_room(port: int) -> None:
    clients = list[socket.socket]()
    for _ in range(70):
        clients.append(socket.create_connection((HOST, port), 30))
        assert asked(clients[-1]).startswith(b"HTTP/1.1 200 ")
    wait_until(lambda: clients[7].recv(1) == b"", what="eight have made room")
    assert [client.recv(1) for client in clients[:7]] == [b""] * 7
    for client in clients[8:]:
        assert asked(client).startswith(b"HTTP/1.1 200 ")


def asked(client: socket.socket) -> bytes:
    """The answer on this connection, which stays open."""
    client.sendall(ASK)
    return client.recv(1000)


def test_hundreds_of_slow_clients_that_come_again_do_not_shut_out_probes(fleet: Fleet) -> None:
    served = Served(fleet)
    node, over = served.cluster.settled().id, threading.Event()

    def send_slowly() -> None:
        clients = [socket.socket() for _ in range(300)]
        while not over.wait(0.02):
            for place, client in enumerate(clients):
                if lost(client, b"a"):
                    client.close()
                    clients[place] = socket.create_connection((HOST, served.ports[node]), 30)
                    clients[place].sendall(b"GET /live HTTP/1.1\r\nX: ")

    flood = threading.Thread(target=send_slowly, daemon=True)
    flood.start()
    wait_until(lambda: served.value(node, "zelect_http_connections_closed_total", reason="full") > 100)
    for _ in range(5):
        began_us = now_us()
        assert served.codes(node) == (200, 503, 200, 200)
        assert now_us() - began_us < 4 * 3_000_000
    over.set()
    flood.join()
