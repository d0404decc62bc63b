"""What counts in a configuration, and where each value was set; and the schema of the file for editors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from zelect.config.loading import Config
from zelect.config.schema import REQUIRED, Key
from zelect.config.sections import SCHEMA

DEFAULT = "default"
_JSON_TYPES = {str: "string", int: "integer", bool: "boolean", list: "array"}


@dataclass(frozen=True, slots=True)
class Setting:
    """A key that counts: ``section.key``, its value as text, and where it was set."""

    key: str
    value: str
    origin: str


def settings_of(config: Config, redis_url: str) -> Iterator[Setting]:
    """All of them, in the order of the reference. `redis_url`: that of the configuration without its secrets."""
    for name, keys in SCHEMA.items():
        if name == "peers":
            origin = config.origins.get("peers", DEFAULT)
            yield from (Setting(f"peers.{peer.id}", peer.address, origin) for peer in config.peers)
            continue
        section = getattr(config, name)
        for key in keys:
            full = f"{name}.{key.name}"
            value = redis_url if full == "redis.url" else getattr(section, key.name)
            value = None if full == "node.id" and not value else value  # who only asks is no node
            yield Setting(full, _text(value), config.origins.get(full, DEFAULT))


def _text(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return "; ".join(" ".join(words) for words in value)
    return "" if value is None else str(value)


def json_schema() -> dict[str, Any]:
    """A JSON schema of the file, by which editors complete and explain its keys."""
    tables = {name: _table(keys) for name, keys in SCHEMA.items()}
    tables["peers"] = {"type": "array", "items": tables["peers"]}
    tables["node"]["properties"]["id"]["type"] = ["integer", "string"]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Configuration of a zelect node",
        "type": "object",
        "additionalProperties": False,
        "properties": tables,
    }


def _table(keys: tuple[Key, ...]) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": False, "properties": {key.name: _property(key) for key in keys}}


def _property(key: Key) -> dict[str, Any]:
    known = {} if key.default is REQUIRED or key.default is None else {"default": key.default}
    return {"type": _JSON_TYPES[key.kind], "description": key.text, **known}
