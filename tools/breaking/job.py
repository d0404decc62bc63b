"""What a user's process does while it is controller, and the record of what it did.

The job has a Redis of its own, which the faults leave alone: a resource that forgets the terms it
has seen can't refuse older ones (S3 speaks of resources that check the token). Two counters: one
behind a script that refuses older terms, and one that anybody may raise, which the job does only
while the lease check says yes right before. The resource itself keeps the order in which it
accepted them, the processes keep when.
"""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path

from tools.benching.common import BenchError
from tools.benching.wire import Wire
from zelect.core.lease import Tenure
from zelect.shell.clock import now_us
from zelect.shell.office import Office
from zelect.shell.recorder import open_history

__all__ = ["Job", "JobKeys"]

_EVERY_S = 0.02
_LOOK_S = 0.002
_AGAIN_S = 0.1

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


class JobKeys:
    """The job's keys in its Redis: the two counters, and the list of what was accepted, each
    element "KIND TERM NODE"."""

    def __init__(self, cluster: str) -> None:
        self.guarded, self.unguarded, self.accepted = (
            f"zelect:{{{cluster}}}:chaos:{part}" for part in ("guarded", "unguarded", "accepted")
        )


class Job(threading.Thread):
    """Works while the office is held. Its Redis is at `address`; what it did goes to
    DIRECTORY/work<NODE>.jsonl."""

    def __init__(
        self, office: Office, cluster: str, node: int, incarnation: int, address: tuple[str, int], directory: Path
    ) -> None:
        super().__init__(name="job", daemon=True)
        self._office = office
        self._keys = JobKeys(cluster)
        self._node = node
        self._incarnation = incarnation
        self._address = address
        self._wire: Wire | None = None
        self._descriptor = open_history(directory, f"work{node}")

    def run(self) -> None:
        while True:
            tenure = self._office.held()
            if tenure is None:
                time.sleep(_LOOK_S)
                continue
            if self._wire is None and not self._connect():
                time.sleep(_AGAIN_S)
                continue
            # Connecting took its time: look again.
            self._do("guarded", _GUARDED, self._keys.guarded)
            self._do("unguarded", _UNGUARDED, self._keys.unguarded)
            time.sleep(_EVERY_S)

    def _connect(self) -> bool:
        try:
            self._wire = Wire(self._address[1], self._address[0])
        except OSError as error:
            self._write(now_us(), now_us(), 0, "work_failed", str(error))
            return False
        return True

    def _do(self, kind: str, script: str, key: str) -> None:
        """One effect, right after a look at the clock that allows it."""
        began_us = now_us()
        tenure: Tenure | None = self._office.held()
        if tenure is None or self._wire is None:
            return
        try:
            done, value = self._wire.call("EVAL", script, 2, key, self._keys.accepted, tenure.term, self._node)
        except (OSError, BenchError, ValueError) as error:
            self._write(began_us, now_us(), tenure.term, "work_failed", f"{kind}: {error}")
            self._wire.close()
            self._wire = None
            return
        self._write(began_us, now_us(), tenure.term, kind if done else f"{kind}_refused", value)

    def _write(self, us: int, after_us: int, term: int, event: str, value: object) -> None:
        line = {
            "us": us,
            "us_after": after_us,
            "node": self._node,
            "incarnation": self._incarnation,
            "term": term,
            "event": event,
            "value": value,
        }
        os.write(self._descriptor, json.dumps(line).encode() + b"\n")
