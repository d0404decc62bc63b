"""A node that runs as a thread of the program. `zelect.api.node_process` runs one as a child process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Protocol

from zelect.api.log import ProgramLog
from zelect.config.loading import Config
from zelect.node import loop
from zelect.node.leadership.handle import NodeHandle
from zelect.node.leadership.hooks import Hooks
from zelect.system.log import Log
from zelect.system.signals import WakeupPipe


class RunningNode(Protocol):
    """A node that runs for this program. `handle` is all that the rest of the interface knows of it;
    `error`: why it ended, where it was not asked to."""

    handle: NodeHandle
    error: BaseException | None

    def start(self) -> None:
        """Return once the node listens. Raises what keeps it from doing so."""

    def join(self, timeout_s: float | None = None) -> bool:
        """Wait for the node's end, after `handle.ask_to_leave()`. Returns whether it has ended."""


class NodeThread:
    """A node in a thread of this process, see `RunningNode`. `prepare` is called in that thread with the
    node, once it listens and before it sends its first message. `connect_to`: see `NodeLoop`. `log`: where it reports
    to; None: to `logging`."""

    def __init__(
        self,
        config: Config,
        prepare: Callable[[loop.NodeLoop], None] = lambda node: None,
        connect_to: Mapping[str, str] | None = None,
        log: Log | None = None,
    ) -> None:
        self.handle = NodeHandle()
        self.error: BaseException | None = None
        self._config = config
        self._prepare = prepare
        self._connect_to = connect_to
        self._log = log
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"zelect-n{config.node.id}", daemon=True)

    def start(self) -> None:
        self._thread.start()
        try:
            self._started.wait()
        except BaseException:  # Ctrl-C: no node may be left that nobody can stop
            self.handle.ask_to_leave()
            self._thread.join()
            raise
        if self.error is not None:
            self._thread.join()
            raise self.error

    def join(self, timeout_s: float | None = None) -> bool:
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        if self._log is not None:
            self._run_with(self._log)
        else:
            with ProgramLog(self._config) as mine:
                self._run_with(mine.for_node())

    def _run_with(self, log: Log) -> None:
        config = self._config
        try:
            node = loop.NodeLoop(config, log, self._connect_to, handle=self.handle)
            try:
                self._prepare(node)
            except BaseException:
                node.close()
                raise
            self._started.set()
            with Hooks(config, node.handle, log):
                node.run(WakeupPipe())
        except BaseException as error:  # for `start` and `join`: a thread has no caller to raise it to
            self.error = error
            log.event("error", "node_failed", reason=f"{type(error).__name__}: {error}")
        finally:
            self._started.set()
