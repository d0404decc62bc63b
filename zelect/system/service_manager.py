"""What a node tells the service manager that started it: systemd, or whoever sets `NOTIFY_SOCKET` (sd_notify(3)).

Each message is one datagram. Nobody waits for it, and none is sent again: a service manager that does not listen
costs a node nothing.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

from zelect.core.lease import NEVER_US
from zelect.system.clock import now_us


@dataclass(frozen=True, slots=True)
class Service:
    """What there is to tell. `ready`: nobody needs to wait for it any longer. `leaving`: it is going to end.
    `controller`: 0 when none is known."""

    ready: bool
    leaving: bool
    active: bool
    controller: int
    term: int

    @property
    def status(self) -> str:
        if self.active:
            return f"active, term {self.term}"
        return f"follows node {self.controller}, term {self.term}" if self.controller else "no controller is known"


class ServiceManager:
    """Tells it of changes. `due_us`: when it has to hear again that the loop runs, on the election's clock."""

    def __init__(self, path: str, watchdog_us: int) -> None:
        """`watchdog_us`: it ends a node from which it has heard nothing for so long; 0: never."""
        self._address = "\0" + path[1:] if path.startswith("@") else path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.setblocking(False)
        self._every_us = watchdog_us // 3
        self._told = Service(False, False, False, -1, 0)
        self.due_us = 0 if watchdog_us else NEVER_US

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> ServiceManager | None:
        """The one that started this process, if one did."""
        path, every = environ.get("NOTIFY_SOCKET", ""), environ.get("WATCHDOG_USEC", "")
        if not path.startswith(("/", "@")) or len(path) > 107:
            return None
        mine = environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        return cls(path, int(every) if mine and every.isdecimal() and len(every) < 19 else 0)

    def tell(self, service: Service) -> None:
        """Called in every turn of the loop; sends what has changed."""
        told, now = self._told, now_us()
        lines = ["READY=1"] if service.ready and not told.ready else []
        lines += ["STOPPING=1"] if service.leaving and not told.leaving else []
        lines += [f"STATUS={service.status}"] if service.status != told.status or told.controller < 0 else []
        if now >= self.due_us:
            self.due_us = now + self._every_us
            lines.append("WATCHDOG=1")
        if lines:
            self._told = service if not told.ready or service.ready else replace(service, ready=True)
            self._send(lines)

    def reloading(self) -> None:
        """The files are being read again, until `reloaded`."""
        self._send(["RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}"])

    def reloaded(self) -> None:
        self._send(["READY=1"] if self._told.ready else [])

    def close(self) -> None:
        self._socket.close()

    def _send(self, lines: list[str]) -> None:
        if lines:
            with contextlib.suppress(OSError):
                self._socket.sendto("\n".join(lines).encode(), self._address)
