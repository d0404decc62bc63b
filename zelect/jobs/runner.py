"""`zelect run`: a command that runs where leadership is.

The node is a thread here, the command a child of the watchdog; the main thread below only decides:
start it in each leadership, end it when leadership is lost, start it again when it ended too early. It
is dead before anybody else may start one, see `zelect.jobs.watchdog`.
"""

from __future__ import annotations

import os
import select
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from zelect.api.leadership import Leadership
from zelect.api.node import Node, NodeFailed
from zelect.api.node_thread import NodeThread, RunningNode
from zelect.config.loading import Config
from zelect.core.lease import NEVER_US
from zelect.jobs.watchdog_client import WatchdogClient
from zelect.node.signals import Signals
from zelect.system.clock import now_us

__all__ = ["FORWARDED", "RunPlan", "Runner", "environment"]

FORWARDED = (signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGCONT, signal.SIGWINCH)
"""Signals that go on to the command; TERM and INT end it, and the node. HUP has the node read its files
again, and goes on only where the plan says so: a command that doesn't handle it would end."""
_FIRST_WAIT_US = 100_000
_LONGEST_WAIT_US = 10_000_000
_LONG_RUN_US = 10_000_000
_LATE_US = 5_000_000
_SLACK_US = 200_000
"""How much longer than told the watchdog may take to end the command."""
_AGAIN_MS = 10.0


@dataclass(frozen=True, slots=True)
class RunPlan:
    """What to run. `restart`: "on-failure", "always" or "never", within one leadership. `grace_ms`: how
    long the command may take to end after TERM while the lease lasts. `pass_code`: end with the
    command's exit code when it has ended by itself for good. `forward_hup`: the command gets HUP too."""

    command: Sequence[str]
    restart: str
    grace_ms: int
    pass_code: bool
    forward_hup: bool = False


class _Node(Node):
    """A node whose thread starts the watchdog before it says a word."""

    def __init__(self, config: Config, watchdog_client: WatchdogClient, connect_to: Mapping[int, str] | None) -> None:
        super().__init__(config)
        self._watchdog_client = watchdog_client
        self._connect_to = connect_to

    def _new_running_node(self) -> RunningNode:
        return NodeThread(self.config, self._watchdog_client.attach, self._connect_to)


class Runner:
    """Runs `plan` for the node of `config`, in the main thread. `connect_to`: see `zelect.node.loop.NodeLoop`."""

    def __init__(self, config: Config, plan: RunPlan, connect_to: Mapping[int, str] | None = None) -> None:
        lease_ms = config.timing.lease_ms
        self._config, self._plan = config, plan
        self._watchdog_client = WatchdogClient(term_ms=lease_ms // 4, kill_ms=max(1, lease_ms // 10))
        self._node = _Node(config, self._watchdog_client, connect_to)
        self._office: Leadership | None = None  # in which the command runs, or is being started
        self._stopping = False
        self._end_by_us = NEVER_US  # when it was told to be dead
        self._going = 0  # how often it was told to end
        self._over = False
        self._code = 0
        self._done = 0  # number of leadership in which the command has done its work
        self._began_us = self._retry_us = self._wait_us = 0

    def run(self) -> int:
        """Until TERM or INT, or until the command has ended for good; returns the exit code. Raises
        what `Node.start` raises, `WatchdogFailed`, and `NodeFailed`."""
        with Signals((signal.SIGTERM, signal.SIGINT, signal.SIGHUP, *FORWARDED)) as news:
            try:
                self._node.start()
                self._node.watch.subscribe(news.ring)
                self._loop(news)
                self._node.stop()
            finally:
                self._watchdog_client.close()
        return self._code if self._plan.pass_code else 0

    def _loop(self, news: Signals) -> None:
        poll = select.poll()
        for fd in (news.fileno(), self._watchdog_client.fileno()):
            poll.register(fd, select.POLLIN)
        while True:
            self._decide()
            if self._office is None and (self._going or self._over):
                self._node.ask_to_stop()
                return
            if self._office is None and self._node.ended:
                return
            poll.poll(self._wait_ms())
            for number in news.take():
                self._heed(number)
            for words in self._watchdog_client.hear():
                self._hear(words)

    def _wait_ms(self) -> float | None:
        leadership = self._office
        if leadership is not None:
            left_us = self._last_us(leadership) - now_us()
            return left_us / 1000 if left_us > 0 else _AGAIN_MS
        return max(1.0, (self._retry_us - now_us()) / 1000) if self._retry_us else None

    def _last_us(self, leadership: Leadership) -> int:
        """When a command that the watchdog has not ended must be ended from here."""
        return min(leadership.lapses_us - 1000 * self._config.timing.lease_ms // 14, self._end_by_us + _SLACK_US)

    def _end(self, grace_ms: int) -> None:
        """Have the command ended."""
        self._end_by_us = min(self._end_by_us, now_us() + 1000 * grace_ms)
        self._watchdog_client.stop(grace_ms)

    # -- what to do -----------------------------------------------------------------------------------

    def _decide(self) -> None:
        leadership = self._office
        if leadership is not None:
            if leadership.lost and not self._stopping:
                self._stopping = True
                self._end(self._plan.grace_ms)
            lease = self._node.handle.active_lease()
            if lease is not None and lease.term == leadership.term:
                leadership.lapses_us = lease.lapses_us
            if now_us() >= self._last_us(leadership):
                # After a freeze of everything the watchdog is only late: it gets some time to say so.
                self._watchdog_client.kill(the_watchdog_too=now_us() >= self._last_us(leadership) + _LATE_US)
            return
        leadership = self._node.leadership
        if (
            leadership is None
            or self._going
            or self._over
            or leadership.number == self._done
            or now_us() < self._retry_us
        ):
            return
        if self._node.handle.register_job(leadership.term):
            self._office, self._stopping, self._end_by_us = leadership, False, NEVER_US
            self._began_us, self._retry_us = now_us(), 0
            self._watchdog_client.start(self._plan.command, environment(self._config, leadership), leadership.term)

    def _heed(self, number: int) -> None:
        if number in (signal.SIGTERM, signal.SIGINT):
            self._going += 1
            self._node.ask_to_stop()
            if self._going > 1 and self._office is not None:
                self._end(0)
            return
        if number == signal.SIGHUP:
            self._node.reload()
            if not self._plan.forward_hup:
                return
        if self._office is not None and number in (signal.SIGHUP, *FORWARDED):
            self._watchdog_client.signal(number)

    def _hear(self, words: dict[str, object]) -> None:
        if "gone" in words:
            # Nobody may succeed it before it is dead: this process lives on, and with it leadership.
            while not self._watchdog_client.kill():
                self._tell("the watchdog has died, and something that the command started is not dead yet")
            raise NodeFailed("the watchdog of the command has died")
        if "failed" in words:
            self._tell(str(words["failed"]))
        elif "ended" in words:
            self._ended(int(str(words["ended"])), bool(words["own"]))
        if "failed" in words and words["failed"] == "leadership was lost first":
            self._end_job()

    def _ended(self, code: int, own: bool) -> None:
        leadership = self._office
        self._end_job()
        self._code = code
        if not own or leadership is None:
            self._wait_us = 0
            return
        again = self._plan.restart == "always" or (self._plan.restart == "on-failure" and code != 0)
        if again:
            ran_us = now_us() - self._began_us
            grown_us = _FIRST_WAIT_US if ran_us > _LONG_RUN_US else 2 * self._wait_us
            self._wait_us = min(max(grown_us, _FIRST_WAIT_US), _LONGEST_WAIT_US)
            self._retry_us = now_us() + self._wait_us
            self._tell(f"the command ended with {code}; again in {self._wait_us / 1e6:.1f} s")
        else:
            self._done, self._over = leadership.number, self._plan.pass_code
            then = "" if self._over else "; it is started again in the next leadership"
            self._tell(f"the command ended with {code}{then}")

    def _end_job(self) -> None:
        if self._office is not None:
            leadership, self._office = self._office, None
            self._node.handle.unregister_job(leadership.term)

    def _tell(self, text: str) -> None:
        print(f"zelect run: {text}", file=sys.stderr, flush=True)


def environment(config: Config, leadership: Leadership) -> dict[str, str]:
    """What the command finds in its environment, besides this process's own."""
    return {
        **os.environ,
        "ZELECT_NODE": str(config.node.id),
        "ZELECT_TERM": str(leadership.term),
        "ZELECT_ROLE": "controller",
        "ZELECT_CONTROLLER": str(config.node.id),
        "ZELECT_PREVIOUS": str(leadership.previous or ""),
        "ZELECT_REASON": leadership.reason,
        "ZELECT_LEASE_MS": str(config.timing.lease_ms),
    }
