"""How commands reach the supervisor: one JSON question, one JSON answer, over loopback.

The server is a REP socket in the supervisor's poller. A question carries the token from
DIR/supervisor.json, which only the owner can read. Every question is answered at once: to see a
process end, ask for the list again.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import zmq

from zelect.devcluster.layout import HOST, ClusterError, Layout, find_port

_MAX_BYTES = 64 * 1024
_ANSWER_WITHIN_MS = 5000


@dataclass(frozen=True, slots=True)
class ProcessState:
    """The process of a node. `state` is "up", "frozen" or "ended"; `exit_code` of an ended one
    is negative for a signal; `asked`: whether its end was asked for."""

    id: int
    pid: int
    state: str
    exit_code: int | None
    asked: bool

    @property
    def description(self) -> str:
        """Its state, and how it ended."""
        if self.state != "ended":
            return self.state
        code = self.exit_code or 0
        if self.asked and code == -signal.SIGKILL:
            return "killed"
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        return f"stopped ({how})" if self.asked else f"exited on its own ({how})"

    @property
    def short(self) -> tuple[str, str]:
        """The same for two narrow columns; ("", "") when it is up."""
        if self.state == "up":
            return "", ""
        first, _, rest = self.description.partition(" (")
        return first.removesuffix(" on its own"), rest.removesuffix(")")

    @property
    def note(self) -> str:
        """A sentence when it ended without being asked to, else empty."""
        if self.state != "ended" or self.asked:
            return ""
        return f"node {self.id} {self.description} and will not be restarted: see logs/n{self.id}.log"


@dataclass(frozen=True, slots=True)
class Processes:
    """All processes of the cluster: the pids of the supervisor and of its Redis (None: it runs none), and the
    nodes."""

    supervisor: int
    redis_url: str
    redis_pid: int | None
    nodes: tuple[ProcessState, ...]

    def node(self, node: int) -> ProcessState:
        """The process of `node`; raises ClusterError (2) for an unknown one."""
        for process in self.nodes:
            if process.id == node:
                return process
        ids = ", ".join(str(process.id) for process in self.nodes)
        raise ClusterError(f"no node {node} in this cluster: it has {ids}")

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, table: Mapping[str, Any]) -> Processes:
        nodes = tuple(ProcessState(**entry) for entry in table["nodes"])
        return cls(table["supervisor"], table["redis_url"], table["redis_pid"], nodes)


class ControlServer:
    """Answers the commands. Belongs to the supervisor's thread; `socket` is for its poller."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], token: str) -> None:
        self._token = token
        self.socket = context.socket(zmq.REP)
        self.socket.setsockopt(zmq.LINGER, 500)  # so that the answer to "down" still leaves
        self.socket.setsockopt(zmq.MAXMSGSIZE, _MAX_BYTES)
        self.port = self._bind()

    def _bind(self) -> int:
        while True:
            port = find_port()
            # Another process may take the port in the meantime; then another port will do.
            with contextlib.suppress(zmq.ZMQError):
                self.socket.bind(f"tcp://{HOST}:{port}")
                return port

    def serve(self, handle: Callable[[str, int], Processes]) -> None:
        """Answer the waiting questions with `handle(command, node)`, which may raise ClusterError."""
        while self.socket.poll(0):
            frames = self.socket.recv_multipart()
            self.socket.send(json.dumps(self._answer(frames[0], handle)).encode())

    def _answer(self, question: bytes, handle: Callable[[str, int], Processes]) -> dict[str, Any]:
        try:
            table = json.loads(question)
            command, node = str(table["command"]), int(table["node"])
            known = hmac.compare_digest(str(table["token"]).encode(), self._token.encode())
        except (ValueError, TypeError, KeyError):
            return {"error": "malformed question", "exit_code": 2}
        if not known:
            return {"error": "wrong token", "exit_code": 2}
        try:
            return {"processes": handle(command, node).as_json()}
        except ClusterError as error:
            return {"error": str(error), "exit_code": error.exit_code}

    def close(self) -> None:
        self.socket.close()


def request(layout: Layout, command: str, node: int = 0) -> Processes:
    """Ask the supervisor of `layout` to do `command` (status, start, stop, kill, freeze, thaw, down).

    Raises ClusterError: with the supervisor's own code, or 5 when none answers.
    """
    control = layout.read_control()
    if control is None or layout.supervisor_pid() is None:
        up = f"zelect cluster up {layout.read_plan().nodes}"  # which raises when there is no cluster at all
        raise ClusterError(f"the cluster in {layout.directory} is not running: start it with '{up}'", 5)
    question = json.dumps({"token": control["token"], "command": command, "node": node})
    with zmq.Context() as context, context.socket(zmq.REQ) as socket:
        socket.setsockopt(zmq.LINGER, 0)
        socket.connect(f"tcp://{HOST}:{control['port']}")
        socket.send_string(question)
        if not socket.poll(_ANSWER_WITHIN_MS):
            raise ClusterError(f"the supervisor (pid {control['pid']}) does not answer; see {layout.supervisor_log}", 5)
        answer = json.loads(socket.recv())
    if "error" in answer:
        raise ClusterError(answer["error"], answer["exit_code"])
    return Processes.from_json(answer["processes"])


def bring_down(layout: Layout, within_s: float) -> bool:
    """End the cluster: gracefully where the supervisor answers, else by SIGKILL.

    Returns whether anything was running, after `within_s` and some more seconds at the latest.
    """
    layout.read_plan()
    pid = layout.supervisor_pid()
    if pid is not None:
        with contextlib.suppress(ClusterError):  # it is frozen: it is killed below
            request(layout, "down")
        if not _until(lambda: layout.supervisor_pid() is None, within_s):
            _signal(pid, signal.SIGKILL)
            _until(lambda: layout.supervisor_pid() is None, 5)
        _until(lambda: not _command_line(pid), 2)  # it gives up the lock shortly before it ends
    left = _left_behind(layout)
    for child in left:
        _signal(child, signal.SIGKILL)
    _until(lambda: not _left_behind(layout), 5)
    layout.control_file.unlink(missing_ok=True)
    return pid is not None or bool(left)


def _until(condition: Callable[[], bool], within_s: float) -> bool:
    end = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _left_behind(layout: Layout) -> list[int]:
    """Children of a dead supervisor that still run. They are known by pid and command line: the pid may belong
    to another process by now."""
    control = layout.read_control() or {}
    return [pid for pid, mark in control.get("children", []) if mark in _command_line(pid)]


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        pass
    if Path("/proc/self").exists():
        return ""
    listed = subprocess.run(["ps", "-o", "command=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return listed.stdout
