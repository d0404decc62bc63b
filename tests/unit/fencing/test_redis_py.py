"""What the fence relies on in redis-py beside its documented interface.

`setup.py` allows the versions of redis-py with which this file and tests/integration/test_fencing.py
passed. Where a new one fails here, look at zelect/fencing before the bound is raised.
"""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import redis
import redis.asyncio
import redis.asyncio.client
import redis.asyncio.connection
import redis.asyncio.lock
import redis.client
import redis.connection
import redis.lock

from zelect.fencing.asyncio import AsyncFencedLock, AsyncFencedPipeline, AsyncFencedRedis
from zelect.fencing.core import FencedClient
from zelect.fencing.sync import FencedLock, FencedPipeline, FencedRedis

CONNECTIONS = [
    redis.connection.Connection,
    redis.connection.SSLConnection,
    redis.connection.UnixDomainSocketConnection,
    redis.asyncio.connection.Connection,
    redis.asyncio.connection.SSLConnection,
    redis.asyncio.connection.UnixDomainSocketConnection,
]
CLIENTS = [redis.Redis, redis.asyncio.Redis]
PIPELINES = [redis.client.Pipeline, redis.asyncio.client.Pipeline]
LOCKS = [redis.lock.Lock, redis.asyncio.lock.Lock]


def parameters(function: Any) -> list[str]:
    """Names without self; "*" before those that take any number."""
    stars: dict[object, str] = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    found = inspect.signature(function).parameters.values()
    return [stars.get(each.kind, "") + each.name for each in found if each.name != "self"]


@pytest.mark.parametrize("kind", CONNECTIONS)
def test_all_that_is_sent_goes_through_the_methods_that_the_guard_overrides(kind: Any) -> None:
    assert parameters(kind.connect) == []
    assert parameters(kind.connect_check_health) == ["check_health", "retry_socket_connect"]
    assert parameters(kind.send_command)[0] == "*args"
    assert parameters(kind.send_packed_command) == ["command", "check_health"]
    assert parameters(kind.pack_command) == ["*args"]
    # Nothing else writes to the socket.
    writers = {
        name
        for each in kind.__mro__
        for name, method in vars(each).items()
        if inspect.isfunction(method)
        and ("sendall" in method.__code__.co_names or "writelines" in method.__code__.co_names)
    }
    assert writers <= {"send_packed_command", "_send_packed_command"}


@pytest.mark.parametrize("kind", CLIENTS)
def test_a_client_sends_each_command_by_execute_command(kind: Any) -> None:
    assert parameters(kind.execute_command) == ["*args", "**options"]
    assert "connection_pool" in parameters(kind.__init__)
    client = kind()
    assert isinstance(client.connection_pool.connection_kwargs, dict)
    assert inspect.isclass(client.connection_pool.connection_class)
    assert callable(client.response_callbacks["SET"])
    assert client.response_callbacks["set"] is client.response_callbacks["SET"]
    assert parameters(kind.pipeline) == ["transaction", "shard_hint"]
    assert parameters(kind.register_script) == ["script"]


def test_the_options_of_a_pool_that_belong_to_one_pool() -> None:
    options = redis.Redis(protocol=3).connection_pool.connection_kwargs
    assert {name for name in options if name.startswith("maint_notifications")} <= {
        "maint_notifications_config",
        "maint_notifications_pool_handler",
    }
    assert {"protocol", "db", "retry"} <= options.keys()


@pytest.mark.parametrize("kind", PIPELINES)
def test_a_pipeline_collects_what_execute_sends(kind: Any) -> None:
    assert parameters(kind.__init__) == ["connection_pool", "response_callbacks", "transaction", "shard_hint"]
    assert parameters(kind.immediate_execute_command) == ["*args", "**options"]
    assert parameters(kind.execute) == ["raise_on_error"]
    assert inspect.iscoroutinefunction(kind.pipeline_execute_command) is False
    pipe = kind(None, {}, True, None)
    assert pipe.pipeline_execute_command("SET", "a", 1, x=2) is pipe
    assert pipe.command_stack == [(("SET", "a", 1), {"x": 2})]
    assert (pipe.connection, pipe.watching) == (None, False)


@pytest.mark.parametrize("kind", LOCKS)
def test_a_lock_looks_for_its_scripts_in_three_attributes(kind: Any) -> None:
    wanted = ["redis", "name", "timeout", "sleep", "blocking", "blocking_timeout", "thread_local"]
    assert parameters(kind.__init__) == [*wanted, "raise_on_release_error"]
    assert parameters(kind.register_scripts) == []
    names = {name for name in dir(kind) if name.startswith("LUA_")}
    assert names == {"LUA_RELEASE_SCRIPT", "LUA_EXTEND_SCRIPT", "LUA_REACQUIRE_SCRIPT"}
    assert all(hasattr(kind, name.removesuffix("_SCRIPT").lower()) for name in names)


@pytest.mark.parametrize("kind", CLIENTS)
def test_a_fenced_client_has_every_parameter_of_a_lock(kind: Any) -> None:
    assert parameters(FencedClient.lock) == parameters(kind.lock)


@pytest.mark.parametrize(
    ("fenced", "base"),
    [
        *((FencedRedis, redis.Redis), (AsyncFencedRedis, redis.asyncio.Redis)),
        *((FencedPipeline, redis.client.Pipeline), (AsyncFencedPipeline, redis.asyncio.client.Pipeline)),
        *((FencedLock, redis.lock.Lock), (AsyncFencedLock, redis.asyncio.lock.Lock)),
    ],
)
def test_the_fences_own_private_names_hide_none_of_redis_py(fenced: Any, base: Any) -> None:
    own = {name for each in fenced.__mro__ if each.__module__.startswith("zelect") for name in vars(each)}
    private = {name for name in own if name.startswith("_") and not name.startswith(("__", "_abc_", "_is_"))}
    made = base(None, {}, True, None) if base in PIPELINES else base() if base in CLIENTS else None
    assert not private & {*dir(base), *(vars(made) if made is not None else ())}


def test_both_flavours_do_the_same() -> None:
    """What differs is in `_send`, and in the classes of redis-py."""
    for one, other in ((FencedRedis, AsyncFencedRedis), (FencedPipeline, AsyncFencedPipeline)):
        own = [{name for name in vars(kind) if not name.startswith(("__", "_abc_", "_is_"))} for kind in (one, other)]
        assert own[0] == own[1]
        assert own[0] <= {"_send", "_ordinary", "_ordinary_name", "_twin"} | {n for n in own[0] if n.endswith("_type")}
