"""A Redis that lies: what it answers is bounded in size, and in time as a whole."""

from __future__ import annotations

import socket
import time
from typing import Any

import pytest
from redis.exceptions import TimeoutError as RedisTimeout

from tests.support.no_redis import drips, listening, without_an_end
from tests.support.waiting import wait_until
from zelect.redis.bounded_replies import MOST_REPLY_BYTES, BoundedSocket, ReplyTooLong
from zelect.redis.connection import connect
from zelect.redis.credentials import Credentials
from zelect.redis.errors import explain

ENDLESS = {
    "a bulk": b"x",
    "a line": b"+",
    "an array": b"*999999999\r\n",
    "arrays in arrays": b"*1\r\n",
    "an error": b"-ERR ",
}


@pytest.mark.parametrize("kind", ENDLESS)
def test_an_answer_without_an_end(kind: str) -> None:
    head = b"$999999999\r\n" if kind == "a bulk" else ENDLESS[kind]
    rest = {"an array": b"$-1\r\n", "arrays in arrays": b"*1\r\n"}.get(kind, b"x" * 1000)
    with listening(without_an_end(head, rest)) as url:
        client: Any = connect(url, 5.0, Credentials())
        began_s = time.monotonic()
        with pytest.raises((ReplyTooLong, RecursionError)) as failed:
            client.get("key")
        assert time.monotonic() - began_s < 4.0
        problem = explain(failed.value, url, 5000).problem
        assert "\n" not in problem
        if failed.type is ReplyTooLong:
            assert problem.startswith("garbage: redis://127.0.0.1:")


def test_bytes_that_trickle_do_not_begin_the_time_limit_again() -> None:
    with listening(drips) as url:
        client: Any = connect(url, 0.2, Credentials())
        began_s = time.monotonic()
        with pytest.raises(RedisTimeout):
            client.get("key")
        assert time.monotonic() - began_s < 2.0


@pytest.mark.parametrize("sizes", [(MOST_REPLY_BYTES,), (MOST_REPLY_BYTES // 2, MOST_REPLY_BYTES // 2)])
def test_the_longest_answer_is_read_and_each_question_begins_again(sizes: tuple[int, ...]) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(10)
        theirs.settimeout(10)
        bounded = BoundedSocket(ours)
        for _ in range(2):
            bounded.sendall(b"?")
            assert theirs.recv(1) == b"?"
            for size in sizes:
                left = size
                while left:
                    theirs.sendall(b"x" * min(left, 10_000))
                    got = len(bounded.recv(min(left, 10_000)))
                    left -= got
        theirs.sendall(b"x")
        with pytest.raises(ReplyTooLong):
            bounded.recv(10_000)


def test_looking_whether_something_is_there_neither_waits_nor_fails() -> None:
    """As redis-py does before it uses a connection again, long after the last answer."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(0.01)
        bounded = BoundedSocket(ours)
        bounded.sendall(b"?")
        late_s = time.monotonic() + 0.05
        wait_until(lambda: time.monotonic() > late_s)
        bounded.settimeout(0)
        with pytest.raises(BlockingIOError):
            bounded.recv(1)
        bounded.settimeout(0.01)
        with pytest.raises(TimeoutError):
            bounded.recv(1)
        bounded.sendall(b"?")
        theirs.sendall(b"!")
        assert bounded.recv(1) == b"!"
        assert bounded.fileno() == ours.fileno()
