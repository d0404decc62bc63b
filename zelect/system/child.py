"""Starts child processes: with a channel to them, see `zelect.system.channel`, or with a log."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from zelect.errors import ZelectError
from zelect.system.channel import Channel

HOME = str(Path(__file__).resolve().parents[2])
"""The directory from which the zelect that is running here is imported."""


class ChildFailed(ZelectError):
    """A child process could not start, or died; the text says why."""


class Child:
    """A child process and the `channel` to it.

    `command` gets one more argument, with `settings` and the numbers of the open `descriptors` that it
    inherits (-1: there is none), which stay open here too. `stdin`: as of `subprocess.Popen`. It has a
    session of its own: a Ctrl-C at the terminal is the parent's to judge. Raises `ChildFailed`.
    """

    def __init__(
        self,
        command: Sequence[str],
        settings: Mapping[str, object],
        descriptors: Mapping[str, int],
        *,
        env: Mapping[str, str] | None = None,
        stdin: int | None = None,
    ) -> None:
        end, far_end = socket.socketpair()
        self.channel = Channel(end)
        # Copies: where gevent starts the child, it forks first, and a forked child gives up what is the node's.
        copies = {name: os.dup(fd) if fd >= 0 else -1 for name, fd in descriptors.items()}
        argument = json.dumps({**settings, "channel": far_end.fileno(), "descriptors": copies})
        passed = [fd for fd in (far_end.fileno(), *copies.values()) if fd >= 0]
        try:
            self.process = subprocess.Popen(
                [*command, argument], pass_fds=passed, env=env, stdin=stdin, start_new_session=True
            )
        except OSError as error:
            end.close()
            raise ChildFailed(f"{command[0]}: {error.strerror}") from error
        finally:
            far_end.close()
            for fd in passed[1:]:
                os.close(fd)

    def end(self) -> None:
        """Kill it, and forget it. Harmless when it has ended."""
        self.process.kill()
        self.process.wait()
        self.channel.close()

    def wait_ready(self, within_s: float | None = None, descriptors: int = 0) -> None:
        """Wait until the child can work; `descriptors`: how many it may send along. Raises `ChildFailed`,
        with the child's own reason where it gave one, when it cannot, ended, or said nothing for `within_s`
        seconds (None: wait for ever)."""
        messages = self.channel.receive(within_s, descriptors)
        while within_s is None and not messages and not self.channel.closed:
            messages = self.channel.receive(None, descriptors)
        if messages and "ready" in messages[0]:
            self.channel.put_back(messages[1:])  # what one read brought along with it
            return
        if not messages and not self.channel.closed:
            self.process.kill()
            why = f"its process did not answer within {within_s:g} s"
        else:
            why = str(messages[0]["failed"]) if messages else ""
        self.channel.close()
        code = self.process.wait()
        raise ChildFailed(why or f"its process {how_it_ended(code)} before it could say why; its standard error may")


def how_it_ended(code: int) -> str:
    """What a `Popen.returncode` says, in words."""
    if code >= 0:
        return f"ended with code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"


def append_to(log: Path) -> BinaryIO:
    """`log`, made where it is missing, to append to it. Raises `OSError`, also where it is a link: whose file that
    leads to is not known."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NOCTTY
    return open(os.open(log, flags, 0o600), "ab")


def start_logged(
    command: Sequence[str], log: Path, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start a process that has a session of its own, for the same reason, reads nothing, and appends its
    output to `log`, which must not be a link. Raises `OSError`."""
    with append_to(log) as output:
        return subprocess.Popen(
            command,
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def isolated(module: str) -> list[str]:
    """A command that runs `main()` of a module that needs no site-packages, without the user's
    environment for Python."""
    code = f"import sys; sys.path.append(sys.argv[1]); from {module} import main; main()"
    return [sys.executable, "-I", "-S", "-c", code, HOME]


def environment() -> dict[str, str]:
    """This process's environment, in which `python -m zelect` is the zelect that is running here."""
    import site

    if HOME in (*site.getsitepackages(), site.getusersitepackages()):
        return dict(os.environ)
    paths = [path for path in (os.environ.get("PYTHONPATH", ""), HOME) if path]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
