"""A node that runs as a child process of the program: the program's side.

An interpreter that is busy, or a library that holds its lock for seconds, keeps a thread from running, and
that costs the leadership. A process of its own has its own interpreter. The program reads the lease off a
shared page by its own clock, so it notices the end of a leadership even when the node is frozen; and it
holds the node's lock and listening socket, so that nobody takes the node for dead, and succeeds it, while a
job here has not ended (`zelect.node.storage.lock_holder`). The messages: `zelect.node.child_process`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from queue import SimpleQueue

from zelect.api.log import ProgramLog
from zelect.config.loading import Config
from zelect.core.lease import Lease
from zelect.node.leadership.handle import Controller, NodeHandle
from zelect.node.leadership.lease_page import LeasePage
from zelect.node.storage.lock_holder import LockHolder
from zelect.system.channel import Channel
from zelect.system.child import Child, ChildFailed, environment, how_it_ended
from zelect.system.forwarded_log import Forward


class _ProgramHandle(NodeHandle):
    """The handle of a node in another process, by what its page says."""

    def __init__(self, page: LeasePage, channel: Channel) -> None:
        super().__init__()
        # A thread does it: a signal handler may ask, and what it interrupted may hold the locks.
        self._wakes: SimpleQueue[bool] = SimpleQueue()
        self.wake_loop = lambda: self._wakes.put(True)
        self._page = page
        self._channel = channel
        self._sending = threading.Lock()
        self._lost_term = 0
        threading.Thread(target=self._send_when_woken, name="zelect-send", daemon=True).start()

    def active_lease(self) -> Lease | None:
        if not self.forked:
            self.refresh()
        return super().active_lease()

    def refresh(self) -> None:
        """Read the page. Once the node has ended there is no lease, whatever the page says."""
        record = self._page.read()
        if record is None or self.ended:
            self.lease = None
            return
        self.lease = Lease(record.term, record.active_since_us, record.lapses_us) if record.term else None
        self.controller = Controller(record.controller, record.controller_term, record.previous, record.reason)
        self.asked_to_leave = self.asked_to_leave or record.asked_to_leave
        if record.ended:
            self.ended, self.lease = True, None

    def register_job(self, term: int) -> bool:
        registered = super().register_job(term)
        if registered:
            self.send()
        return registered

    def lost(self, term: int) -> None:
        """The node has stopped being active in `term`, and the page no longer says so."""
        with self._lock:  # a `register_job` that saw the lease has counted its job by now
            self._lost_term = max(self._lost_term, term)
        self.send()

    def send(self) -> None:
        """Send the node what is true here. Where the channel is full, the thread sends it later."""
        with self._sending:  # what is sent last must be the newest
            with self._lock:
                jobs, lost_term = sorted(self._jobs), self._lost_term
            state = {"jobs": jobs, "knows": lost_term, "leave": self.asked_to_leave or self.ended}
            if not self._channel.offer({**state, "healthy": self.healthy, "reloads": self.reload_requests}):
                self._wakes.put(True)

    def stop_sending(self) -> None:
        """The node is gone."""
        self._wakes.put(False)

    def _send_when_woken(self) -> None:
        while self._wakes.get():
            self._channel.wait_writable()
            self.send()


class NodeProcess:
    """A node in a process of its own, see `zelect.api.node_thread.RunningNode`. It kills this process
    `kill_us` before a lease ends if a job has not ended by then (0: never)."""

    handle: NodeHandle

    def __init__(self, config: Config, kill_us: int) -> None:
        self.error: BaseException | None = None
        self._config = config
        self._kill_us = kill_us
        self._ended = threading.Event()

    def start(self) -> None:
        """Return once the node listens. Raises `ChildFailed`."""
        page = LeasePage.create()
        command = [sys.executable, "-P", "-m", "zelect", "node", "-c", str(self._config.path.absolute())]
        command += ["--id", str(self._config.given_id)] if self._config.given_id else []
        command += ["--child"]
        settings, descriptors = {"kill_us": self._kill_us, "program": os.getpid()}, {"page": page.fd}
        try:
            child = Child(command, settings, descriptors, env=environment(), stdin=subprocess.DEVNULL)
        finally:
            page.close_descriptor()
        try:
            child.wait_ready(descriptors=2)
        except BaseException:  # Ctrl-C, say: no node may be left that nobody can stop
            child.end()
            raise
        lock, listener = [*child.channel.received_descriptors, -1][:2]
        holder = LockHolder(lock, listener)
        handle = self.handle = _ProgramHandle(page, child.channel)
        handle.send()
        receiver = threading.Thread(target=self._receive, args=(handle, child, holder), daemon=True)
        receiver.name = "zelect-node"
        receiver.start()

    def join(self, timeout_s: float | None = None) -> bool:
        return self._ended.wait(timeout_s)

    def _receive(self, handle: _ProgramHandle, child: Child, holder: LockHolder) -> None:
        with ProgramLog(self._config) as log:
            self._receive_all(handle, child, holder, log.take)
        self._ended.set()

    def _receive_all(self, handle: _ProgramHandle, child: Child, holder: LockHolder, report: Forward) -> None:
        why = ""
        while not child.channel.closed:
            for message in child.channel.receive(None):
                if "log" in message:
                    report(*message["log"])
                    continue
                handle.refresh()
                why = message.get("failed", why)
                if "lost" in message:
                    handle.lost(message["lost"])
                if handle.ended or handle.asked_to_leave:
                    handle.send()  # that it is known here
                handle.notify()
        asked = handle.asked_to_leave
        handle.close()
        code = child.process.wait()
        if not asked:
            process = f"the node's process {child.process.pid} {how_it_ended(code)}"
            self.error = ChildFailed(f"{process}: {why}" if why else process)
        while handle.has_jobs:  # no peer may take the node for dead while a job here acts
            time.sleep(0.001)
        holder.release()
        handle.stop_sending()
        child.channel.close()
