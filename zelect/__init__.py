"""zelect: elects one controller among a set of processes.

    with zelect.Node("conf/n1.toml") as node:
        for leadership in node.campaign():
            leadership.run(work, leadership)

Importing this package imports nothing else, so that the command line starts at once: the names
below are fetched when they are first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zelect.version import __version__

if TYPE_CHECKING:
    from zelect.api import (
        ChildFailed,
        ControllerUnknown,
        Leadership,
        LeadershipLost,
        Node,
        NodeFailed,
        Observer,
        Seen,
    )
    from zelect.config.loading import ConfigError
    from zelect.fencing.asyncio import AsyncFencedRedis
    from zelect.fencing.core import FencedOut
    from zelect.fencing.sync import FencedRedis

__all__ = [
    "AsyncFencedRedis",
    "ChildFailed",
    "ConfigError",
    "ControllerUnknown",
    "FencedOut",
    "FencedRedis",
    "Leadership",
    "LeadershipLost",
    "Node",
    "NodeFailed",
    "Observer",
    "Seen",
    "__version__",
]

_HOMES = {
    "AsyncFencedRedis": "zelect.fencing.asyncio",
    "ChildFailed": "zelect.api",
    "ConfigError": "zelect.config.loading",
    "ControllerUnknown": "zelect.api",
    "FencedOut": "zelect.fencing.core",
    "FencedRedis": "zelect.fencing.sync",
    "Node": "zelect.api",
    "NodeFailed": "zelect.api",
    "Observer": "zelect.api",
    "Leadership": "zelect.api",
    "LeadershipLost": "zelect.api",
    "Seen": "zelect.api",
}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'zelect' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(home), name)
