"""The node's log: one line an event, a fact in the past tense with its fields.

    2026-11-23T12:00:00.123Z INFO  n1 vote_granted term=4 candidate=2

or the same as one JSON object. Each line is one `write`, at once, so that the last lines of a node
that ends are there. A log must never end its node or make it wait: pipes, terminals and sockets
are asked first whether they can take a line, and what cannot be written is dropped and counted.

A file that was renamed or removed, as by logrotate, is made again: at the next line, looked for once a second, or at
once when the node is told to reload.
"""

from __future__ import annotations

import json
import math
import os
import select
import stat
import time
from collections.abc import Callable, Mapping, Sequence
from enum import Enum

from zelect.core.effects import Fact
from zelect.system import clock

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_COLUMNS = {"debug": "DEBUG", "info": "INFO ", "warning": "WARN ", "error": "ERROR"}
_STDERR = 2
_VALUE_CHARS = 400
_LINE_BYTES = 4000  # below PIPE_BUF: written whole or not at all, and never mixed with another's
_LIMIT_US = 1_000_000
_LIMIT_KEYS = 1000
_MOST_DEFERRED = 500
_DEBUG = frozenset({"vote_answered", "stale_answer_ignored", "stale_pong_ignored", "foreign_answer_ignored"})
_WARNING = frozenset({"older_copy_found", "epoch_raised"})
_ERROR = frozenset({"conflicting_controller_seen", "error_received", "peer_lost_state"})
_LEVEL_OF = dict.fromkeys(_DEBUG, "debug") | dict.fromkeys(_WARNING, "warning")


def setup(level: str, format: str, file: str, node: int, cluster: str) -> Log:
    """The log of `node`: lines from `level` ("debug", "info", "warning", "error") up, as "text" or
    "json", to `file` (empty: standard error). Never raises: a file that cannot be opened is
    reported on standard error, which then takes its place."""
    log = Log(-1 if file else _standard_error(), level, format, node, cluster, file=file)
    log.reopen()
    return log


def _open(file: str) -> int:
    """Raises OSError and ValueError."""
    return os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY, 0o600)


class Log:
    """Writes lines to the descriptor `fd` (-1: nowhere). `dropped`: how many lines were lost. May
    be used from several threads. `now_us`: the clock of the rate limit, in microseconds; `file`: the one that `fd` is,
    or is to be (""; none)."""

    __slots__ = (
        "_cluster",
        "_fd",
        "_file",
        "_is_file",
        "_json",
        "_least",
        "_limits",
        "_looked_us",
        "_node",
        "_now_us",
        "_second",
        "_torn",
        "dropped",
    )

    def __init__(
        self,
        fd: int,
        level: str,
        format: str,
        node: int,
        cluster: str,
        now_us: Callable[[], int] = clock.now_us,
        *,
        file: str = "",
    ) -> None:
        self.dropped = 0
        self._fd = fd
        self._file = file
        self._is_file = False  # `fd` is the file, and not what stands in for it
        self._looked_us = 0
        self._least = _LEVELS[level]
        self._json = format == "json"
        self._node = node
        self._cluster = cluster
        self._now_us = now_us
        self._limits: dict[str, tuple[int, int]] = {}  # key to (when it was last written, suppressed since)
        self._second = (-1, "")
        self._torn = False

    def set_level(self, level: str) -> None:
        """Write lines from `level` up from now on."""
        self._least = _LEVELS[level]

    def reopen(self) -> None:
        """Open the file, or again, where there is one. One that can't be opened is reported; until it can be, lines go
        where they went before, or to standard error."""
        if not self._file:
            return
        try:
            fd = _open(self._file)
            if self._is_file:
                os.dup2(fd, self._fd, inheritable=False)  # the number stays: another thread may be writing
                os.close(fd)
            else:
                self._fd, self._is_file = fd, True
            self._torn = False
        except (OSError, ValueError) as error:
            if self._fd < 0:
                self._fd = _standard_error()
            self.event("error", "log_file_unusable", file=self._file, reason=str(error))

    def _follow(self) -> None:
        """Open the file again where it was renamed or removed; looked for once a second."""
        now_us = self._now_us()
        if not self._is_file or now_us - self._looked_us < _LIMIT_US:
            return
        self._looked_us, own = now_us, os.fstat(self._fd)
        try:
            found = os.stat(self._file)
        except FileNotFoundError:
            self.reopen()
        else:
            if (found.st_dev, found.st_ino) != (own.st_dev, own.st_ino):
                self.reopen()

    def event(self, level: str, name: str, /, **fields: object) -> None:
        """Write that `name` happened. Never raises and never waits."""
        self.event_at(clock.unix_ms(), level, name, fields)

    def event_at(self, at_ms: int, level: str, name: str, fields: Mapping[str, object]) -> None:
        """Write that `name` happened at `at_ms` (Unix, in milliseconds). Never raises and never waits."""
        if _LEVELS.get(level, _LEVELS["error"]) < self._least:
            return
        try:
            self._follow()
            written = self._write(self._line(at_ms, level, name, fields))
        except Exception:  # a value whose text cannot be made must not end the node either
            written = False
        self.dropped += not written

    def limited(self, key: str, level: str, name: str, /, **fields: object) -> None:
        """Like `event`, but at most one line a second for each `key`; the next one says in
        `suppressed` how many were left out."""
        if _LEVELS.get(level, _LEVELS["error"]) < self._least:
            return
        now_us = self._now_us()
        last_us, suppressed = self._limits.get(key, (now_us - _LIMIT_US, 0))
        if now_us - last_us < _LIMIT_US:
            self._limits[key] = (last_us, suppressed + 1)
            return
        if len(self._limits) >= _LIMIT_KEYS:
            self._limits.clear()
        self._limits[key] = (now_us, 0)
        if suppressed:
            fields["suppressed"] = suppressed
        self.event(level, name, **fields)

    def _line(self, at_ms: int, level: str, name: str, fields: Mapping[str, object]) -> bytes:
        stamp = self._stamp(at_ms)
        for values in (fields, {"cut": True}):  # a line too long keeps its name and loses its fields
            if self._json:
                head = {"time": stamp, "level": level, "node": self._node, "cluster": self._cluster, "event": name}
                body = {f"{key}_" if key in head else key: _plain(value) for key, value in values.items()}
                text = json.dumps(head | body, separators=(",", ":"))
            else:
                words = [f"{stamp} {_COLUMNS.get(level, 'ERROR')} n{self._node} {_text(name)}"]
                words += [f"{key}={_text(_plain(value))}" for key, value in values.items()]
                text = " ".join(words)
            line = text.encode("utf-8", "backslashreplace") + b"\n"
            if len(line) <= _LINE_BYTES:
                break
        return line

    def _stamp(self, now_ms: int) -> str:
        second, prefix = self._second
        if second != now_ms // 1000:
            second = now_ms // 1000
            prefix = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
            self._second = (second, prefix)
        return f"{prefix}.{now_ms % 1000:03d}Z"

    def _write(self, line: bytes) -> bool:
        """Whether all of `line` was written; a line that follows half a one begins again."""
        if self._fd < 0:
            return False
        if self._torn:
            line = b"\n" + line
        ready = select.poll()  # a new one each time: threads cannot share one
        ready.register(self._fd, select.POLLOUT)
        try:
            if not ready.poll(0):
                return False
            written = os.write(self._fd, line)
        except OSError:
            return False
        self._torn = written < len(line) and (self._torn or written > 0)
        return written == len(line)


class DeferredLog:
    """Keeps the machine's facts until there is time to write them: in the middle of an election a line costs
    more than a vote. `facts`: in their order, each with its time (Unix, in milliseconds)."""

    def __init__(self, log: Log, node: int) -> None:
        self.facts: list[tuple[int, Fact]] = []
        self._log, self._node = log, node

    def add(self, facts: Sequence[Fact], at_us: int) -> None:
        """Keep `facts`, of the step at `at_us` (`clock.now_us`): a line that follows from a step must not seem
        older than the step."""
        at_ms = clock.unix_ms() - (clock.now_us() - at_us) // 1000
        self.facts.extend((at_ms, fact) for fact in facts)

    @property
    def is_full(self) -> bool:
        """Whether there are so many that they must be written now."""
        return len(self.facts) >= _MOST_DEFERRED

    def write(self) -> None:
        """Write all of them."""
        facts, self.facts = self.facts, []
        for at_ms, fact in facts:
            fields = dict(fact.fields)
            if fact.name in ("message_refused", "witness_refused"):
                self._log.limited(f"{fact.name} {fields['reason']}", "warning", fact.name, **fields)
            elif fact.name in _ERROR:
                if "generation" in fields:  # a peer of the new generation refuses this node
                    fields["hint"] = f"run 'zelect members reset --join {fields['generation']} {self._node}'"
                self._log.limited(fact.name, "error", fact.name, **fields)
            else:
                self._log.event_at(at_ms, _LEVEL_OF.get(fact.name, "info"), fact.name, fields)


def _standard_error() -> int:
    """A descriptor for standard error, or -1 when it is closed; whoever opens a file next may get
    number 2 then, and the log must not be written into that.

    A pipe or terminal is opened again, not to wait at writing: O_NONBLOCK on number 2 itself would
    hold for every process that shares it. Where that does not work (sockets, other systems) the
    question before each write has to do.
    """
    try:
        mode = os.fstat(_STDERR).st_mode
    except OSError:
        return -1
    if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
        try:
            return os.open(f"/proc/self/fd/{_STDERR}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        except OSError:
            return _STDERR
    return _STDERR


def _plain(value: object) -> object:
    """`value` as JSON can hold it; raw bytes never get into a log."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, Enum):
        return _plain(value.value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return f"<{len(value)} bytes>"
    if isinstance(value, Mapping):
        return {str(_plain(key)): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted((_plain(item) for item in value), key=str)
    text = str(value)
    return text if len(text) <= _VALUE_CHARS else text[:_VALUE_CHARS] + "..."


def _text(value: object) -> str:
    """A plain value as one word of a text line."""
    if isinstance(value, str):
        bare = value.isprintable() and value and not any(mark in value for mark in ' "=\\')
        return value if bare else json.dumps(value, ensure_ascii=not value.isprintable())
    if isinstance(value, list):
        return ",".join(_text(item) for item in value) or "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value is None else json.dumps(value)
