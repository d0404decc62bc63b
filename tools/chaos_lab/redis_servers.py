"""The Redis that zelect publishes in, for faults to break, and the job's own, which they spare."""

from __future__ import annotations

import contextlib
import json
import threading
from pathlib import Path

from tools.benchmarks.common import BenchError, JsonDict
from tools.chaos_lab.chaos_log import ChaosLog
from tools.common.raw_redis import Wire, call
from zelect.devcluster.bundled_server import RedisServer, ServerFailed
from zelect.devcluster.layout import HOST, find_port
from zelect.redis.registry_scripts import Keys
from zelect.system.parent_death import prefix


def started_server(directory: Path, bind: str = HOST) -> RedisServer:
    """A server on a free port, in `directory`, that answers. Raises `ServerFailed`."""
    directory.mkdir(parents=True, exist_ok=True)
    extra = () if bind == HOST else ("--bind", HOST, bind, "--protected-mode", "no")
    for attempt in range(5):
        server = RedisServer(directory, find_port(), prefix(), extra)
        try:
            server.start()
            server.wait_ready()
            return server
        except ServerFailed:  # most likely somebody took the port first
            server.stop()
            if attempt == 4:
                raise
    raise AssertionError("unreachable")


class Registry:
    """The registry's server. `port` is where it is now: a failover moves it."""

    def __init__(self, directory: Path, bind: str = HOST) -> None:
        self.directory = directory
        self._bind = bind
        self.server = started_server(directory / "0", bind)
        self._spares = 0

    @property
    def port(self) -> int:
        return self.server.port

    def call(self, *words: str | int) -> object:
        """One command. Raises OSError, BenchError."""
        return call(self.port, *words)

    def revive(self) -> None:
        """Start the server again after its death, with whatever dump lies there."""
        self.server.start()
        self.server.wait_ready()

    def spare(self) -> RedisServer:
        """Another server beside it."""
        self._spares += 1
        return started_server(self.directory / str(self._spares), self._bind)

    def forget_dump(self) -> None:
        """Later starts begin empty again."""
        (self.server.directory / "dump.rdb").unlink(missing_ok=True)

    def close(self) -> None:
        self.server.stop()


class Watcher(threading.Thread):
    """ChaosLog every change of controller that Redis tells of, wherever Redis is and however often it
    goes away. Its word is for people and for gaps; nothing is checked by what it missed."""

    def __init__(self, registry: Registry, cluster: str, log: ChaosLog) -> None:
        super().__init__(name="watcher", daemon=True)
        self._registry = registry
        self._keys = Keys.of(cluster)
        self._log = log
        self._ended = threading.Event()
        self._seen: tuple[int, int] = (0, 0)

    def run(self) -> None:
        while not self._ended.is_set():
            with contextlib.suppress(OSError, BenchError, ValueError, KeyError):
                self._watch()
            self._ended.wait(0.1)

    def _watch(self) -> None:
        port = self._registry.port
        wire = Wire(port)
        try:
            node, term = wire.call("HMGET", self._keys.controller, "id", "term")
            if node:
                self._see({"id": int(node), "term": int(term)})
            wire.say("SUBSCRIBE", self._keys.changes)
            while not self._ended.is_set() and self._registry.port == port:
                with contextlib.suppress(TimeoutError):
                    line = wire.line(0.2)
                    if line.startswith(b"{"):
                        self._see(json.loads(line))
        finally:
            wire.close()

    def _see(self, change: JsonDict) -> None:
        now = (int(change["id"] or 0), int(change.get("term") or 0))
        if now != self._seen:
            self._seen = now
            self._log.write("published", id=now[0], term=now[1])

    def close(self) -> None:
        self._ended.set()
        self.join(2)
