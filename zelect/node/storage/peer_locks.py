"""Whether the locks of peers on this host are free, where they were seen held before (R9).

A lock that looks free proves a death only if it would have looked held before it: an overlay mount shows
another file, and a network file system may show no locks of other hosts. So each lock is looked at while its
process lives, when it is first heard, and counts for that process alone. The first look is taken in a thread
of its own: a file system that hangs must not stop the loop, and has then shown nothing.
"""

from __future__ import annotations

import threading
from pathlib import Path

from zelect.node.storage.data_dir import lock_evidence, lock_is_held


class PeerLocks:
    """The locks in the data directories of peers of node ids in `cluster`."""

    def __init__(self, cluster: str) -> None:
        self._cluster = cluster
        self._seen_held: dict[tuple[Path, int], int] = {}  # by directory and node, the incarnation that held it

    def look(self, data_dir: Path, node: int, incarnation: int) -> None:
        """Process `incarnation` of `node` lives: see whether its lock shows that. Returns at once."""
        if self._seen_held.get((data_dir, node)) == incarnation:
            return

        def look() -> None:
            if lock_is_held(data_dir, self._cluster, node, incarnation):
                self._seen_held[data_dir, node] = incarnation

        threading.Thread(target=look, name=f"look-at-lock-{node}", daemon=True).start()

    def is_free(self, data_dir: Path, node: int, incarnation: int) -> bool:
        """Whether the lock proves that process dead: no process holds it, but this one was seen to."""
        seen_held = self._seen_held.get((data_dir, node)) == incarnation
        return seen_held and lock_evidence(data_dir, self._cluster, node, incarnation)
