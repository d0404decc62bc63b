"""How commands reach the supervisor, and how it describes its processes."""

from __future__ import annotations

import contextlib
import json
import select
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.waiting import wait_until
from zelect.devcluster.control import ControlServer, Processes, ProcessState, request
from zelect.devcluster.layout import ClusterError, ClusterPlan, Layout
from zelect.status.codec import read

PROCESSES = Processes(100, "redis://127.0.0.1:1/0", None, (ProcessState(1, 101, "ended", -9, True),))


@pytest.fixture
def server() -> Iterator[ControlServer]:
    made = ControlServer("secret")
    yield made
    made.close()


def answered(server: ControlServer, question: bytes, done: list[tuple[str, int]]) -> dict[str, Any]:
    """What a server with node 1 answers; `done`: the commands that it carried out."""

    def handle(command: str, node: int) -> Processes:
        done.append((command, node))
        PROCESSES.node(node)
        return PROCESSES

    with asking(server) as ask:
        ask.sendall(question + b"\n")
        heard = b""
        while not heard.endswith(b"}"):
            wait_until(lambda: served(server, handle), 20)
            with contextlib.suppress(BlockingIOError):
                heard += ask.recv(100_000)
        answer: dict[str, Any] = json.loads(heard)
        return answer


def asking(server: ControlServer) -> socket.socket:
    ask = socket.create_connection(("127.0.0.1", server.port), 20)
    ask.setblocking(False)
    return ask


def served(server: ControlServer, handle: Callable[[str, int], Processes] = lambda command, node: PROCESSES) -> bool:
    select.select([server], [], [], 0.02)
    server.serve(handle)
    return True


def closed(ask: socket.socket) -> bool:
    """Whether the other side has closed it."""
    try:
        return not ask.recv(1)
    except BlockingIOError:
        return False
    except OSError:
        return True


def test_a_command_with_the_token_is_carried_out(server: ControlServer) -> None:
    done: list[tuple[str, int]] = []
    answer = answered(server, json.dumps({"token": "secret", "command": "kill", "node": 1}).encode(), done)
    assert read(Processes, answer["processes"]) == PROCESSES
    answer = answered(server, json.dumps({"token": "secret", "command": "kill", "node": 2}).encode(), done)
    assert answer == {"error": "no node 2 in this cluster: it has 1", "exit_code": 2}
    assert done == [("kill", 1), ("kill", 2)]


@pytest.mark.parametrize(
    ("question", "error"),
    [
        (b"garbage", "malformed question"),
        (b"[]", "malformed question"),
        (b'{"token": "secret"}', "malformed question"),
        (b'{"token": "secret", "command": "kill", "node": "first"}', "malformed question"),
        (b'{"token": "secret", "command": "kill", "node": 1e999}', "malformed question"),
        (b'{"token": "secret", "command": "kill", "node": true}', "malformed question"),
        (b'{"token": ["secret"], "command": "down", "node": 0}', "malformed question"),
        (b"[" * 4000, "malformed question"),
        (b'{"token": "\\ud800", "command": "down", "node": 0}', "malformed question"),
        (b'{"token": "\xc3\xa9", "command": "down", "node": 0}', "wrong token"),
    ],
)
def test_a_question_without_the_token_or_without_sense_changes_nothing(
    server: ControlServer, question: bytes, error: str
) -> None:
    done: list[tuple[str, int]] = []
    assert answered(server, question, done) == {"error": error, "exit_code": 2}
    assert done == []


def test_who_says_too_much_or_too_little_is_disconnected() -> None:
    server = ControlServer("secret", ask_within_s=0.5)
    with contextlib.closing(server), asking(server) as endless, asking(server) as slow:
        endless.sendall(b"[" * 60_000)
        slow.sendall(b"{")
        wait_until(lambda: served(server) and closed(endless), 20)
        wait_until(lambda: served(server) and closed(slow), 20)


def test_of_many_connections_the_oldest_is_closed_and_commands_still_get_through(server: ControlServer) -> None:
    with contextlib.ExitStack() as many:
        idle = [many.enter_context(asking(server)) for _ in range(100)]
        wait_until(lambda: served(server) and closed(idle[67]), 20)
        assert not closed(idle[99])
        question = json.dumps({"token": "secret", "command": "status", "node": 1}).encode()
        assert read(Processes, answered(server, question, [])["processes"]) == PROCESSES


def test_where_no_supervisor_runs_the_question_says_so(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    with pytest.raises(ClusterError, match="no cluster in") as none:
        request(layout, "status")
    assert none.value.exit_code == 2
    layout.prepare(ClusterPlan("demo", 1, 7101, "", 20_000))
    with pytest.raises(ClusterError, match="is not running") as stopped:
        request(layout, "status")
    assert stopped.value.exit_code == 5


@pytest.mark.parametrize(
    ("state", "code", "asked", "text"),
    [
        ("up", None, False, "up"),
        ("frozen", None, False, "frozen"),
        ("ended", -signal.SIGKILL, True, "killed"),
        ("ended", 0, True, "stopped (exit code 0)"),
        ("ended", 3, False, "exited on its own (exit code 3)"),
        ("ended", -signal.SIGKILL, False, "exited on its own (signal 9)"),
    ],
)
def test_how_a_process_is_described(state: str, code: int | None, asked: bool, text: str) -> None:
    assert ProcessState(1, 100, state, code, asked).description == text


def test_an_end_that_was_not_asked_for_is_noted() -> None:
    assert ProcessState(1, 100, "ended", 3, True).note == ""
    assert "node 1 exited on its own (exit code 3)" in ProcessState(1, 100, "ended", 3, False).note
    assert ProcessState(1, 100, "ended", 3, False).short == ("exited", "exit code 3")
    assert ProcessState(1, 100, "ended", -9, True).short == ("killed", "")
    assert ProcessState(1, 100, "up", None, False).short == ("", "")
