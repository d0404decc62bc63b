"""Requests over HTTP at a steady rate, as from load balancers, in a process of their own.

    python -m tools.benchmarks.http_load RATE PORT...

Each port has two connections that are kept open; one that a dead node closed is opened again. On SIGTERM
it prints what was answered, as JSON.
"""

from __future__ import annotations

import contextlib
import json
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from types import FrameType

from tools.common.checkout import THIS, JsonDict, ToolError
from zelect.devcluster.layout import HOST
from zelect.system.parent_death import prefix

_REQUEST = b"GET /controller HTTP/1.1\r\nHost: bench\r\n\r\n"
_AGAIN_S = 0.05
_A_PORT = 2


class Askers:
    """Asks `ports` `rate` times a second in all, within a `with` block."""

    def __init__(self, ports: Iterable[int], rate: int) -> None:
        command = (*prefix(), sys.executable, "-P", "-m", "tools.benchmarks.http_load", str(rate), *map(str, ports))
        self._process = subprocess.Popen(
            command, env=THIS.environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True
        )

    def __enter__(self) -> Askers:
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.terminate()
        out, _ = self._process.communicate(timeout=10)
        found: JsonDict = json.loads(out)
        if found["asked_a_second"] < 1 and exception[0] is None:
            raise ToolError(f"nobody answered over HTTP: {found}")
        print(
            f"{found['answered_a_second']:.0f} of {found['asked_a_second']:.0f} requests a second answered, "
            f"{found['active']} of {found['answered']} by who was active",
            file=sys.stderr,
        )


class _Line:
    """One connection."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._socket: socket.socket | None = None
        self._half = b""
        self._again_s = 0.0
        self.waits = False

    def fileno(self) -> int:
        return -1 if self._socket is None else self._socket.fileno()

    def ask(self, now_s: float) -> bool:
        """Send a request, unless one is unanswered or nobody listens; whether it was sent."""
        if self.waits:
            return False
        if self._socket is None and now_s >= self._again_s:
            with contextlib.suppress(OSError):
                self._socket = socket.create_connection((HOST, self._port), timeout=0.2)
                self._socket.setblocking(False)
            self._again_s = now_s + _AGAIN_S
        if self._socket is None:
            return False
        try:
            self._socket.sendall(_REQUEST)
        except OSError:
            self._close()
            return False
        self.waits = True
        return True

    def take(self) -> Iterator[int]:
        """The status of an answer that has come."""
        if self._socket is None:
            return
        try:
            some = self._socket.recv(65_536)
        except BlockingIOError:
            return
        except OSError:
            some = b""
        if not some:
            self._close()
            return
        self._half += some
        head, end, body = self._half.partition(b"\r\n\r\n")
        sizes = [line.partition(b":")[2] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")]
        if end and sizes and len(body) >= int(sizes[0]):
            self._half, self.waits = b"", False
            yield int(head.split()[1])

    def _close(self) -> None:
        if self._socket is not None:
            self._socket.close()
        self._socket, self._half, self.waits = None, b"", False


def _main(rate: int, ports: list[int]) -> None:
    ended = False

    def end(number: int, frame: FrameType | None) -> None:
        nonlocal ended
        ended = True

    signal.signal(signal.SIGTERM, end)
    lines = [_Line(port) for _ in range(_A_PORT) for port in ports]
    asked, statuses, began_s = 0, dict[int, int](), time.monotonic()
    turn, due_s = 0, began_s
    while not ended:
        now_s = time.monotonic()
        due_s = max(due_s, now_s - 0.1)  # what could not be asked in time is left out
        while due_s <= now_s:
            due_s += 1 / rate
            for _ in lines:
                turn += 1
                if lines[turn % len(lines)].ask(now_s):
                    asked += 1
                    break
        waiting = [line for line in lines if line.waits]
        if waiting:
            for line in select.select(waiting, (), (), max(0.0, due_s - time.monotonic()))[0]:
                for status in line.take():
                    statuses[status] = statuses.get(status, 0) + 1
        else:
            time.sleep(max(0.0, due_s - time.monotonic()))
    took_s = time.monotonic() - began_s
    answered = sum(statuses.values())
    found = {
        "asked_a_second": asked / took_s,
        "answered_a_second": answered / took_s,
        "answered": answered,
        "active": statuses.get(200, 0),
        "statuses": statuses,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    _main(int(sys.argv[1]), [int(port) for port in sys.argv[2:]])
