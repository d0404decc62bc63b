"""Log lines, and logs that cannot be written."""

from __future__ import annotations

import fcntl
import json
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from enum import Enum, StrEnum
from pathlib import Path

import pytest

from zelect.core.effects import FACTS, Fact
from zelect.system.log import DeferredLog, Log, setup

STAMP = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"


class Colour(Enum):
    RED = "red"


class Word(StrEnum):
    TWO = "two words"


class Unprintable:
    def __str__(self) -> str:
        raise RuntimeError("no text")


class Clock:
    """A clock that one can hold still."""

    def __init__(self) -> None:
        self.us = 5_000_000

    def __call__(self) -> int:
        return self.us


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "n1.log"


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        try:
            os.close(end)
        except OSError:
            continue  # closed by the test


def text_of(file: Path, **fields: object) -> str:
    """The fields of one text line."""
    setup("info", "text", str(file), 1, "demo").event("info", "happened", **fields)
    return file.read_text().splitlines()[-1].split("happened ", 1)[1]


def object_of(file: Path, **fields: object) -> dict[str, object]:
    setup("info", "json", str(file), 1, "demo").event("info", "happened", **fields)
    found = json.loads(file.read_text().splitlines()[-1])
    assert isinstance(found, dict)
    return found


def test_a_text_line_has_fixed_columns(file: Path) -> None:
    log = setup("debug", "text", str(file), 1, "demo")
    for level in ("debug", "info", "warning", "error"):
        log.event(level, "vote_granted", term=4, candidate=2)
    log.event("info", "started")
    lines = file.read_text().splitlines()
    for line, column in zip(lines, ("DEBUG", "INFO ", "WARN ", "ERROR"), strict=False):
        assert re.fullmatch(f"{STAMP} {column} n1 vote_granted term=4 candidate=2", line)
    assert re.fullmatch(f"{STAMP} INFO  n1 started", lines[4])


def test_a_json_line_is_one_object(file: Path) -> None:
    found = object_of(file, term=4, votes={2: True}, when=None, node=9, ratio=float("inf"))
    assert re.fullmatch(STAMP, str(found.pop("time")))
    assert found == {
        "level": "info",
        "node": 1,
        "cluster": "demo",
        "event": "happened",
        "term": 4,
        "votes": {"2": True},
        "when": None,
        "node_": 9,
        "ratio": "inf",
    }


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("plain", "plain"),
        ("tcp://127.0.0.1:7101", "tcp://127.0.0.1:7101"),
        ("", '""'),
        ("two words", '"two words"'),
        ('a"b', '"a\\"b"'),
        ("a=b", '"a=b"'),
        ("a\nb\x1b[0m", '"a\\nb\\u001b[0m"'),
        ("a\u2028b\u202e", '"a\\u2028b\\u202e"'),
        ("\ud800", '"\\ud800"'),
        ("é", "é"),
        (True, "yes"),
        (None, "-"),
        (1.5, "1.5"),
        ((1, 2), "1,2"),
        ([], "-"),
        ({3, 1}, "1,3"),
        (Colour.RED, "red"),
        (Word.TWO, '"two words"'),
        (b"secret", '"<6 bytes>"'),
        ([b"secret"], '"<6 bytes>"'),
        ({"a": b"secret"}, '{"a": "<6 bytes>"}'),
        (OSError(2, "gone"), '"[Errno 2] gone"'),
    ],
)
def test_values_in_text(file: Path, value: object, text: str) -> None:
    assert text_of(file, value=value) == f"value={text}"


def test_no_raw_bytes_in_json(file: Path) -> None:
    fields = {"a": b"secret", "b": [bytearray(b"secret")], "c": {b"secret": memoryview(b"secret")}}
    found = object_of(file, **fields)
    assert (found["a"], found["b"], found["c"]) == ("<6 bytes>", ["<6 bytes>"], {"<6 bytes>": "<6 bytes>"})


@pytest.mark.parametrize("format", ["text", "json"])
def test_long_lines_are_cut(file: Path, format: str) -> None:
    log = setup("info", format, str(file), 1, "demo")
    log.event("info", "long_value", value="x" * 100_000)
    log.event("info", "many_values", values=list(range(10_000)))
    first, second = file.read_text().splitlines()
    assert 400 < len(first) < 600
    assert "many_values" in second
    assert "cut" in second
    assert log.dropped == 0


@pytest.mark.parametrize(("level", "seen"), [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)])
def test_lesser_levels_are_left_out(file: Path, level: str, seen: int) -> None:
    log = setup(level, "text", str(file), 1, "demo")
    for each in ("debug", "info", "warning", "error"):
        log.event(each, "happened")
        log.limited(each, each, "happened")
    assert len(file.read_text().splitlines()) == 2 * seen
    assert log.dropped == 0


def test_a_limited_line_comes_once_a_second_and_counts_the_others(file: Path) -> None:
    clock = Clock()
    fd = os.open(file, os.O_WRONLY | os.O_CREAT)
    log = Log(fd, "info", "text", 1, "demo", clock)
    for step_us in (0, 0, 999_999, 1, 1, 1_000_000, 1_000_000):
        clock.us += step_us
        log.limited("bad", "info", "refused", term=1)
    log.limited("other", "info", "other_refused")
    os.close(fd)
    lines = [line.split("n1 ")[1] for line in file.read_text().splitlines()]
    assert lines == [
        "refused term=1",
        "refused term=1 suppressed=2",
        "refused term=1 suppressed=1",
        "refused term=1",
        "other_refused",
    ]


def test_lines_of_several_threads_do_not_mix(file: Path) -> None:
    log = setup("info", "text", str(file), 1, "demo")

    def write() -> None:
        for _ in range(200):
            log.event("info", "x", y="z" * 300)

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = file.read_text().splitlines()
    assert len(lines) == 800
    assert len({line[25:] for line in lines}) == 1


def test_a_full_disk_drops_and_counts() -> None:
    log = setup("info", "text", "/dev/full", 1, "demo")
    for _ in range(3):
        log.event("info", "happened")
    assert log.dropped == 3


def test_a_closed_pipe_drops_and_counts(pipe: tuple[int, int]) -> None:
    log = Log(pipe[1], "info", "text", 1, "demo")
    log.event("info", "happened")
    os.close(pipe[0])
    log.event("info", "happened")
    assert log.dropped == 1


def test_a_full_pipe_drops_and_recovers(pipe: tuple[int, int]) -> None:
    log = Log(pipe[1], "info", "text", 1, "demo")
    while not log.dropped:
        log.event("info", "happened", filler="x" * 300)
    os.read(pipe[0], 1_000_000)
    log.event("info", "later")
    assert os.read(pipe[0], 1_000_000).endswith(b"n1 later\n")
    assert log.dropped == 1


def test_a_full_socket_drops() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        log = Log(ours.fileno(), "info", "text", 1, "demo")
        while not log.dropped:
            log.event("info", "happened", filler="x" * 300)
        theirs.setblocking(False)
        assert theirs.recv(100).endswith(b"x")
        assert log.dropped == 1


def test_a_line_after_half_a_line_starts_on_its_own(file: Path) -> None:
    code = (
        "import resource, sys; from zelect.system.log import setup\n"
        "log = setup('info', 'text', sys.argv[1], 1, 'demo')\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20, resource.RLIM_INFINITY))\n"
        "log.event('info', 'half')\n"
        "log.event('info', 'none')\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)\n"
        "log.event('info', 'whole')\n"
        "print(log.dropped)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(file)], capture_output=True, text=True, check=True)
    assert done.stdout == "2\n"
    half, whole = file.read_text().splitlines()
    assert len(half) == 20
    assert whole.endswith("n1 whole")


def test_a_value_without_text_ends_nothing(file: Path) -> None:
    log = setup("info", "text", str(file), 1, "demo")
    log.event("info", "happened", value=Unprintable())
    log.event("no_such_level", "happened")
    assert log.dropped == 1
    assert "ERROR n1 happened" in file.read_text()


STDERR = """
import os, sys
from zelect.system.log import setup
if sys.argv[2:] == ["closed"]:
    os.close(2)
log = setup("info", "text", sys.argv[1], 3, "demo")
for _ in range(int(sys.stdin.readline())):
    log.event("info", "happened", filler="x" * 300)
print(log.dropped, os.get_blocking(2) if sys.argv[2:] != ["closed"] else "", flush=True)
"""


def on_stderr(arguments: list[str], stderr: int, lines: int) -> str:
    command = [sys.executable, "-c", STDERR, *arguments]
    done = subprocess.run(
        command, input=f"{lines}\n", stdout=subprocess.PIPE, stderr=stderr, text=True, check=True, timeout=60
    )
    return done.stdout.strip()


def test_standard_error_without_a_reader_does_not_block(pipe: tuple[int, int]) -> None:
    dropped, blocking = on_stderr([""], pipe[1], 1000).split()
    assert 0 < int(dropped) < 1000
    assert blocking == "True"  # the pipe is shared: others may rely on waiting
    assert fcntl.fcntl(pipe[1], fcntl.F_GETFL) & os.O_NONBLOCK == 0


def test_closed_standard_error_is_left_alone(file: Path) -> None:
    assert on_stderr(["", "closed"], subprocess.DEVNULL, 5) == "5"


def test_standard_error_to_a_file_appends(file: Path) -> None:
    with file.open("w") as out:
        out.write("before\n")
        out.flush()
        on_stderr([""], out.fileno(), 2)
    lines = file.read_text().splitlines()
    assert (lines[0], len(lines)) == ("before", 3)


def test_a_file_that_cannot_be_opened_is_reported_on_standard_error(file: Path) -> None:
    with file.open("w") as out:
        on_stderr([str(file.parent / "nowhere" / "log")], out.fileno(), 1)
    first, second = file.read_text().splitlines()
    assert "ERROR n3 log_file_unusable file=" in first
    assert "No such file" in first
    assert " n3 happened " in second


def test_the_log_is_light_to_import() -> None:
    code = "import sys, zelect.system.log; print({'logging', 'asyncio', 'socket', 'zmq', 'tomllib'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_the_least_level_may_change(file: Path) -> None:
    log = setup("warning", "text", str(file), 1, "demo")
    log.event("info", "unseen")
    log.set_level("debug")
    log.event("debug", "seen")
    log.set_level("error")
    log.event("warning", "unseen")
    assert [line.split()[-1] for line in file.read_text().splitlines()] == ["seen"]


# -- facts of the machine -----------------------------------------------------------------------------


def level_of(name: str, file: Path) -> str:
    """The level at which a fact is logged."""
    log = DeferredLog(setup("debug", "json", str(file), 1, "demo"), 1)
    log.add([Fact(name, (("reason", "x"),))], 0)
    log.write()
    line = json.loads(file.read_text().splitlines()[-1])
    assert line["event"] == name
    return str(line["level"])


@pytest.mark.parametrize("name", ["older_copy_found", "epoch_raised"])
def test_memory_that_proved_old_is_a_warning(file: Path, name: str) -> None:
    assert level_of(name, file) == "warning"


@pytest.mark.parametrize(
    "name",
    [
        *("cluster_founded", "cluster_joined", "member_added", "member_removed", "member_replaced"),
        *("cluster_heard", "bootstrap_accepted", "became_active"),
    ],
)
def test_what_happens_in_every_cluster_is_news(file: Path, name: str) -> None:
    assert level_of(name, file) == "info"


def test_every_fact_with_a_level_of_its_own_exists() -> None:
    from zelect.system.log import _DEBUG, _ERROR, _WARNING

    assert FACTS.keys() | {"foreign_answer_ignored"} >= (_DEBUG | _WARNING | _ERROR)


def _texts(*paths: Path) -> list[list[str]]:
    return [[line.split()[3] for line in path.read_text().splitlines()] for path in paths]


def test_a_file_that_was_renamed_is_made_again_within_a_second(tmp_path: Path) -> None:
    file, old = tmp_path / "n1.log", tmp_path / "n1.log.1"
    clock = Clock()
    log = Log(-1, "info", "text", 1, "demo", clock, file=str(file))
    log.reopen()
    log.event("info", "first")
    file.rename(old)
    log.event("info", "second")
    clock.us += 1_000_001
    log.event("info", "third")
    assert _texts(old, file) == [["first", "second"], ["third"]]
    file.unlink()
    clock.us += 1_000_001
    log.event("info", "fourth")
    assert _texts(file) == [["fourth"]]
    assert file.stat().st_mode & 0o777 == 0o600
    assert log.dropped == 0


def test_a_file_that_was_renamed_is_made_again_at_once_when_told(tmp_path: Path) -> None:
    file, old = tmp_path / "n1.log", tmp_path / "n1.log.1"
    log = setup("info", "text", str(file), 1, "demo")
    log.event("info", "first")
    file.rename(old)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        log.reopen()
    log.event("info", "second")
    assert _texts(old, file) == [["first"], ["second"]]
    assert len(os.listdir("/proc/self/fd")) == before, "no descriptor is left open"


def test_a_directory_that_is_gone_loses_no_line_and_a_file_that_can_be_opened_later_is_used(tmp_path: Path) -> None:
    directory = tmp_path / "logs"
    directory.mkdir()
    file, clock = directory / "n1.log", Clock()
    log = Log(-1, "info", "text", 1, "demo", clock, file=str(file))
    log.reopen()
    moved = tmp_path / "moved"
    directory.rename(moved)
    clock.us += 1_000_001
    log.event("info", "first")
    assert _texts(moved / "n1.log") == [["log_file_unusable", "first"]], "it goes where it went before"
    directory.mkdir()
    clock.us += 1_000_001
    log.event("info", "second")
    assert _texts(file) == [["second"]]
