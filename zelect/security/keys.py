"""Secret keys, and the directory of public keys.

A secret file (one a node or operator, mode 0600) holds a key pair; one more holds what all nodes share. The
directory, one file for the whole cluster, says whose public key is whose, and what an operator may do. All are
TOML, so that people can read them; keys are written as ZeroMQ writes them (Z85, 40 characters).

A node may have two keys in the directory while its key is being changed: both are accepted, and
its peers try one after the other to reach it.
"""

from __future__ import annotations

import os
import secrets
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any

import zmq
from zmq.utils import z85

from zelect.config.loading import Config, ConfigError
from zelect.core.timing import MAX_NODE_ID

MOST_KEYS = 2
"""Keys of one owner: the one in use and the next."""

_SECRET_BYTES = 32
_WIDE = stat.S_IRWXG | stat.S_IRWXO
_WRITABLE = stat.S_IWGRP | stat.S_IWOTH
_MAY_BYTES = 1 << 20


class Permission(IntEnum):
    """What a client may do; each permission includes those before it."""

    NONE = 0
    READ = 1
    ADMIN = 2


MAY = {"read": Permission.READ, "admin": Permission.ADMIN}
"""The words for permissions in a directory."""


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A public key and its secret, in Z85."""

    public: bytes
    secret: bytes = field(repr=False)

    @classmethod
    def new(cls) -> KeyPair:
        """A new pair, from the system's randomness."""
        return cls(*zmq.curve_keypair())


@dataclass(frozen=True, slots=True)
class ClientKeys:
    """What a connection to a node is encrypted with (CURVE): the own key pair, and the node's public keys: one,
    or two while its key is being changed."""

    pair: KeyPair
    servers: tuple[bytes, ...]

    def apply_to(self, socket: zmq.Socket[bytes], attempt: int) -> None:
        """Have `socket`, not connected yet, speak CURVE. One attempt after the other is made with the next of the
        node's keys."""
        socket.setsockopt(zmq.CURVE_PUBLICKEY, self.pair.public)
        socket.setsockopt(zmq.CURVE_SECRETKEY, self.pair.secret)
        socket.setsockopt(zmq.CURVE_SERVERKEY, self.servers[attempt % len(self.servers)])


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose key somebody has. `node`: the member's id (0: none); `permission`: what it may do besides
    sending as that member."""

    name: str
    node: int
    permission: Permission


@dataclass(frozen=True, slots=True)
class Directory:
    """Public keys (Z85) of members, the one to try first at the head, and who owns which key."""

    nodes: Mapping[int, tuple[bytes, ...]]
    owners: Mapping[bytes, Caller]


@dataclass(frozen=True, slots=True)
class Keyring:
    """Own key pair, and the directory."""

    pair: KeyPair
    directory: Directory

    @property
    def caller(self) -> Caller | None:
        """Whose the own key is by the directory."""
        return self.directory.owners.get(self.pair.public)

    def to(self, node: int) -> ClientKeys:
        """What a connection to `node` is encrypted with."""
        return ClientKeys(self.pair, self.directory.nodes[node])


def read_keyring(config: Config) -> Keyring | None:
    """The node's keys by its configuration; None: it speaks plain text.

    Raises `ConfigError`: a file that can't be read or is open to others, a member without a key, an
    own key that the directory doesn't list as this node's.
    """
    security = config.security
    if not security.key_file:
        return None
    pair, directory = read_key(Path(security.key_file)), read_directory(Path(security.directory_file))
    missing = [peer.id for peer in config.peers if peer.id not in directory.nodes]
    if missing:
        raise ConfigError(
            f"{security.directory_file}: has no key of node {missing[0]}, which is a member; "
            f"make one with 'zelect keygen {missing[0]}', or add its line of the other hosts' directory"
        )
    keyring = Keyring(pair, directory)
    owner = keyring.caller
    if owner is None or owner.node != config.node.id:
        whose = f"belongs to {owner.name}" if owner else "is not in the directory"
        raise ConfigError(
            f"{security.key_file}: this key {whose}, but must be node {config.node.id}'s in "
            f"{security.directory_file}; name the right file, or copy the newest directory to this host"
        )
    return keyring


def keyring_to_ask(config: Config, key_file: str = "") -> Keyring | None:
    """What a command speaks with to the members in `config`: the key in `key_file`, else the
    operator's of the configuration, else the node's own, which may ask; None: plain text. Raises
    `ConfigError`."""
    security = config.security
    if not security.directory_file:
        return None
    own = key_file or security.operator_key_file or security.key_file
    if not own:
        raise ConfigError(
            f"{config.path}: names no key to ask with; give --key FILE, or set security.operator_key_file"
        )
    keyring = Keyring(read_key(Path(own)), read_directory(Path(security.directory_file)))
    missing = [peer.id for peer in config.peers if peer.id not in keyring.directory.nodes]
    if missing:
        raise ConfigError(f"{security.directory_file}: has no key of node {missing[0]}; copy the newest directory here")
    return keyring


def read_key(path: Path) -> KeyPair:
    """The key pair in a secret file. Raises `ConfigError`, also when others may read the file."""
    table = _read(path, _WIDE, "can be read by others", f"chmod 600 {path}")
    public, secret = (_key(table.get(name)) for name in ("public", "secret"))
    if not public or not secret or zmq.curve_public(secret) != public:
        raise ConfigError(f"{path}: holds no key pair; make one with 'zelect keygen'")
    return KeyPair(public, secret)


def new_secret() -> str:
    """A new secret for a cluster, in hexadecimal."""
    return secrets.token_hex(_SECRET_BYTES)


def cluster_secret_of(config: Config) -> bytes:
    """The secret that the nodes share; empty: none is configured. Raises `ConfigError`, also when others may read
    the file."""
    path = config.security.secret_file
    if not path:
        return b""
    text = _read(Path(path), _WIDE, "can be read by others", f"chmod 600 {path}").get("secret")
    try:
        secret = bytes.fromhex(text) if isinstance(text, str) else b""
    except ValueError:
        secret = b""
    if len(secret) != _SECRET_BYTES:
        raise ConfigError(f"{path}: holds no cluster secret; take the file cluster.secret that 'zelect keygen' wrote")
    return secret


def read_directory(path: Path) -> Directory:
    """The directory in a file. Raises `ConfigError` with all its problems."""
    table = _read(path, _WRITABLE, "can be changed by others, who could add any key", f"chmod go-w {path}")
    problems: list[str] = []
    nodes: dict[int, tuple[bytes, ...]] = {}
    owners: dict[bytes, Caller] = {}
    for name in table.keys() - {"nodes", "operators"}:
        problems.append(f"{name}: unknown section; there are [nodes] and [operators.NAME]")
    for label, value in _section(table, "nodes", problems):
        known = label.isascii() and label.isdigit() and 1 <= int(label) <= MAX_NODE_ID
        if not known:
            problems.append(f"nodes.{label}: is not a node; write the id, 1 to {MAX_NODE_ID}")
            continue
        nodes[int(label)] = _keys(f"nodes.{label}", value, problems)
        _own(owners, nodes[int(label)], Caller(f"node {label}", int(label), Permission.READ), problems)
    for name, value in _section(table, "operators", problems):
        entry = value if isinstance(value, dict) else {}
        permission = MAY.get(str(entry.get("may")))
        if permission is None or set(entry) != {"keys", "may"}:
            problems.append(f'operators.{name}: must hold keys = ["..."] and may = "read" or "admin", nothing else')
            continue
        keys = _keys(f"operators.{name}.keys", entry["keys"], problems)
        _own(owners, keys, Caller(f"operator {name}", 0, permission), problems)
    if problems:
        raise ConfigError("\n".join(f"{path}: {problem}" for problem in problems))
    return Directory(nodes, owners)


def _section(table: Mapping[str, Any], name: str, problems: list[str]) -> list[tuple[str, Any]]:
    section = table.get(name, {})
    if isinstance(section, dict):
        return list(section.items())
    problems.append(f"{name}: must be a section; write [{name}]")
    return []


def _keys(label: str, value: object, problems: list[str]) -> tuple[bytes, ...]:
    keys = [_key(item) for item in value] if isinstance(value, list) else []
    if 1 <= len(keys) <= MOST_KEYS and all(keys):
        return tuple(keys)
    problems.append(f"{label}: must be a list of one public key of 40 characters, or two while it is being changed")
    return ()


def _own(owners: dict[bytes, Caller], keys: tuple[bytes, ...], owner: Caller, problems: list[str]) -> None:
    for key in keys:
        other = owners.setdefault(key, owner)
        if other != owner:
            problems.append(f"{owner.name}: has the key of {other.name}; every owner needs its own key")


def _key(value: object) -> bytes:
    """A key in Z85, or nothing."""
    if not isinstance(value, str) or len(value) != 40 or not value.isascii():
        return b""
    text = value.encode()
    try:
        return text if z85.encode(z85.decode(text)) == text else b""
    except (KeyError, ValueError, ArithmeticError):
        return b""


def _read(path: Path, forbidden: int, why: str, fix: str) -> dict[str, Any]:
    """The TOML file at `path`, unless its mode has a bit of `forbidden`; what is in it is never shown."""
    try:
        # A pipe in its place must not block for ever.
        with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
            status = os.fstat(file.fileno())
            mode = status.st_mode
            if status.st_uid not in (os.geteuid(), 0):
                raise ConfigError(
                    f"{path}: belongs to user {status.st_uid}, but this process runs as user {os.geteuid()}; "
                    f"run it as the owner, or, if you trust the content: chown {os.geteuid()} {path}"
                )
            if not stat.S_ISREG(mode):
                raise ConfigError(f"{path}: is not a file; name the file that 'zelect keygen' wrote")
            if mode & forbidden:
                raise ConfigError(f"{path}: {why} (mode {stat.S_IMODE(mode):04o}); run: {fix}")
            text = file.read(_MAY_BYTES).decode()
        return tomllib.loads(text)
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read: {error.strerror or error}; make keys with 'zelect keygen', or name their file"
        ) from error
    except (ValueError, RecursionError):
        raise ConfigError(f"{path}: is not valid TOML in UTF-8; take the file that 'zelect keygen' wrote") from None
