"""What the tests of registry and witness share: one ZeroMQ context, and one server that no test damages."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis
import zmq

from tests.support.redis_server import running_server
from zelect.devcluster.bundled_server import RedisServer


@pytest.fixture(scope="package")
def context() -> Iterator[zmq.Context[zmq.Socket[bytes]]]:
    with zmq.Context() as context:
        yield context


@pytest.fixture(scope="package")
def _running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with running_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def shared_server(_running: RedisServer) -> RedisServer:
    """The server, empty."""
    with redis.Redis.from_url(_running.url) as client:
        client.flushall()
    return _running
