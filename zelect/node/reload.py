"""The configuration of a running node: what may change without a restart, and what has to stay.

Keys, the priority in the succession and the log's level may change, and where other members are: the voter record
decides who belongs, and the list is where a node looks for them. It may not change in a new node, which founds its
cluster with those that it lists (R15). Anything else that differs in the file is named, and then nothing changes at
all: half a change is worse than none. The log file is opened again in any case.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import fields

from zelect.config.loading import Config, ConfigError, load
from zelect.config.sections import SECTIONS
from zelect.core.events import PriorityChanged
from zelect.node.transport.transport import Transport
from zelect.security.keys import Directory, Keyring, read_keyring
from zelect.system.log import Log
from zelect.system.sockets import CannotBind

MAY_CHANGE = frozenset(
    {
        "node.priority",
        "security.key_file",
        "security.directory_file",
        "security.operator_key_file",
        "log.level",
    }
)


class RunningConfig:
    """The configuration that a node runs with: `config`, and the `directory` of public keys (None: plain text).
    `problem`: why the newest reload changed nothing, empty when it did; `requests`: how many requests for a reload
    were carried out."""

    def __init__(self, config: Config, keyring: Keyring | None) -> None:
        self.config = config
        self.directory: Directory | None = None if keyring is None else keyring.directory
        self.problem = ""
        self.requests = 0

    def reload(self, transport: Transport, log: Log, counters: Counter[str], *, new: bool) -> PriorityChanged | None:
        """Take over what changed in the configuration and the keys, or nothing. `new`: this node belongs to no cluster.
        Returns what the machine has to know of it."""
        before = self.config
        log.reopen()
        try:
            fresh, keyring = read_again(before, new=new)
            if keyring is not None:
                transport.rekey(keyring)
        except (ConfigError, CannotBind) as error:
            counters["reload_refused"] += 1
            self.problem = str(error)
            log.event("error", "reload_refused", problem=self.problem)
            return None
        self.config, self.problem = fresh, ""
        self.directory = None if keyring is None else keyring.directory
        log.set_level(fresh.log.level)
        counters["reloaded"] += 1
        log.event("info", "reloaded", log_level=fresh.log.level, priority=fresh.node.priority)
        return None if fresh.node.priority == before.node.priority else PriorityChanged(fresh.node.priority)


def read_again(config: Config, *, new: bool = False) -> tuple[Config, Keyring | None]:
    """The configuration that `config` came from as it is now, and its keys. Raises `ConfigError`
    when it is broken, or differs in what can't change while the node runs."""
    fresh = load(config.path, node_id=config.given_id)
    others = {_entry(peer.id) for peer in (*config.peers, *fresh.peers) if peer.id != config.node.id}
    fixed = sorted(changes(config, fresh) - MAY_CHANGE - (set() if new else others))
    if fixed:
        why = " (this node is new, and founds its cluster with those it lists)" if others & set(fixed) else ""
        raise ConfigError(
            f"{config.path}: {', '.join(fixed)} cannot change without a restart{why}; "
            "nothing was applied. Restart the node, or undo the edit"
        )
    if bool(fresh.security.key_file) != bool(config.security.key_file):
        raise ConfigError(
            f"{config.path}: security.key_file: encryption can't be turned on or off in a running node; "
            "nothing was applied. Restart it, or undo the edit"
        )
    return fresh, read_keyring(fresh)


def changes(before: Config, after: Config) -> set[str]:
    """The keys in which the two differ, as ``section.key``; an entry of [[peers]] by the id of the member."""
    found: set[str] = set()
    for section in fields(Config):
        old, new = getattr(before, section.name), getattr(after, section.name)
        if old == new or section.name not in SECTIONS:
            continue
        if section.name == "peers":
            found |= {_entry(peer.id) for peer in {*old} ^ {*new}}
        else:
            found |= {f"{section.name}.{key.name}" for key in fields(old) if _differ(old, new, key.name)}
    return found


def _entry(node: int) -> str:
    return f"[[peers]] of node {node}"


def _differ(old: object, new: object, name: str) -> bool:
    return bool(getattr(old, name) != getattr(new, name))
