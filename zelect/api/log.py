"""What a node in a program reports, as records of `logging.getLogger("zelect")`.

A handler may wait, for a disk or a lock, and an election may not. So a thread of its own gives the records to the
handlers; what it can't keep up with is dropped, and counted by the node (`log_dropped`).
"""

from __future__ import annotations

import logging
import threading
from contextlib import suppress
from queue import SimpleQueue
from types import TracebackType
from typing import Self

from zelect.config.loading import Config
from zelect.system.forwarded_log import ForwardedLog, text_of

LOGGER = logging.getLogger("zelect")
_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING}
_MOST_WAITING = 10_000
_LAST_S = 5.0


class ProgramLog:
    """Makes records of what the node of `config` reports, while the context lasts; what waits then is still handled,
    for 5 s at most. Each record has `event`, `node`, `cluster` and `fields` (a dict) beside its message."""

    def __init__(self, config: Config) -> None:
        self._node, self._cluster = config.node.id, config.cluster.name
        self._records: SimpleQueue[logging.LogRecord | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="zelect-log", daemon=True)
        self._config = config.log

    def for_node(self) -> ForwardedLog:
        """What a node in this process writes to."""
        log = self._config
        return ForwardedLog(self.take, log.level, log.format, log.file, self._node, self._cluster)

    def take(self, at_ms: int, level: str, name: str, fields: dict[str, object]) -> bool:
        """Something happened; see `zelect.system.forwarded_log.Forward`."""
        number = _LEVELS.get(level, logging.ERROR)
        if not LOGGER.isEnabledFor(number):
            return True
        if self._records.qsize() >= _MOST_WAITING:
            return False
        about = {"event": name, "node": self._node, "cluster": self._cluster, "fields": fields}
        text = f"n{self._node} {text_of(name, fields)}"
        record = LOGGER.makeRecord(LOGGER.name, number, "zelect", 0, text, (), None, extra=about)
        record.created, record.msecs = at_ms / 1000, float(at_ms % 1000)
        self._records.put(record)
        return True

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._records.put(None)
        self._thread.join(_LAST_S)

    def _run(self) -> None:
        while (record := self._records.get()) is not None:
            with suppress(Exception):  # a filter that fails; what fails in a handler says so itself
                LOGGER.handle(record)
