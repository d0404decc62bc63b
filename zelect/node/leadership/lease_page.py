"""A node's lease on a page of memory that it shares with another process.

One process writes, the other reads whenever it likes: the reader needs no thread of the writer's, nor
the writer one of the reader's. A page that is half written fails its checksum and is read again; one
that stays unreadable says nothing, which is the safe answer.

The standard library alone: a watchdog, which reads such a page, runs without site-packages.
"""

from __future__ import annotations

import mmap
import os
import struct
import sys
import zlib
from typing import TYPE_CHECKING, NamedTuple

from zelect.system.forks import in_child

if TYPE_CHECKING:
    from zelect.node.leadership.handle import NodeHandle

PAGE_BYTES = 128
_BODY = struct.Struct("<QqqQQQ??15s")  # the fields of `LeaseRecord`, in their order
_SUM = struct.Struct("<I")
_TRIES = 1000


class LeaseRecord(NamedTuple):
    """What the page says: the lease (term 0: none) and when it ends, on the election's clock in
    microseconds; the controller as of `zelect.node.leadership.handle.Controller`; whether the node was
    asked to leave, and whether it has ended."""

    term: int
    active_since_us: int
    lapses_us: int
    controller: int
    controller_term: int
    previous: int
    asked_to_leave: bool
    ended: bool
    reason: str


class LeasePage:
    """A mapped page. `fd` is for the other process, which maps what it was given with `LeasePage(fd)`."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._memory = mmap.mmap(fd, PAGE_BYTES)
        in_child(self.close)

    @classmethod
    def create(cls) -> LeasePage:
        """A new page, which lies in no directory. Nothing is held by it."""
        if sys.platform == "linux":
            fd = os.memfd_create("zelect-lease")
        else:
            import tempfile

            fd, name = tempfile.mkstemp()
            os.unlink(name)
        os.ftruncate(fd, PAGE_BYTES)
        page = cls(fd)
        page._write(LeaseRecord(0, 0, 0, 0, 0, 0, False, False, ""))
        return page

    def show(self, handle: NodeHandle) -> None:
        """Write what `handle` knows now."""
        lease, controller = handle.lease, handle.controller
        held = (0, 0, 0) if lease is None else (lease.term, lease.active_since_us, lease.lapses_us)
        known = (controller.id, controller.term, controller.previous)
        self._write(LeaseRecord(*held, *known, handle.asked_to_leave, handle.ended, controller.reason))

    def _write(self, record: LeaseRecord) -> None:
        body = _BODY.pack(*record[:-1], record.reason.encode())
        self._memory[: _BODY.size + _SUM.size] = body + _SUM.pack(zlib.crc32(body))

    def read(self) -> LeaseRecord | None:
        """What the page says now; None when it can't be read."""
        if self._memory.closed:
            return None
        for _ in range(_TRIES):
            text = self._memory[: _BODY.size + _SUM.size]
            body = text[: _BODY.size]
            if _SUM.unpack(text[_BODY.size :])[0] == zlib.crc32(body):
                *numbers, reason = _BODY.unpack(body)
                return LeaseRecord._make((*numbers, reason.rstrip(b"\0").decode()))
        return None

    def close(self) -> None:
        """Unmap it, and close `fd`. Harmless when repeated."""
        self._memory.close()
        self.close_descriptor()

    def close_descriptor(self) -> None:
        """Close `fd`: the page stays mapped."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
