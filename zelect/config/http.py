"""The section [http] of a configuration: where the node answers over HTTP, if it does."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from zelect.config.validators import is_loopback, quoted

__all__ = ["HttpConfig", "contradictions", "http_listen", "split"]

_ADDRESS = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+):(?P<port>[1-9][0-9]{0,4})")


@dataclass(frozen=True, slots=True)
class HttpConfig:
    """`listen`: "host:port"; empty: no HTTP."""

    listen: str
    allow_remote: bool


def http_listen(value: str) -> str:
    match = _ADDRESS.fullmatch(value)
    if not value or (match and int(match["port"]) <= 65535):
        return ""
    return f'is {quoted(value)}; write "127.0.0.1:8101", an IPv6 address in brackets, or "" for no HTTP'


def split(listen: str) -> tuple[str, int]:
    """Host, without brackets, and port."""
    host, _, port = listen.rpartition(":")
    return host.strip("[]"), int(port)


def contradictions(http: Mapping[str, Any]) -> list[tuple[str, str]]:
    """How the keys of [http] contradict each other."""
    if not http["listen"] or http["allow_remote"] or is_loopback(http["listen"].rpartition(":")[0]):
        return []
    return [
        (
            "listen",
            f"{http['listen']} can be reached from other hosts, and HTTP asks nobody who he is; write 127.0.0.1, or "
            "set http.allow_remote = true where all who reach it may read the node's state",
        )
    ]
