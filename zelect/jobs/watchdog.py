"""The watchdog: a small process between the node and the command of `zelect run`, see `Watchdog`.

It starts the command and ends it before the lease does, whatever becomes of the node. It reads the lease
off a shared page by its own clock, so a node that is frozen, hung or killed can't leave the command
running: TERM goes out `term_us` before the lease ends, KILL `kill_us` before, and KILL at once when the
channel closes, as the node's process is gone then. Until everything is dead it holds the node's lock and
listening socket, and with them the proof of the node's death (`zelect.node.storage.lock_holder`): no
successor begins earlier.

All that the command starts belongs to it. On Linux the watchdog adopts orphans, whatever session they made
for themselves, and it is done when it has no child left. What escapes is what other daemons start for the
command. The command itself dies with the watchdog.

Messages (`zelect.system.channel`). To the watchdog: {"start": [command ...], "env": {...}, "term": n},
{"stop": grace_us}, {"signal": n}. From it: {"started": pid}; {"failed": why}, when it could not become the
command, and {"too_late": true}, when the lease was lost before it was started; {"ended": code,
"by_itself": bool}. Codes are as a shell's: 128 + n for signal n.

The standard library alone, and as little of it as possible: a watchdog must be small and start at once.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
from typing import Any, NoReturn

from zelect.jobs.process_tree import descendants, kill_each
from zelect.node.leadership.lease_page import LeasePage
from zelect.system.channel import Channel
from zelect.system.clock import now_us
from zelect.system.parent_death import adopt_orphans, die_with_parent
from zelect.system.signals import SignalPipe

_NEVER_US = 1 << 62
_AGAIN_US = 5_000
_IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE)


class Watchdog:
    """Runs one command at a time. `settings`: "term_us" and "kill_us", and the descriptors "page",
    "lock" and "listener" (-1: none). Raises `OSError`."""

    def __init__(self, channel: Channel, settings: dict[str, Any]) -> None:
        self.channel = channel
        self.page = LeasePage(settings["descriptors"]["page"])
        self.term_us: int = settings["term_us"]
        self.kill_us: int = settings["kill_us"]
        self.term = 0  # of the leadership in which the command, or a child of it, runs; 0: none does
        self.pid = 0  # of the command; 0 once it has ended
        self.group = 0  # of the command's processes
        self.code = 0
        self.by_itself = True
        self.lapses_us = 0
        self.stopped_us = 0  # when it was told to end; 0: not yet
        self.kill_at_us = 0
        self.wake = SignalPipe((signal.SIGCHLD,))
        for number in _IGNORED:
            signal.signal(number, signal.SIG_IGN)  # only the channel ends it
        adopt_orphans()
        # A watchdog that somebody stopped is woken when the node's process is killed, and finds the
        # channel closed.
        die_with_parent(signal.SIGCONT)

    def run(self) -> None:
        """Until the channel is closed and everything is dead."""
        self.channel.send({"ready": os.getpid()})
        while not self.channel.closed or self.term:
            poll = select.poll()
            poll.register(self.wake, select.POLLIN)
            if not self.channel.closed:
                poll.register(self.channel, select.POLLIN | (0 if self.channel.flush() else select.POLLOUT))
            due_us = self.due_us()
            poll.poll(None if due_us == _NEVER_US else max(0.0, (due_us - now_us()) / 1000))
            self.wake.take()
            if not self.channel.closed:
                self.receive()
            if self.term:
                self.reap()
            if self.term:
                self.judge()

    def receive(self) -> None:
        for message in self.channel.receive():
            if "start" in message:
                self.start(message["start"], message["env"], message["term"])
            elif "stop" in message:
                self.stop(message["stop"])
            elif "signal" in message and self.pid:
                self.signal_group(message["signal"])
        if self.channel.closed:
            self.stop(0)

    # -- the command ----------------------------------------------------------------------------------

    def start(self, command: list[str], env: dict[str, str], term: int) -> None:
        """Start the command, unless leadership of `term` is lost."""
        held, lapses_us = self.lease()
        if held != term or lapses_us - self.term_us <= now_us() or self.term:
            self.channel.send({"too_late": True})
            return
        read, write = os.pipe()
        watchdog, pid = os.getpid(), os.fork()
        if pid == 0:
            self.become(command, env, write, watchdog)
        os.close(write)
        problem = os.read(read, 4096)
        os.close(read)
        self.term, self.pid, self.group, self.code, self.by_itself = term, pid, pid, 0, True
        self.lapses_us, self.stopped_us, self.kill_at_us = lapses_us, 0, 0
        self.channel.send({"failed": problem.decode()} if problem else {"started": pid})

    def become(self, command: list[str], env: dict[str, str], problem: int, watchdog: int) -> NoReturn:
        """In the new process: become the command, in a process group of its own, with signals as they were,
        unless the watchdog has died in the meantime. Why it can't goes to the descriptor `problem`."""
        try:
            os.setpgid(0, 0)
            signal.set_wakeup_fd(-1)
            for number in (*_IGNORED, signal.SIGCHLD, signal.SIGXFSZ):
                signal.signal(number, signal.SIG_DFL)
            die_with_parent()
            if os.getppid() == watchdog:
                os.execvpe(command[0], command, env)
        except OSError as error:
            os.write(problem, f"{command[0]}: {error.strerror}".encode())
        os._exit(127)

    def stop(self, grace_us: int) -> None:
        """End the command: TERM now, and KILL after `grace_us`, or when the lease is about to end."""
        if self.term and not self.stopped_us:
            self.stopped_us = now_us()
            self.kill_at_us = self.stopped_us + grace_us
            self.by_itself = False
            self.signal_group(signal.SIGTERM)
            self.signal_group(signal.SIGCONT)  # a stopped process gets the TERM only when it continues
        elif self.term:
            self.kill_at_us = min(self.kill_at_us, now_us() + grace_us)

    def lease(self) -> tuple[int, int]:
        """Term and end of the lease; zeros when none is held, or the page can't be read."""
        record = self.page.read()
        return (record.term, record.lapses_us) if record is not None else (0, 0)

    def due_us(self) -> int:
        """When to judge again."""
        if not self.term:
            return _NEVER_US
        if self.must_kill():
            return now_us() + _AGAIN_US  # what was killed takes a moment to die
        return self.last_us() if self.stopped_us else self.lapses_us - self.term_us

    def last_us(self) -> int:
        """When a command that was told to end is killed."""
        return min(self.kill_at_us, self.lapses_us - self.kill_us)

    def must_kill(self) -> bool:
        """Whether the time for KILL has come, or only children that the command left behind still run."""
        return self.pid == 0 or (self.stopped_us > 0 and now_us() >= self.last_us())

    def judge(self) -> None:
        """Look at the lease, and do what is due."""
        held, lapses_us = self.lease()
        if held == self.term:
            self.lapses_us = max(self.lapses_us, lapses_us)
        if not self.stopped_us and self.pid and (held != self.term or now_us() >= self.lapses_us - self.term_us):
            self.stop(1 << 60)
        if self.must_kill():
            self.kill_all()
            self.reap()

    def reap(self) -> None:
        """Take note of who has died; when nobody is left, the command has ended."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                self.term = 0
                code = 128 - self.code if self.code < 0 else self.code
                self.channel.send({"ended": code, "by_itself": self.by_itself})
                return
            if pid == 0:
                return
            if pid == self.pid:
                self.pid = 0
                self.code = os.waitstatus_to_exitcode(status)

    def signal_group(self, number: int) -> None:
        """Send a signal to the command's process group."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.group, number)

    def kill_all(self) -> None:
        """Kill the command's group, and all that descends from this process, in one sweep."""
        self.signal_group(signal.SIGKILL)
        kill_each(descendants(os.getpid()))


def main() -> None:
    """Run a watchdog by the settings in the last argument."""
    channel, settings = Channel.of_child(sys.argv[-1])
    try:
        watchdog = Watchdog(channel, settings)
    except OSError as error:
        channel.send({"failed": str(error)})
        sys.exit(1)
    watchdog.run()
    os._exit(0)  # an interpreter that tidies up would keep the successor waiting
