"""The configuration of one node: a TOML file, read once at the start.

`SCHEMA` is the one list of sections and keys; reading, defaults, error messages and the check that
conf/reference.toml documents every key all come from it. All problems of a file are reported
together, each with the key and the fix, so that nobody repairs a file one error at a time.
"""

from __future__ import annotations

import difflib
import os
import stat
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from zelect.config.http import HttpConfig, http_listen
from zelect.config.http import contradictions as http_contradictions
from zelect.config.redis import RedisConfig, contradictions, redis_url
from zelect.config.validators import (
    ADDRESS,
    MAX_PORT,
    address,
    between,
    cluster_name,
    commands,
    is_loopback,
    one_of,
    optional_path,
    path,
    quoted,
    words_of,
)
from zelect.core.settings import Settings
from zelect.core.timing import MAX_NODE_ID, Proof, Timing

__all__ = ["MAX_PORT", "SCHEMA", "Config", "ConfigError", "load", "render"]

_MOST_BYTES = 1 << 20
_KINDS = {str: "text", int: "integer", bool: "boolean", float: "float", dict: "table", list: "array"}


class ConfigError(Exception):
    """The configuration cannot be used. The text has one line a problem: file, key, fix."""


@dataclass(frozen=True, slots=True)
class ClusterConfig:
    """`quorum`: who votes; "dynamic": the living, and the witness in Redis where it makes the number
    odd; "static": the members, always."""

    name: str
    quorum: str


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """This node. `data_dir` is absolute."""

    id: int
    listen: str
    advertise: str
    data_dir: Path
    priority: int


@dataclass(frozen=True, slots=True)
class PeerConfig:
    """A member, this node included. `data_dir`: absolute, for a member on this host only."""

    id: int
    address: str
    data_dir: Path | None


@dataclass(frozen=True, slots=True)
class LimitsConfig:
    """`max_connections` and `max_unread_bytes`: all together; `max_messages_per_s`: of one sender."""

    max_message_bytes: int
    max_connections: int
    max_messages_per_s: int
    max_unread_bytes: int


@dataclass(frozen=True, slots=True)
class SecurityConfig:
    """Absolute paths, or empty: without `key_file` the node speaks plain text. `operator_key_file`
    is for commands only, the node never reads it."""

    key_file: str
    directory_file: str
    operator_key_file: str
    allow_plaintext: bool


@dataclass(frozen=True, slots=True)
class LogConfig:
    """`file`: absolute path, or empty for standard error."""

    level: str
    format: str
    file: str


@dataclass(frozen=True, slots=True)
class HooksConfig:
    """Programs to run when something changes, each as a tuple of words."""

    on_elected: tuple[tuple[str, ...], ...]
    on_deposed: tuple[tuple[str, ...], ...]
    on_controller_changed: tuple[tuple[str, ...], ...]
    timeout_ms: int
    retries: int
    retry_code: int
    retry_after_ms: int


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


@dataclass(frozen=True, slots=True)
class Key:
    """`default` None: `required`, optional or derived. `check` says what is wrong with a value of
    the right type, with the fix; empty when nothing."""

    name: str
    kind: type
    default: str | int | bool | list[Any] | None
    check: Callable[[Any], str] = lambda value: ""
    required: bool = False


SCHEMA: Mapping[str, tuple[Key, ...]] = {
    "cluster": (
        Key("name", str, None, cluster_name, required=True),
        Key("quorum", str, "dynamic", one_of("dynamic", "static")),
    ),
    "node": (
        Key("id", int, None, between(1, MAX_NODE_ID), required=True),
        Key("listen", str, None, address(wildcard=True)),
        Key("advertise", str, None, address(wildcard=False)),
        Key("data_dir", str, None, path),
        Key("priority", int, 0, between(0, 1000)),
    ),
    "peers": (
        Key("id", int, None, between(1, MAX_NODE_ID), required=True),
        Key("address", str, None, address(wildcard=False), required=True),
        Key("data_dir", str, None, path),
    ),
    "redis": (
        Key("url", str, "redis://127.0.0.1:6379/0", redis_url),
        Key("ttl_ms", int, 3000, between(2000, 86_400_000, "ms")),
        Key("timeout_ms", int, 200, between(1, 60_000, "ms")),
        Key("username", str, ""),
        Key("password_file", str, ""),
        Key("password_env", str, ""),
        Key("ca_file", str, ""),
        Key("cert_file", str, ""),
        Key("key_file", str, ""),
        Key("tls_verify", bool, True),
    ),
    # Ranges and inequalities of the durations are those of Timing.problems alone.
    "timing": (
        *(Key(item.name, int, getattr(Timing(), item.name)) for item in fields(Timing) if item.name != "proof"),
        Key("proof", str, str(Timing().proof), one_of(*Proof)),
    ),
    "limits": (
        Key("max_message_bytes", int, 65_536, between(4096, 2**24, "bytes")),
        Key("max_connections", int, 512, between(16, 60_000)),
        Key("max_messages_per_s", int, 1000, between(100, 1_000_000)),
        Key("max_unread_bytes", int, 16_777_216, between(2**20, 2**34, "bytes")),
    ),
    "security": (
        Key("key_file", str, "", optional_path),
        Key("directory_file", str, "", optional_path),
        Key("operator_key_file", str, "", optional_path),
        Key("allow_plaintext", bool, False),
    ),
    "log": (
        Key("level", str, "info", one_of("debug", "info", "warning", "error")),
        Key("format", str, "text", one_of("text", "json")),
        Key("file", str, "", optional_path),
    ),
    "hooks": (
        Key("on_elected", list, [], commands),
        Key("on_deposed", list, [], commands),
        Key("on_controller_changed", list, [], commands),
        Key("timeout_ms", int, 10_000, between(1, 3_600_000, "ms")),
        Key("retries", int, 3, between(0, 1000)),
        Key("retry_code", int, 75, between(1, 255)),
        Key("retry_after_ms", int, 500, between(0, 3_600_000, "ms")),
    ),
    "http": (Key("listen", str, "", http_listen), Key("allow_remote", bool, False)),
}
"""Section to its keys, in the order of the reference; `peers` is an array of tables."""


def load(path: Path) -> Config:
    """Read and check the configuration at `path`. Raises `ConfigError` with all its problems."""
    raw, problems = _parse(path), list[str]()
    for name in raw:
        if name not in SCHEMA:
            problems.append(f"{name}: unknown section; the nearest is [{_nearest(name, SCHEMA)}]")
    tables = {name: _table(problems, name, name, raw.get(name, {})) for name in SCHEMA if name != "peers"}
    peers = _peers(problems, raw.get("peers", []))
    node, base = tables["node"], path.absolute().parent
    node["data_dir"] = node["data_dir"] or f"data/n{node['id']}"
    for table in (node, *peers):
        if table["data_dir"]:
            table["data_dir"] = Path(os.path.abspath(base / table["data_dir"]))
    _check_members(problems, node, peers)
    problems += [f"redis.{key}: {text}" for key, text in contradictions(tables["redis"])]
    _check_security(problems, tables["security"], node["listen"], base)
    problems += [f"http.{key}: {text}" for key, text in http_contradictions(tables["http"])]
    timing = Timing(**{**tables["timing"], "proof": Proof(tables["timing"]["proof"])})
    if not any(problem.startswith("timing.") for problem in problems):
        problems += [f"timing.{key}: {text}" for key, text in timing.problems()]
    if problems:
        raise ConfigError("\n".join(f"{path}: {problem}" for problem in problems))
    for section, keys in (("log", ("file",)), ("redis", ("password_file", "ca_file", "cert_file", "key_file"))):
        for key in keys:
            tables[section][key] = tables[section][key] and os.path.abspath(base / tables[section][key])
    return Config(
        path=path,
        cluster=ClusterConfig(**tables["cluster"]),
        node=NodeConfig(**node),
        peers=tuple(PeerConfig(**peer) for peer in sorted(peers, key=lambda peer: int(peer["id"]))),
        redis=RedisConfig(**tables["redis"]),
        timing=timing,
        limits=LimitsConfig(**tables["limits"]),
        security=SecurityConfig(**tables["security"]),
        log=LogConfig(**tables["log"]),
        hooks=HooksConfig(**{name: words_of(value) for name, value in tables["hooks"].items()}),
        http=HttpConfig(**tables["http"]),
    )


def render(
    cluster: str,
    node: int,
    listen_host: str,
    ports: Mapping[int, int],
    redis_url: str,
    data_dirs: Mapping[int, str],
    timing: Mapping[str, int | str] | None = None,
    log_format: str = "text",
    quorum: str = "dynamic",
    security: Mapping[str, str] | None = None,
) -> str:
    """The text of `node`'s file in a cluster whose members all run on `listen_host`. `ports` and
    `data_dirs` map member ids; `timing` holds the keys that differ from the defaults,
    `security` all of its section."""
    lines = ["[cluster]", f"name = {quoted(cluster)}", f"quorum = {quoted(quorum)}", "", "[node]", f"id = {node}"]
    lines += [f"data_dir = {quoted(data_dirs[node])}"] if node in data_dirs else []
    for peer, port in sorted(ports.items()):
        lines += ["", "[[peers]]", f"id = {peer}", f"address = {quoted(f'tcp://{listen_host}:{port}')}"]
        lines += [f"data_dir = {quoted(data_dirs[peer])}"] if peer in data_dirs else []
    lines += ["", "[redis]", f"url = {quoted(redis_url)}"]
    lines += ["", "[timing]"] if timing else []
    lines += [f"{key} = {quoted(v) if isinstance(v, str) else v}" for key, v in (timing or {}).items()]
    lines += ["", "[security]"] if security else []
    lines += [f"{key} = {quoted(value)}" for key, value in (security or {}).items()]
    lines += ["", "[log]", f"format = {quoted(log_format)}", ""]
    return "\n".join(lines)


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
        raise ConfigError(f"{path}: is no valid TOML: {what}; correct that line") from error


def _read(path: Path) -> bytes:
    """What a plain file has: a pipe would make a node that reads it again wait. Raises OSError, ConfigError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        mode = os.fstat(descriptor).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # a directory says of itself that it can't be read
            raise ConfigError(f"{path}: is no file; name an existing file")
        data = os.read(descriptor, _MOST_BYTES + 1)
    finally:
        os.close(descriptor)
    if len(data) > _MOST_BYTES:
        raise ConfigError(f"{path}: is longer than {_MOST_BYTES} bytes; is it a configuration?")
    return data


def _table(problems: list[str], section: str, label: str, table: object) -> dict[str, Any]:
    """Every key of `section` with its value, the default for a bad one; `label` is for messages."""
    keys = {key.name: key for key in SCHEMA[section]}
    values: dict[str, Any] = {name: key.default for name, key in keys.items()}
    if not isinstance(table, dict):
        problems.append(f"{label}: is of type {_kind(table)}, must be a table; write it as a section in brackets")
        return values
    for name, value in table.items():
        key = keys.get(name)
        if key is None:
            problems.append(f"{label}.{name}: unknown key; the nearest is {_nearest(name, keys)}")
        elif type(value) is not key.kind:
            problems.append(f"{label}.{name}: is of type {_kind(value)}, must be of type {_KINDS[key.kind]}")
        elif wrong := key.check(value):
            problems.append(f"{label}.{name}: {wrong}")
        else:
            values[name] = value
    for name, key in keys.items():
        if key.required and name not in table:
            problems.append(f"{label}.{name}: is missing; add a line {name} = ... to this section")
    return values


def _peers(problems: list[str], value: object) -> list[dict[str, Any]]:
    if not isinstance(value, list):
        problems.append(f"peers: is of type {_kind(value)}, must be an array of tables; write [[peers]] for each")
        return []
    return [_table(problems, "peers", f"peers[{number}]", table) for number, table in enumerate(value, 1)]


def _check_members(problems: list[str], node: dict[str, Any], peers: list[dict[str, Any]]) -> None:
    """The members among each other; fills in what this node's own entry decides."""
    own = [peer for peer in peers if peer["id"] == node["id"]]
    if node["id"] and not own:
        problems.append(f"node.id: {node['id']} has no [[peers]] entry; list every member there, this node included")
    elif node["id"] and len(own) > 1:
        problems.append(f"node.id: {node['id']}, this node's own, has {len(own)} [[peers]] entries; keep one")
    elif node["id"]:
        address, data_dir = own[0]["address"], own[0]["data_dir"] or node["data_dir"]
        if address and node["advertise"] not in (None, address):
            problems.append(f'node.advertise: must be this node\'s [[peers]] address "{address}"; leave it out')
        if data_dir != node["data_dir"]:
            problems.append(f"node.data_dir: is {node['data_dir']}, but [[peers]] says {data_dir}; set both alike")
        own[0]["data_dir"] = node["data_dir"]
        node["listen"], node["advertise"] = node["listen"] or address, address
    for name in ("id", "address", "data_dir"):
        values = [str(peer[name] or "").lower() if name != "data_dir" else str(peer[name] or "") for peer in peers]
        for value in sorted(set(values) - {"", str(node["id"]) if name == "id" else ""}):
            places = [f"peers[{at}]" for at, other in enumerate(values, 1) if other == value]
            if len(places) > 1:
                problems.append(f"peers.{name}: {value} stands in {', '.join(places)}; every member needs its own")


def _check_security(problems: list[str], security: dict[str, Any], listen: str | None, base: Path) -> None:
    """Keys, or nobody but this host, or somebody who said in as many words that others may listen in."""
    for name in ("key_file", "directory_file", "operator_key_file"):
        if security[name]:
            security[name] = os.path.abspath(base / security[name])
    secret, directory = security["key_file"], security["directory_file"]
    if bool(secret) != bool(directory):
        missing, given = ("directory_file", "key_file") if secret else ("key_file", "directory_file")
        problems.append(f"security.{missing}: is missing beside {given}; set both, 'zelect keygen' writes both files")
    match = ADDRESS.fullmatch(listen or "")
    if secret or directory or security["allow_plaintext"] or match is None or is_loopback(match["host"]):
        return
    problems.append(
        f"node.listen: {listen} can be reached from other hosts, where anybody could read what members say and speak "
        "in their name; make keys with 'zelect keygen' and name them in [security], or set "
        "security.allow_plaintext = true if only hosts that you trust can reach it"
    )


def _nearest(name: str, valid: Mapping[str, object]) -> str:
    return difflib.get_close_matches(name, valid, n=1, cutoff=0.0)[0]


def _kind(value: object) -> str:
    return _KINDS.get(type(value), "date or time")
