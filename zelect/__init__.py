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
        LeadershipIterator,
        LeadershipLost,
        Node,
        NodeFailed,
        Observer,
        Seen,
    )
    from zelect.config.loading import Config, ConfigError
    from zelect.errors import ZelectError
    from zelect.fencing.asyncio import AsyncFencedRedis
    from zelect.fencing.core import FenceBroken, FencedOut
    from zelect.fencing.sync import FencedRedis
    from zelect.node.leadership.handle import Controller
    from zelect.node.storage.data_dir import DataDirError, DataDirInUse
    from zelect.node.storage.vote_store import VoteStoreError
    from zelect.security.zap_authenticator import AuthenticatorFailed
    from zelect.system.sockets import CannotBind

_HOMES = {
    "AsyncFencedRedis": "zelect.fencing.asyncio",
    "AuthenticatorFailed": "zelect.security.zap_authenticator",
    "CannotBind": "zelect.system.sockets",
    "ChildFailed": "zelect.api",
    "Config": "zelect.config.loading",
    "ConfigError": "zelect.config.loading",
    "Controller": "zelect.node.leadership.handle",
    "ControllerUnknown": "zelect.api",
    "DataDirError": "zelect.node.storage.data_dir",
    "DataDirInUse": "zelect.node.storage.data_dir",
    "FenceBroken": "zelect.fencing.core",
    "FencedOut": "zelect.fencing.core",
    "FencedRedis": "zelect.fencing.sync",
    "Leadership": "zelect.api",
    "LeadershipIterator": "zelect.api",
    "LeadershipLost": "zelect.api",
    "Node": "zelect.api",
    "NodeFailed": "zelect.api",
    "Observer": "zelect.api",
    "Seen": "zelect.api",
    "VoteStoreError": "zelect.node.storage.vote_store",
    "ZelectError": "zelect.errors",
}

__all__ = [  # written out: type checkers and linters read it, and do not run it
    "AsyncFencedRedis",
    "AuthenticatorFailed",
    "CannotBind",
    "ChildFailed",
    "Config",
    "ConfigError",
    "Controller",
    "ControllerUnknown",
    "DataDirError",
    "DataDirInUse",
    "FenceBroken",
    "FencedOut",
    "FencedRedis",
    "Leadership",
    "LeadershipIterator",
    "LeadershipLost",
    "Node",
    "NodeFailed",
    "Observer",
    "Seen",
    "VoteStoreError",
    "ZelectError",
    "__version__",
]


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'zelect' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(home), name)
