"""The configuration of one node: a TOML file, read once at the start, and what the environment sets instead.

`zelect.config.sections.SCHEMA` is the one list of sections and keys. All problems of a file are reported
together, each with the key and the fix, so that nobody repairs a file one error at a time.
"""

from __future__ import annotations

import os
import socket
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zelect.config.http import HttpConfig
from zelect.config.members import ClusterConfig, NodeConfig, PeerConfig, check_members
from zelect.config.redis import RedisConfig
from zelect.config.schema import kind_of, nearest, table_of
from zelect.config.sections import SCHEMA, SECTIONS, HooksConfig, LimitsConfig, LogConfig
from zelect.config.security import SecurityConfig, plaintext_problem
from zelect.config.sources import IN_THIS_DIRECTORY, NO_FILE, OF_THIS_HOST, fill_id, find, overlay, set_id
from zelect.core.settings import Settings
from zelect.core.timing import Proof, Timing
from zelect.errors import ZelectError

_MOST_BYTES = 1 << 20


class ConfigError(ZelectError):
    """The configuration cannot be used. The text has one line a problem: file, key, fix."""


@dataclass(frozen=True, slots=True)
class Config:
    """One node's configuration, checked. `peers`: all members in ascending order of ids. `given_id`: the id that was
    given with --id, 0 for none. `origins`: where a key was set, for those that do not have their defaults. The id in
    `node` is 0 where none is known, for who only asks the members."""

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
    given_id: int = 0
    origins: Mapping[str, str] = field(default_factory=dict, compare=False)

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


def chosen(path: str | Path | None) -> Path:
    """`path`, or the configuration that counts where none is named. Raises `ConfigError`."""
    found = Path(path) if path else find(os.environ)
    if found is None:
        raise ConfigError(
            f"no configuration: name its file with -c FILE or ZELECT_CONFIG, or put it at {IN_THIS_DIRECTORY} or "
            f"{OF_THIS_HOST}"
        )
    return found


def load(path: Path, *, node_id: int = 0, environ: Mapping[str, str] | None = None, member: bool = True) -> Config:
    """Read and check the configuration at `path`. `node_id`: this node's, whatever the file says (0: what it says).
    `environ`: the environment that may set keys, by default this process's. `member` False: for a command that asks
    the members, on a host that need not be one. Raises `ConfigError` with all its problems."""
    environ = os.environ if environ is None else environ
    raw, problems, base = _parse(path), list[str](), path.absolute().parent if path != NO_FILE else Path.cwd()
    for name in raw:
        if name not in SCHEMA:
            problems.append(f"{name}: unknown section; the nearest is [{nearest(name, SCHEMA)}]")
    origins = _origins(raw, path) | overlay(raw, environ, problems)
    if origin := set_id(raw, node_id, environ, socket.gethostname(), problems):
        origins["node.id"] = origin
    fill_id(raw)
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
    _without_id(problems, tables["node"], base, member)
    check_members(problems, tables["node"], listed, base)
    for table in (tables["node"], *listed):
        table["data_dir"] = table["data_dir"] and Path(table["data_dir"])
    tables["timing"]["proof"] = Proof(tables["timing"]["proof"])
    members = tuple(PeerConfig(**peer) for peer in sorted(listed, key=lambda peer: peer["id"] or 0))
    sections = {name: SECTIONS[name](**table) for name, table in tables.items()}
    # A program may change its directory, and read this again.
    config = Config(
        path=path if path == NO_FILE else path.absolute(), peers=members, given_id=node_id, origins=origins, **sections
    )
    for name, found, unless in (
        ("redis", config.redis.problems(), "redis.url: "),
        ("security", config.security.problems(member), "security."),
        ("node", plaintext_problem(config.security, config.node.listen), "security."),
        ("http", config.http.problems(), "http."),
        ("timing", config.timing.problems(), "timing."),
    ):
        if not any(problem.startswith(unless) for problem in problems):  # else a default would be judged
            problems += [f"{name}.{key}: {text}" for key, text in found]
    if problems:
        raise ConfigError("\n".join(_placed(problem, path, origins) for problem in problems))
    return config


def _origins(raw: Mapping[str, Any], path: Path) -> dict[str, str]:
    """Each key that the file sets."""
    tables = [(name, table) for name, table in raw.items() if isinstance(table, dict)]
    keys = [f"{name}.{key}" for name, table in tables for key in table]
    return dict.fromkeys([*keys, *({"peers"} & raw.keys())], str(path))


def _without_id(problems: list[str], node: dict[str, Any], base: Path, member: bool) -> None:
    """Where no id is known: one problem, with all its fixes, or none where none is needed."""
    missing = [problem for problem in problems if problem.startswith("node.id: is missing")]
    for problem in missing:
        problems.remove(problem)
    if (
        missing
        and member
        and not any("end in a number" in problem or "from-hostname" in problem for problem in problems)
    ):
        problems.append("node.id: is missing; add a line id = ... to [node], or give --id N or ZELECT_NODE_ID=N")
    if node["id"] is None and not member:
        node["id"], node["data_dir"] = 0, node["data_dir"] or str(base / "data")


def _placed(problem: str, path: Path, origins: Mapping[str, str]) -> str:
    """`problem` with the place where it is to be corrected: the file, or the variable that set the key."""
    key, _, text = problem.partition(": ")
    variable = origins.get(key.partition("[")[0], "")
    if problem.startswith("ZELECT_"):
        return problem
    if variable.startswith("ZELECT_"):
        return f"{variable}: {text if '[' not in key else problem}"
    return f"{'environment' if path == NO_FILE else path}: {problem}"


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
    if path == NO_FILE:
        return b""
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
