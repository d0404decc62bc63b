"""The connection to Redis: one at a time, made when it is first needed, on which scripts are run."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from zelect.redis.bounded_replies import bounded
from zelect.redis.credentials import Credentials
from zelect.redis.errors import UnusableUrl, safe_url
from zelect.redis.named_hosts import named
from zelect.redis.scripts import Script
from zelect.system.forks import in_child

if TYPE_CHECKING:
    import redis


class RedisConnection:
    """Belongs to one thread, which may hang in it. Nothing of redis-py is imported before `client` is called."""

    def __init__(self, url: str, timeout_ms: int, credentials: Credentials) -> None:
        self._url, self._timeout_ms, self._credentials = url, timeout_ms, credentials
        self._client: redis.Redis | None = None
        in_child(self._forget)

    def client(self) -> redis.Redis:
        """The client, made now unless it was; it connects with its first command. Raises `UnusableUrl`."""
        if self._client is None:
            try:
                self._client = connect(self._url, self._timeout_ms / 1000, self._credentials)
            except Exception as error:
                # Not the error's text: it holds a URL that can't be parsed, with its password.
                url = safe_url(self._url)
                raise UnusableUrl(f"{type(error).__name__}: redis.url {url} can't be used; correct it") from None
        return self._client

    def open(self) -> None:
        """Connect unless connected."""
        pool = self.client().connection_pool
        pool.release(pool.get_connection())

    def drop(self) -> None:
        """Close the connection; the next command makes a new one."""
        if self._client is not None:
            self._client.connection_pool.disconnect()

    def _forget(self) -> None:
        """In a forked child: redis-py closes what it forgets there, and says nothing to the server."""
        if self._client is not None:
            self._client.connection_pool.reset()

    def run(self, script: Script, keys: int, words: list[str], before: Callable[[], None] = lambda: None) -> object:
        """The raw answer to `script`, the first `keys` of whose `words` are keys. `before` is called before
        each attempt to send it, and may raise. Raises what redis-py raises."""
        client = self.client()
        from redis.exceptions import NoScriptError

        before()
        with contextlib.suppress(NoScriptError):
            return client.evalsha(script.sha, keys, *words)
        # EVAL also loads the script, and needs no permission for SCRIPT LOAD.
        before()
        return client.eval(script.text, keys, *words)


def connect(url: str, timeout_s: float, credentials: Credentials) -> redis.Redis:
    """A client with one connection at a time, made when it is first needed, whose answers are bounded. Raises what
    redis-py raises for a URL that it can't use."""
    import redis
    from redis.backoff import NoBackoff
    from redis.connection import parse_url
    from redis.driver_info import DriverInfo
    from redis.retry import Retry

    # Not Redis.from_url: there the URL's query overrides the arguments, timeouts and retries too.
    options: dict[str, Any] = parse_url(url)  # type: ignore[no-untyped-call]
    for name in ("retry_on_error", "timeout", "max_connections"):
        options.pop(name, None)
    options |= credentials.options(tls=url.startswith("rediss://")) | {
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        "retry": Retry(NoBackoff(), 0),
        "retry_on_timeout": False,
        "health_check_interval": 0,
        # RESP 2 and an empty driver name: no HELLO and no SETINFO, each of which would cost a round trip.
        "protocol": 2,
        "driver_info": DriverInfo(name="", lib_version=""),
        "decode_responses": False,
    }
    kind = bounded(named(options.pop("connection_class", redis.Connection)))
    pool = redis.ConnectionPool(kind, **options)
    pool.connection_class(**pool.connection_kwargs)  # refuses unknown options here and now
    return redis.Redis(connection_pool=pool)
