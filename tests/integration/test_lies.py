"""Others that answer, and lie: a node with JSON that nobody writes, a Redis without an end."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import zmq

from tests.support.clusters import CALM, Cluster, Fleet, holds_for, zelect
from tests.support.floods import peak_mb
from tests.support.marks import long_but
from tests.support.no_redis import drips, listening, without_an_end
from zelect.core.messages import CommonResp, Envelope, Message, Report, Result
from zelect.wire import encode

MOST_MB = 100
LIES: dict[str, Message] = {
    "deep": Report("[" * 60_000),
    "too large a number": Report('{"id": 1e999}'),
    "half a character": Report('{"id": "\\ud800"}'),
    "escape sequences": CommonResp(9, Result.FORBIDDEN, "\x1b]0;owned\x07\x1b[2J go away"),
}


@contextmanager
def lying_node(cluster: Cluster, message: Message) -> Iterator[None]:
    """Node 1, which answers everything with `message`."""
    payload = encode(Envelope(cluster.name, 1, 5, 0, 1, message))
    over = threading.Event()
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        router.linger = 0
        router.bind(cluster.addresses[1])

        def answer() -> None:
            while not over.is_set():
                if router.poll(20):
                    route, *_ = router.recv_multipart()
                    router.send_multipart([route, payload])

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


@pytest.mark.parametrize("lie", long_but(LIES, "deep"))
def test_no_command_ends_with_a_traceback_because_of_a_node(fleet: Fleet, lie: str) -> None:
    cluster = fleet.cluster()
    with lying_node(cluster, LIES[lie]):
        conf = cluster.conf(1)
        for command in (
            ("status",),
            ("who", "--timeout", "0.5"),
            ("check",),
            ("why",),
            ("transfer", "2"),
            ("members",),
        ):
            done = zelect(*command, "-c", conf)
            assert done.returncode in (1, 2, 5), (command, done)
            for text in (done.stdout, done.stderr):
                assert "Traceback" not in text
                assert "\x1b" not in text


@pytest.mark.parametrize("how", long_but(["bulk", "line", "array", "trickle"], "array"))
def test_a_redis_that_lies_costs_neither_memory_nor_leadership(fleet: Fleet, how: str) -> None:
    serve = {
        "bulk": without_an_end(b"$999999999\r\n", b"x" * 1000),
        "line": without_an_end(b"+", b"x" * 1000),
        "array": without_an_end(b"*999999999\r\n", b"*0\r\n"),
        "trickle": drips,
    }[how]
    with listening(serve) as url:
        cluster = fleet.cluster(redis_url=url, timing=CALM)
        cluster.start()
        head = cluster.settled()
        holds_for(lambda: cluster.controller().term == head.term, 2)
        assert cluster.settled().redis.state == "down"
        assert max(peak_mb(process.pid) for process in cluster.processes.values()) <= MOST_MB
        for command in (("history",), ("doctor",), ("status",)):
            assert "Traceback" not in zelect(*command, "-c", cluster.conf(1)).stderr
