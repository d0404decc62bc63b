"""Connections of a fenced client: they carry what the fence sends, and nothing else.

redis-py has many ways from a method to the server, and new ones come with its releases: pipelines that
modules build for themselves, other clients over the same pool, private methods. All of them end at a
connection, so that is where what didn't come from the fence is refused, before anything is sent.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

_BY_ITSELF = ("AUTH", "PING")
"""What redis-py sends between commands: a renewed credential, a check of the connection's health."""


class Fenced(str):
    """The name of a command that the fence sends: a guarded connection carries no other."""

    __slots__ = ()


class ConnectionGuard:
    """What a guarded connection is besides one of redis-py. Commands that don't come from the fence raise
    ValueError; what is sent while it connects (AUTH, HELLO, CLIENT, SELECT, and what the client's
    `redis_connect_func` sends) passes."""

    _connecting = False

    def connect(self, *words: Any, **options: Any) -> Any:
        return self._while_connecting(super().connect, words, options)  # type: ignore[misc]

    def connect_check_health(self, *words: Any, **options: Any) -> Any:
        return self._while_connecting(super().connect_check_health, words, options)  # type: ignore[misc]

    def _while_connecting(self, how: Callable[..., Any], words: Any, options: Any) -> Any:
        before, self._connecting = self._connecting, True
        try:
            return how(*words, **options)
        finally:
            self._connecting = before

    def send_command(self, *words: Any, **options: Any) -> Any:
        if not (isinstance(words[0], Fenced) or words[0] in _BY_ITSELF):
            self._refuse_unless_connecting(plain(words[0]).upper())
        # Not by redis-py's own method, which hands the packed command to the one below.
        packed = self.pack_command(*words)  # type: ignore[attr-defined]
        return super().send_packed_command(packed, check_health=options.get("check_health", True))  # type: ignore[misc]

    def send_packed_command(self, command: Any, check_health: bool = True) -> Any:
        self._refuse_unless_connecting("a pipeline of redis-py's own")
        return super().send_packed_command(command, check_health=check_health)  # type: ignore[misc]

    def _refuse_unless_connecting(self, name: str) -> None:
        if not self._connecting:
            why = "this way goes past the fence; use the fenced client's commands and its pipeline"
            raise ValueError(f"{name} can't be fenced: {why}")


class AsyncConnectionGuard(ConnectionGuard):
    """The same for asyncio, where connecting is awaited."""

    async def _while_connecting(self, how: Callable[..., Any], words: Any, options: Any) -> Any:
        before, self._connecting = self._connecting, True
        try:
            return await how(*words, **options)
        finally:
            self._connecting = before


@functools.cache
def guarded(kind: Any, guard: type[ConnectionGuard]) -> Any:
    """The class of connections `kind`, guarded."""
    return kind if issubclass(kind, guard) else type(kind.__name__, (guard, kind), {})


def plain(word: Any) -> str:
    """A command's name, or a script, as text."""
    return bytes(word).decode() if isinstance(word, bytes | bytearray | memoryview) else str(word)
