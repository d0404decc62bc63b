"""Programs that a node runs when something changes: `[hooks]` of its configuration.

One thread, one program at a time, in the order of what happened: a hook that takes long delays the
next hook and never an election. Hooks hear of changes; they are no job. What may run only where the
leadership is belongs under `zelect run` or into a program with `zelect.Node`, which end it in time.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Sequence
from typing import Self

from zelect.config.loading import Config
from zelect.core.lease import Lease
from zelect.node.leadership.handle import NOBODY, Controller, NodeHandle
from zelect.system.clock import now_us
from zelect.system.log import Log

__all__ = ["Hooks"]

_LAST_S = 5.0


class Hooks:
    """The hooks of `config` for `leadership`, while the context lasts; at its end those of a stopped being active
    still run, for some seconds at most."""

    def __init__(self, config: Config, leadership: NodeHandle, log: Log) -> None:
        self._config, self._hooks, self._office, self._log = config, config.hooks, leadership, log
        self._news, self._closing = threading.Event(), threading.Event()
        self._elected: Lease | None = None  # whose on_elected has run
        self._controller = NOBODY
        self._wanted = any((config.hooks.on_elected, config.hooks.on_deposed, config.hooks.on_controller_changed))
        self._thread = threading.Thread(target=self._run, name="zelect-hooks", daemon=True)

    def __enter__(self) -> Self:
        if self._wanted:
            self._office.subscribe(self._news.set)
            self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._wanted:
            self._closing.set()
            self._news.set()
            self._thread.join(_LAST_S)

    def _run(self) -> None:
        while not self._closing.is_set():
            held = self._office.active_lease()
            left_s = None if held is None else max(0.0, (held.lapses_us - now_us()) / 1e6)
            self._news.wait(left_s)
            self._news.clear()
            self._look()
        self._look()

    def _look(self) -> None:
        held, known = self._office.active_lease(), self._office.controller
        before = self._elected
        if before is not None and (held is None or held.term != before.term):
            self._elected = None
            if known.id == self._config.node.id:  # nobody else is known yet
                known = Controller(0, known.term, known.id, "")
            self._run_all("on_deposed", self._hooks.on_deposed, known, before.term)
        if known != self._controller:
            self._controller = known
            self._run_all("on_controller_changed", self._hooks.on_controller_changed, known, known.term)
        held = self._office.active_lease()  # hooks take their time
        if held is not None and self._elected is None:
            self._elected = held
            self._run_all("on_elected", self._hooks.on_elected, known, held.term)
            self._news.set()  # it may be over by now

    def _run_all(self, name: str, commands: Sequence[Sequence[str]], known: Controller, term: int) -> None:
        me = self._config.node.id
        environment = {
            **os.environ,
            "ZELECT_HOOK": name,
            "ZELECT_NODE": str(me),
            "ZELECT_TERM": str(term),
            "ZELECT_ROLE": "controller" if known.id == me and name != "on_deposed" else "follower",
            "ZELECT_CONTROLLER": str(known.id or ""),
            "ZELECT_PREVIOUS": str(known.previous or ""),
            "ZELECT_REASON": known.reason,
            "ZELECT_LEASE_MS": str(self._config.timing.lease_ms),
        }
        for command in commands:
            for attempt in range(1 + self._hooks.retries):
                code = self._run_one(command, environment)
                level = "info" if code == 0 else "warning"
                self._log.event(level, "hook_ended", hook=name, command=command[0], code=code, attempt=attempt + 1)
                if code != self._hooks.retry_code or self._closing.wait(self._hooks.retry_after_ms / 1000):
                    break

    def _run_one(self, command: Sequence[str], environment: dict[str, str]) -> int | str:
        """The exit code, or in words why there is none."""
        import subprocess  # a node without hooks does without

        try:
            process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, start_new_session=True)
        except OSError as error:
            return f"not started: {error.strerror}"
        try:
            return process.wait(self._hooks.timeout_ms / 1000)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return f"killed after {self._hooks.timeout_ms} ms"
