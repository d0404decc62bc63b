"""The section [redis] of a configuration: where Redis is, as which user, and what TLS rests on."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import parse_qsl, urlsplit

from zelect.config.schema import key
from zelect.config.validators import between, optional_path

_OPTIONS = ("db", "username", "password", "client_name", "protocol")
"""What a URL may hold after "?" (and options of TLS, which are refused with their own fix). Time-outs and
retries are this program's."""


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
        'is not the URL of a Redis server; write "redis://host:port/0" (a database by its number), '
        f'"rediss://host:port/0", "unix:///path" or "" for none; options after "?": {", ".join(_OPTIONS)}'
    )


@dataclass(frozen=True, slots=True)
class RedisConfig:
    """An empty `url` means no registry. It may hold a password. Files: absolute paths, or empty."""

    url: str = key("redis://127.0.0.1:6379/0", redis_url, repr=False)("""
        The registry: redis://, rediss:// (TLS) or unix://; "" for none. No election waits for it. A
        password in it is not printed, but everybody who reads this file sees it: it is better to name its
        file below.""")
    ttl_ms: int = key(3000, between(2000, 86_400_000, "ms"))("""
        The controller's record expires after this time unless refreshed, so that none stays after a power
        cut. 2000 to 86400000: it is refreshed every second.""")
    timeout_ms: int = key(200, between(1, 60_000, "ms"))("How long one request to Redis may take. 1 to 60000.")
    username: str = key("")("""
        The ACL user; "" for the default one. docs/security.md has the permissions that it needs.""")
    password_file: str = key("", optional_path, is_path=True)("""
        A file with the password in one line, that only the node's user can read; relative to this file.
        Read at each connection: a changed password needs no restart. "" for none.""")
    password_env: str = key("")("""
        Or the environment variable that holds the password; "" for none.""")
    ca_file: str = key("", optional_path, is_path=True)("""
        rediss:// only: the authority that issued the server's certificate, a PEM file; relative to this
        file. "" trusts the system's authorities.""")
    cert_file: str = key("", optional_path, is_path=True)("""
        The node's own certificate, a PEM file, where the server requires one; relative to this file. Set
        together with key_file.""")
    key_file: str = key("", optional_path, is_path=True)("""
        The certificate's key, a PEM file (mode 0600, not encrypted); relative to this file.""")
    tls_verify: bool = key(True)("""
        false accepts any server's certificate, so that anybody on the path can read and change
        everything. For trials only; the node warns.""")

    def problems(self) -> list[tuple[str, str]]:
        """How the keys contradict each other. The texts don't show the URL."""
        parts, found = urlsplit(self.url), list[tuple[str, str]]()
        places = ["redis.url"] if parts.password or "password=" in parts.query else []
        places += [f"redis.{key}" for key in ("password_file", "password_env") if getattr(self, key)]
        if len(places) > 1:
            found.append((places[1].removeprefix("redis."), f"{' and '.join(places)} both give a password; keep one"))
        if self.username and (parts.username or places in ([], ["redis.url"])):
            found.append(("username", "goes with password_file or password_env; set one, and no user in redis.url"))
        if "ssl_" in parts.query:
            found.append(("url", "holds options of TLS; set redis.ca_file, cert_file, key_file or tls_verify instead"))
        tls = [
            key
            for key in ("ca_file", "cert_file", "key_file", "tls_verify")
            if getattr(self, key) != (key == "tls_verify" or "")
        ]
        if tls and parts.scheme != "rediss":
            found.append((tls[0], "is for TLS only; write rediss:// in redis.url"))
        if bool(self.cert_file) != bool(self.key_file):
            found.append(("cert_file", "and redis.key_file go together; set both or neither"))
        return found
