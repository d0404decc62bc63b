"""All sections of a configuration; the small ones are declared here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from zelect.config.http import HttpConfig
from zelect.config.members import ClusterConfig, NodeConfig, PeerConfig
from zelect.config.redis import RedisConfig
from zelect.config.schema import Key, key, keys_of
from zelect.config.security import SecurityConfig
from zelect.config.timing import TIMING_KEYS
from zelect.config.validators import Commands, between, commands, one_of, optional_path
from zelect.core.timing import Timing


@dataclass(frozen=True, slots=True)
class LimitsConfig:
    max_message_bytes: int = key(65_536, between(4096, 2**24, "bytes"))("""
        Longer messages are refused, on both ends. 4096 to 16777216.""")
    max_connections: int = key(512, between(16, 60_000))("""
        Connections that others may have to this node at a time; beyond that, those that have sent no valid
        message yet are closed. 16 to 60000.""")
    max_messages_per_s: int = key(1000, between(100, 1_000_000))("""
        Messages a second of one connection, or of one key; further ones are dropped, and at ten times the
        rate the connection is closed. 100 to 1000000; an election needs some dozens.""")
    max_unread_bytes: int = key(1_048_576, between(2**18, 2**34, "bytes"))("""
        Bytes received and not yet read, of all connections together; beyond that, the connection with the
        most is closed. At least four messages of max_message_bytes may always wait. 262144 to 17179869184.""")


@dataclass(frozen=True, slots=True)
class LogConfig:
    level: str = key("info", one_of("debug", "info", "warning", "error"))("""
        Least level that is written: "debug", "info", "warning" or "error".""")
    format: str = key("text", one_of("text", "json"))("""
        "text" for people, "json" for programs: one line an event.""")
    file: str = key("", optional_path, is_path=True)("""
        "" for standard error; relative to this file.""")


@dataclass(frozen=True, slots=True)
class HooksConfig:
    on_elected: Commands = key([], commands)("""
        Programs that this node runs when something changes, one after the other, alongside the election:
        "program argument", split as a shell would but without a shell, or ["program", "argument"]. They
        find ZELECT_HOOK, ZELECT_NODE, ZELECT_TERM, ZELECT_ROLE, ZELECT_CONTROLLER, ZELECT_PREVIOUS,
        ZELECT_REASON and ZELECT_LEASE_MS. They are for notification, not for the work itself: for that see
        "zelect run". These run when this node becomes active.""")
    on_deposed: Commands = key([], commands)("These run when it stops being active.")
    on_controller_changed: Commands = key([], commands)("""
        These run when another node becomes controller, or when none is known (ZELECT_CONTROLLER is empty).""")
    timeout_ms: int = key(10_000, between(1, 3_600_000, "ms"))("""
        A program that takes longer is killed, with its process group.""")
    retries: int = key(3, between(0, 1000))("""
        How many times a program that ends with retry_code is run again, each time after retry_after_ms.
        Other codes are noted in the log.""")
    retry_code: int = key(75, between(1, 255))("""
        75 means "try again later" in sysexits.h.""")
    retry_after_ms: int = key(500, between(0, 3_600_000, "ms"))("0 to 3600000.")


SECTIONS: Mapping[str, type] = {
    "cluster": ClusterConfig,
    "node": NodeConfig,
    "peers": PeerConfig,
    "redis": RedisConfig,
    "timing": Timing,
    "limits": LimitsConfig,
    "security": SecurityConfig,
    "log": LogConfig,
    "hooks": HooksConfig,
    "http": HttpConfig,
}
"""In the order of the reference; `peers` is an array of tables."""

SCHEMA: Mapping[str, tuple[Key, ...]] = {
    name: TIMING_KEYS if section is Timing else keys_of(section) for name, section in SECTIONS.items()
}
"""Section to its keys."""
