"""The controller that Redis names: one read, at most as old as the record may be there, `redis.ttl_ms`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from zelect.config.loading import Config
from zelect.core.timing import MAX_NODE_ID, MAX_TERM
from zelect.redis.registry_scripts import Keys
from zelect.system.clock import now_us
from zelect.system.foreign import shown

if TYPE_CHECKING:
    import redis


@dataclass(frozen=True, slots=True)
class Seen:
    """A controller. `source`: "redis", "nodes" (its own word) or "followers" (it could not be asked; they follow it).
    `until_us`: how long the answer holds, on the election's clock (CLOCK_BOOTTIME); `fresh` reads that clock."""

    id: int
    term: int
    address: str
    source: str
    until_us: int

    @property
    def fresh(self) -> bool:
        return now_us() < self.until_us


def read_published(client: redis.Redis, config: Config) -> Seen | None:
    """The controller in the registry of the cluster of `config`; None where none is named, or garbage. Raises what
    `client`, of redis-py, raises."""
    key = Keys.of(config.cluster.name).controller
    asked_us = now_us()
    with client.pipeline(transaction=True) as pipe:
        pipe.hgetall(key)
        pipe.pttl(key)
        record, left_ms = pipe.execute()
    return _seen(record, left_ms, asked_us, config)


def _seen(record: Any, left_ms: int, asked_us: int, config: Config) -> Seen | None:
    try:
        node, term = int(record[b"id"]), int(record[b"term"])
        address = shown(record[b"address"].decode())
    except (KeyError, ValueError, AttributeError, TypeError):
        return None
    if type(left_ms) is not int or not (
        0 < node <= MAX_NODE_ID and 0 < term <= MAX_TERM and 0 < left_ms <= config.redis.ttl_ms
    ):
        return None
    return Seen(node, term, address, "redis", asked_us + left_ms * 1000)


def ask_redis(config: Config) -> tuple[Seen | None, str]:
    """The same, asked once with what a node's user may do (docs/security.md): `until_us` is an upper bound. And why
    Redis could not be asked, "" where it was."""
    from zelect.redis.connection import connect
    from zelect.redis.credentials import credentials_of
    from zelect.redis.errors import explain

    settings = config.redis
    try:
        client = connect(settings.url, max(0.5, settings.timeout_ms / 1000), credentials_of(config))
        try:
            record = client.hgetall(Keys.of(config.cluster.name).controller)
            return _seen(record, config.redis.ttl_ms, now_us(), config), ""
        finally:
            client.close()
    except Exception as error:  # whatever Redis or its URL does: the caller reports it
        return None, explain(error, settings.url, settings.timeout_ms).problem
