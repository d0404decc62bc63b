"""A real Redis-compatible server for tests: one process, a free port, ended by its pid."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.ports import free_port
from zelect.devcluster.bundled_server import NoServer, RedisServer, ServerFailed

__all__ = ["redis_server", "running_server"]


@contextmanager
def running_server(directory: Path, *extra: str) -> Iterator[RedisServer]:
    """A server with the options `extra`, ready to answer; skips the test where none is installed."""
    for attempt in range(5):
        try:
            server = RedisServer(directory, free_port(), extra=extra)
        except NoServer as error:
            pytest.skip(str(error))
        try:
            server.start()
            server.wait_ready(30)
            break
        except ServerFailed:  # most likely somebody took the port first
            server.stop()
            if attempt == 4:
                raise
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    """A server for one test."""
    directory = tmp_path / "redis"
    directory.mkdir()
    with running_server(directory) as server:
        yield server
