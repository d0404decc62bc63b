"""Runs a local cluster: Redis, the nodes, the view, and the commands of `zelect cluster`.

One thread, one poller. Each node is an interpreter of its own with its own configuration. The nodes need
nothing of the supervisor, but they die with it: when it is killed, the kernel kills them
(`zelect.system.parent_death`). A node that ends by itself is shown with its exit code and not started
again: a local cluster is for seeing what happens.

`python -m zelect.devcluster.supervisor DIR` is the detached form; it reads `ClusterOptions` from stdin.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import zmq

from zelect.client.query import Asker
from zelect.config.sources import without
from zelect.devcluster.bundled_server import NoServer, RedisServer, ServerFailed
from zelect.devcluster.control import ControlServer, Processes, ProcessState
from zelect.devcluster.layout import ChildMark, ClusterError, ClusterPlan, Control, Layout
from zelect.devcluster.live_view import ClusterSnapshot, ClusterView, open_view
from zelect.redis.errors import safe_url
from zelect.system.child import append_to, start_logged
from zelect.system.parent_death import prefix
from zelect.system.processes import started
from zelect.system.secure_files import make_directory
from zelect.system.signals import SignalPipe

_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_TICK_MS = 250
_LOOK_MS = 20
_LEAVE_WITHIN_S = 5.0
_REDIS_READY_S = 10.0
_REDIS_FIRST_WAIT_S = 0.5
_REDIS_LONGEST_WAIT_S = 30.0
_REDIS_LONG_RUN_S = 30.0


@dataclass(frozen=True, slots=True)
class ClusterOptions:
    """What `zelect cluster up` was asked for; None: as before, or the default. The command line has no
    options for `program`, what `python -m` runs for a node with `-c FILE`, nor for `timing` and `quorum`."""

    nodes: int
    base_port: int | None = None
    redis_url: str | None = None
    name: str | None = None
    program: tuple[str, ...] = ("zelect", "node")
    timing: Mapping[str, int | str] | None = None
    quorum: str = "dynamic"
    secure: bool | None = None


@dataclass(slots=True)
class _Child:
    process: subprocess.Popen[bytes]
    frozen: bool = False
    asked: bool = False

    def state(self, node: int) -> ProcessState:
        code = self.process.poll()
        name = "ended" if code is not None else "frozen" if self.frozen else "up"
        return ProcessState(node, self.process.pid, name, code, self.asked)

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)


class Supervisor:
    """Owns the processes of one local cluster. Must be made and run in the main thread: signals arrive
    there, and the children die with the thread that started them."""

    def __init__(
        self, layout: Layout, plan: ClusterPlan, view: ClusterView, program: Sequence[str] = ("zelect", "node")
    ) -> None:
        self._layout = layout
        self._plan = plan
        self._view = view
        self._program = tuple(program)
        self._children: dict[int, _Child] = {}
        self._redis: RedisServer | None = None
        self._redis_began_s = self._redis_retry_s = self._redis_wait_s = 0.0
        self._stops = 0
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._token = secrets.token_hex(16)
        self._control = ControlServer(self._token)
        self._asker = Asker(plan.name, plan.addresses, self._context, layout.keyring())

    def run(self) -> int:
        """Run until it is stopped; returns the exit code. Raises `ClusterError` when Redis does not start."""
        with SignalPipe((*_STOP_SIGNALS, signal.SIGCHLD)) as wake:
            try:
                self._start_redis()
                for node in self._plan.ids:
                    self._start(node)
                self._loop(wake)
                return 0
            finally:
                self._end(wake)

    def _take_signals(self, wake: SignalPipe) -> bool:
        """Count the signals that stop the cluster; whether there was any signal, as at a child's end."""
        numbers = wake.take()
        self._stops += sum(number in _STOP_SIGNALS for number in numbers)
        return bool(numbers)

    # -- the loop -------------------------------------------------------------------------

    def _loop(self, wake: SignalPipe) -> None:
        poller = zmq.Poller()
        poller.register(wake, zmq.POLLIN)
        poller.register(self._control.fileno(), zmq.POLLIN)
        self._asker.register(poller)
        tick = time.monotonic()
        while not self._stops:
            wait_ms = max(0, int((tick - time.monotonic()) * 1000)) + 1
            # In plain text others may take a node's port, and send what never becomes readable.
            poller.poll(wait_ms if self._plan.secure else min(wait_ms, _LOOK_MS))
            if self._take_signals(wake):
                tick = 0.0  # a child may have ended: show it at once
            self._control.serve(self._command)
            self._asker.collect()
            if time.monotonic() >= tick:
                tick = time.monotonic() + _TICK_MS / 1000
                self._restart_redis()
                self._view.show(self._snapshot())
                self._asker.ask()

    def _snapshot(self) -> ClusterSnapshot:
        return ClusterSnapshot(self._plan, self._layout.directory, self._processes(), self._asker.fresh(1000))

    def _processes(self) -> Processes:
        redis_pid = self._redis.pid if self._redis else None
        states = tuple(child.state(node) for node, child in sorted(self._children.items()))
        return Processes(os.getpid(), safe_url(self._plan.url), redis_pid, states)

    # -- commands -------------------------------------------------------------------------

    def _command(self, command: str, node: int) -> Processes:
        """Carry out one command; raises `ClusterError` when that is not possible."""
        if command == "down":
            self._stops += 1
        elif command == "start":
            self._start_again(node)
        elif command in ("stop", "kill", "freeze", "thaw"):
            self._signal(command, node)
        elif command != "status":
            raise ClusterError(f"the supervisor has no command {command!r}")
        return self._processes()

    def _start_again(self, node: int) -> None:
        state = self._processes().node(node)
        if state.state != "ended":
            raise ClusterError(f"node {node} is already running (pid {state.pid})", 1)
        self._start(node)

    def _signal(self, command: str, node: int) -> None:
        state = self._processes().node(node)
        if state.state == "ended":
            raise ClusterError(f"node {node} is not running; 'zelect cluster start {node}' starts it", 1)
        child = self._children[node]
        child.asked = child.asked or command in ("stop", "kill")
        if command == "stop":
            child.signal(signal.SIGTERM)
            child.signal(signal.SIGCONT)  # a frozen node can't leave
        elif command == "kill":
            child.signal(signal.SIGKILL)
        elif command == "freeze":
            child.signal(signal.SIGSTOP)
        else:
            child.signal(signal.SIGCONT)
        child.frozen = command == "freeze"

    # -- processes ------------------------------------------------------------------------

    def _start_redis(self) -> None:
        if self._plan.redis_url:
            return
        try:
            self._redis = RedisServer(self._layout.redis, self._plan.redis_port, prefix())
            self._view.print(f"starting Redis on port {self._plan.redis_port}")
            self._redis.start()
            self._redis.wait_ready(_REDIS_READY_S)
        except NoServer as error:
            raise ClusterError(str(error)) from error
        except ServerFailed as error:
            raise ClusterError(f"Redis: {error}", 1) from error

    def _restart_redis(self) -> None:
        """Start our Redis again when it has ended, each time later where that happens again and again. It comes
        back empty, and the nodes publish again."""
        redis, now_s = self._redis, time.monotonic()
        if redis is None or redis.pid is not None:
            return
        if not self._redis_retry_s:
            long_run = now_s - self._redis_began_s > _REDIS_LONG_RUN_S
            self._redis_wait_s = _REDIS_FIRST_WAIT_S if long_run else min(_REDIS_LONGEST_WAIT_S, 2 * self._redis_wait_s)
            self._redis_wait_s = max(_REDIS_FIRST_WAIT_S, self._redis_wait_s)
            self._redis_retry_s = now_s + self._redis_wait_s
            self._view.print(f"Redis has ended, see {redis.log}; it will be restarted in {self._redis_wait_s:g} s")
        if now_s < self._redis_retry_s:
            return
        self._redis_retry_s, self._redis_began_s = 0.0, now_s
        try:
            redis.start()
        except ServerFailed as error:
            self._view.print(f"Redis: {error}")
            return
        self._view.print(f"Redis was restarted (pid {redis.pid}), empty")
        self._write_control()

    def _start(self, node: int) -> None:
        command = (*prefix(), sys.executable, "-P", "-m", *self._program, "-c", str(self._layout.conf_of(node)))
        self._children[node] = _Child(start_logged(command, self._layout.log_of(node), env=without(os.environ)))
        self._write_control()

    def _write_control(self) -> None:
        """Write how to reach this supervisor, and what to kill after it was killed."""
        pids = [child.process.pid for child in self._children.values() if child.process.poll() is None]
        if self._redis is not None and self._redis.pid is not None:
            pids.append(self._redis.pid)
        children = tuple(ChildMark(pid, started(pid)) for pid in pids)
        self._layout.write_control(
            Control(os.getpid(), started(os.getpid()), self._control.port, self._token, children)
        )

    def _end(self, wake: SignalPipe) -> None:
        """Have all nodes leave, then end Redis, then the rest. A second Ctrl-C kills the nodes."""
        running = [child for child in self._children.values() if child.process.poll() is None]
        if running:
            self._view.print(f"stopping {len(running)} node{'s' if len(running) > 1 else ''}")
        for child in running:
            child.asked = True
            child.signal(signal.SIGUSR1)  # they are expected back: no vote is taken away (R11)
            child.signal(signal.SIGTERM)
            child.signal(signal.SIGCONT)
        stops, end = self._stops, time.monotonic() + _LEAVE_WITHIN_S
        while any(child.process.poll() is None for child in running):
            self._take_signals(wake)
            if time.monotonic() > end or self._stops > stops:
                for child in running:
                    child.signal(signal.SIGKILL)
            time.sleep(0.01)
        if self._redis is not None:
            self._redis.stop()
        # No node is active any more, however fresh its last answer is.
        self._view.show(ClusterSnapshot(self._plan, self._layout.directory, self._processes(), {}))
        self._view.close()
        self._layout.control_file.unlink(missing_ok=True)
        self._control.close()
        self._asker.close()
        self._context.term()


def supervise(directory: str | Path, options: ClusterOptions, live: bool) -> int:
    """Run the cluster in `directory` in the foreground until it is stopped; returns the exit code.

    `live`: draw the live view, where rich is installed and this is a terminal. Raises `ClusterError`.
    """
    layout = Layout(directory)
    lock = layout.hold()
    try:
        plan = layout.plan(options.nodes, options.base_port, options.redis_url, options.name, options.secure)
        layout.prepare(plan, options.timing, options.quorum)
        view = open_view(live)
        if plan.secure and options.secure is None:
            view.print("links are encrypted, as before; --plain turns that off")
        return Supervisor(layout, plan, view, options.program).run()
    finally:
        os.close(lock)


def detach(layout: Layout, options: ClusterOptions) -> tuple[subprocess.Popen[bytes], int]:
    """Start a supervisor that outlives this process. Returns it, and the offset in supervisor.log at which
    its output begins."""
    layout.check()
    make_directory(layout.logs)
    with append_to(layout.supervisor_log) as log:
        offset = log.tell()
        process = subprocess.Popen(
            (sys.executable, "-P", "-m", "zelect.devcluster.supervisor", str(layout.directory)),
            stdin=subprocess.PIPE,  # not an argument, which others can read: a URL may hold a password
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    assert process.stdin is not None
    with process.stdin as pipe:
        pipe.write(json.dumps(asdict(options)).encode())
    return process, offset


def _main() -> int:
    try:
        return supervise(sys.argv[1], ClusterOptions(**json.load(sys.stdin)), live=False)
    except ClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(_main())
