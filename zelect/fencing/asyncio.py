"""`zelect.AsyncFencedRedis`: the fence over redis.asyncio.Redis, as `zelect.fencing.sync` is over redis.Redis."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import redis.asyncio
from redis.asyncio.client import Pipeline
from redis.asyncio.lock import Lock
from redis.exceptions import NoScriptError, ResponseError

from zelect.fencing.connection_guard import AsyncConnectionGuard, Fenced
from zelect.fencing.core import FencedCall, FencedClient, FencedCommands, FencedSteps, HasTerm


class AsyncFencedLock(FencedSteps, Lock):
    """What `AsyncFencedRedis.lock` returns."""


class AsyncFencedPipeline(FencedCommands, Pipeline):  # type: ignore[misc]
    """What `AsyncFencedRedis.pipeline` returns."""


class AsyncFencedRedis(FencedClient, redis.asyncio.Redis):  # type: ignore[misc]
    """A client like `client`, every command of which is refused with `FencedOut` when `resource` has
    heard of a newer term. See `zelect.FencedRedis`."""

    _ordinary, _ordinary_name, _twin = redis.asyncio.Redis, "redis.asyncio.Redis", "FencedRedis"
    _pool_type, _guard_type = redis.asyncio.ConnectionPool, AsyncConnectionGuard
    _pipeline_type, _lock_type = AsyncFencedPipeline, AsyncFencedLock

    def __init__(self, client: redis.asyncio.Redis, resource: str, term: HasTerm | int) -> None:
        super().__init__(client, resource, term)

    async def _send(self, call: FencedCall | None, then: Callable[[Any], Any]) -> Any:
        if call is None:
            return then([])
        send: Any = redis.asyncio.Redis.execute_command
        try:
            try:
                raw = await send(self, Fenced("EVALSHA"), call.digest, *call.words)
            except NoScriptError:
                raw = await send(self, Fenced("EVAL"), call.text, *call.words)
        except ResponseError as error:
            raise self._fence.judge(error) from None
        return then(raw)
