"""A node as the child process of a program whose jobs act in its leadership: the child's side.

The program reads the lease off a shared page. What a page can't do goes over the channel
(`zelect.system.channel`). From the node: {"news": true}, when there is something to read on the page;
{"lost": term}, when it stopped being active in that term; {"log": [...]}, something for the program's log. From
the program, after each change, all there is to know: {"jobs": [term ...] in which jobs act, "knows": the newest
term of which it knows that leadership is lost, "leave": bool, "healthy": bool, "reloads": how many requests so far}.

The node assumes that jobs act in every leadership of which the program has not yet said that it knows of
its end. When the program dies the channel closes: its jobs have died with it, and the node leaves. Where it
was asked to, it kills the program when a job there has not ended by the end of the lease: nothing else ends
a job that holds its interpreter's lock.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
import time
from typing import Any
from urllib.parse import urlsplit

from zelect.config.loading import Config
from zelect.node.leadership.handle import NodeHandle
from zelect.node.leadership.hooks import Hooks
from zelect.node.leadership.lease_page import LeasePage
from zelect.node.loop import NodeLoop
from zelect.node.storage.lock_holder import listener_of
from zelect.system.channel import Channel
from zelect.system.clock import now_us
from zelect.system.forwarded_log import ForwardedLog
from zelect.system.signals import SignalPipe

_EVERY_TERM = 2**62
_LOOK_US = 20_000


class _ChildHandle(NodeHandle):
    """The node's handle; which jobs act in its leadership is for the program to say."""

    def __init__(self, channel: Channel, page: LeasePage) -> None:
        super().__init__()
        self.on_change = page.show
        self.subscribe(self._say_news)
        self.jobs: frozenset[int] = frozenset()
        self._channel = channel
        self._sending = threading.Lock()
        self._unready: list[tuple[int, str, str, dict[str, object]]] | None = []
        self._lost_term = 0  # the program knows that leadership is lost up to this term
        self._reloads = 0  # how many the program has asked for
        self._leave_is_known = False  # to the program: that the node is leaving, or has ended

    def _say_news(self) -> None:
        self._offer({"news": True})

    def _offer(self, message: dict[str, object]) -> bool:
        """Where the channel is full, the program has plenty of news to read."""
        with self._sending:
            return self._channel.offer(message)

    def report(self, at_ms: int, level: str, name: str, fields: dict[str, object]) -> bool:
        """For the program's log: see `zelect.system.forwarded_log.Forward`. Before the program listens, it is kept."""
        if self._unready is not None:
            self._unready.append((at_ms, level, name, fields))
            return True
        return self._offer({"log": [at_ms, level, name, fields]})

    def ready(self, descriptors: list[int]) -> None:
        """The program may use the node, and gets copies of `descriptors`."""
        waiting, self._unready = self._unready or [], None
        self._channel.send({"ready": os.getpid()}, descriptors)
        for one in waiting:
            self.report(*one)

    def ask_to_leave(self) -> None:
        """Called for a signal, in the loop's thread: the program learns of it from the page."""
        if not self.asked_to_leave:
            self.asked_to_leave = True
            self.on_change(self)
            self.wake_loop()
            self.notify()

    def receive(self, message: dict[str, Any]) -> None:
        """What the program says; called by the channel's thread."""
        self.jobs = frozenset(message["jobs"])
        self._lost_term = max(self._lost_term, message["knows"])
        self._leave_is_known = bool(message["leave"])
        self.healthy = bool(message["healthy"])
        if message["reloads"] != self._reloads:
            self._reloads = message["reloads"]
            self.reload()
        self.asked_to_leave = self.asked_to_leave or self._leave_is_known
        self.wake_loop()

    def program_died(self) -> None:
        """And with it, its jobs."""
        self.receive({"jobs": (), "knows": _EVERY_TERM, "leave": True, "healthy": True, "reloads": self._reloads})

    @property
    def has_jobs(self) -> bool:
        return bool(self.jobs) or not self._leave_is_known

    def has_jobs_in(self, term: int) -> bool:
        if term > self._lost_term:
            self._offer({"lost": term})
            return True
        return term in self.jobs


def run_child(config: Config, channel: Channel, settings: dict[str, Any]) -> int:
    """Run the node of `config` for the program that started this process, with what `Channel.of_child` gave. Setting
    "kill_us": how long before the end of a lease the program is killed when a job still acts there (0: never). Returns
    the exit code. Raises what keeps the node from starting, and what ends it."""
    handle = _ChildHandle(channel, LeasePage(settings["descriptors"]["page"]))
    said, me, cluster = config.log, config.node.id, config.cluster.name
    log = ForwardedLog(handle.report, said.level, said.format, said.file, me, cluster)
    node = NodeLoop(config, log, handle=handle)
    lock, listener = node.data_dir.lock, listener_of(urlsplit(config.node.listen).port or 0)
    handle.ready([lock, listener] if listener >= 0 else [lock])
    if listener >= 0:
        os.close(listener)
    program = _Program(channel, settings["program"])
    messages = program.receive()  # the first says that the program holds them
    if not messages:
        node.close()
        return 1
    for message in messages:
        handle.receive(message)
    threading.Thread(target=_receive, args=(handle, program), name="zelect-program", daemon=True).start()
    if settings["kill_us"]:
        late = (handle, settings["program"], settings["kill_us"])
        threading.Thread(target=_kill_when_late, args=late, name="zelect-kill", daemon=True).start()
    with Hooks(config, handle, log):
        return node.run(SignalPipe(last=True))


class _Program:
    """The program: what it says by `channel`, and whether it lives. Its end closes the channel, but not while a forked
    child of it has a copy, where that happened unseen; so process `pid` itself is watched as well, where the system
    can."""

    def __init__(self, channel: Channel, pid: int) -> None:
        self._channel, self._pid = channel, pid
        self._poll = select.poll()
        self._poll.register(channel, select.POLLIN)
        self._process = -1
        with contextlib.suppress(OSError, AttributeError):  # before Linux 5.3, and elsewhere
            self._process = os.pidfd_open(pid)
            self._poll.register(self._process, select.POLLIN)

    def receive(self) -> list[dict[str, Any]]:
        """Wait for messages; none: it has died."""
        messages: list[dict[str, Any]] = []
        while not messages and not self._channel.closed and os.getppid() == self._pid:
            ready = [number for number, _ in self._poll.poll()]
            messages = self._channel.receive()
            if self._process in ready:
                break
        return messages


def _receive(handle: _ChildHandle, program: _Program) -> None:
    while messages := program.receive():
        for message in messages:
            handle.receive(message)
    handle.program_died()


def _kill_when_late(handle: _ChildHandle, program: int, kill_us: int) -> None:
    """Kill the program when a job there reaches the end of the lease that it began in."""
    term = until_us = 0
    while True:
        lease, jobs = handle.lease, handle.jobs
        if lease is not None:
            term, until_us = lease.term, lease.lapses_us
        left_us = until_us - kill_us - now_us()
        if term in jobs and left_us <= 0 and os.getppid() == program:
            os.kill(program, signal.SIGKILL)
        time.sleep(max(0.001, min(left_us if term in jobs else _LOOK_US, _LOOK_US) / 1e6))
