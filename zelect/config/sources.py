"""Where a configuration comes from besides its file: the environment, the command line, the host's name.

So one file may be the same on all hosts. `ZELECT_REDIS__URL` sets the key `url` of [redis], and so on for every key;
`ZELECT_PEERS` sets all members, `ZELECT_NODE_ID` this node's id. What is set there wins over the file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from zelect.config.schema import KINDS, Key, nearest
from zelect.config.sections import SCHEMA
from zelect.config.validators import quoted

NO_FILE = Path(os.devnull)
"""Named as the file: there is none, and all keys are in the environment."""
FILE_VARIABLE, ID_VARIABLE, PEERS_VARIABLE = "ZELECT_CONFIG", "ZELECT_NODE_ID", "ZELECT_PEERS"
IN_THIS_DIRECTORY, OF_THIS_HOST = Path("zelect.toml"), Path("/etc/zelect/zelect.toml")
"""Where a file is looked for that nobody named."""

_SECTION_AND_KEY = re.compile(r"ZELECT_([A-Za-z]+)__([A-Za-z_]+)")
_FROM_HOSTNAME = re.compile(r"from-hostname(?:\+(\d{1,5}))?")


def find(environ: Mapping[str, str]) -> Path | None:
    """The configuration that counts where none is named: that of `ZELECT_CONFIG`, else zelect.toml in this
    directory, else the host's own, if there is one; none at all where the environment names the cluster."""
    if named := environ.get(FILE_VARIABLE):
        return Path(named)
    if found := next((path for path in (IN_THIS_DIRECTORY, OF_THIS_HOST) if path.exists()), None):
        return found
    return NO_FILE if _variable("cluster", "name") in environ else None


def without(environ: Mapping[str, str]) -> dict[str, str]:
    """`environ` without what changes a configuration: for nodes whose file holds everything."""
    special = {FILE_VARIABLE, ID_VARIABLE, PEERS_VARIABLE}
    return {name: text for name, text in environ.items() if name not in special and not _SECTION_AND_KEY.match(name)}


def overlay(raw: dict[str, Any], environ: Mapping[str, str], problems: list[str]) -> dict[str, str]:
    """Put what `environ` sets into `raw`, a parsed file, and what is wrong with it into `problems`. Returns the
    variable of each key, as in ``{"redis.url": "ZELECT_REDIS__URL"}``."""
    origins = dict[str, str]()
    for variable, section, key, text in _set_in(environ, problems):
        if (section, key.name) == ("node", "id"):
            continue  # `set_id`
        table = raw.setdefault(section, {})
        if not isinstance(table, dict):
            continue  # the file's own problem
        value = _value(key.kind, text)
        if value is None:
            problems.append(f"{variable}: is {quoted(text)}; must be of type {KINDS[key.kind]}")
            table.pop(key.name, None)
            continue
        table[key.name] = value
        origins[f"{section}.{key.name}"] = variable
    if listed := environ.get(PEERS_VARIABLE):
        raw["peers"], origins["peers"] = list(_members(listed, problems)), PEERS_VARIABLE
    return origins


def _set_in(environ: Mapping[str, str], problems: list[str]) -> Iterator[tuple[str, str, Key, str]]:
    known = {_variable(section, key.name): (section, key) for section, key in _keys()}
    for variable in sorted(environ):
        if variable in known:
            section, key = known[variable]
            yield variable, section, key, environ[variable]
        elif _SECTION_AND_KEY.fullmatch(variable):
            problems.append(f"{variable}: sets no key; the nearest is {nearest(variable, known)}")


def _keys() -> Iterator[tuple[str, Key]]:
    return ((section, key) for section, keys in SCHEMA.items() if section != "peers" for key in keys)


def _variable(section: str, key: str) -> str:
    return f"ZELECT_{section.upper()}__{key.upper()}"


def _value(kind: type, text: str) -> Any:
    """`text` as a value of that type in TOML; None: it is none. A list is one command."""
    if kind is int:
        return int(text) if re.fullmatch(r"-?[0-9]{1,18}", text) else None
    if kind is bool:
        return {"true": True, "false": False}.get(text)
    return [text] if kind is list else text


def _members(listed: str, problems: list[str]) -> Iterator[dict[str, Any]]:
    for item in re.split(r"[\s,]+", listed.strip()):
        node, found, address = item.partition("=")
        if found and re.fullmatch(r"[0-9]{1,9}", node):
            yield {"id": int(node), "address": address}
        else:
            problems.append(
                f"{PEERS_VARIABLE}: {quoted(item)} is no member; write 1=tcp://host:port, with commas between members"
            )


def set_id(
    raw: dict[str, Any],
    given: int,
    environ: Mapping[str, str],
    host: str,
    problems: list[str],
) -> str:
    """Put this node's id into `raw`: `given` on the command line (0: none), else that of the environment, else that
    of the file, which may be the number at the end of the name of `host`. Returns where it is from, "" for the file."""
    table = raw.setdefault("node", {})
    if not isinstance(table, dict):
        return ""
    if given:
        table["id"] = given
        return "--id"
    variable = next((name for name in (ID_VARIABLE, _variable("node", "id")) if environ.get(name)), "")
    said, origin = environ.get(variable) or table.get("id"), variable
    if isinstance(said, str) and (rule := _FROM_HOSTNAME.fullmatch(said)):
        number, origin = re.search(r"[0-9]{1,5}$", host), f"the host's name, {host}"
        if number is None:
            problems.append(
                f'node.id: is "{said}", but the host\'s name, {host}, does not end in a number; give --id N or '
                f"{ID_VARIABLE}=N"
            )
        said = int(number[0]) + int(rule[1] or 0) if number is not None else None
    elif isinstance(said, str):
        if not re.fullmatch(r"[0-9]{1,9}", said):
            problems.append(
                f'{variable or "node.id"}: is {quoted(said)}; write a number, or "from-hostname" for the one at the '
                'end of the host\'s name ("from-hostname+1" for one more)'
            )
            said = None
        else:
            said = int(said) if variable else said  # in the file a number has no quotes
    table.pop("id", None)
    if said is not None:
        table["id"] = said
    return origin


def fill_id(raw: dict[str, Any]) -> None:
    """Put this node's id where a path has ``{id}``, as in ``keys/n{id}.key``."""
    node = raw["node"].get("id") if isinstance(raw["node"], dict) else None
    for section, key in _keys():
        table = raw.get(section)
        if key.is_path and node is not None and isinstance(table, dict) and isinstance(table.get(key.name), str):
            table[key.name] = table[key.name].replace("{id}", str(node))
