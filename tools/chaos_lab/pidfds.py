"""Processes by handle: a pid may long belong to somebody else when a fault comes to it."""

from __future__ import annotations

import contextlib
import os
import select
import signal


class ProcessHandles:
    """The nodes' processes, by Linux' pidfds; elsewhere by their pids."""

    def __init__(self) -> None:
        self.pids: dict[int, int] = {}
        self._handles: dict[int, int] = {}

    def know(self, node: int, pid: int) -> None:
        """Process `pid`, which runs, is now that of `node`."""
        if self.pids.get(node) == pid and self.runs(node):
            return
        self.forget(node)
        self.pids[node] = pid
        if hasattr(os, "pidfd_open"):
            with contextlib.suppress(ProcessLookupError):
                self._handles[node] = os.pidfd_open(pid)

    def forget(self, node: int) -> None:
        """The process of `node` is of no concern any more."""
        self.pids.pop(node, None)
        handle = self._handles.pop(node, None)
        if handle is not None:
            os.close(handle)

    def signal(self, node: int, number: signal.Signals) -> None:
        """Harmless for a process that has ended."""
        with contextlib.suppress(ProcessLookupError):
            if node in self._handles:
                signal.pidfd_send_signal(self._handles[node], number)
            elif node in self.pids and not hasattr(os, "pidfd_open"):
                os.kill(self.pids[node], number)

    def runs(self, node: int) -> bool:
        """Whether the process still runs."""
        if node in self._handles:
            poll = select.poll()
            poll.register(self._handles[node], select.POLLIN)
            return not poll.poll(0)
        if node not in self.pids or hasattr(os, "pidfd_open"):
            return False
        try:
            os.kill(self.pids[node], 0)
        except ProcessLookupError:
            return False
        return True

    def close(self) -> None:
        for node in list(self.pids):
            self.forget(node)
