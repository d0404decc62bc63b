"""Room for connections: the limit of open descriptors.

When a process has none left, libzmq's listener asks the kernel for the same connection again and
again, at 100 % of a core, and nothing can be opened. Hence the soft limit is raised as far as is
of use, and fewer connections are allowed where the hard limit is low.
"""

from __future__ import annotations

import contextlib
import resource

from zelect.config.sections import LimitsConfig
from zelect.node.transport.connection_limits import ConnectionLimits
from zelect.system.log import Log

__all__ = ["connection_limits_of", "raise_limit", "room_for"]

_OWN = 128
"""Files, threads' pipes, sockets of Redis, and whatever the libraries open."""
_A_PEER = 8
_USEFUL = 32_768
"""Room for a crowd that comes before the loop has closed the connections that are too many."""


def raise_limit() -> None:
    """Raise the soft limit as far as is of use; for a process of a node's own. Never raises."""
    with contextlib.suppress(OSError, ValueError):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = _USEFUL if hard == resource.RLIM_INFINITY else min(hard, _USEFUL)
        if soft != resource.RLIM_INFINITY and soft < most:
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def room_for(connections: int, peers: int) -> int:
    """How many of `connections` that others make the soft limit has room for."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return connections
    # Half of what is left, as connections come faster than they can be closed.
    return max(1, min(connections, (soft - _OWN - _A_PEER * peers) // 2))


def connection_limits_of(limits: LimitsConfig, peers: int, log: Log) -> ConnectionLimits:
    """The bounds that the configuration asks for, as far as descriptors suffice."""
    room = room_for(limits.max_connections, peers)
    if room < limits.max_connections:
        fix = f"raise the limit of open files (ulimit -n) by {2 * (limits.max_connections - room)}"
        log.event("warning", "descriptors_scarce", max_connections=room, fix=fix)
    return ConnectionLimits(room, limits.max_messages_per_s, limits.max_unread_bytes)
