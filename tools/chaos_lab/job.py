"""What a user's process does while it is controller, and the record of what it did.

The job has a Redis of its own, which the faults leave alone: a resource that forgets the terms it
has seen can't refuse older ones (S3 speaks of resources that check the token). Two counters: one
behind a script that refuses older terms, and one that anybody may raise. The resource itself keeps
the order in which it accepted them, the processes keep when.
"""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path

from tools.common.checkout import ToolError
from tools.common.raw_redis import Wire
from zelect.node.history_recorder import open_history
from zelect.node.leadership.handle import NodeHandle
from zelect.system.clock import now_us

EVERY_S = 0.02
"""How often the counters are raised."""
AGAIN_S = 0.1
"""How soon Redis is tried again."""
_LOOK_S = 0.002

_GUARDED = """
local seen = tonumber(redis.call('HGET', KEYS[1], 'term') or '0')
if seen > tonumber(ARGV[1]) then return {0, seen} end
redis.call('HSET', KEYS[1], 'term', ARGV[1])
redis.call('RPUSH', KEYS[2], 'guarded ' .. ARGV[1] .. ' ' .. ARGV[2])
return {1, redis.call('HINCRBY', KEYS[1], 'value', 1)}
"""
_UNGUARDED = """
redis.call('RPUSH', KEYS[2], 'unguarded ' .. ARGV[1] .. ' ' .. ARGV[2])
return {1, redis.call('INCR', KEYS[1])}
"""
KINDS = {"guarded": _GUARDED, "unguarded": _UNGUARDED}
"""The two effects by their names."""


class JobKeys:
    """The job's keys in its Redis: the two counters, and the list of what was accepted, each
    element "KIND TERM NODE"."""

    def __init__(self, cluster: str) -> None:
        self.guarded, self.unguarded, self.accepted = (
            f"zelect:{{{cluster}}}:chaos:{part}" for part in ("guarded", "unguarded", "accepted")
        )


class Counters:
    """The two counters as process `incarnation` of `node` raises them. Their Redis is at `address`;
    what was done goes to DIRECTORY/work<NODE>.jsonl."""

    def __init__(self, cluster: str, node: int, incarnation: int, address: tuple[str, int], directory: Path) -> None:
        self._keys = JobKeys(cluster)
        self._node = node
        self._incarnation = incarnation
        self._address = address
        self._wire: Wire | None = None
        self._descriptor = open_history(directory, f"work{node}")

    def connect(self) -> bool:
        """Whether Redis is at hand."""
        if self._wire is None:
            try:
                self._wire = Wire(self._address[1], self._address[0])
            except OSError as error:
                self.write(now_us(), 0, "work_failed", str(error))
        return self._wire is not None

    def effect(self, kind: str, began_us: int, term: int) -> None:
        """Raise one counter in `term`; it was allowed after `began_us`."""
        if self._wire is None:
            return
        key = self._keys.guarded if kind == "guarded" else self._keys.unguarded
        try:
            done, value = self._wire.call("EVAL", KINDS[kind], 2, key, self._keys.accepted, term, self._node)
        except (OSError, ToolError, ValueError) as error:
            self.write(began_us, term, "work_failed", f"{kind}: {error}")
            self._wire.close()
            self._wire = None
            return
        self.write(began_us, term, kind if done else f"{kind}_refused", value)

    def write(self, us: int, term: int, event: str, value: object) -> None:
        """Append one line."""
        line = {
            "us": us,
            "us_after": now_us(),
            "node": self._node,
            "incarnation": self._incarnation,
            "term": term,
            "event": event,
            "value": value,
        }
        os.write(self._descriptor, json.dumps(line).encode() + b"\n")


class Job(threading.Thread):
    """Works in the node's own process, each time right after a look at the lease that allows it."""

    def __init__(self, handle: NodeHandle, counters: Counters) -> None:
        super().__init__(name="job", daemon=True)
        self._handle = handle
        self._counters = counters

    def run(self) -> None:
        while True:
            if self._handle.active_lease() is None:
                time.sleep(_LOOK_S)
            elif not self._counters.connect():
                time.sleep(AGAIN_S)
            else:
                for kind in KINDS:
                    began_us = now_us()
                    lease = self._handle.active_lease()
                    if lease is not None:
                        self._counters.effect(kind, began_us, lease.term)
                time.sleep(EVERY_S)
