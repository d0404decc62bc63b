"""Frozen dataclasses to JSON and back, by their annotations: so each fact is declared once.

A time is in whole microseconds in memory (`lease_left_us`) and in milliseconds in JSON
(`lease_left_ms`). Fields that have their default are left out of JSON, and defaulted when it is read;
other missing keys, and values of a wrong type, are refused. Unknown keys are ignored.

Why not msgspec: its import takes 30 ms and 1.8 MB, of some 26 MB that a node takes in all. A node only
writes, for which the names of the fields are enough.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from zelect.system.foreign import shown

_MOST = 1 << 63
_MOST_US = 1 << 51
"""Seventy years. A larger time in milliseconds, with its fraction, does not come back from a float as it was."""
Value = TypeVar("Value")


class WrongShape(ValueError):
    """JSON that is not what it should be. The message names the field."""


def plain(value: Any) -> Any:
    """What `json.dumps` takes, for a dataclass, a tuple of them, or a value."""
    if isinstance(value, tuple):
        return [plain(one) for one in value]
    if isinstance(value, Mapping):
        return dict(value)
    if not is_dataclass(value) or isinstance(value, type):
        return value
    table = {}
    for name, key, is_time, default in _fields(type(value)):
        one = getattr(value, name)
        if one == default and default is not MISSING:
            continue
        if is_time:
            table[key] = None if one is None else round(one / 1000, 3)
        else:
            table[key] = one if type(one) in _SCALARS else plain(one)
    return table


_SCALARS = frozenset({int, str, bool, type(None)})


def read(kind: type[Value], value: object, where: str = "") -> Value:
    """The `kind` that `value`, from `read_json`, stands for. Texts are made fit to be shown. Raises `WrongShape`."""
    return cast(Value, _read(kind, value, where))


@cache
def _fields(kind: type) -> tuple[tuple[str, str, bool, object], ...]:
    """Name, JSON key, whether it is a time, and default of each field."""
    found = []
    for field in fields(kind):
        is_time = field.name.endswith("_us")
        key = field.name.removesuffix("_us") + "_ms" if is_time else field.name
        found.append((field.name, key, is_time, field.default))
    return tuple(found)


_hints = cache(get_type_hints)


def _read(hint: Any, value: object, where: str) -> object:
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (types.UnionType, Union):  # of one type and None
        return None if value is None else _read(inner[0], value, where)
    if origin is tuple:
        return tuple(_read(inner[0], one, where) for one in _typed(list, value, where))
    if origin is not None and issubclass(origin, Mapping):
        return {key: _read(inner[1], one, f"{where}.{key}") for key, one in _typed(dict, value, where).items()}
    if not is_dataclass(hint):
        return _typed(cast(type, hint), value, where)
    table, hints, found = _typed(dict, value, where or "it"), _hints(cast(type, hint)), {}
    for name, key, is_time, default in _fields(cast(type, hint)):
        place = f"{where}.{key}" if where else key
        if key in table:
            one = table[key]
            found[name] = _read(hints[name], _us(one, place) if is_time and one is not None else one, place)
        elif default is MISSING:
            raise WrongShape(f"{place} is missing")
    return cast(type, hint)(**found)


def _us(value: object, where: str) -> int:
    if type(value) not in (int, float) or not -_MOST_US < cast(float, value) * 1000 < _MOST_US:
        raise WrongShape(f"{where} is {value!r:.40}")
    return round(cast(float, value) * 1000)


def _typed(kind: type, value: object, where: str) -> Any:
    if type(value) is not kind or (kind is int and not -_MOST < cast(int, value) < _MOST):  # True is not a number
        raise WrongShape(f"{where} is {value!r:.40}")
    return shown(cast(str, value)) if kind is str else value
