"""The node's side of the watchdog (`zelect.jobs.watchdog`)."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from typing import Any

from zelect.errors import ZelectError
from zelect.jobs.process_tree import MARK, kill_descendants, kill_orphans
from zelect.node.leadership.handle import NodeHandle
from zelect.node.leadership.lease_page import LeasePage
from zelect.node.storage.data_dir import DataDir
from zelect.node.storage.lock_holder import listener_of
from zelect.system.child import Child, ChildFailed, isolated
from zelect.system.parent_death import adopt_orphans

_READY_WITHIN_S = 10.0


class WatchdogFailed(ZelectError):
    """The watchdog could not be started; the text says why."""


class WatchdogClient:
    """Starts the watchdog of a node and talks to it. `attach` is for the node's thread, the rest for one
    other. `term_ms`, `kill_ms`: how long before the end of the lease the command gets TERM and KILL."""

    def __init__(self, term_ms: int, kill_ms: int) -> None:
        self._settings = {"term_us": term_ms * 1000, "kill_us": kill_ms * 1000}
        self._page = LeasePage.create()
        self._child: Child | None = None
        self._group = 0  # process group of the command that runs; 0: none does

    def attach(self, data_dir: DataDir, port: int, handle: NodeHandle) -> None:
        """Start the watchdog for a node that listens on `port`, and wait until it holds what it must. Raises
        `WatchdogFailed`."""
        adopt_orphans()  # what a watchdog that is killed leaves behind
        handle.on_change = self._page.show
        listener = listener_of(port)
        descriptors = {"page": self._page.fd, "lock": data_dir.lock, "listener": listener}
        try:
            self._child = Child(isolated("zelect.jobs.watchdog"), self._settings, descriptors)
            self._child.wait_ready(_READY_WITHIN_S)
        except ChildFailed as error:
            raise WatchdogFailed(f"the watchdog of the command did not start: {error}") from error
        finally:
            if listener >= 0:
                os.close(listener)

    def fileno(self) -> int:
        """What to wait for until there is something to receive."""
        return self._started.channel.fileno()

    def start(self, command: Sequence[str], env: Mapping[str, str], term: int) -> None:
        """Start the command in the leadership of `term`; it answers by "started", "failed" or "too_late"."""
        child = self._started
        child.channel.send({"start": list(command), "env": {**env, MARK: str(child.process.pid)}, "term": term})

    def stop(self, grace_ms: int) -> None:
        """End the command: TERM now, KILL in `grace_ms`, or when the lease is about to end."""
        self._started.channel.send({"stop": grace_ms * 1000})

    def signal(self, number: int) -> None:
        """Send a signal to the command's group; it is lost while the watchdog reads nothing."""
        self._started.channel.offer({"signal": number})

    def receive(self) -> list[dict[str, Any]]:
        """The watchdog's messages, and {"gone": True} once it has died."""
        channel = self._started.channel
        channel.flush()
        messages = channel.receive()
        for message in messages:
            if "started" in message:
                self._group = message["started"]
            elif "ended" in message:
                self._group = 0
        return [*messages, {"gone": True}] if channel.closed else messages

    def kill(self, watchdog_too: bool = True) -> bool:
        """The last resort, when the watchdog does not do its work: kill the command and all that it started,
        whatever sessions they made for themselves, and the watchdog. Takes some milliseconds; returns False
        when something still lives after 0.2 s, and must be called again then."""
        if self._group:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._group, signal.SIGKILL)
        process = self._started.process
        dead = process.returncode is not None or kill_descendants(process.pid)
        if watchdog_too:
            process.kill()
            process.wait()
        if process.poll() is not None:
            dead = kill_orphans() and dead
        return dead

    def close(self) -> None:
        """Let the watchdog end: when the channel is closed it kills what still runs, and ends."""
        if self._child is not None:
            self._child.channel.close()
            self._child.process.wait()
        self._page.close()

    @property
    def _started(self) -> Child:
        assert self._child is not None, "attach comes first"
        return self._child
