"""The section [http] of a configuration: where the node answers over HTTP, if it does."""

from __future__ import annotations

import re
from dataclasses import dataclass

from zelect.config.schema import key
from zelect.config.validators import is_loopback, quoted

_ADDRESS = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+|\*):(?P<port>[1-9][0-9]{0,4})")


def http_listen(value: str) -> str:
    match = _ADDRESS.fullmatch(value)
    if not value or (match and int(match["port"]) <= 65535):
        return ""
    return f'is {quoted(value)}; write "127.0.0.1:8101", an IPv6 address in brackets, or "" for no HTTP'


@dataclass(frozen=True, slots=True)
class HttpConfig:
    listen: str = key("", http_listen)("""
        Where the node answers over HTTP, "127.0.0.1:8101" say: probes, its status, metrics (docs/http.md). The
        host may be * or [::] (every interface, IPv4 and IPv6), or 0.0.0.0 (IPv4). "" for nowhere. Needs an extra:
        pip install 'zelect[http]'.""")
    allow_remote: bool = key(False)("""
        true allows an address that other hosts can reach. HTTP has no authentication and no encryption
        here.""")

    def problems(self) -> list[tuple[str, str]]:
        if not self.listen or self.allow_remote or is_loopback(self.listen.rpartition(":")[0]):
            return []
        return [
            (
                "listen",
                f"{self.listen} can be reached from other hosts, and HTTP has no authentication; write 127.0.0.1, or "
                "set http.allow_remote = true where everybody who can reach it may read the node's state",
            )
        ]


def split(listen: str) -> tuple[str, int]:
    """Host, without brackets, and port."""
    host, _, port = listen.rpartition(":")
    return host.strip("[]"), int(port)
