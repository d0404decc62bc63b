"""Messages between a process and its child: JSON objects, one a line, over a pair of connected sockets.

Every child that zelect talks to speaks this: a node that is the child process of a program
(`zelect.api.node_process` and `zelect.node.child_process`) and the watchdog of `zelect run`
(`zelect.jobs.watchdog_client` and `zelect.jobs.watchdog`). `zelect.system.child` starts one.

- The child's last argument is a JSON object: its settings, with "channel" and "descriptors", the numbers
  of what it inherits. It inherits nothing else.
- The child speaks first: {"ready": pid} once it can work, or {"failed": why}.
- Nobody waits for a reader: what the socket does not take is kept and sent later.
- The end of a process closes its end, and the other one reads that (`closed`). A line that is too long
  or no JSON object counts as such an end too.

The standard library alone: a watchdog runs without site-packages.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
from array import array
from collections.abc import Sequence
from typing import Any

from zelect.system.forks import in_child

MAX_BYTES = 64 * 1024 * 1024
"""The longest line: a command with the largest environment that a kernel passes on fits in."""
_READ_BYTES = 65536
_RECEIVE = socket.MSG_DONTWAIT | getattr(socket, "MSG_CMSG_CLOEXEC", 0)


class Channel:
    """One end. One thread may send and another receive; two that send need a lock of their own.

    `closed`: the other side is gone; what it sent before has been received. `received_descriptors`: open
    descriptors that came with messages.
    """

    def __init__(self, end: socket.socket) -> None:
        self.closed = False
        self.received_descriptors: list[int] = []
        end.setblocking(False)  # whatever the default timeout of the program is, and gevent knows this too
        self._end = end
        in_child(self.close)
        self._put_back: list[dict[str, Any]] = []
        self._received = b""  # the beginning of a line
        self._unsent = b""

    @classmethod
    def of_child(cls, argument: str) -> tuple[Channel, dict[str, Any]]:
        """In the child: its channel, and its settings. What it inherited is kept from its own children."""
        settings: dict[str, Any] = json.loads(argument)
        for fd in (settings["channel"], *settings["descriptors"].values()):
            if fd >= 0:
                os.set_inheritable(fd, False)
        return cls(socket.socket(fileno=settings["channel"])), settings

    def fileno(self) -> int:
        """What to wait for until there is something to receive."""
        return self._end.fileno()

    def send(self, message: dict[str, object], descriptors: Sequence[int] = ()) -> None:
        """Send a message, and with it copies of open `descriptors`; never waits."""
        self._unsent += json.dumps(message).encode() + b"\n"
        self.flush(descriptors)

    def offer(self, message: dict[str, object]) -> bool:
        """Send a message that is worth nothing later: where earlier ones wait to be sent it is dropped.
        Returns whether it was not."""
        if not self.flush():
            return False
        self.send(message)
        return True

    def flush(self, descriptors: Sequence[int] = ()) -> bool:
        """Send what waits to be sent, as far as the socket takes it; whether nothing waits any more."""
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", descriptors))] if descriptors else []
        try:
            while self._unsent:
                sent = self._end.sendmsg([self._unsent], rights, socket.MSG_DONTWAIT)
                self._unsent, rights = self._unsent[sent:], []
        except BlockingIOError:
            return False
        except OSError:  # nobody reads it any more; `receive` will say so
            self._unsent = b""
        return True

    def wait_writable(self) -> None:
        """Wait until the socket takes something again, or the other side is gone."""
        with contextlib.suppress(ValueError, OSError):  # closed here in the meantime
            self._wait(None, for_reading=False)

    def receive(self, timeout_s: float | None = 0.0, descriptors: int = 0) -> list[dict[str, Any]]:
        """The messages that have come; waits up to `timeout_s` seconds (None: for ever) until there is
        something to read. `descriptors`: how many may come with them."""
        if self._put_back:
            messages, self._put_back = self._put_back, []
            return messages
        if timeout_s != 0:
            self._wait(timeout_s, for_reading=True)
        try:
            room = socket.CMSG_SPACE(descriptors * array("i").itemsize) if descriptors else 0
            data, rights, _, _ = self._end.recvmsg(_READ_BYTES, room, _RECEIVE)
        except BlockingIOError:
            return []
        except OSError:
            data, rights = b"", []
        for _, _, numbers in rights:
            self.received_descriptors += array("i", numbers[: len(numbers) // 4 * 4])
        *lines, self._received = (self._received + data).split(b"\n")
        parsed = [_message(line) for line in lines]
        wrong = len(self._received) > MAX_BYTES or None in parsed
        self.closed = self.closed or wrong or not data
        return [message for message in parsed if message is not None]

    def _wait(self, timeout_s: float | None, *, for_reading: bool) -> None:
        if hasattr(select, "poll"):
            poll = select.poll()
            poll.register(self._end, select.POLLIN if for_reading else select.POLLOUT)
            poll.poll(None if timeout_s is None else timeout_s * 1000)
        else:  # eventlet takes it away; its own `select` waits as its green threads must
            ends = [self._end]
            select.select(ends if for_reading else [], [] if for_reading else ends, [], timeout_s)

    def put_back(self, messages: list[dict[str, Any]]) -> None:
        """Have the next `receive` return `messages`, which were received and are meant for somebody else."""
        self._put_back = messages + self._put_back

    def close(self) -> None:
        """Close this end, which the other side notices."""
        self._end.close()


def _message(line: bytes) -> dict[str, Any] | None:
    try:
        message = json.loads(line)
    except ValueError:
        return None
    return message if isinstance(message, dict) else None
