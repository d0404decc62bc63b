"""What a forked child of this process gives up at once.

A fork copies every descriptor, and what is open stays open as long as one copy is. With the copies of a child that
lives on, the sockets of a dead node would stand, its port and its lock stay taken, and no peer could tell that it is
dead. So whoever opens something that has to end with this process says here how to close it. What libzmq opens it
keeps to itself: `close_connections` finds it by its addresses.

The standard library alone: a watchdog, which uses it, runs without site-packages.
"""

from __future__ import annotations

import _socket  # not the one of `socket`: gevent and eventlet replace that, and theirs changes what it is given
import contextlib
import os
import socket
import stat
import weakref
from collections.abc import Callable
from types import MethodType
from typing import Any

Address = tuple[str, int]

_closers: weakref.WeakKeyDictionary[object, Callable[[Any], object]] = weakref.WeakKeyDictionary()
_SYN_SENT = "02"


def in_child(close: Callable[[], object]) -> None:
    """Have each forked child call `close`, the one such method of its object, before anything else, while that lives.

    No other thread runs in the child, and a lock that one held is never released there: `close` must take none. It must
    not shut down what the parent goes on using, only close it, and do no harm when repeated.
    """
    assert isinstance(close, MethodType)
    _closers[close.__self__] = close.__func__


def _close_all() -> None:
    for one, close in list(_closers.items()):
        with contextlib.suppress(Exception):  # the rest must go too, and a fork must not fail
            close(one)


os.register_at_fork(after_in_child=_close_all)


def close_connections(is_ours: Callable[[Address, Address | None], bool]) -> None:
    """Close the TCP sockets of this process of which `is_ours` says so, by their own and their peer's address; None: it
    has no peer, it listens. For a forked child: elsewhere another thread may use the numbers."""
    timeout_s = _socket.getdefaulttimeout()
    _socket.setdefaulttimeout(None)  # it would make each socket non-blocking that is looked at, in the parent too
    connecting: dict[int, Address] = {}
    for number in _descriptors():
        with contextlib.suppress(OSError):
            status = os.fstat(number)
            if not stat.S_ISSOCK(status.st_mode):
                continue
            one = _socket.socket(fileno=number)
            ends = _ends(one) if one.type == socket.SOCK_STREAM else None
            one.detach()
            if ends is None:
                continue
            own, other, is_open = ends
            if not is_open:
                connecting = connecting or _connecting()
                other = connecting.get(status.st_ino)
            if (is_open or other) and is_ours(own, other):
                os.close(number)
    _socket.setdefaulttimeout(timeout_s)


def _descriptors() -> list[int]:
    for name in ("/proc/self/fd", "/dev/fd"):
        with contextlib.suppress(OSError):
            return [int(entry) for entry in os.listdir(name) if entry.isdigit()]
    return []


def _ends(one: _socket.socket) -> tuple[Address, Address | None, bool] | None:
    """The socket's own and its peer's address, and whether it is connected or listens; None where it is not of TCP."""
    if one.family not in (socket.AF_INET, socket.AF_INET6):
        return None
    own = one.getsockname()
    try:
        peer = one.getpeername()
    except OSError:
        return own[:2], None, bool(one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    return own[:2], peer[:2], True


def _connecting() -> dict[int, Address]:
    """Whom sockets connect to that no answer has come to yet, by inode. Only the kernel's list tells."""
    found: dict[int, Address] = {}
    for name, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        with contextlib.suppress(OSError, ValueError, IndexError), open(f"/proc/self/net/{name}") as file:
            for words in (line.split() for line in file):
                if len(words) > 9 and words[3] == _SYN_SENT:
                    host, port = words[2].split(":")
                    parts = [bytes.fromhex(host[at : at + 8])[::-1] for at in range(0, len(host), 8)]
                    found[int(words[9])] = socket.inet_ntop(family, b"".join(parts)), int(port, 16)
    return found
