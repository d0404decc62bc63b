"""Programs that a node runs when something changes: `[hooks]` of its configuration.

One thread runs one program at a time, in the order of what happened: a hook that takes long delays the
next hook, and never an election. Hooks are told of changes; they are not jobs. What may run only where
the node is active belongs under `zelect run` or into a program with `zelect.Node`, which end it in time.
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

_LAST_S = 5.0


class Hooks:
    """Runs the hooks of `config` for the node of `handle` while the context lasts; those for the loss of a
    leadership that ends with it still run, for 5 s at most."""

    def __init__(self, config: Config, handle: NodeHandle, log: Log) -> None:
        self._config, self._hooks, self._handle, self._log = config, config.hooks, handle, log
        self._news, self._closing = threading.Event(), threading.Event()
        self._elected: Lease | None = None  # for which on_elected has run
        self._controller = NOBODY
        self._wanted = any((config.hooks.on_elected, config.hooks.on_deposed, config.hooks.on_controller_changed))
        self._thread = threading.Thread(target=self._run, name="zelect-hooks", daemon=True)

    def __enter__(self) -> Self:
        if self._wanted:
            self._handle.subscribe(self._news.set)
            self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._wanted:
            self._closing.set()
            self._news.set()
            self._thread.join(_LAST_S)

    def _run(self) -> None:
        while not self._closing.is_set():
            lease = self._handle.active_lease()
            left_s = None if lease is None else max(0.0, (lease.lapses_us - now_us()) / 1e6)
            self._news.wait(left_s)
            self._news.clear()
            self._look()
        self._look()

    def _look(self) -> None:
        lease, known = self._handle.active_lease(), self._handle.controller
        before = self._elected
        if before is not None and (lease is None or lease.term != before.term):
            self._elected = None
            if known.id == self._config.node.id:  # no other controller is known yet
                known = Controller(0, known.term, known.id, "")
            self._run_all("on_deposed", self._hooks.on_deposed, known, before.term)
        if known != self._controller:
            self._controller = known
            self._run_all("on_controller_changed", self._hooks.on_controller_changed, known, known.term)
        lease = self._handle.active_lease()  # the hooks so far took their time
        if lease is not None and self._elected is None:
            self._elected = lease
            self._run_all("on_elected", self._hooks.on_elected, known, lease.term)
            self._news.set()  # it may be lost by now

    def _run_all(self, name: str, commands: Sequence[Sequence[str]], known: Controller, term: int) -> None:
        role = "controller" if known.id == self._config.node.id and name != "on_deposed" else "follower"
        environment = {**election_environment(self._config, role, term, known), "ZELECT_HOOK": name}
        for command in commands:
            for attempt in range(1 + self._hooks.retries):
                code = self._run_one(command, environment)
                level = "info" if code == 0 else "warning"
                self._log.event(level, "hook_ended", hook=name, command=command[0], code=code, attempt=attempt + 1)
                if code != self._hooks.retry_code or self._closing.wait(self._hooks.retry_after_ms / 1000):
                    break

    def _run_one(self, command: Sequence[str], environment: dict[str, str]) -> int | str:
        """The exit code, or why there is none."""
        import subprocess  # only where there are hooks

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


def election_environment(config: Config, role: str, term: int, controller: Controller) -> dict[str, str]:
    """The environment of a command or hook: this process's own, and what there is to know of the election
    (docs/running-a-job.md)."""
    return {
        **os.environ,
        "ZELECT_NODE": str(config.node.id),
        "ZELECT_TERM": str(term),
        "ZELECT_ROLE": role,
        "ZELECT_CONTROLLER": str(controller.id or ""),
        "ZELECT_PREVIOUS": str(controller.previous or ""),
        "ZELECT_REASON": controller.reason,
        "ZELECT_LEASE_MS": str(config.timing.lease_ms),
    }
