"""Configurations as text: a node's file, and the reference of all keys (conf/reference.toml).

python -m zelect.config.rendering > conf/reference.toml
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

from zelect.config.schema import REQUIRED, Key
from zelect.config.sections import SCHEMA
from zelect.config.validators import quoted

_OPENING = (
    "Every key of a node's configuration. Values are the defaults. A required key has an example instead; an optional "
    "key without a default is commented out. Unknown keys are errors. Each key can be set by the environment instead: "
    "url in [redis] by ZELECT_REDIS__URL, all members by ZELECT_PEERS=1=tcp://a:7101,2=tcp://b:7101. Durations are in "
    "milliseconds and end in _ms, sizes in bytes and end in _bytes. This file is written by "
    "'python -m zelect.config.rendering'."
)
_PEERS = (
    "One [[peers]] section for every member, this node included. New nodes found their cluster when all of these have "
    "answered. Later they are the places where a node looks for the others when it starts; who belongs, and votes, is "
    "in the voter record ('zelect members'), so old files may lag behind."
)
_OTHER_PEERS = "".join(f'\n[[peers]]\nid = {node}\naddress = "tcp://127.0.0.1:710{node}"\n' for node in (2, 3))


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
    peers: list[Mapping[str, object]] = [
        {"id": peer, "address": f"tcp://{listen_host}:{port}"}
        | ({"data_dir": data_dirs[peer]} if peer in data_dirs else {})
        for peer, port in sorted(ports.items())
    ]
    sections: list[tuple[str, Mapping[str, object]]] = [
        ("[cluster]", {"name": cluster, "quorum": quorum}),
        ("[node]", {"id": node}),
        *(("[[peers]]", peer) for peer in peers),
        ("[redis]", {"url": redis_url}),
        ("[timing]", timing or {}),
        ("[security]", security or {}),
        ("[log]", {"format": log_format}),
    ]
    return render_all(sections)


def render_all(sections: Sequence[tuple[str, Mapping[str, object]]]) -> str:
    """TOML: headers with their keys; a section without keys is left out."""
    return "\n".join(
        f"{header}\n" + "".join(f"{name} = {_toml(value)}\n" for name, value in values.items())
        for header, values in sections
        if values
    )


def reference() -> str:
    """The text of conf/reference.toml."""
    parts = [_comment(_OPENING)]
    for name, keys in SCHEMA.items():
        header = f"\n[{name}]\n" if name != "peers" else f"\n{_comment(_PEERS)}[[peers]]\n"
        parts += [header, *(_comment(key.text) + _line(key) for key in keys)]
        parts += [_OTHER_PEERS] if name == "peers" else []
    return "".join(parts)


def _line(key: Key) -> str:
    if key.default is None:
        return f"# {key.name} = {key.example}\n"
    return f"{key.name} = {key.example if key.default is REQUIRED else _toml(key.default)}\n"


def _comment(text: str) -> str:
    return "".join(f"# {line}\n" for line in textwrap.wrap(text, 98, break_on_hyphens=False))


def _toml(value: object) -> str:
    return quoted(value) if isinstance(value, str) else str(value).lower()


if __name__ == "__main__":
    print(reference(), end="")
