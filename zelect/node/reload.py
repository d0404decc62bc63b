"""A running node's change of mind: what may change without a restart, and what has to stay.

Keys, the priority in the succession and the log's level may change. Anything else that differs in
the file is named, and then nothing changes at all: half a change is worse than none.
"""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING

from zelect.config.loading import Config, ConfigError, load
from zelect.core.events import PriorityChanged
from zelect.security.keys import Keyring, read_keyring
from zelect.system.sockets import CannotBind

if TYPE_CHECKING:
    from zelect.node.loop import NodeLoop

__all__ = ["MAY_CHANGE", "changes", "read_again", "reload"]

MAY_CHANGE = frozenset(
    {
        "node.priority",
        "security.key_file",
        "security.directory_file",
        "security.operator_key_file",
        "log.level",
    }
)


def read_again(config: Config) -> tuple[Config, Keyring | None]:
    """The configuration that `config` came from as it is now, and its keys. Raises `ConfigError`
    when it is broken, or differs in what can't change while the node runs."""
    fresh = load(config.path)
    fixed = sorted(changes(config, fresh) - MAY_CHANGE)
    if fixed:
        raise ConfigError(
            f"{config.path}: {', '.join(fixed)} changed, which takes a restart of the node; "
            "nothing was changed. Restart it, or set back what was there"
        )
    if bool(fresh.security.key_file) != bool(config.security.key_file):
        raise ConfigError(
            f"{config.path}: security.key_file: encryption can't be turned on or off in a running node; "
            "nothing was changed. Restart it, or set back what was there"
        )
    return fresh, read_keyring(fresh)


def reload(node: NodeLoop) -> None:
    """SIGHUP: take up what changed in the configuration and the keys, or nothing."""
    try:
        fresh, keyring = read_again(node.config)
        if keyring is not None:
            node.transport.rekey(keyring)
    except (ConfigError, CannotBind) as error:
        node.counters["reload_refused"] += 1
        node.reload_problem = str(error)
        node.log.event("error", "reload_refused", problem=str(error))
        return
    node.directory = None if keyring is None else keyring.directory
    before, node.config = node.config, fresh
    node.log.set_level(fresh.log.level)
    if fresh.node.priority != before.node.priority:
        node.step(PriorityChanged(fresh.node.priority))
    node.counters["reloaded"] += 1
    node.reload_problem = ""
    node.log.event("info", "reloaded", log_level=fresh.log.level, priority=fresh.node.priority)


def changes(before: Config, after: Config) -> set[str]:
    """The keys in which the two differ, as ``section.key``; members as ``peers``."""
    found: set[str] = set()
    for section in fields(Config):
        old, new = getattr(before, section.name), getattr(after, section.name)
        if old == new or section.name == "path":
            continue
        if section.name == "peers":
            found.add("peers")
        else:
            found |= {f"{section.name}.{key.name}" for key in fields(old) if _differ(old, new, key.name)}
    return found


def _differ(old: object, new: object, name: str) -> bool:
    return bool(getattr(old, name) != getattr(new, name))
