"""Nodes in programs that change what is around them: default timeouts, green threads, files of their own."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

import zelect
from tests.support.clusters import ROOT, Fleet
from tests.support.marks import long_but

BEGINNINGS = {
    "timeout": "import socket; socket.setdefaulttimeout(0.05)",
    "gevent": "from gevent import monkey; monkey.patch_all()",
    "eventlet": "import eventlet; eventlet.monkey_patch()",
    "zmq.py": "import sys; sys.path.remove('')",  # the program finds the right one
}
LEADS = """
import sys, time, zelect
with zelect.Node(sys.argv[1], process=sys.argv[2] == "process") as node:
    for leadership in node.campaign():
        for _ in range(3):
            time.sleep(0.1)
            leadership.check()
        leadership.sleep(0.3)
        print("term", leadership.term, flush=True)
        break
print("left", flush=True)
"""


def runs(fleet: Fleet, tmp_path: Path, name: str, kind: str) -> subprocess.CompletedProcess[str]:
    if name in ("gevent", "eventlet") and importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed")
    (tmp_path / "zmq.py").write_text("raise SystemExit('this is not the right zmq')")
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-c",
        f"{BEGINNINGS[name]}\n{LEADS}",
        str(fleet.cluster((1,)).conf(1)),
        kind,
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    cwd = tmp_path if name == "zmq.py" else ROOT
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("name", "kind"),
    long_but(
        [*((name, "process") for name in BEGINNINGS), ("timeout", "thread"), ("gevent", "thread")],
        ("gevent", "process"),
        ("timeout", "process"),
        ("eventlet", "process"),
        ("zmq.py", "process"),
    ),
)
def test_a_node_leads_whatever_is_around_it(fleet: Fleet, tmp_path: Path, name: str, kind: str) -> None:
    done = runs(fleet, tmp_path, name, kind)
    assert (done.returncode, done.stdout.split()) == (0, ["term", "1", "left"]), done.stderr[-2000:]


def test_what_cannot_work_is_said(fleet: Fleet, tmp_path: Path) -> None:
    done = runs(fleet, tmp_path, "eventlet", "thread")
    assert done.returncode == 1
    assert "NodeFailed" in done.stderr
    assert "process=True" in done.stderr


def test_why_a_node_did_not_start_is_always_said(fleet: Fleet, tmp_path: Path) -> None:
    node = zelect.Node(fleet.cluster((1,)).conf(1), process=True)
    node.config.path.write_text("[cluster]\n")
    with pytest.raises(zelect.ChildFailed, match=r"cluster\.name"):
        node.start()
    node = zelect.Node(fleet.cluster((1,)).conf(1), process=True)
    with pytest.raises(zelect.ChildFailed, match="ImportError: no luck today"):
        _start_with(node, tmp_path, "raise ImportError('no luck today')")


def _start_with(node: zelect.Node, tmp_path: Path, code: str) -> None:
    """Start `node` where its process finds another module of that name."""
    (tmp_path / "msgpack.py").write_text(code)
    before = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = f"{tmp_path}{os.pathsep}{before}"
    try:
        node.start()
    finally:
        os.environ["PYTHONPATH"] = before
