"""`zelect run`: a command that runs where this node is active.

The node is a thread here, the command a child of the watchdog (`zelect.jobs.watchdog`), which ends it
before anybody else may start one. The main thread below only decides: start the command in each
leadership, end it when leadership is lost, start it again when it ended too early.
"""

from __future__ import annotations

import select
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from zelect.api.leadership import Leadership
from zelect.api.node import Node, NodeFailed
from zelect.api.node_thread import NodeThread, RunningNode
from zelect.config.loading import Config
from zelect.core.lease import NEVER_US
from zelect.jobs.watchdog_client import WatchdogClient
from zelect.node.leadership.handle import Controller
from zelect.node.leadership.hooks import election_environment
from zelect.node.loop import NodeLoop
from zelect.system.clock import now_us
from zelect.system.log import setup
from zelect.system.service_manager import ServiceManager
from zelect.system.signals import SignalPipe

FORWARDED = (signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGCONT, signal.SIGWINCH)
"""Signals that go on to the command; TERM and INT end it, and the node. HUP has the node read its files
again, and goes on only where the plan says so: a command that doesn't handle it would end."""
_FIRST_WAIT_US = 100_000
_LONGEST_WAIT_US = 10_000_000
_LONG_RUN_US = 10_000_000
_LATE_US = 5_000_000
_SLACK_US = 200_000
"""How much longer than it was told the watchdog may take to end the command."""
_AGAIN_MS = 10.0


@dataclass(frozen=True, slots=True)
class RunPlan:
    """What to run. `restart`: "on-failure", "always" or "never", within one leadership. `grace_ms`: how
    long the command may take to end after TERM while the lease lasts. `pass_code`: end with the
    command's exit code when it has exited on its own for good. `forward_hup`: the command gets HUP too."""

    command: Sequence[str]
    restart: str
    grace_ms: int
    pass_code: bool
    forward_hup: bool = False


class _Node(Node):
    """A node whose thread starts the watchdog before it sends its first message."""

    def __init__(self, config: Config, watchdog: WatchdogClient, connect_to: Mapping[str, str] | None) -> None:
        super().__init__(config)
        self._watchdog = watchdog
        self._connect_to = connect_to

    def _new_running_node(self) -> RunningNode:
        port = urlsplit(self.config.node.listen).port or 0
        settings, me = self.config.log, self.config.node.id
        log = setup(settings.level, settings.format, settings.file, me, self.config.cluster.name)

        def prepare(node: NodeLoop) -> None:
            self._watchdog.attach(node.data_dir, port, node.handle)
            node.manager = ServiceManager.from_environment()

        return NodeThread(self.config, prepare, self._connect_to, log)


class Runner:
    """Runs `plan` for the node of `config`, in the main thread. `connect_to`: see `zelect.node.loop.NodeLoop`."""

    def __init__(self, config: Config, plan: RunPlan, connect_to: Mapping[str, str] | None = None) -> None:
        lease_ms = config.timing.lease_ms
        self._config, self._plan = config, plan
        self._watchdog = WatchdogClient(term_ms=lease_ms // 4, kill_ms=max(1, lease_ms // 10))
        self._node = _Node(config, self._watchdog, connect_to)
        self._leadership: Leadership | None = None  # in which the command runs, or is being started
        self._stopping = False
        self._end_by_us = NEVER_US  # when the command is to be dead
        self._end_signals = 0  # how many TERM and INT have come
        self._over = False
        self._code = 0
        self._done = 0  # number of the leadership in which the command has done its work
        self._began_us = self._retry_us = self._wait_us = 0

    def run(self) -> int:
        """Until TERM or INT, or until the command has ended for good; returns the exit code. Raises
        what `Node.start` raises, `WatchdogFailed`, and `NodeFailed`."""
        with SignalPipe((signal.SIGTERM, signal.SIGINT, signal.SIGHUP, *FORWARDED)) as news:
            try:
                self._node.start()
                self._node.watcher.subscribe(news.ring)
                self._loop(news)
                self._node.stop()
            finally:
                self._watchdog.close()
        return self._code if self._plan.pass_code else 0

    def _loop(self, news: SignalPipe) -> None:
        poll = select.poll()
        for fd in (news.fileno(), self._watchdog.fileno()):
            poll.register(fd, select.POLLIN)
        while True:
            self._decide()
            if self._leadership is None and (self._end_signals or self._over):
                self._node.ask_to_stop()
                return
            if self._leadership is None and self._node.ended:
                return
            poll.poll(self._wait_ms())
            for number in news.take():
                self._on_signal(number)
            for message in self._watchdog.receive():
                self._on_message(message)

    def _wait_ms(self) -> float | None:
        leadership = self._leadership
        if leadership is not None:
            left_us = self._last_us(leadership) - now_us()
            return left_us / 1000 if left_us > 0 else _AGAIN_MS
        return max(1.0, (self._retry_us - now_us()) / 1000) if self._retry_us else None

    def _last_us(self, leadership: Leadership) -> int:
        """When a command that the watchdog has not ended must be ended from here."""
        return min(leadership.lapses_us - 1000 * self._config.timing.lease_ms // 14, self._end_by_us + _SLACK_US)

    def _end_command(self, grace_ms: int) -> None:
        self._end_by_us = min(self._end_by_us, now_us() + 1000 * grace_ms)
        self._watchdog.stop(grace_ms)

    # -- what to do -----------------------------------------------------------------------------------

    def _decide(self) -> None:
        if self._leadership is not None:
            self._guard(self._leadership)
            return
        leadership = self._node.leadership
        if leadership is None or leadership.number == self._done:
            return
        if self._end_signals or self._over or now_us() < self._retry_us:
            return
        if self._node.handle.register_job(leadership.term):
            self._leadership, self._stopping, self._end_by_us = leadership, False, NEVER_US
            self._began_us, self._retry_us = now_us(), 0
            me = Controller(leadership.node, leadership.term, leadership.previous, leadership.reason)
            environment = election_environment(self._config, "controller", leadership.term, me)
            self._watchdog.start(self._plan.command, environment, leadership.term)

    def _guard(self, leadership: Leadership) -> None:
        """End the command when leadership is lost, and from here when the watchdog has not."""
        if leadership.lost and not self._stopping:
            self._stopping = True
            self._end_command(self._plan.grace_ms)
        lease = self._node.handle.active_lease()
        if lease is not None and lease.term == leadership.term:
            leadership.lapses_us = lease.lapses_us
        late_us = now_us() - self._last_us(leadership)
        if late_us >= 0:
            # After a freeze of everything the watchdog is only late: it gets some time to say so.
            self._watchdog.kill(watchdog_too=late_us >= _LATE_US)

    def _on_signal(self, number: int) -> None:
        if number in (signal.SIGTERM, signal.SIGINT):
            self._end_signals += 1
            self._node.ask_to_stop()
            if self._end_signals > 1 and self._leadership is not None:
                self._end_command(0)
            return
        if number == signal.SIGHUP:
            self._node.reload()
            if not self._plan.forward_hup:
                return
        if self._leadership is not None and number in (signal.SIGHUP, *FORWARDED):
            self._watchdog.signal(number)

    def _on_message(self, message: dict[str, object]) -> None:
        if "gone" in message:
            # Nobody may succeed this node before the command is dead: this process, and with it the
            # leadership, lives on until then.
            while not self._watchdog.kill():
                self._say("the watchdog has died, and something that the command started is still running")
            raise NodeFailed("the watchdog of the command has died")
        if "failed" in message:
            self._say(f"the command was not started: {message['failed']}")
        elif "too_late" in message:
            self._say("the command was not started: leadership was lost first")
            self._release()
        elif "ended" in message:
            self._on_end(int(str(message["ended"])), bool(message["by_itself"]))

    def _on_end(self, code: int, by_itself: bool) -> None:
        leadership = self._leadership
        self._release()
        self._code = code
        if not by_itself or leadership is None:
            self._wait_us = 0
            return
        again = self._plan.restart == "always" or (self._plan.restart == "on-failure" and code != 0)
        if again:
            ran_us = now_us() - self._began_us
            grown_us = _FIRST_WAIT_US if ran_us > _LONG_RUN_US else 2 * self._wait_us
            self._wait_us = min(max(grown_us, _FIRST_WAIT_US), _LONGEST_WAIT_US)
            self._retry_us = now_us() + self._wait_us
            self._say(f"the command ended with exit code {code}; it will be restarted in {self._wait_us / 1e6:.1f} s")
        else:
            self._done, self._over = leadership.number, self._plan.pass_code
            then = "" if self._over else "; it will be restarted in the next leadership"
            self._say(f"the command ended with exit code {code}{then}")

    def _release(self) -> None:
        """Nothing of the command acts any more."""
        if self._leadership is not None:
            leadership, self._leadership = self._leadership, None
            self._node.handle.unregister_job(leadership.term)

    def _say(self, text: str) -> None:
        print(f"zelect run: {text}", file=sys.stderr, flush=True)
