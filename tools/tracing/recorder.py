"""Runs one zelect node and records which functions a vote and a takeover run through.

    python -P tools/tracing/recorder.py DIR node -c n1.toml     what follows DIR goes to zelect's command line

It knows no name of the package that it watches, so that it can watch any checkout: a vote request and its
answer are recognized by the type of the frames that pass a ZeroMQ socket, a lost connection by the
socket's monitor, and Redis by the script that is sent to it. What lies between is recorded with
`sys.setprofile`, file by file and function by function, in the order of the first call.

The file DIR/round holds the number of the trial. For each trial the node writes at most one recording of
each kind, DIR/KIND-ROUND-NODE.json:

- `vote`: from a vote request's arrival at the ROUTER to the vote being sent, in the thread that does it.
- `takeover`: from the news that a connection to a peer has closed to the script that publishes this node
  as controller, in all threads.
"""

from __future__ import annotations

import json
import re
import runpy
import socket
import sys
import threading
import tomllib
from itertools import takewhile
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import msgpack
import zmq

VOTING, VOT_RESP = 3, 4
_DISCONNECTED = int(zmq.EVENT_DISCONNECTED).to_bytes(2, sys.byteorder)
_PUBLISHES = re.compile(rb"\r\nEVAL(SHA)?\r\n.*\}:controller\r\n.*\"id\": ?[0-9]", re.DOTALL)
"""A script whose arguments name a controller's key, and a node as the new controller."""


class Recording:
    """The functions of the package that ran, in the order of their first call. `thread`: only there."""

    def __init__(self, thread: int | None, begun: list[CodeType]) -> None:
        self.thread = thread
        self.calls: dict[CodeType, None] = dict.fromkeys(begun)


class Recorder:
    """Records in this process. `package`: the directory whose functions count."""

    def __init__(self, directory: Path, package: Path, node: int) -> None:
        self._directory, self._node = directory, node
        self._package = f"{package}/"
        self._root = package.parent
        self._running: dict[str, Recording] = {}
        self._done: set[str] = set()
        self._lasting: list[FrameType] | None = None

    def profile(self, frame: FrameType, event: str, _argument: object) -> None:
        """For `sys.setprofile`."""
        if event == "call" and self._running and frame.f_code.co_filename.startswith(self._package):
            for recording in list(self._running.values()):
                if recording.thread in (None, threading.get_ident()):
                    recording.calls[frame.f_code] = None

    # -- marks ----------------------------------------------------------------------------

    def frame_received(self, frame: bytes) -> None:
        """A frame has come out of the ROUTER."""
        if self._lasting is None:  # what is running at the first frame and still at a later one is the loop
            self._lasting = self._stack()
        if type_of(frame) == VOTING:
            self._begin("vote", threading.get_ident())

    def frame_sent(self, frame: bytes) -> None:
        """A frame was handed to a socket."""
        if type_of(frame) == VOT_RESP:
            body = next(item for item in reversed(msgpack.unpackb(frame)) if isinstance(item, list))
            pre, granted = (value for value in body if isinstance(value, bool))
            self._end("vote", granted and not pre)

    def link_down(self) -> None:
        """A connection to a peer has closed."""
        if "takeover" not in self._running:
            self._begin("takeover", None)

    def redis_sent(self, command: bytes) -> None:
        """Something was sent over a plain socket."""
        if _PUBLISHES.search(command):
            self._end("takeover", True)

    # -- recordings -----------------------------------------------------------------------

    def _round(self) -> str:
        return (self._directory / "round").read_text().strip()

    def _stack(self) -> list[FrameType]:
        """The package's frames that are running, outermost first."""
        frames, frame = [], sys._getframe(2)
        while frame is not None:
            if frame.f_code.co_filename.startswith(self._package):
                frames.append(frame)
            frame = frame.f_back  # type: ignore[assignment]
        return frames[::-1]

    def _begin(self, kind: str, thread: int | None) -> None:
        stack, lasting = self._stack(), self._lasting or []
        shared = sum(1 for _ in takewhile(lambda pair: pair[0] is pair[1], zip(stack, lasting, strict=False)))
        self._running[kind] = Recording(thread, [frame.f_code for frame in stack[max(0, shared - 1) :]])

    def _end(self, kind: str, wanted: bool) -> None:
        recording = self._running.pop(kind, None)
        name = f"{kind}-{self._round()}-{self._node}.json"
        if recording is None or not wanted or name in self._done:
            return
        self._done.add(name)
        named = [code for code in recording.calls if not code.co_name.startswith("<")]  # no lambda, no comprehension
        calls = [[str(Path(code.co_filename).relative_to(self._root)), code.co_qualname] for code in named]
        part = self._directory / f"{name}.part"
        part.write_text(json.dumps(calls))
        part.rename(self._directory / name)


def type_of(frame: bytes) -> int:
    """The type code of a frame of zelect's protocol; -1 for anything else."""
    try:
        envelope = msgpack.unpackb(frame)
    except (ValueError, msgpack.UnpackException):
        return -1
    if isinstance(envelope, list) and len(envelope) in (9, 10, 11) and isinstance(envelope[2], int):
        return envelope[2]
    return -1


def watched_socket(recorder: Recorder) -> type[zmq.Socket[Any]]:
    """A kind of socket that tells `recorder` what passes it."""
    monitored: dict[str, int] = {}

    class Socket(zmq.Socket):  # type: ignore[type-arg]
        def monitor(self, addr: Any, *arguments: Any, **options: Any) -> Any:
            monitored[addr] = self.socket_type
            return super().monitor(addr, *arguments, **options)

        def connect(self, addr: str) -> Any:
            self.__dict__["watches"] = monitored.get(addr)
            return super().connect(addr)

        def recv(self, *arguments: Any, **options: Any) -> Any:
            frame = super().recv(*arguments, **options)
            data = frame if isinstance(frame, bytes) else frame.bytes
            if self.socket_type == zmq.ROUTER:
                recorder.frame_received(data)
            elif self.__dict__.get("watches") == zmq.DEALER and len(data) == 6 and data.startswith(_DISCONNECTED):
                recorder.link_down()
            return frame

        def send(self, data: Any, *arguments: Any, **options: Any) -> Any:
            done = super().send(data, *arguments, **options)
            if isinstance(data, bytes):
                recorder.frame_sent(data)
            return done

    return Socket


def main() -> None:
    directory, arguments = Path(sys.argv[1]), sys.argv[2:]
    package = Path(runpy.importlib.util.find_spec("zelect").origin).parent  # type: ignore[attr-defined]
    configuration = tomllib.loads(Path(arguments[arguments.index("-c") + 1]).read_text(encoding="utf-8"))
    recorder = Recorder(directory, package, configuration["node"]["id"])
    zmq.Context._socket_class = watched_socket(recorder)  # type: ignore[misc]

    class Connection(socket.socket):
        def sendall(self, data: Any, *flags: Any) -> None:
            super().sendall(data, *flags)
            recorder.redis_sent(bytes(data))

    socket.socket = Connection  # type: ignore[misc]
    threading.setprofile(recorder.profile)
    sys.setprofile(recorder.profile)
    sys.argv = ["zelect", *arguments]
    runpy.run_module("zelect", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
