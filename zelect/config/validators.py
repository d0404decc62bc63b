"""What single values of the configuration may be. Each check returns what is wrong with a value,
with the fix; empty when nothing is wrong."""

from __future__ import annotations

import ipaddress
import json
import re
import shlex
from collections.abc import Callable
from typing import Any

Commands = tuple[tuple[str, ...], ...]
"""Programs to run, each as a tuple of words."""

MAX_PORT = 32_767
"""Largest port of a node. Above lie the ephemeral ports: a peer that retries a dead port there
sooner or later connects to itself and then holds the port."""

ADDRESS = re.compile(
    r"tcp://(?P<host>\[[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*\]|[A-Za-z0-9_.-]+|\*):(?P<port>0|[1-9][0-9]{0,4})"
)


def between(least: int, most: int, unit: str = "") -> Callable[[int], str]:
    return lambda value: (
        "" if least <= value <= most else f"is {value}; must lie between {least} and {most}{unit and ' ' + unit}"
    )


def one_of(*choices: str) -> Callable[[str], str]:
    listed = ", ".join(f'"{choice}"' for choice in choices)
    return lambda value: "" if value in choices else f"is {quoted(value)}; set one of {listed}"


def cluster_name(value: str) -> str:
    fine = re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", value)
    return "" if fine else f"is {quoted(value)}; use 1 to 64 of the characters A-Z a-z 0-9 _ . -"


def address(wildcard: bool) -> Callable[[str], str]:
    def check(value: str) -> str:
        match = ADDRESS.fullmatch(value)
        if not match:
            return f'is {quoted(value)}; write "tcp://host:port", an IPv6 address in brackets'
        host, port = match["host"], int(match["port"])
        if not 1 <= port <= MAX_PORT:
            return (
                f"has port {port}; choose one from 1 to {MAX_PORT}; higher ports are ephemeral, and a peer that "
                "retries a dead one can connect to itself and then block it"
            )
        if not wildcard and not host.strip("*[0:.]"):
            return f"names every interface ({host}); write the address that other members connect to"
        return ""

    return check


def path(value: str) -> str:
    return "" if value and "\0" not in value else "is empty or has a zero byte; write a path"


def commands(value: list[Any]) -> str:
    for number, command in enumerate(value, 1):
        words = [command] if isinstance(command, str) else command
        if not isinstance(words, list) or not words or not all(isinstance(w, str) and "\0" not in w for w in words):
            return f'command {number} is {command!r:.40}; write "program argument" or ["program", "argument"]'
        try:
            if not (shlex.split(command) if isinstance(command, str) else words[0]):
                return f"command {number} is empty; write a program, or leave it out"
        except ValueError as error:
            return f"command {number} can't be split into words: {str(error).lower()}; fix its quotes"
    return ""


def words_of(value: list[Any]) -> Commands:
    """Each command as a tuple of words."""
    return tuple(tuple(shlex.split(command) if isinstance(command, str) else command) for command in value)


def optional_path(value: str) -> str:
    return value and path(value)


def is_loopback(host: str) -> bool:
    """Whether only this host can reach `host`, an address or "localhost"."""
    try:
        address = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return host == "localhost"
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def quoted(text: str) -> str:
    """`text` as a TOML string: JSON's escapes are TOML's, except for DEL."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007F")
