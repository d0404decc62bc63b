"""Leadership on a page of memory that two processes share.

One process writes, the other reads whenever it likes, without a word between them: the reader
needs no thread of the writer's, nor the writer one of the reader's. A half-written page is told by
its checksum and read again; one that stays unreadable says nothing, which is the safe answer.
"""

from __future__ import annotations

import mmap
import os
import struct
import sys
import tempfile
import zlib

from zelect.core.lease import Lease
from zelect.node.leadership.handle import Controller, NodeHandle

__all__ = ["BODY", "PAGE_BYTES", "LeasePage"]

PAGE_BYTES = 128
BODY = struct.Struct("<QqqQQQB15s")  # term, active_since_us, lapses_us, controller, its term, previous, flags, reason
_SUM = struct.Struct("<I")
_TRIES = 1000
_GOING, _ENDED = 1, 2


class LeasePage:
    """A mapped page. `fd` is for the other process; `Page(fd)` maps what it was given."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._memory = mmap.mmap(fd, PAGE_BYTES)

    @classmethod
    def create(cls) -> LeasePage:
        """A new one, which belongs to nobody's file system."""
        if sys.platform == "linux":
            fd = os.memfd_create("zelect-leadership")
        else:
            fd, name = tempfile.mkstemp()
            os.unlink(name)
        os.ftruncate(fd, PAGE_BYTES)
        page = cls(fd)
        page.write(NodeHandle())
        return page

    def write(self, leadership: NodeHandle) -> None:
        """Say what `leadership` says now."""
        lease, head = leadership.lease or Lease(0, 0, 0), leadership.controller
        flags = _GOING * leadership.asked_to_leave | _ENDED * leadership.ended
        body = BODY.pack(
            *(lease.term, lease.active_since_us, lease.lapses_us, head.id, head.term, head.previous),
            flags,
            head.reason.encode(),
        )
        self._memory[: BODY.size + _SUM.size] = body + _SUM.pack(zlib.crc32(body))

    def read(self) -> tuple[Lease | None, Controller, bool, bool] | None:
        """Lease, controller, whether the node is asked to go, and whether it has ended; None when
        the page can't be read."""
        for _ in range(_TRIES):
            text = self._memory[: BODY.size + _SUM.size]
            body = text[: BODY.size]
            if _SUM.unpack(text[BODY.size :])[0] == zlib.crc32(body):
                term, active_since_us, lapses_us, node, node_term, previous, flags, reason = BODY.unpack(body)
                lease = Lease(term, active_since_us, lapses_us) if term else None
                head = Controller(node, node_term, previous, reason.rstrip(b"\0").decode())
                return lease, head, bool(flags & _GOING), bool(flags & _ENDED)
        return None

    def close(self) -> None:
        """Unmap it, and close `fd`."""
        self._memory.close()
        os.close(self.fd)
