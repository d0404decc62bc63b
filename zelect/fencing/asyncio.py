"""`zelect.FencedRedis` for asyncio: the same scripts and the same refusals, sent by redis.asyncio."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import redis.asyncio
from redis.asyncio.client import Pipeline
from redis.asyncio.lock import Lock
from redis.exceptions import NoScriptError, ResponseError

from zelect.fencing.connection_guard import AsyncConnectionGuard, Fenced, guarded, plain
from zelect.fencing.sync import (
    Fence,
    HasTerm,
    OneConnection,
    check_piped,
    lock_kind,
    lock_scripts,
    meant,
    options_of,
    refuse,
    refuse_lock,
    to_register,
)

__all__ = ["AsyncFencedLock", "AsyncFencedPipeline", "AsyncFencedRedis", "AsyncFencedScript"]


class AsyncFencedRedis(OneConnection, redis.asyncio.Redis):  # type: ignore[misc]
    """A client like `client`, a redis.asyncio.Redis, every command of which is refused with `FencedOut`
    when `resource` has heard of a newer term. See `zelect.fencing.sync.FencedRedis`."""

    def __init__(self, client: redis.asyncio.Redis, resource: str, term: HasTerm | int) -> None:
        if not isinstance(client, redis.asyncio.Redis):
            raise TypeError(
                f"client is a {type(client).__name__}; give a redis.asyncio.Redis, or see zelect.FencedRedis"
            )
        self._fence = Fence(resource, term)
        self.resource, self.term, self.token = resource, self._fence.term, self._fence.token
        options = options_of(client.connection_pool)
        ordinary: Any = client.connection_pool.connection_class
        kind = guarded(ordinary, AsyncConnectionGuard)
        super().__init__(connection_pool=redis.asyncio.ConnectionPool(connection_class=kind, **options))

    def key(self, name: str) -> str:
        """`name` with the resource's tag, so that a Redis Cluster keeps it beside the token."""
        return f"{{{self.resource}}}:{name}"

    async def execute_command(self, *words: Any, **options: Any) -> Any:
        """One command, fenced. Raises `FencedOut`, and what redis-py raises."""
        if plain(words[0]).upper() in ("EVAL", "EVAL_RO"):
            return await self._send(*self._fence.script(words[1], words[2], words[3:]))
        (result,) = await self.run_all([(words, options)])
        if isinstance(result, Exception):
            raise result
        return result

    async def run_all(self, commands: Sequence[tuple[tuple[Any, ...], dict[str, Any]]]) -> list[Any]:
        """Several commands in one script, all or none of them; failures of single ones stand in the
        list as exceptions."""
        raw = await self._send(*self._fence.commands(commands))
        callbacks = self.response_callbacks
        return [
            meant(callbacks, command[0], result, options)
            for (command, options), result in zip(commands, raw, strict=True)
        ]

    def pipeline(self, transaction: bool = True, shard_hint: Any = None) -> AsyncFencedPipeline:
        """Commands that are sent, and carried out, together: all of them, or none when fenced out."""
        return AsyncFencedPipeline(self)

    def register_script(self, script: str | bytes) -> AsyncFencedScript:  # type: ignore[override]
        """`script`, fenced, to be called with keys and args."""
        return AsyncFencedScript(self, to_register(script))

    def lock(
        self,
        name: Any,
        timeout: float | None = None,
        sleep: float = 0.1,
        blocking: bool = True,
        blocking_timeout: float | None = None,
        lock_class: Any = None,
        thread_local: bool = True,
        raise_on_release_error: bool = True,
    ) -> AsyncFencedLock:
        """redis-py's lock, each step of it fenced, as `FencedRedis.lock` is."""
        kind = lock_kind(lock_class, AsyncFencedLock)
        options = (timeout, sleep, blocking, blocking_timeout, thread_local, raise_on_release_error)
        held: AsyncFencedLock = kind(self, name, *options)
        return held

    async def _send(self, text: str, keys: tuple[Any, ...], words: tuple[Any, ...]) -> Any:
        digest = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
        send: Any = super().execute_command
        try:
            try:
                return await send(Fenced("EVALSHA"), digest, len(keys), *keys, *words)
            except NoScriptError:
                return await send(Fenced("EVAL"), text, len(keys), *keys, *words)
        except ResponseError as error:
            meaning = self._fence.judge(error)
            if meaning is error:
                raise
            raise meaning from None


class AsyncFencedScript:
    """A script of an `AsyncFencedRedis`, called like those of redis-py."""

    def __init__(self, client: AsyncFencedRedis, text: str) -> None:
        self._client, self._text = client, text

    async def __call__(
        self, keys: Iterable[Any] | None = None, args: Iterable[Any] | None = None, client: Any = None
    ) -> Any:
        """`client`: another `AsyncFencedRedis` to call it on, under its resource and term."""
        on = self._client if client is None else client
        if not isinstance(on, AsyncFencedRedis | AsyncFencedPipeline):
            refuse("a fenced script on an ordinary client", "register it there")
        names = tuple(keys or ())
        answer: Any = on.eval(self._text, len(names), *names, *(args or ()))
        return await answer


class AsyncFencedLock(Lock):
    """What `AsyncFencedRedis.lock` returns."""

    def register_scripts(self) -> None:
        """Its own: redis-py keeps one set for all clients, whose scripts mustn't be mixed with these."""
        client: Any = self.redis
        for name, text in lock_scripts(self):
            setattr(self, name, AsyncFencedScript(client, text))


class AsyncFencedPipeline(OneConnection, Pipeline):  # type: ignore[misc]
    """Collects commands; `execute` sends them as one script. Always atomic. It can't WATCH."""

    def __init__(self, client: AsyncFencedRedis) -> None:
        super().__init__(client.connection_pool, client.response_callbacks, True, None)
        self._client = client

    def execute_command(self, *words: Any, **options: Any) -> Any:
        check_piped(words[0])
        return self.pipeline_execute_command(*words, **options)  # type: ignore[no-untyped-call]

    def immediate_execute_command(self, *words: Any, **options: Any) -> Any:
        """Raises ValueError: a pipeline is sent as a whole."""
        refuse("a command sent at once", "call it on the AsyncFencedRedis itself")

    def pipeline(self, transaction: bool = True, shard_hint: Any = None) -> AsyncFencedPipeline:
        """Another one of the same client."""
        return self._client.pipeline()

    def lock(self, *words: Any, **options: Any) -> Any:
        """Raises ValueError: taking a lock can't wait for the pipeline."""
        refuse_lock()

    def multi(self) -> None:
        """Raises ValueError: the pipeline is atomic as it is."""
        refuse("MULTI")

    async def watch(self, *names: Any) -> Any:  # type: ignore[override]
        """Raises ValueError: a script sees no changes in between."""
        refuse("WATCH")

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        """The results in order. Raises `FencedOut`, and (`raise_on_error`) the first failure."""
        stack: list[Any] = list(self.command_stack)
        self.command_stack = []
        try:
            results = await self._client.run_all(stack) if stack else []
        finally:
            await self.reset()  # type: ignore[no-untyped-call]
        if raise_on_error:
            for result in results:
                if isinstance(result, Exception):
                    raise result
        return results
