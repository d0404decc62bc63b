"""What the tool itself did and saw; the processes write their own files.

DIR/history/chaos.jsonl: one JSON object a line, appended at once; `us` is the election's clock.
"""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

from zelect.node.history_recorder import open_history
from zelect.system.clock import now_us


class ChaosLog:
    """Writes chaos.jsonl. May be used by several threads."""

    def __init__(self, directory: Path) -> None:
        self._descriptor = open_history(directory, "chaos")
        self._lock = threading.Lock()
        self.round = -1

    def write(self, event: str, us: int | None = None, **fields: object) -> int:
        """Append one line; returns its time."""
        with self._lock:
            us = now_us() if us is None else us
            line = {"us": us, "event": event, **fields}
            os.write(self._descriptor, json.dumps(line, default=str).encode() + b"\n")
        return us

    def close(self) -> None:
        os.close(self._descriptor)
