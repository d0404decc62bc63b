"""The elections that Redis has recorded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from zelect.config.loading import Config
from zelect.status.election import Election, read_elections


@dataclass(frozen=True, slots=True)
class RecordedElections:
    """Newest first. `problem`: why Redis could not be asked, "" where it was; `garbage`: how many entries
    of the stream are not elections; `any`: whether Redis has elections of this cluster at all."""

    elections: Sequence[Election]
    problem: str = ""
    garbage: int = 0
    any: bool = False


def recorded_elections(config: Config, most: int, wanted: Callable[[Election], bool]) -> RecordedElections:
    """The newest `most` elections of the cluster of `config` that are `wanted`."""
    from zelect.redis.connection import connect
    from zelect.redis.credentials import credentials_of
    from zelect.redis.errors import explain

    redis = config.redis
    if not redis.url:
        return RecordedElections([], "not configured (redis.url is empty)")
    try:
        client = connect(redis.url, max(0.5, redis.timeout_ms / 1000), credentials_of(config))
        found, garbage = read_elections(client, config.cluster.name, most, wanted)
        known = bool(found) or bool(read_elections(client, config.cluster.name, 1)[0])
    except Exception as error:  # whatever Redis or its URL does: the caller reports it and asks the nodes
        return RecordedElections([], explain(error, redis.url, redis.timeout_ms).problem)
    return RecordedElections(found, "", garbage, known)
