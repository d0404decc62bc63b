"""Which connections to the ROUTER the peers' processes made, and whether one of each still stands (R9).

A kernel closes all connections of a process that dies. One that stands therefore contradicts any evidence of
its death, such as an address that refuses because a proxy does. A connection counts as that of a process
once a message came over it that names this process, and until it closes. In plain text anybody can send
such a message, and so put off a proof of death, but not more.

libzmq reads ahead: the last messages of a connection may be read here after it closed, when its descriptor
belongs to another one. They are known by their route, which the ROUTER gives to one connection only.
"""

from __future__ import annotations

from dataclasses import dataclass

Process = tuple[int, int]
"""A node's id, and the incarnation of its process."""

_ROUTES_KEPT = 1024


@dataclass(frozen=True, slots=True)
class InboundChange:
    """The first connection that process `incarnation` of `peer` made to this node has spoken (`up`), or the last
    of them closed."""

    peer: int
    incarnation: int
    up: bool


class PeerConnections:
    """The standing connections of peers' processes, by descriptor. `changes`: what has not been reported yet, in
    order. Belongs to the loop's thread."""

    def __init__(self) -> None:
        self.changes: list[InboundChange] = []
        self._standing: dict[int, dict[Process, bytes]] = {}
        self._closed: dict[bytes, None] = {}  # routes, the oldest first

    def spoke(self, process: Process, descriptor: int, route: bytes) -> None:
        """A message that names `process` came over `route`, the connection `descriptor` if that one stands."""
        if route in self._closed:
            return
        is_first = not self._stands(process)
        self._standing.setdefault(descriptor, {})[process] = route
        if is_first:
            self.changes.append(InboundChange(*process, up=True))

    def closed(self, descriptor: int) -> None:
        """The connection is closed, if it was one."""
        for process, route in self._standing.pop(descriptor, {}).items():
            self._closed[route] = None
            if not self._stands(process):
                self.changes.append(InboundChange(*process, up=False))
        while len(self._closed) > _ROUTES_KEPT:
            del self._closed[next(iter(self._closed))]

    def take_changes(self) -> list[InboundChange]:
        """What has changed since this was last called."""
        changes, self.changes = self.changes, []
        return changes

    def _stands(self, process: Process) -> bool:
        return any(process in processes for processes in self._standing.values())
