"""`zelect run`: a command that runs where the office is.

The node is a thread here, the command a child of the guard; the main thread below only decides:
start it in each office, end it when the office is lost, start it again when it ended too early. It
is dead before anybody else may start one, see `zelect.jobs.watchdog`.
"""

from __future__ import annotations

import os
import select
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from zelect.api.leadership import Office
from zelect.api.node import Node, NodeFailed
from zelect.api.node_thread import Engine, ThreadEngine
from zelect.config.loading import Config
from zelect.core.lease import NEVER_US
from zelect.jobs.watchdog_client import Keeper
from zelect.node.signals import Signals
from zelect.system.clock import now_us

__all__ = ["FORWARDED", "Plan", "Runner", "environment"]

FORWARDED = (signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGCONT, signal.SIGWINCH)
"""Signals that go on to the command; TERM and INT end it, and the node. HUP has the node read its files
anew, and goes on only where the plan says so: a command that doesn't handle it would end."""
_FIRST_WAIT_US = 100_000
_LONGEST_WAIT_US = 10_000_000
_LONG_RUN_US = 10_000_000
_LATE_US = 5_000_000
_SLACK_US = 200_000
"""How much longer than told the guard may take to end the command."""
_AGAIN_MS = 10.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run. `restart`: "on-failure", "always" or "never", within one office. `grace_ms`: how
    long the command may take to end after TERM while the lease lasts. `pass_code`: end with the
    command's exit code when it has ended by itself for good. `forward_hup`: the command gets HUP too."""

    command: Sequence[str]
    restart: str
    grace_ms: int
    pass_code: bool
    forward_hup: bool = False


class _Node(Node):
    """A node whose thread starts the guard before it says a word."""

    def __init__(self, config: Config, keeper: Keeper, dial: Mapping[int, str] | None) -> None:
        super().__init__(config)
        self._keeper = keeper
        self._dial = dial

    def _make_engine(self) -> Engine:
        return ThreadEngine(self.config, self._keeper.attach, self._dial)


class Runner:
    """Runs `plan` for the node of `config`, in the main thread. `dial`: see `zelect.node.loop.Node`."""

    def __init__(self, config: Config, plan: Plan, dial: Mapping[int, str] | None = None) -> None:
        lease_ms = config.timing.lease_ms
        self._config, self._plan = config, plan
        self._keeper = Keeper(term_ms=lease_ms // 4, kill_ms=max(1, lease_ms // 10))
        self._node = _Node(config, self._keeper, dial)
        self._office: Office | None = None  # in which the command runs, or is being started
        self._stopping = False
        self._end_by_us = NEVER_US  # when it was told to be dead
        self._going = 0  # how often it was told to end
        self._over = False
        self._code = 0
        self._done = 0  # number of the office in which the command has done its work
        self._began_us = self._retry_us = self._wait_us = 0

    def run(self) -> int:
        """Until TERM or INT, or until the command has ended for good; returns the exit code. Raises
        what `Node.start` raises, `GuardFailed`, and `NodeFailed`."""
        with Signals((signal.SIGTERM, signal.SIGINT, signal.SIGHUP, *FORWARDED)) as news:
            try:
                self._node.start()
                self._node.watch.subscribe(news.ring)
                self._loop(news)
                self._node.stop()
            finally:
                self._keeper.close()
        return self._code if self._plan.pass_code else 0

    def _loop(self, news: Signals) -> None:
        poll = select.poll()
        for fd in (news.fileno(), self._keeper.fileno()):
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
            for words in self._keeper.hear():
                self._hear(words)

    def _wait_ms(self) -> float | None:
        office = self._office
        if office is not None:
            left_us = self._last_us(office) - now_us()
            return left_us / 1000 if left_us > 0 else _AGAIN_MS
        return max(1.0, (self._retry_us - now_us()) / 1000) if self._retry_us else None

    def _last_us(self, office: Office) -> int:
        """When a command that the guard has not ended must be ended from here."""
        return min(office.lapses_us - 1000 * self._config.timing.lease_ms // 14, self._end_by_us + _SLACK_US)

    def _end(self, grace_ms: int) -> None:
        """Have the command ended."""
        self._end_by_us = min(self._end_by_us, now_us() + 1000 * grace_ms)
        self._keeper.stop(grace_ms)

    # -- what to do -----------------------------------------------------------------------------------

    def _decide(self) -> None:
        office = self._office
        if office is not None:
            if office.lost and not self._stopping:
                self._stopping = True
                self._end(self._plan.grace_ms)
            tenure = self._node.post.held()
            if tenure is not None and tenure.term == office.term:
                office.lapses_us = tenure.lapses_us
            if now_us() >= self._last_us(office):
                # After a freeze of everything the guard is only late: it gets some time to say so.
                self._keeper.kill(the_guard_too=now_us() >= self._last_us(office) + _LATE_US)
            return
        office = self._node.office
        if office is None or self._going or self._over or office.number == self._done or now_us() < self._retry_us:
            return
        if self._node.post.occupy(office.term):
            self._office, self._stopping, self._end_by_us = office, False, NEVER_US
            self._began_us, self._retry_us = now_us(), 0
            self._keeper.start(self._plan.command, environment(self._config, office), office.term)

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
            self._keeper.signal(number)

    def _hear(self, words: dict[str, object]) -> None:
        if "gone" in words:
            # Nobody may succeed it before it is dead: this process lives on, and with it the office.
            while not self._keeper.kill():
                self._tell("the guard has died, and something that the command started is not dead yet")
            raise NodeFailed("the guard of the command has died")
        if "failed" in words:
            self._tell(str(words["failed"]))
        elif "ended" in words:
            self._ended(int(str(words["ended"])), bool(words["own"]))
        if "failed" in words and words["failed"] == "the office was lost first":
            self._vacate()

    def _ended(self, code: int, own: bool) -> None:
        office = self._office
        self._vacate()
        self._code = code
        if not own or office is None:
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
            self._done, self._over = office.number, self._plan.pass_code
            then = "" if self._over else "; it is started again in the next office"
            self._tell(f"the command ended with {code}{then}")

    def _vacate(self) -> None:
        if self._office is not None:
            office, self._office = self._office, None
            self._node.post.vacate(office.term)

    def _tell(self, text: str) -> None:
        print(f"zelect run: {text}", file=sys.stderr, flush=True)


def environment(config: Config, office: Office) -> dict[str, str]:
    """What the command finds in its environment, besides this process's own."""
    return {
        **os.environ,
        "ZELECT_NODE": str(config.node.id),
        "ZELECT_TERM": str(office.term),
        "ZELECT_ROLE": "controller",
        "ZELECT_CONTROLLER": str(config.node.id),
        "ZELECT_PREVIOUS": str(office.previous or ""),
        "ZELECT_REASON": office.reason,
        "ZELECT_LEASE_MS": str(config.timing.lease_ms),
    }
