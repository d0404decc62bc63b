"""A child process: its settings, what it inherits, and what keeps it from starting."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from zelect.system.child import Child, ChildFailed, environment, isolated, start_logged

BEGIN = f"""
import os, sys
sys.path.append({str(ROOT)!r})
from zelect.system.channel import Channel
channel, settings = Channel.of_child(sys.argv[-1])
"""
ECHOES = (
    BEGIN
    + """
channel.send({"ready": os.getpid()})
os.write(settings["descriptors"]["pipe"], b"inherited")
inheritable = [fd for fd in settings["descriptors"].values() if fd >= 0 and os.get_inheritable(fd)]
descriptors = len(os.listdir("/proc/self/fd")) - 1 if os.path.exists("/proc/self/fd") else 0
channel.send({"settings": settings["word"], "inheritable": inheritable, "session": os.getsid(0), "fds": descriptors})
while not channel.closed:
    for message in channel.receive(None):
        channel.send(message)
"""
)


def child(code: str, descriptors: dict[str, int] | None = None) -> Child:
    return Child([sys.executable, "-c", code], {"word": "ü"}, descriptors or {})


def test_a_child_has_its_settings_its_descriptors_and_no_others() -> None:
    read, write = os.pipe()
    unrelated = os.open(os.devnull, os.O_RDONLY)
    os.set_inheritable(unrelated, True)
    made = child(ECHOES, {"pipe": write, "none": -1})
    made.wait_ready(60)
    assert os.read(read, 100) == b"inherited"
    (told,) = made.channel.receive(None)
    assert (told["settings"], told["inheritable"], told["session"]) == ("ü", [], made.process.pid)
    assert told["fds"] in (0, 5), "the standard streams, the channel and the pipe"
    made.channel.send({"a": 1})
    assert made.channel.receive(None) == [{"a": 1}]
    made.channel.close()
    assert made.process.wait(60) == 0, "it notices the closed channel"
    for fd in (read, write, unrelated):
        os.close(fd)


def test_what_comes_together_with_ready_is_not_lost() -> None:
    made = child(
        BEGIN
        + """
channel.send({"ready": 1}); channel.send({"next": 2}); channel.receive(None)
"""
    )
    made.channel.put_back([{"ready": 1}, {"next": 2}])  # as when one read brings both
    made.wait_ready(60)
    assert made.channel.receive(None) == [{"next": 2}]
    made.channel.close()
    made.process.wait(60)


@pytest.mark.parametrize(
    ("code", "why"),
    [
        (BEGIN + "channel.send({'failed': 'the reason'})", "^the reason$"),
        ("import os; os._exit(7)", "its process ended with code 7"),
        ("import os; os.abort()", "its process was killed by SIGABRT"),
    ],
)
def test_what_keeps_a_child_from_starting_is_raised(code: str, why: str) -> None:
    for within_s in (60, None):
        with pytest.raises(ChildFailed, match=why):
            child(code).wait_ready(within_s)
    with pytest.raises(ChildFailed, match="no-such-command: No such file"):
        Child(["no-such-command"], {}, {})


def test_a_child_that_does_not_answer_is_not_waited_for() -> None:
    made = child("import time; time.sleep(1000)")
    with pytest.raises(ChildFailed, match=r"did not answer within 0\.1 s"):
        made.wait_ready(0.1)
    assert made.process.returncode == -9


def test_python_children_import_this_very_zelect(tmp_path: Path) -> None:
    code = "import zelect; print(zelect.__file__)"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment(), cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == f"{ROOT / 'zelect' / '__init__.py'}\n"
    assert isolated("zelect.jobs.watchdog")[-1] == str(ROOT)


def test_a_log_is_appended_to(tmp_path: Path) -> None:
    for word in ("one", "two"):
        start_logged(["sh", "-c", f"cat; pwd; echo {word} >&2"], tmp_path / "log", tmp_path).wait(60)
    assert (tmp_path / "log").read_text() == f"{tmp_path}\none\n{tmp_path}\ntwo\n"
