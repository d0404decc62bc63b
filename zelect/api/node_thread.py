"""The node that a program embeds, as a thread of its process.

An engine has a `leadership` (`zelect.node.leadership.shared.SharedLeadership`), which is all that the rest of the
interface knows of it; `zelect.api.node_process` has the other engine, a process.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Protocol

from zelect.config.loading import Config
from zelect.node import loop as shell
from zelect.node.leadership.hooks import Hooks
from zelect.node.leadership.shared import SharedLeadership
from zelect.node.signals import WakeupPipe
from zelect.system.log import setup

__all__ = ["Engine", "ThreadEngine"]


class Engine(Protocol):
    """What runs a node. `error` is why it ended, where nobody asked it to."""

    leadership: SharedLeadership
    error: BaseException | None

    def start(self) -> None:
        """Return once the node listens. Raises what keeps it from doing so."""

    def join(self, timeout_s: float | None = None) -> bool:
        """Wait for its end, after `leadership.go()`; whether it has ended."""


class ThreadEngine:
    """A node in a thread of this process. `prepare` is called in that thread with the node, once it
    listens and before it says its first word; `dial`: see `zelect.node.loop.NodeLoop`. `Engine` tells of the
    rest."""

    leadership: SharedLeadership

    def __init__(
        self,
        config: Config,
        prepare: Callable[[shell.NodeLoop], None] = lambda node: None,
        dial: Mapping[int, str] | None = None,
    ) -> None:
        self.error: BaseException | None = None
        self._config = config
        self._prepare = prepare
        self._dial = dial
        self._begun = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"zelect-n{config.node.id}", daemon=True)

    def start(self) -> None:
        self._thread.start()
        self._begun.wait()
        if self.error is not None:
            self._thread.join()
            raise self.error

    def join(self, timeout_s: float | None = None) -> bool:
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        config = self._config
        log = setup(config.log.level, config.log.format, config.log.file, config.node.id, config.cluster.name)
        try:
            node = shell.NodeLoop(config, log, self._dial, leadership=SharedLeadership())
            self.leadership = node.leadership
            try:
                self._prepare(node)
            except BaseException:
                node.close()
                raise
            self._begun.set()
            with Hooks(config, node.leadership, log):
                node.run(WakeupPipe())
        except BaseException as error:  # told to whoever waits; a thread has nobody else to tell
            self.error = error
            log.event("error", "node_failed", reason=f"{type(error).__name__}: {error}")
        finally:
            self._begun.set()
