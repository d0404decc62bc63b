"""Free TCP ports on loopback below the ephemeral range, where nodes may listen."""

from __future__ import annotations

import os
import random
import socket

_FIRST, _LAST = 10_000, 32_000
_random = random.Random(os.getpid() ^ int.from_bytes(os.urandom(4), "big"))


def free_port() -> int:
    """A port that nobody listens on now."""
    return free_ports(1)[0]


def free_ports(count: int) -> list[int]:
    """`count` neighbouring ports that nobody listens on now."""
    while True:
        base = _random.randrange(_FIRST, _LAST - count)
        if all(_bindable(base + i) for i in range(count)):
            return [base + i for i in range(count)]


def _bindable(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
