"""The Redis that integration tests share, and one for a test that breaks it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.redis_server import running_server
from zelect.devcluster.bundled_server import RedisServer


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A server that no test damages; each cluster has a name, and so keys, of its own."""
    with running_server(tmp_path_factory.mktemp("redis")) as running:
        yield running


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[RedisServer]:
    """A server for one test, which may damage it."""
    directory = tmp_path / "redis"
    directory.mkdir()
    with running_server(directory) as running:
        yield running
