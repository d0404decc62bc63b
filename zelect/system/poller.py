"""Waits for ZeroMQ sockets and plain descriptors, at a few system calls a wake-up.

`zmq.Poller` asks every socket twice at each call, at two system calls an answer: a node of seven
sockets that wakes thirty times a second makes a thousand of them. Here the kernel watches the
sockets' descriptors, and only a socket whose descriptor spoke is asked.

The descriptor of a ZeroMQ socket says less than that of a connection: that something happened
inside (ZMQ_FD in libzmq's manual calls it edge-triggered), not that a message waits. Hence two
rules. A socket that was reported is asked again at the next call, until it has nothing more. And
sending on a socket may swallow the notice of a message that has just come: whoever sends on one
tries to read afterwards (`PeerLink` does).

An `eager` socket is reported whenever its descriptor speaks, and never asked: its reader (`Router`) reads it
once after it was registered, and remembers when it stops reading before the socket is empty.
"""

from __future__ import annotations

import select
from collections.abc import Iterator
from typing import Any

import zmq

_POLLIN = int(zmq.POLLIN)  # plain: an enumeration's operators are slow
_MASKS: dict[int, int] = {zmq.POLLIN: select.POLLIN, zmq.POLLOUT: select.POLLOUT}


class Poller:
    """Has the methods of `zmq.Poller` that a node needs. Not thread-safe.

    ZeroMQ sockets are watched for messages to read, descriptors for reading or for writing.
    """

    def __init__(self) -> None:
        self._kernel = select.poll()
        self._others = select.poll()
        """All but those that are `eager`."""
        self._eager: set[Any] = set()
        self._things: dict[int, tuple[Any, bool, int]] = {}
        self._descriptors: dict[Any, int] = {}
        self._doubtful: set[Any] = set()
        """Sockets that may hold a message although their descriptor is quiet."""

    def register(self, thing: Any, flags: int = zmq.POLLIN, *, eager: bool = False) -> None:
        """Watch `thing`, a ZeroMQ socket or a descriptor; `eager`: see above. Raises ValueError when it is watched
        already, or for other flags than one of zmq.POLLIN and zmq.POLLOUT (sockets: POLLIN)."""
        is_socket = isinstance(thing, zmq.Socket)
        if thing in self._descriptors or flags not in _MASKS or (is_socket and flags != zmq.POLLIN):
            raise ValueError(f"{thing!r} can't be watched for {flags}")
        descriptor = thing.getsockopt(zmq.FD) if is_socket else thing
        self._kernel.register(descriptor, _MASKS[flags])
        if eager:
            self._eager.add(thing)
            has_messages(thing)  # what the descriptor says from now on is new
        else:
            self._others.register(descriptor, _MASKS[flags])
            if is_socket:
                self._doubtful.add(thing)
        self._descriptors[thing] = descriptor
        self._things[descriptor] = (thing, is_socket, flags)

    def unregister(self, thing: Any) -> None:
        """Stop watching `thing`; to be called before it is closed. Raises KeyError when it is not
        watched."""
        descriptor = self._descriptors.pop(thing)
        del self._things[descriptor]
        self._kernel.unregister(descriptor)
        if thing in self._eager:
            self._eager.discard(thing)
        else:
            self._others.unregister(descriptor)
        self._doubtful.discard(thing)

    def __contains__(self, thing: object) -> bool:
        return thing in self._descriptors

    def __iter__(self) -> Iterator[Any]:
        """What is watched."""
        return iter(self._descriptors)

    def __len__(self) -> int:
        return len(self._descriptors)

    def poll(self, timeout_ms: int, *, eager: bool = True) -> dict[Any, int]:
        """What is ready, with its flag; nothing after `timeout_ms` milliseconds at the latest.

        Without `eager` what comes for eager sockets neither ends the wait nor is reported. May return
        nothing early: a descriptor spoke, but it was no message.
        """
        ready: dict[Any, int] = {}
        for thing in list(self._doubtful) if self._doubtful else ():
            if has_messages(thing):
                ready[thing] = zmq.POLLIN
            else:
                self._doubtful.discard(thing)
        kernel = self._kernel if eager else self._others
        for descriptor, _ in kernel.poll(0 if ready else timeout_ms):
            thing, is_socket, flags = self._things[descriptor]
            if thing in self._eager:
                ready[thing] = flags
            elif thing not in ready and (not is_socket or has_messages(thing)):
                ready[thing] = flags
                if is_socket:
                    self._doubtful.add(thing)
        return ready


def has_messages(socket: zmq.Socket[bytes]) -> bool:
    """Whether `socket` has a message to read. The question itself silences the descriptor: who asks
    must read, or remember."""
    events = socket.getsockopt(zmq.EVENTS)
    return isinstance(events, int) and bool(events & _POLLIN)
