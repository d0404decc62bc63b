"""How a key of the configuration is declared: once, as a field of its section's dataclass.

    ttl_ms: int = key(3000, between(2000, 86_400_000, "ms"))("The controller's record expires after ...")

Name and type are the field's; `key` adds the default, the check, and the text for people. Reading, the errors
with their fixes, the nearest key for a misspelt one, and conf/reference.toml all follow from that. What
keys of one section require of each other stands in the section's method `problems`.

Why no library: a file's problems must be reported all at once, each with its key and fix. msgspec stops
at the first (and adds 2 MB and 40 ms to a node), cattrs collects but knows no fixes (2 MB, 60 ms), pydantic
does both and more (17 MB, 400 ms: a whole node takes less memory). What they would save is this module.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from zelect.config.validators import words_of

REQUIRED: Any = object()
"""Instead of a default."""

_REMOVED = {
    "node.advertise": "is no longer a key: others connect to the address in this node's [[peers]] entry; remove "
    "the line",
}
KINDS: Mapping[type, str] = {
    str: "text", int: "integer", bool: "boolean", float: "float", dict: "table", list: "array"
}  # fmt: skip
"""Types of TOML, for people."""
_TOML: Mapping[str, type] = {
    **{"str": str, "int": int, "bool": bool, "Path": str, "Path | None": str, "Commands": list}
}


@dataclasses.dataclass(frozen=True, slots=True)
class Key:
    """A key as its section declares it. `kind`: its type in TOML. `default` None: derived from other keys, or
    optional. `check` says what is wrong with a value of the right type, with the fix; empty when nothing.
    `example`: its TOML where no default can be shown. `is_path`: relative to the file, unless empty."""

    name: str
    kind: type
    default: Any
    check: Callable[[Any], str]
    text: str
    example: str
    is_path: bool


def key(
    default: Any = REQUIRED,
    check: Callable[[Any], str] = lambda value: "",
    *,
    example: str = "",
    is_path: bool = False,
    repr: bool = True,
) -> Callable[[str], Any]:
    """Declare a key in a dataclass: `key(...)(text)`; see `Key`. `repr` False: its value may hold a secret."""

    def declared(text: str) -> Any:
        return dataclasses.field(
            repr=repr, metadata={"key": (default, check, " ".join(text.split()), example, is_path)}
        )

    return declared


def keys_of(section: type) -> tuple[Key, ...]:
    """The keys that the dataclass `section` declares, in order."""
    return tuple(
        Key(field.name, _TOML[str(field.type)], *field.metadata["key"]) for field in dataclasses.fields(section)
    )


def table_of(problems: list[str], label: str, keys: Sequence[Key], table: object, base: Path) -> dict[str, Any]:
    """The value of each of `keys` in a TOML table, the default for a bad one. `label` names the table in what is
    added to `problems`; `base` is the directory that paths are relative to."""
    valid = {key.name: key for key in keys}
    values = {key.name: None if key.default is REQUIRED else key.default for key in keys}
    if not isinstance(table, dict):
        problems.append(f"{label}: is of type {kind_of(table)}, but must be a table; write it as a section in brackets")
        return values
    for name, value in table.items():
        key = valid.get(name)
        if key is None:
            what = _REMOVED.get(f"{label}.{name}", f"unknown key; the nearest is {nearest(name, valid)}")
            problems.append(f"{label}.{name}: {what}")
        elif type(value) is not key.kind:
            problems.append(f"{label}.{name}: is of type {kind_of(value)}, but must be of type {KINDS[key.kind]}")
        elif wrong := key.check(value):
            problems.append(f"{label}.{name}: {wrong}")
        else:
            values[name] = value
    for key in keys:
        if key.default is REQUIRED and key.name not in table:
            problems.append(f"{label}.{key.name}: is missing; add a line {key.name} = ... to this section")
    return {key.name: _value(key, values[key.name], base) for key in keys}


def nearest(name: str, valid: Mapping[str, object]) -> str:
    return difflib.get_close_matches(name, valid, n=1, cutoff=0.0)[0]


def _value(key: Key, value: Any, base: Path) -> Any:
    """`value` as the section holds it."""
    if key.kind is list:
        return words_of(value)
    return os.path.abspath(base / value) if key.is_path and value else value


def kind_of(value: object) -> str:
    """The type of a value in TOML, for people."""
    return KINDS.get(type(value), "date or time")
