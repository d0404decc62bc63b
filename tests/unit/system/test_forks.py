"""A forked child closes what its parent alone may have."""

from __future__ import annotations

import gc
import os
import signal
import socket
from collections.abc import Callable

from zelect.system.forks import close_connections, in_child


def in_fork(look: Callable[[], object]) -> bool:
    """What `look` says in a forked child."""
    child = os.fork()
    if child == 0:
        signal.alarm(20)  # a lock that was held at the fork is held for ever
        said = False
        try:
            said = bool(look())
        finally:
            os._exit(0 if said else 1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


class Holds:
    def __init__(self) -> None:
        self.closed = False
        in_child(self.close)

    def close(self) -> None:
        self.closed = True


class HoldsBadly(Holds):
    def close(self) -> None:
        raise OSError("can't")


def test_what_lives_is_closed_in_the_child_and_not_here() -> None:
    bad, one = HoldsBadly(), Holds()
    Holds()  # lives no more
    gc.collect()
    assert in_fork(lambda: one.closed and not bad.closed)
    assert not one.closed
    assert in_fork(lambda: one.closed), "in every child"


def test_connections_are_closed_by_their_addresses() -> None:
    ours, theirs = socket.create_server(("127.0.0.1", 0)), socket.create_server(("127.0.0.1", 0))
    connected = socket.create_connection(ours.getsockname())
    accepted, _ = ours.accept()
    foreign = socket.create_connection(theirs.getsockname())
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind(("127.0.0.1", 0))
    pair = socket.socketpair()
    idle = socket.socket()
    here = ours.getsockname()
    open_here = [theirs, foreign, udp, idle, *pair]
    socket.setdefaulttimeout(5)

    def look() -> bool:
        socket.socket = None  # type: ignore[assignment, misc]  # in the child; gevent would have its own there
        close_connections(lambda own, other: here in (own, other))
        gone = [one for one in (ours, connected, accepted) if not is_open(one)]
        return len(gone) == 3 and all(is_open(one) and os.get_blocking(one.fileno()) for one in open_here)

    try:
        assert in_fork(look)
    finally:
        socket.setdefaulttimeout(None)
    assert all(is_open(one) for one in (ours, connected, accepted, *open_here))
    for one in (ours, connected, accepted, *open_here):
        one.close()


def test_a_connection_that_is_not_answered_yet_is_closed_too() -> None:
    full = socket.create_server(("127.0.0.1", 0), backlog=0)
    waiting = []
    for _ in range(4):  # the kernel answers no more than fit into its queue
        one = socket.socket()
        one.setblocking(False)
        one.connect_ex(full.getsockname())
        waiting.append(one)
    at = full.getsockname()

    def look() -> bool:
        close_connections(lambda own, other: other == at)
        return not any(is_open(one) for one in waiting) and is_open(full)

    assert in_fork(look)
    for one in (*waiting, full):
        one.close()


def is_open(one: socket.socket) -> bool:
    try:
        os.fstat(one.fileno())
    except OSError:
        return False
    return True
