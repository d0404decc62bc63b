"""The bundled Redis server for a tool: on a free port, ended with the tool."""

from __future__ import annotations

from pathlib import Path

from zelect.devcluster.bundled_server import RedisServer, ServerFailed
from zelect.devcluster.layout import HOST, find_port
from zelect.system.parent_death import prefix

_ATTEMPTS = 5


def started_server(directory: Path, bind: str = HOST) -> RedisServer:
    """A server on a free port, in `directory`, that answers. Raises `ServerFailed`."""
    directory.mkdir(parents=True, exist_ok=True)
    extra = () if bind == HOST else ("--bind", HOST, bind, "--protected-mode", "no")
    for attempt in range(_ATTEMPTS):
        server = RedisServer(directory, find_port(), prefix(), extra)
        try:
            server.start()
            server.wait_ready()
            break
        except ServerFailed:  # most likely somebody took the port first
            server.stop()
            if attempt == _ATTEMPTS - 1:
                raise
    return server
