"""Writes that an old controller cannot do (docs/fencing.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zelect.fencing.core import FenceBroken, FencedOut
    from zelect.fencing.files import write_file
    from zelect.fencing.sql import fenced_postgres, fenced_sqlite, prepare_postgres, prepare_sqlite

_HOMES = {
    "FenceBroken": "core",
    "FencedOut": "core",
    "fenced_postgres": "sql",
    "fenced_sqlite": "sql",
    "prepare_postgres": "sql",
    "prepare_sqlite": "sql",
    "write_file": "files",
}

__all__ = [
    "FenceBroken",
    "FencedOut",
    "fenced_postgres",
    "fenced_sqlite",
    "prepare_postgres",
    "prepare_sqlite",
    "write_file",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'zelect.fencing' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"zelect.fencing.{_HOMES[name]}"), name)
