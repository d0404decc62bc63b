"""How commands reach the supervisor: one JSON question, one JSON answer, over loopback.

The server is a socket in the supervisor's poller. A question carries the token from
DIR/supervisor.json, which only the owner can read. Every question is answered at once: to see a
process end, ask for the list again. Both are read up to a size and for a time: anybody on this host can connect.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import selectors
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from zelect.devcluster.layout import HOST, ClusterError, Layout, find_port
from zelect.status.codec import read
from zelect.system.foreign import read_json, read_object, shown
from zelect.system.processes import send, started

_MOST_QUESTION_BYTES = 4096
_ASK_WITHIN_S = 2.0
_MOST_CLIENTS = 32
_MOST_ANSWER_BYTES = 64 * 1024
_ANSWER_WITHIN_S = 5.0


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


@dataclass(frozen=True, slots=True)
class _Question:
    """`command` for `node` (0: none), by somebody who knows the `token`."""

    token: str
    command: str
    node: int


_Selector: Any = getattr(selectors, "EpollSelector", None) or getattr(selectors, "KqueueSelector", None)


@dataclass(frozen=True, slots=True)
class _Failure:
    """Why a command was not carried out, and the exit code for that."""

    error: str
    exit_code: int


@dataclass(slots=True)
class _Client:
    """A connection that has asked `question` so far, since `began_s`."""

    connection: socket.socket
    began_s: float
    question: bytes = b""


class ControlServer:
    """Answers the commands: one question of one line a connection, bounded in size and time. Belongs to the
    supervisor's thread; `fileno` is for its poller."""

    def __init__(self, token: str, ask_within_s: float = _ASK_WITHIN_S) -> None:
        self._token, self._ask_within_s = token, ask_within_s
        self._clients: dict[int, _Client] = {}  # by descriptor, in the order in which they came
        self._selector = _Selector()
        self._listener = self._listen()
        self._listener.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ)
        self.port: int = self._listener.getsockname()[1]

    def _listen(self) -> socket.socket:
        while True:
            # Another process may take the port in the meantime; then another port will do.
            with contextlib.suppress(OSError):
                return socket.create_server((HOST, find_port()))

    def fileno(self) -> int:
        """What to wait for until there is something to serve."""
        number: int = self._selector.fileno()
        return number

    def serve(self, handle: Callable[[str, int], Processes]) -> None:
        """Answer the questions that are complete with `handle(command, node)`, which may raise ClusterError, and close
        the connections of those that take too long."""
        for key, _ in self._selector.select(0):
            if key.fileobj is self._listener:
                self._accept()
            else:
                self._read(key.fd, handle)
        for descriptor, client in list(self._clients.items()):
            if time.monotonic() - client.began_s > self._ask_within_s:
                self._drop(descriptor)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            for _ in range(_MOST_CLIENTS):
                connection, _ = self._listener.accept()
                connection.setblocking(False)
                self._clients[connection.fileno()] = _Client(connection, time.monotonic())
                self._selector.register(connection, selectors.EVENT_READ)
                if len(self._clients) > _MOST_CLIENTS:
                    self._drop(next(iter(self._clients)))

    def _read(self, descriptor: int, handle: Callable[[str, int], Processes]) -> None:
        client = self._clients.get(descriptor)
        if client is None:  # dropped just now
            return
        try:
            more = client.connection.recv(_MOST_QUESTION_BYTES)
        except BlockingIOError:
            return
        except OSError:
            more = b""
        client.question += more
        line, end, _ = client.question.partition(b"\n")
        if end and len(line) <= _MOST_QUESTION_BYTES:
            with contextlib.suppress(OSError):  # it has gone
                client.connection.send(json.dumps(self._answer(line, handle)).encode())
        if end or not more or len(line) > _MOST_QUESTION_BYTES:
            self._drop(descriptor)

    def _drop(self, descriptor: int) -> None:
        client = self._clients.pop(descriptor)
        self._selector.unregister(client.connection)
        client.connection.close()

    def _answer(self, question: bytes, handle: Callable[[str, int], Processes]) -> dict[str, Any]:
        try:
            asked = read(_Question, read_json(question))
        except ValueError:
            return {"error": "malformed question", "exit_code": 2}
        if not hmac.compare_digest(asked.token.encode(), self._token.encode()):
            return {"error": "wrong token", "exit_code": 2}
        try:
            return {"processes": handle(asked.command, asked.node).as_json()}
        except ClusterError as error:
            return {"error": str(error), "exit_code": error.exit_code}

    def close(self) -> None:
        """Stop listening; an answer that was given still arrives."""
        for descriptor in list(self._clients):
            self._drop(descriptor)
        self._selector.close()
        self._listener.close()


def request(layout: Layout, command: str, node: int = 0) -> Processes:
    """Ask the supervisor of `layout` to do `command` (status, start, stop, kill, freeze, thaw, down).

    Raises ClusterError: with the supervisor's own code, or 5 when none answers.
    """
    control = layout.read_control()
    if control is None or layout.supervisor_pid() is None:
        up = f"zelect cluster up {layout.read_plan().nodes}"  # which raises when there is no cluster at all
        raise ClusterError(f"the cluster in {layout.directory} is not running: start it with '{up}'", 5)
    try:
        answer = read_object(_ask(control.port, asdict(_Question(control.token, command, node))))
        if "error" in answer:
            failure = read(_Failure, answer)
            raise ClusterError(shown(failure.error), failure.exit_code)
        return read(Processes, answer.get("processes"))
    except (OSError, ValueError) as error:
        raise ClusterError(
            f"the supervisor (pid {control.pid}) does not answer; see {layout.supervisor_log}", 5
        ) from error


def _ask(port: int, question: dict[str, Any]) -> bytes:
    """The answer of the supervisor at `port`, up to its end. Raises OSError when it takes too long, and ValueError
    when it is too long."""
    until_s = time.monotonic() + _ANSWER_WITHIN_S
    answer = b""
    with socket.create_connection((HOST, port), _ANSWER_WITHIN_S) as connection:
        connection.sendall(json.dumps(question).encode() + b"\n")
        while True:
            connection.settimeout(max(0.001, until_s - time.monotonic()))
            more = connection.recv(_MOST_ANSWER_BYTES)
            answer += more
            if not more:
                return answer
            if len(answer) > _MOST_ANSWER_BYTES:
                raise ValueError("the answer is too long")


def bring_down(layout: Layout, within_s: float) -> bool:
    """End the cluster: gracefully where the supervisor answers, else by SIGKILL.

    Returns whether anything was running, after `within_s` and some more seconds at the latest.
    """
    layout.read_plan()
    pid = layout.supervisor_pid()
    if pid is not None:
        control = layout.read_control()
        since = control.started if control is not None and control.pid == pid else ""
        with contextlib.suppress(ClusterError):  # it is frozen: it is killed below
            request(layout, "down")
        if not _until(lambda: layout.supervisor_pid() is None, within_s):
            if not send(pid, since, signal.SIGKILL):
                raise ClusterError(
                    f"the supervisor of {layout.directory} does not answer, and its process is not to be found here: "
                    "perhaps it runs in a container. Stop it there",
                    5,
                )
            _until(lambda: layout.supervisor_pid() is None, 5)
        _until(lambda: not since or started(pid) != since, 2)  # it gives up the lock shortly before it ends
    control = layout.read_control()
    left = [child for child in control.children if send(child.pid, child.started, signal.SIGKILL)] if control else []
    _until(lambda: not any(started(child.pid) == child.started for child in left), 5)
    layout.control_file.unlink(missing_ok=True)
    return pid is not None or bool(left)


def _until(condition: Callable[[], bool], within_s: float) -> bool:
    end = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True
