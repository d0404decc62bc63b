"""`zelect.FencedRedis` for asyncio: the same scripts and the same refusals, sent by redis.asyncio."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import redis.asyncio
from redis.asyncio.client import Pipeline
from redis.exceptions import NoScriptError, ResponseError

from zelect.fencing import Fence, HasTerm, check_piped, meant, options_of, plain, refuse

__all__ = ["AsyncFencedPipeline", "AsyncFencedRedis", "AsyncFencedScript"]


class AsyncFencedRedis(redis.asyncio.Redis):
    """A client like `client`, a redis.asyncio.Redis, every command of which is refused with `FencedOut`
    when `resource` has heard of a newer term. See `zelect.fencing.FencedRedis`."""

    def __init__(self, client: redis.asyncio.Redis, resource: str, term: HasTerm | int) -> None:
        self._fence = Fence(resource, term)
        self.resource, self.term, self.token = resource, self._fence.term, self._fence.token
        options = options_of(client.connection_pool)
        kind = client.connection_pool.connection_class
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
        return AsyncFencedScript(self, plain(script))

    def pubsub(self, **options: Any) -> Any:
        """Raises ValueError: subscribing changes nothing and needs no fence."""
        refuse("SUBSCRIBE")

    def monitor(self) -> Any:
        """Raises ValueError, as `pubsub` does."""
        refuse("MONITOR")

    def client(self) -> Any:
        """Raises ValueError: what goes over one connection can't be fenced."""
        refuse("CLIENT")

    async def _send(self, text: str, keys: tuple[Any, ...], words: tuple[Any, ...]) -> Any:
        digest = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
        send: Any = super().execute_command
        try:
            try:
                return await send("EVALSHA", digest, len(keys), *keys, *words)
            except NoScriptError:
                return await send("EVAL", text, len(keys), *keys, *words)
        except ResponseError as error:
            meaning = self._fence.judge(error)
            if meaning is error:
                raise
            raise meaning from None


class AsyncFencedScript:
    """A script of an `AsyncFencedRedis`, called like those of redis-py."""

    def __init__(self, client: AsyncFencedRedis, text: str) -> None:
        self._client, self._text = client, text

    async def __call__(self, keys: Sequence[Any] = (), args: Sequence[Any] = ()) -> Any:
        answer: Any = self._client.eval(self._text, len(keys), *keys, *args)
        return await answer


class AsyncFencedPipeline(Pipeline):
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
