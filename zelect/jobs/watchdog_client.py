"""The node's side of the watchdog (`zelect.jobs.watchdog`)."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from zelect.jobs import process_tree, watchdog
from zelect.node import loop as shell
from zelect.node.leadership.lease_page import BODY, LeasePage
from zelect.node.storage.data_dir import HOLD_BYTE
from zelect.node.storage.lock_holder import listener_of

__all__ = ["WatchdogClient", "WatchdogFailed"]


class WatchdogFailed(Exception):
    """The watchdog could not be started; the text says why."""


class WatchdogClient:
    """Starts the watchdog of a node and talks to it. `attach` is for the node's thread, the rest for
    one other. `term_ms`, `kill_ms`: how long before the lease's end the command gets TERM and KILL."""

    def __init__(self, term_ms: int, kill_ms: int) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        self.group = 0  # of the command that runs
        self._margins = {"term_us": term_ms * 1000, "kill_us": kill_ms * 1000}
        self._page = LeasePage.create()
        self._socket, self._far_end = socket.socketpair()
        self._half = b""
        self._unsent = b""

    def attach(self, node: shell.NodeLoop) -> None:
        """Give the watchdog what it needs of a node that listens, and wait until it holds it. Raises
        `WatchdogFailed`."""
        process_tree.adopt_orphans()  # what a watchdog that is killed leaves behind
        node.data_dir.share()
        listener = listener_of(urlsplit(node.config.node.listen).port or 0)
        node.handle.on_change = self._page.write
        wishes = {
            "page": self._page.fd,
            "body": BODY.format,
            "lock": str(node.data_dir.path / "lock"),
            "byte": HOLD_BYTE,
            "listener": listener,
            "control": self._far_end.fileno(),
            **self._margins,
        }
        passed = [fd for fd in (self._page.fd, listener, self._far_end.fileno()) if fd >= 0]
        command = [sys.executable, "-I", "-S", os.path.abspath(watchdog.__file__), json.dumps(wishes)]
        try:
            self.process = subprocess.Popen(command, pass_fds=passed, start_new_session=True)
        except OSError as error:
            raise WatchdogFailed(f"{sys.executable}: {error.strerror}") from error
        finally:
            self._far_end.close()
            if listener >= 0:
                os.close(listener)
        self._socket.settimeout(10)
        words = self.hear()
        self._socket.setblocking(False)
        if not any("ready" in word for word in words):
            raise WatchdogFailed("the watchdog of the command did not start; the reason stands above")

    def fileno(self) -> int:
        return self._socket.fileno()

    def start(self, command: Sequence[str], env: Mapping[str, str], term: int) -> None:
        """Start the command in leadership of `term`; "started", or "failed", is heard afterwards."""
        assert self.process is not None
        self._say(start=list(command), env={**env, process_tree.MARK: str(self.process.pid)}, term=term)

    def stop(self, grace_ms: int) -> None:
        """End the command: TERM now, KILL in `grace_ms`, or when the lease is about to end."""
        self._say(stop=grace_ms * 1000)

    def signal(self, number: int) -> None:
        """Send a signal to the command's group; it is lost when the watchdog takes no words."""
        if not self._unsent:
            self._say(signal=number)

    def hear(self) -> list[dict[str, Any]]:
        """What the watchdog said; {"gone": True} once it has died."""
        self._send()
        try:
            text = self._socket.recv(65536)
        except BlockingIOError:
            return []
        except OSError:
            text = b""
        if not text:
            return [{"gone": True}]
        *lines, self._half = (self._half + text).split(b"\n")
        words = [json.loads(line) for line in lines]
        for word in words:
            if "started" in word:
                self.group = word["started"]
            elif "ended" in word:
                self.group = 0
        return words

    def kill(self, the_watchdog_too: bool = True) -> bool:
        """The last resort, when the watchdog does not do its work: kill the command and all that it started,
        whatever session they made for themselves; and the watchdog. Takes some milliseconds; False when
        something still lived after a fifth of a second: to be called again."""
        watchdog_pid = self.process.pid if self.process is not None and self.process.returncode is None else 0
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if self.group:
                os.killpg(self.group, signal.SIGKILL)
        dead = process_tree.kill_below(watchdog_pid)
        if the_watchdog_too and watchdog_pid:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(watchdog_pid, signal.SIGKILL)
            assert self.process is not None
            self.process.wait()
        if self.process is not None and self.process.poll() is not None:
            dead = process_tree.kill_orphans() and dead
        return dead

    def close(self) -> None:
        """Let the watchdog end: with the socket closed it kills what still runs and goes."""
        self._socket.close()
        if self.process is not None:
            self.process.wait()
        self._page.close()

    def _say(self, **words: object) -> None:
        self._unsent += json.dumps(words).encode() + b"\n"
        self._send()

    def _send(self) -> None:
        """Never waits: a watchdog that takes no words is ended when it is time, not waited for."""
        with contextlib.suppress(OSError):
            while self._unsent:
                self._unsent = self._unsent[self._socket.send(self._unsent, socket.MSG_DONTWAIT) :]
