"""Messages between a process and its child: whole ones, however they come in pieces; nobody waits."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.support.paths import ROOT
from zelect.system import channel
from zelect.system.channel import Channel


@pytest.fixture
def ends() -> Iterator[tuple[Channel, socket.socket]]:
    """A channel, and the bare socket at its other end."""
    one, other = socket.socketpair()
    made = Channel(one)
    yield made, other
    made.close()
    other.close()


def test_messages_come_whole_whatever_the_pieces(ends: tuple[Channel, socket.socket]) -> None:
    made, other = ends
    assert made.receive() == []
    text = b'{"a": 1}\n{"b": "\\u00fc\\n"}\n'
    for byte in text[:-1]:
        other.send(bytes([byte]))
    assert made.receive() == [{"a": 1}]
    assert made.receive(0.01) == []
    other.send(text[-1:] + b'{"c"')
    assert made.receive(None) == [{"b": "ü\n"}]
    assert not made.closed


@pytest.mark.parametrize("line", [b"no JSON\n", b"[]\n", b"1\n", b"\n", b'{"a": \xff}\n'])
def test_what_is_no_message_ends_the_channel(ends: tuple[Channel, socket.socket], line: bytes) -> None:
    made, other = ends
    other.send(b'{"a": 1}\n' + line)
    assert made.receive() == [{"a": 1}]
    assert made.closed


def test_a_line_without_end_ends_the_channel(ends: tuple[Channel, socket.socket]) -> None:
    made, other = ends
    made._received = b"x" * channel.MAX_BYTES
    other.send(b"x")
    assert made.receive() == []
    assert made.closed


def test_what_was_sent_before_the_end_is_received(ends: tuple[Channel, socket.socket]) -> None:
    made, other = ends
    other.send(b'{"a": 1}\n')
    other.close()
    assert made.receive() == [{"a": 1}]
    assert not made.closed
    assert made.receive(None) == []
    assert made.closed
    made.send({"nobody": "reads it"})
    assert made.flush()


def test_nobody_waits_for_a_reader(ends: tuple[Channel, socket.socket]) -> None:
    made, other = ends
    big: dict[str, object] = {"env": "x" * 2_000_000}
    made.send(big)
    assert not made.flush()
    assert not made.offer({"signal": 1}), "not worth keeping"
    made.send({"stop": 1})
    reader, messages = Channel(other), list[dict[str, object]]()
    while len(messages) < 2:
        made.flush()
        messages += reader.receive()
    assert messages == [big, {"stop": 1}]
    made.wait_writable()
    assert made.offer({"signal": 2})
    assert reader.receive() == [{"signal": 2}]


def test_descriptors_come_along_where_they_are_expected(ends: tuple[Channel, socket.socket]) -> None:
    made, other = ends
    reader = Channel(other)
    read, write = os.pipe()
    made.send({"ready": 1}, [write])
    os.close(write)
    assert reader.receive(None, descriptors=2) == [{"ready": 1}]
    (copy,) = reader.received_descriptors
    assert not os.get_inheritable(copy)
    os.write(copy, b"!")
    assert os.read(read, 1) == b"!"
    made.send({"ready": 2}, [read])
    assert reader.receive(None) == [{"ready": 2}]
    assert reader.received_descriptors == [copy], "one that nobody expects is not taken"
    os.close(copy)
    os.close(read)


STDLIB_ONLY = ("zelect.jobs.watchdog", "zelect.system.parent_death")


@pytest.mark.parametrize("module", STDLIB_ONLY)
def test_what_runs_without_site_packages_imports_little(module: str) -> None:
    code = f"import sys; sys.path.append({str(ROOT)!r}); import {module}; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert module in loaded
    heavy = {"asyncio", "ctypes", "dataclasses", "inspect", "logging", "pathlib", "subprocess", "threading"}
    assert not loaded & heavy
    ours = {name for name in loaded if name.startswith("zelect.")}
    allowed = {
        "zelect.version",
        "zelect.jobs.process_tree",
        "zelect.node.leadership.lease_page",
        "zelect.system.channel",
    }
    allowed |= {"zelect.system.clock", "zelect.system.forks", "zelect.system.signals"}
    packages = {"zelect.jobs", "zelect.node", "zelect.node.leadership", "zelect.system"}
    assert ours <= {*STDLIB_ONLY, *allowed, *packages}
