"""The section [redis] of a configuration: where Redis is, who comes, and what TLS rests on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlsplit

__all__ = ["RedisConfig", "contradictions", "redis_url"]

_OPTIONS = ("db", "username", "password", "client_name", "protocol")
"""What a URL may hold after "?" (and options of TLS, which are refused with their own fix). Time-outs and
retries are this program's."""


@dataclass(frozen=True, slots=True)
class RedisConfig:
    """The registry; an empty `url` means none. It may hold a password. Files: absolute paths,
    or empty."""

    url: str = field(repr=False)
    ttl_ms: int
    timeout_ms: int
    username: str
    password_file: str
    password_env: str
    ca_file: str
    cert_file: str
    key_file: str
    tls_verify: bool


def redis_url(value: str) -> str:
    """The text must not show the URL: it may hold a password."""
    try:
        parts = urlsplit(value)
        usable = bool(parts.path) if parts.scheme == "unix" else bool(parts.hostname) and parts.port != 0
        usable = usable and (parts.scheme == "unix" or parts.path in ("", "/") or parts.path[1:].isdigit())
        usable = usable and all(
            (name in _OPTIONS or name.startswith("ssl_")) and (name != "db" or text.isdigit())
            for name, text in parse_qsl(parts.query, keep_blank_values=True)
        )
    except ValueError:
        usable = False
    if not value or (usable and parts.scheme in ("redis", "rediss", "unix")):
        return ""
    return (
        'is no URL of a Redis; write "redis://host:port/0" (a database by its number), "rediss://host:port/0", '
        f'"unix:///path" or "" for none; options after "?": {", ".join(_OPTIONS)}'
    )


def contradictions(redis: Mapping[str, Any]) -> list[tuple[str, str]]:
    """How the keys of [redis] contradict each other. The texts don't show the URL."""
    parts, found = urlsplit(redis["url"]), list[tuple[str, str]]()
    places = ["redis.url"] if parts.password or "password=" in parts.query else []
    places += [f"redis.{key}" for key in ("password_file", "password_env") if redis[key]]
    if len(places) > 1:
        found.append((places[1].removeprefix("redis."), f"{' and '.join(places)} both give a password; keep one"))
    if redis["username"] and (parts.username or places in ([], ["redis.url"])):
        found.append(("username", "goes with password_file or password_env; set one, and no user in redis.url"))
    if "ssl_" in parts.query:
        found.append(("url", "holds options of TLS; set redis.ca_file, cert_file, key_file or tls_verify instead"))
    tls = [
        key for key in ("ca_file", "cert_file", "key_file", "tls_verify") if redis[key] != (key == "tls_verify" or "")
    ]
    if tls and parts.scheme != "rediss":
        found.append((tls[0], "is for TLS only; write rediss:// in redis.url"))
    if bool(redis["cert_file"]) != bool(redis["key_file"]):
        found.append(("cert_file", "and redis.key_file go together; set both or neither"))
    return found
