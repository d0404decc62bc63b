"""The Redis that zelect publishes in, for faults to break, and the job's own, which they spare."""

from __future__ import annotations

import contextlib
import json
import threading
from pathlib import Path

from tools.chaos_lab.chaos_log import ChaosLog
from tools.common.checkout import JsonDict, ToolError
from tools.common.raw_redis import Wire, call
from tools.common.redis_server import started_server
from zelect.devcluster.bundled_server import RedisServer
from zelect.devcluster.layout import HOST
from zelect.redis.registry_scripts import Keys


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
        """One command. Raises OSError, ToolError."""
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
            with contextlib.suppress(OSError, ToolError, ValueError, KeyError):
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
