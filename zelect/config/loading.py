"""The configuration of one node: a TOML file, read once at the start.

`zelect.config.sections.SCHEMA` is the one list of sections and keys. All problems of a file are reported
together, each with the key and the fix, so that nobody repairs a file one error at a time.
"""

from __future__ import annotations

import os
import stat
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zelect.config.http import HttpConfig
from zelect.config.members import ClusterConfig, NodeConfig, PeerConfig, check_members
from zelect.config.redis import RedisConfig
from zelect.config.schema import kind_of, nearest, table_of
from zelect.config.sections import SCHEMA, SECTIONS, HooksConfig, LimitsConfig, LogConfig
from zelect.config.security import SecurityConfig, plaintext_problem
from zelect.core.settings import Settings
from zelect.core.timing import Proof, Timing
from zelect.errors import ZelectError

_MOST_BYTES = 1 << 20


class ConfigError(ZelectError):
    """The configuration cannot be used. The text has one line a problem: file, key, fix."""


@dataclass(frozen=True, slots=True)
class Config:
    """One node's configuration, checked. `peers`: all members in ascending order of ids."""

    path: Path
    cluster: ClusterConfig
    node: NodeConfig
    peers: tuple[PeerConfig, ...]
    redis: RedisConfig
    timing: Timing
    limits: LimitsConfig
    security: SecurityConfig
    log: LogConfig
    hooks: HooksConfig
    http: HttpConfig

    @property
    def address(self) -> str:
        """Where others connect to this node: the address in its [[peers]] entry."""
        return next(peer.address for peer in self.peers if peer.id == self.node.id)

    def settings(self) -> Settings:
        """What the pure core needs of it."""
        return Settings(
            cluster=self.cluster.name,
            node=self.node.id,
            addresses={peer.id: peer.address for peer in self.peers},
            priority=self.node.priority,
            quorum=self.cluster.quorum,
            timing=self.timing,
        )


def load(path: Path) -> Config:
    """Read and check the configuration at `path`. Raises `ConfigError` with all its problems."""
    raw, problems, base = _parse(path), list[str](), path.absolute().parent
    for name in raw:
        if name not in SCHEMA:
            problems.append(f"{name}: unknown section; the nearest is [{nearest(name, SCHEMA)}]")
    peers = raw.pop("peers", [])
    if not isinstance(peers, list):
        problems.append(f"peers: is of type {kind_of(peers)}, but must be an array of tables; write [[peers]] for each")
        peers = []
    listed = [table_of(problems, f"peers[{at}]", SCHEMA["peers"], peer, base) for at, peer in enumerate(peers, 1)]
    tables = {
        name: table_of(problems, name, keys, raw.get(name, {}), base)
        for name, keys in SCHEMA.items()
        if name != "peers"
    }
    check_members(problems, tables["node"], listed, base)
    for table in (tables["node"], *listed):
        table["data_dir"] = table["data_dir"] and Path(table["data_dir"])
    tables["timing"]["proof"] = Proof(tables["timing"]["proof"])
    members = tuple(PeerConfig(**peer) for peer in sorted(listed, key=lambda peer: peer["id"] or 0))
    config = Config(path=path, peers=members, **{name: SECTIONS[name](**table) for name, table in tables.items()})
    for name, found, unless in (
        ("redis", config.redis.problems(), "redis.url: "),
        ("security", config.security.problems(), "security."),
        ("node", plaintext_problem(config.security, config.node.listen), "security."),
        ("http", config.http.problems(), "http."),
        ("timing", config.timing.problems(), "timing."),
    ):
        if not any(problem.startswith(unless) for problem in problems):  # else a default would be judged
            problems += [f"{name}.{key}: {text}" for key, text in found]
    if problems:
        raise ConfigError("\n".join(f"{path}: {problem}" for problem in problems))
    return config


def _parse(path: Path) -> dict[str, Any]:
    try:
        text = _read(path).decode("utf-8")
        return tomllib.loads(text)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}; name an existing file") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 at byte {error.start}; save it as UTF-8") from error
    except (ValueError, RecursionError) as error:
        what = str(error).replace("at end of document", f"at line {len(text.splitlines())}, the end")
        raise ConfigError(f"{path}: is not valid TOML: {what}; correct that line") from error


def _read(path: Path) -> bytes:
    """The content of a plain file; at a pipe, a node that reloads would wait. Raises OSError, ConfigError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        mode = os.fstat(descriptor).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # reading a directory fails by itself
            raise ConfigError(f"{path}: is not a plain file; name one")
        data = os.read(descriptor, _MOST_BYTES + 1)
    finally:
        os.close(descriptor)
    if len(data) > _MOST_BYTES:
        raise ConfigError(f"{path}: is longer than {_MOST_BYTES} bytes; is it a configuration file?")
    return data
