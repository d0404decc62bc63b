"""The Redis that integration tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.redis_server import running_server
from zelect.devcluster.bundled_server import RedisServer


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A server that no test damages; each cluster has a name, and so keys, of its own. Files whose tests
    break their server define another."""
    with running_server(tmp_path_factory.mktemp("redis")) as running:
        yield running
