"""A node as the child of the program that acts in its leadership: the child's side.

The program reads leadership off a shared page. What a page can't do goes over a socket: that there
is news, that a leadership was left, and back what the program does: whether it wants the node to go,
whether it is well, and in which terms jobs act. The node believes of no leadership that nobody acts in
it before the program has said so. When the program dies the socket closes, its jobs have died with
it, and the node leaves. Where it was asked to, it kills the program when a job there has not ended
by the end of the lease: nothing else ends a job that holds its interpreter's lock.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import threading
import time
from typing import Any
from urllib.parse import urlsplit

from zelect.config.loading import Config, ConfigError
from zelect.node.leadership.handle import NodeHandle
from zelect.node.leadership.hooks import Hooks
from zelect.node.leadership.lease_page import LeasePage
from zelect.node.loop import NodeLoop
from zelect.node.signals import SignalPipe
from zelect.node.storage.data_dir import DataDirError
from zelect.node.storage.lock_holder import listener_of
from zelect.node.storage.vote_store import VoteStoreError
from zelect.system.clock import now_us
from zelect.system.log import setup
from zelect.system.sockets import CannotBind

__all__ = ["run_child"]

_EVER = 2**62
_LOOK_US = 20_000


class _ChildLeadership(NodeHandle):
    """Leadership as the node sees it; who acts in it is the program's to say."""

    def __init__(self, control: socket.socket, page: LeasePage) -> None:
        super().__init__()
        self.on_change = page.write
        self.subscribe(lambda: self.say(news=True))
        self._control = control
        self._sending = threading.Lock()
        self.acting: frozenset[int] = frozenset()
        self._seen = 0  # the program knows that leaderships up to this term are over
        self._asked = 0  # the program's newest wish for a reload
        self._knows = False  # ... that the node is going, or has ended

    def say(self, **words: object) -> None:
        """To the program. A full socket is one that has plenty of news to read."""
        with self._sending, contextlib.suppress(OSError):
            self._control.send(json.dumps(words).encode() + b"\n", socket.MSG_DONTWAIT)

    def ask_to_leave(self) -> None:
        """Told by a signal, in the loop's thread: the program learns of it from the page."""
        if not self.asked_to_leave:
            self.asked_to_leave = True
            self.on_change(self)
            self.wake_loop()
            self.notify()

    def hear(self, words: dict[str, Any]) -> None:
        """From the program; called by the child_node's thread."""
        self.acting = frozenset(words["acting"])
        self._seen = max(self._seen, words["seen"])
        self._knows = bool(words["go"])
        self.healthy = bool(words["healthy"])
        if words["reloads"] != self._asked:
            self._asked = words["reloads"]
            self.reload()
        self.asked_to_leave = self.asked_to_leave or self._knows
        self.wake_loop()

    def abandon(self) -> None:
        """The program has died, and with it what acted in its name."""
        self.hear({"acting": (), "seen": _EVER, "go": True, "healthy": True, "reloads": self._asked})

    @property
    def has_jobs(self) -> bool:
        return bool(self.acting) or not self._knows

    def has_jobs_in(self, term: int) -> bool:
        if term > self._seen:
            self.say(left=term)
            return True
        return term in self.acting


def run_child(config: Config, control_fd: int, page_fd: int, kill_us: int = 0) -> int:
    """Run the node of `config` for the program at the other end of `control_fd`, and kill that
    `kill_us` before a lease ends (0: never) if a job still acts there. Returns the exit code of
    `zelect.node.loop.run`; errors are told to the program, which tells its user."""
    control = socket.socket(fileno=control_fd)
    os.set_inheritable(control_fd, False)
    os.set_inheritable(page_fd, False)
    leadership = _ChildLeadership(control, LeasePage(page_fd))
    log = setup(config.log.level, config.log.format, config.log.file, config.node.id, config.cluster.name)
    try:
        node = NodeLoop(config, log, handle=leadership)
        node.data_dir.share()
        listener = listener_of(urlsplit(config.node.listen).port or 0)
        socket.send_fds(
            control, [json.dumps({"pid": os.getpid()}).encode() + b"\n"], [listener] if listener >= 0 else []
        )
        if listener >= 0:
            os.close(listener)
        lines = control.makefile("rb")
        if not lines.readline():
            node.close()
            return 1
        threading.Thread(target=_listen, args=(leadership, lines), name="child_node", daemon=True).start()
        if kill_us:
            threading.Thread(
                target=_execute, args=(leadership, os.getppid(), kill_us), name="child_node-end", daemon=True
            ).start()
        with Hooks(config, leadership, log):
            return node.run(SignalPipe(last=True))
    except (ConfigError, VoteStoreError, DataDirError, CannotBind) as error:
        control.sendall(json.dumps({"failed": str(error)}).encode() + b"\n")
        return 2 if isinstance(error, ConfigError) else 4 if isinstance(error, CannotBind) else 3


def _execute(leadership: _ChildLeadership, program: int, kill_us: int) -> None:
    """Kill the program when a job there reaches the end of the lease that it began in."""
    term = until_us = 0
    while True:
        lease, acting = leadership.lease, leadership.acting
        if lease is not None:
            term, until_us = lease.term, lease.lapses_us
        late = term in acting and now_us() >= until_us - kill_us
        if late and os.getppid() == program:
            os.kill(program, signal.SIGKILL)
        left_us = until_us - kill_us - now_us() if term in acting else _LOOK_US
        time.sleep(max(0.001, min(left_us, _LOOK_US) / 1e6))


def _listen(leadership: _ChildLeadership, lines: Any) -> None:
    with contextlib.suppress(OSError, ValueError):
        for line in lines:
            leadership.hear(json.loads(line))
    leadership.abandon()
