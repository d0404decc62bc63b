"""Starts a command for a node and sees it dead before the lease ends, whatever becomes of the node.

    python -I -S guard.py WISHES      (a JSON object, see `Wishes`)

The watchdog is a small process between the node and the command. It reads the lease off a shared page
with its own clock, so that a node that is frozen, hung or killed can't leave the command running:
TERM goes out `term_us` before the lease ends, KILL `kill_us` before, and when the control socket
closes (the node's process is gone) KILL at once. Until everything is dead it holds the node's
listening socket and a byte of its lock, and with them the proof of the node's death (see
`zelect.node.storage.lock_holder`): no successor begins earlier.

All that the command starts belongs to it. On Linux the watchdog is a subreaper: orphans become its
children, whatever session they made for themselves, and it is done when it has no child left. What
escapes is what other daemons start on the command's behalf. The command itself dies with the watchdog
(PR_SET_PDEATHSIG).

Words on the control socket, one JSON object a line. To the watchdog: {"start": [command ...],
"env": {...}, "term": n}, {"stop": grace_us}, {"signal": n}. From it: {"ready": pid}, {"started": pid},
{"ended": code, "own": whether by itself}, {"failed": why}. Codes are as a shell's: 128 + n for signal n.

It is run as a file, isolated, and imports nothing of zelect: it must be small, and start at once.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import mmap
import os
import select
import signal
import socket
import struct
import sys
import time
import zlib

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
_AGAIN_US = 5_000
_IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE)


def now_us() -> int:
    return time.clock_gettime_ns(_CLOCK) // 1000


def _prctl(option: int, value: int) -> None:
    if sys.platform.startswith("linux"):
        import ctypes

        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


class WatchedLease:
    """The page: until when leadership of a term is held, by what is known now."""

    def __init__(self, fd: int, body: str) -> None:
        self._body = struct.Struct(body)
        self._memory = mmap.mmap(fd, 0, prot=mmap.PROT_READ)

    def read(self) -> tuple[int, int]:
        """(term, lapses_us); zeros when nothing is held or the page can't be read."""
        size = self._body.size
        for _ in range(1000):
            text = self._memory[: size + 4]
            if struct.unpack("<I", text[size:])[0] == zlib.crc32(text[:size]):
                term, _, lapses_us = self._body.unpack(text[:size])[:3]
                return term, lapses_us
        return 0, 0


class Watchdog:
    """`wishes`: page and its layout, lock file and byte, listener, control socket, margins."""

    def __init__(self, wishes: dict) -> None:  # type: ignore[type-arg]
        self.lease = WatchedLease(wishes["page"], wishes["body"])
        self.control = socket.socket(fileno=wishes["control"])
        self.term_us: int = wishes["term_us"]
        self.kill_us: int = wishes["kill_us"]
        self.term = 0  # of the command that runs; 0: none
        self.pid = 0  # of the command; 0 once it has ended
        self.group = 0  # the command's
        self.code: int | None = None
        self.own = True
        self.lapses_us = 0
        self.stop_us = 0  # when it was told to end; 0: not yet
        self.kill_at_us = 0
        self.open = True
        self.half = b""  # of a line
        self.wake, write = os.pipe()
        for fd in (self.wake, write):
            os.set_blocking(fd, False)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        for number in _IGNORED:
            signal.signal(number, signal.SIG_IGN)  # its end is the closed socket
        if wishes["lock"]:
            lock = os.open(wishes["lock"], os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, wishes["byte"])
        for fd in (wishes["page"], wishes["listener"], wishes["control"]):
            if fd >= 0:
                os.set_inheritable(fd, False)
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)
        # Somebody may have stopped this process when the node's is killed: the kernel wakes it then, and
        # it finds the socket closed.
        _prctl(_PR_SET_PDEATHSIG, signal.SIGCONT)

    def run(self) -> None:
        """Until the control socket is closed and everything is dead."""
        self.say(ready=os.getpid())
        while self.open or self.term:
            poll = select.poll()
            poll.register(self.wake, select.POLLIN)
            if self.open:
                poll.register(self.control, select.POLLIN)
            wait_us = self.due_us() - now_us()
            ready = poll.poll(None if wait_us > 10**12 else max(0.0, wait_us / 1000))
            for fd, _ in ready:
                if fd == self.wake:
                    with contextlib.suppress(BlockingIOError):
                        os.read(self.wake, 4096)
                else:
                    self.hear()
            if self.term:
                self.reap()
            if self.term:
                self.judge()

    def say(self, **words: object) -> None:
        with contextlib.suppress(OSError):
            self.control.sendall(json.dumps(words).encode() + b"\n")

    def hear(self) -> None:
        try:
            text = self.control.recv(65536)
        except OSError:
            text = b""
        if not text:
            self.open = False
            self.stop(0)
            return
        *lines, self.half = (self.half + text).split(b"\n")
        for line in lines:
            self.heed(json.loads(line))

    def heed(self, words: dict) -> None:  # type: ignore[type-arg]
        if "start" in words:
            self.start(words["start"], words["env"], words["term"])
        elif "stop" in words:
            self.stop(words["stop"])
        elif "signal" in words and self.pid:
            self.kill_group(words["signal"])

    # -- the command ----------------------------------------------------------------------------------

    def start(self, command: list[str], env: dict[str, str], term: int) -> None:
        held, lapses_us = self.lease.read()
        if held != term or lapses_us - self.term_us <= now_us() or self.term:
            self.say(failed="leadership was lost first")
            return
        told, tell = os.pipe()
        watchdog, pid = os.getpid(), os.fork()
        if pid == 0:
            self.become(command, env, tell, watchdog)
        os.close(tell)
        problem = os.read(told, 4096)
        os.close(told)
        self.term, self.pid, self.group, self.code, self.own = term, pid, pid, None, True
        self.lapses_us, self.stop_us, self.kill_at_us = lapses_us, 0, 0
        if problem:
            self.say(failed=problem.decode())
        else:
            self.say(started=pid)

    def become(self, command: list[str], env: dict[str, str], tell: int, watchdog: int) -> None:
        """In the new process: become the command, in a group of its own, with signals as they were,
        unless the watchdog has died in the meantime."""
        try:
            os.setpgid(0, 0)
            signal.set_wakeup_fd(-1)
            for number in (*_IGNORED, signal.SIGCHLD, signal.SIGXFSZ):
                signal.signal(number, signal.SIG_DFL)
            _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() == watchdog:
                os.execvpe(command[0], command, env)
        except OSError as error:
            os.write(tell, f"{command[0]}: {error.strerror}".encode())
        os._exit(127)

    def stop(self, grace_us: int) -> None:
        """End the command: TERM, and KILL after `grace_us`, or when the lease is about to end."""
        if self.term and not self.stop_us:
            self.stop_us = now_us()
            self.kill_at_us = self.stop_us + grace_us
            self.own = False
            self.kill_group(signal.SIGTERM)
            self.kill_group(signal.SIGCONT)  # one that is stopped hears of it too
        elif self.term:
            self.kill_at_us = min(self.kill_at_us, now_us() + grace_us)

    def due_us(self) -> int:
        if not self.term:
            return 1 << 62
        if self.pid == 0 or (self.stop_us and now_us() >= self.kill_us_at()):
            return now_us() + _AGAIN_US  # what was killed takes a moment to die
        return self.kill_us_at() if self.stop_us else self.lapses_us - self.term_us

    def kill_us_at(self) -> int:
        return min(self.kill_at_us, self.lapses_us - self.kill_us)

    def judge(self) -> None:
        """Look at the lease, and do what is due."""
        held, lapses_us = self.lease.read()
        if held == self.term:
            self.lapses_us = max(self.lapses_us, lapses_us)
        if not self.stop_us and self.pid and (held != self.term or now_us() >= self.lapses_us - self.term_us):
            self.stop(1 << 60)
        if self.pid == 0 or (self.stop_us and now_us() >= self.kill_us_at()):
            self.kill_all()
            self.reap()

    def reap(self) -> None:
        """Take note of who has died; when nobody is left, the command has ended."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                self.ended()
                return
            if pid == 0:
                return
            if pid == self.pid:
                self.pid = 0
                self.code = os.waitstatus_to_exitcode(status)

    def ended(self) -> None:
        code = self.code if self.code is not None else 0
        self.term = 0
        self.say(ended=128 - code if code < 0 else code, own=self.own)

    def kill_group(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.group, number)

    def kill_all(self) -> None:
        """The command's group, and all that descends from this process, in one sweep."""
        self.kill_group(signal.SIGKILL)
        for pid in below(os.getpid()):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)


def below(pid: int) -> list[int]:
    """All that descends from `pid`, where the system tells."""
    born: dict[int, list[int]] = {}
    for child, parent in parents().items():
        born.setdefault(parent, []).append(child)
    found = list(born.get(pid, ()))
    for one in found:  # which grows meanwhile
        found += born.get(one, ())
    return found


def parents() -> dict[int, int]:
    """Each living process's parent; those that are dead and not reaped yet are left out."""
    found: dict[int, int] = {}
    with contextlib.suppress(FileNotFoundError):
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                with contextlib.suppress(OSError), open(f"/proc/{entry}/stat", "rb") as stat:
                    state, parent = stat.read().rpartition(b")")[2].split()[:2]
                    if state not in (b"Z", b"X"):
                        found[int(entry)] = int(parent)
    return found


def main() -> None:
    try:
        watchdog = Watchdog(json.loads(sys.argv[1]))
    except OSError as error:
        busy = error.errno in (errno.EACCES, errno.EAGAIN)
        sys.exit(f"guard: {'the command of an earlier run has not ended' if busy else error}")
    watchdog.run()
    os._exit(0)  # an interpreter that tidies up would keep the successor waiting


if __name__ == "__main__":
    main()
