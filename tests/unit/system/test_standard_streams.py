"""Output on a terminal with few letters, and on a pipe that nobody reads."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest

from tests.support.paths import ROOT

SHOW = """
import sys
from zelect.cli import main
@main.command()
def show():
    print("n\\u00e9 \\u2588\\u2591 long\\u2026 \\U0001f600")
    print("n\\u00e9 \\udcff", file=sys.stderr)
main(["show"])
"""


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_any_text_can_be_shown_in_any_encoding(encoding: str) -> None:
    shown = subprocess.run(
        [sys.executable, "-c", SHOW], cwd=ROOT, env={"PYTHONIOENCODING": encoding}, capture_output=True, timeout=60
    )
    assert shown.returncode == 0, shown.stderr
    out, err = shown.stdout.decode(encoding), shown.stderr.decode(encoding)
    if encoding == "utf-8":
        assert (out, err) == ("n\u00e9 \u2588\u2591 long\u2026 \U0001f600\n", "n\u00e9 \\udcff\n")
    else:
        letter = "\u00e9" if encoding == "latin-1" else "\\xe9"
        assert (out, err) == (f"n{letter} #. long... \\U0001f600\n", f"n{letter} \\udcff\n")


GONE = """
import os, sys
from zelect.system.standard_streams import output_is_gone
before = output_is_gone()
sys.stdin.readline()
print(before, output_is_gone(), file=sys.stderr)
"""


@pytest.mark.parametrize("kind", ["pipe", "socket", "file", "closed"])
def test_a_reader_that_has_ended_is_noticed(kind: str) -> None:
    more = {"pipe": "| true", "file": "> /dev/null", "closed": ">&-"}.get(kind, "")
    if kind == "socket":
        told = _over_a_socket()
    else:
        # The reader of the pipe ends at once; the line comes a moment later.
        command = f'{{ sleep 1; echo; }} | "{sys.executable}" -c "$0" {more}'
        told = subprocess.run(["sh", "-c", command, GONE], cwd=ROOT, capture_output=True, timeout=60, text=True).stderr
    assert told.split()[-1] == str(kind in {"pipe", "socket"})


def _over_a_socket() -> str:
    ours, theirs = socket.socketpair()
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", GONE]
    process = subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=theirs.fileno(), stderr=pipe, text=True)
    theirs.close()
    ours.close()
    return process.communicate("\n", timeout=60)[1]
