"""`zelect.FencedRedis`: the fence over redis.Redis. `zelect.fencing.asyncio` is this module with awaits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import redis
from redis.client import Pipeline
from redis.exceptions import NoScriptError, ResponseError
from redis.lock import Lock

from zelect.fencing.connection_guard import ConnectionGuard, Fenced
from zelect.fencing.core import FencedCall, FencedClient, FencedCommands, FencedSteps, HasTerm


class FencedLock(FencedSteps, Lock):
    """What `FencedRedis.lock` returns."""


class FencedPipeline(FencedCommands, Pipeline):
    """What `FencedRedis.pipeline` returns."""


class FencedRedis(FencedClient, redis.Redis):  # type: ignore[misc]
    """A client like `client` (same server, connections of its own), every command of which is refused
    with `FencedOut` when `resource` has heard of a newer term. Check and command are one script.

    `term`: a `zelect.Leadership`, or its term. The token is the key ``zelect:fence:{resource}``; in a Redis
    Cluster the keys that are written must carry the same tag, which `key` gives them. Commands that
    block return at once (a script never waits), those that belong to a connection raise ValueError.
    """

    _ordinary, _ordinary_name, _twin = redis.Redis, "redis.Redis", "AsyncFencedRedis"
    _pool_type, _guard_type = redis.ConnectionPool, ConnectionGuard
    _pipeline_type, _lock_type = FencedPipeline, FencedLock

    def __init__(self, client: redis.Redis, resource: str, term: HasTerm | int) -> None:
        super().__init__(client, resource, term)

    def _send(self, call: FencedCall | None, then: Callable[[Any], Any]) -> Any:
        if call is None:
            return then([])
        send: Any = redis.Redis.execute_command
        try:
            try:
                raw = send(self, Fenced("EVALSHA"), call.digest, *call.words)
            except NoScriptError:
                raw = send(self, Fenced("EVAL"), call.text, *call.words)
        except ResponseError as error:
            raise self._fence.judge(error) from None
        return then(raw)
