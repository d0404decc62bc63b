"""The node that a program embeds, as a process of its own: the program's side.

An interpreter that is busy, or a library that holds its lock for seconds, costs a thread its turns
and with them leadership. A process has its own. The program reads leadership off a shared page,
with its own clock, so it learns of a stopped being active even when the node is frozen; and it holds the
node's lock and listening socket, so that nobody takes the node for dead, and succeeds it, while a
job here has not ended (see `zelect.node.storage.lock_holder`).
"""

from __future__ import annotations

import contextlib
import json
import os
import site
import socket
import subprocess
import sys
import threading
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from zelect.config.loading import Config
from zelect.core.lease import Lease
from zelect.node.leadership.handle import NodeHandle
from zelect.node.leadership.lease_page import LeasePage
from zelect.node.storage.lock_holder import LockHolder

__all__ = ["ChildFailed", "NodeProcess"]


class ChildFailed(Exception):
    """The node's process could not start, or died; the text says why."""


class _RemoteLeadership(NodeHandle):
    """Leadership of a node in another process, as its page tells."""

    def __init__(self, page: LeasePage, control: socket.socket) -> None:
        super().__init__()
        # By a thread: a signal's handler may say this, and what it interrupted may hold the locks.
        self._wakes: SimpleQueue[bool] = SimpleQueue()
        self.wake_loop = lambda: self._wakes.put(True)
        threading.Thread(target=self._tell_on, name="zelect-tell", daemon=True).start()
        self._page = page
        self._control = control
        self._sending = threading.Lock()
        self._seen = 0

    def active_lease(self) -> Lease | None:
        self.refresh()
        return super().active_lease()

    def refresh(self) -> None:
        """Read the page. Once it has ended, nothing is held whatever stands there."""
        told = self._page.read()
        if told is None or self.ended:
            self.lease = None
            return
        self.lease, self.controller, going, ended = told
        self.asked_to_leave = self.asked_to_leave or going
        if ended:
            self.ended, self.lease = True, None

    def register_job(self, term: int) -> bool:
        held = super().register_job(term)
        if held:
            self.tell()
        return held

    def left(self, term: int) -> None:
        """The node has stopped being active of `term`, and the page no longer shows it."""
        with self._lock:  # an `register_job` that saw it held has taken note of its job by now
            self._seen = max(self._seen, term)
        self.tell()

    def _tell_on(self) -> None:
        while self._wakes.get():
            self.tell()

    def hush(self) -> None:
        """Nobody is there any more who could be told."""
        self._wakes.put(False)

    def tell(self) -> None:
        """Tell the node what is the case here."""
        with self._sending:  # the newest words must be those that are sent last
            with self._lock:
                acting, seen = sorted(self._jobs), self._seen
            words = {"acting": acting, "seen": seen, "go": self.asked_to_leave or self.ended, "healthy": self.healthy}
            words["reloads"] = self.reload_requests
            with contextlib.suppress(OSError):
                self._control.sendall(json.dumps(words).encode() + b"\n")


class NodeProcess:
    """A node in a process of its own, which kills this one `kill_us` before a lease ends if a job has
    not ended (0: never). `zelect.api.node_thread.RunningNode` tells of the rest."""

    handle: NodeHandle

    def __init__(self, config: Config, kill_us: int) -> None:
        self.error: BaseException | None = None
        self._config = config
        self._kill_us = kill_us
        self._hold: LockHolder | None = None
        self._done = threading.Event()

    def start(self) -> None:
        """Raises `ChildFailed`."""
        page = LeasePage.create()
        control, far_end = socket.socketpair()
        child_node = f"{far_end.fileno()},{page.fd},{self._kill_us}"
        command = [
            sys.executable,
            "-m",
            "zelect",
            "node",
            "-c",
            str(self._config.path.absolute()),
            "--child_node",
            child_node,
        ]
        try:
            self.process = subprocess.Popen(
                command,
                pass_fds=[far_end.fileno(), page.fd],
                env=_environment(),
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # a Ctrl-C at the terminal is the program's to judge
            )
        except OSError as error:
            raise ChildFailed(f"{sys.executable}: {error.strerror}") from error
        finally:
            far_end.close()
        text, fds, _, _ = socket.recv_fds(control, 65536, 1)
        words = json.loads(text) if text else {"failed": f"its process ended with code {self.process.wait()}"}
        if "failed" in words:
            control.close()
            self.process.wait()
            raise ChildFailed(words["failed"])
        self._hold = LockHolder(self._config.node.data_dir, fds[0] if fds else -1)
        leadership = self.handle = _RemoteLeadership(page, control)
        leadership.tell()
        threading.Thread(
            target=self._listen, args=(leadership, control, page), name="zelect-child_node", daemon=True
        ).start()

    def join(self, timeout_s: float | None = None) -> bool:
        return self._done.wait(timeout_s)

    def _listen(self, leadership: _RemoteLeadership, control: socket.socket, page: LeasePage) -> None:
        with contextlib.suppress(OSError, ValueError):
            for line in control.makefile("rb"):
                words: dict[str, Any] = json.loads(line)
                leadership.refresh()
                if "left" in words:
                    leadership.left(words["left"])
                if leadership.ended or leadership.asked_to_leave:
                    leadership.tell()  # that it is known here
                leadership.notify()
        asked = leadership.asked_to_leave
        leadership.close()
        code = self.process.wait()
        if code and not asked:
            self.error = ChildFailed(f"the node's process {self.process.pid} ended with code {code}")
        while leadership.has_jobs:  # its peers may not take it for dead as long as a job here acts
            _pause()
        if self._hold is not None:
            self._hold.release()
        leadership.hush()
        control.close()
        self._done.set()


def _pause() -> None:
    threading.Event().wait(0.001)


def _environment() -> dict[str, str]:
    """This process's, in which the child finds the zelect that is running here."""
    home = str(Path(__file__).resolve().parents[2])
    if home in (*site.getsitepackages(), site.getusersitepackages()):
        return dict(os.environ)
    paths = [path for path in (os.environ.get("PYTHONPATH", ""), home) if path]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
