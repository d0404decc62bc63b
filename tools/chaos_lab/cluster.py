"""The cluster that is broken: its supervisor, nodes, links and Redis, and how they fare."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from signal import Signals

import zmq

from tools.chaos_lab.chaos_log import ChaosLog
from tools.chaos_lab.job import JobKeys
from tools.chaos_lab.links import Links
from tools.chaos_lab.namespaces import Spaces
from tools.chaos_lab.pidfds import ProcessHandles
from tools.chaos_lab.redis_servers import Registry, Watcher
from tools.chaos_lab.worker_setup import CHAOS, NAME, WorkerSetup, write_setups
from tools.common.checkout import THIS, ToolError
from tools.common.ports import free_ports
from tools.common.raw_redis import Wire
from tools.common.redis_server import started_server
from zelect.client.query import Asker
from zelect.core.timing import Timing
from zelect.devcluster.bundled_server import RedisServer
from zelect.devcluster.control import Processes, bring_down, request
from zelect.devcluster.layout import HOST, ClusterError, Layout
from zelect.devcluster.supervisor import ClusterOptions, detach
from zelect.node.history_recorder import HISTORY
from zelect.status.cluster import controller_of
from zelect.status.report import NodeReport
from zelect.system.clock import now_us

_UP_WITHIN_S = 30.0
_ASK_EVERY_US = 15_000


@dataclass(frozen=True, slots=True)
class Scene:
    """What is broken: `nodes` nodes with `timing` (the keys that differ from the defaults). `links`:
    whether they go through the proxy; `spaces`: each node in a network namespace of its own instead.
    `command`: what runs in every leadership in place of the job in the node's process; `interface`: see
    `WorkerSetup`."""

    nodes: int
    directory: Path
    timing: Mapping[str, int | str] = field(default_factory=dict)
    quorum: str = "dynamic"
    links: bool = True
    spaces: bool = False
    command: tuple[str, ...] = ()
    interface: str = ""

    @property
    def ids(self) -> range:
        return range(1, self.nodes + 1)


class ChaosCluster:
    """Everything that runs, ended by `close`. Used by one thread, the main one, whose children the
    processes are."""

    def __init__(self, scene: Scene, log: ChaosLog) -> None:
        self.scene = scene
        self.log = log
        self.layout = Layout(scene.directory)
        self.history = self.layout.directory / "history"
        self.timing = Timing(**scene.timing)  # type: ignore[arg-type]
        self._links: Links | Spaces | None = None
        self.handles = ProcessHandles()
        self.every_pid: set[int] = set()
        self.leaving: set[int] = set()  # left, or are about to
        self.started_us = 0  # of the last node that was started alone
        self.supervisor: subprocess.Popen[bytes] | None = None
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._asker: Asker | None = None
        self._asked_us = 0
        self.ports = dict(zip(scene.ids, free_ports(scene.nodes), strict=True))
        # What all processes are started with, and are known by.
        os.environ.update({CHAOS: str(self.setups_file), HISTORY: str(self.history)})
        os.environ["PYTHONPATH"] = THIS.environment()["PYTHONPATH"]
        self.spaces = Spaces(self.ports) if scene.spaces else None
        self.host = self.spaces.host if self.spaces else HOST
        try:
            self.registry = Registry(self.layout.directory / "registry", self.host)
            self.job_server: RedisServer = started_server(self.layout.directory / "job", self.host)
        except BaseException:
            if self.spaces:
                self.spaces.close()
            raise
        self.watcher = Watcher(self.registry, NAME, log)

    @property
    def ids(self) -> Sequence[int]:
        """The nodes that should run, in their order."""
        return self.scene.ids

    @property
    def places(self) -> Sequence[tuple[int, str, int]]:
        """Every place at which a node may listen: its id, host and port."""
        return [(node, HOST, port) for node, port in self.ports.items()]

    @property
    def links(self) -> Links | Spaces:
        """The links of a cluster that goes through the proxy or has namespaces."""
        assert self._links is not None
        return self._links

    @property
    def addresses(self) -> dict[int, str]:
        """Where the nodes themselves are reached, past the proxy."""
        if self.spaces:
            return {node: self.spaces.endpoint(node) for node in self.ids}
        return {node: f"tcp://{HOST}:{self.ports[node]}" for node in self.ids}

    # -- beginning and end ----------------------------------------------------------------

    def open(self) -> None:
        """Start everything. Raises ToolError, ClusterError, ServerFailed."""
        if self.spaces:
            self.spaces.join_registry(self.registry.port)
            self._links = self.spaces
        elif self.scene.links:
            self._links = Links(self.places, (HOST, self.registry.port))
        write_setups(self.setups_file, {node: self._setup_of(node) for node in self.scene.ids})
        self.watcher.start()
        self.start_nodes()
        self.meet()

    def start_nodes(self) -> None:
        """Start the nodes of the beginning. Raises ToolError."""
        self.start_supervisor()

    def meet(self) -> None:
        """Ask the nodes that should run from now on, at their present addresses."""
        if self._asker is not None:
            self._asker.close()
        self._asker = Asker(NAME, self.addresses, self._context, self.layout.keyring())

    @property
    def setups_file(self) -> Path:
        return self.layout.directory / "workers.json"

    def hog_file(self, node: int) -> Path:
        """The file that makes a thread of `node` hold its interpreter lock."""
        return self.layout.directory / f"hog{node}"

    def _setup_of(self, node: int) -> WorkerSetup:
        dial = self._links.dial(node) if self._links else {}
        port = self._links.registry_of(node) if self._links else self.registry.port
        return WorkerSetup(
            dial=dial,
            registry=f"redis://{self.host}:{port}/0",
            job=(self.host, self.job_server.port),
            history=str(self.history),
            hog=str(self.hog_file(node)),
            command=self.scene.command,
            interface=self.scene.interface,
            namespace=self.spaces.path(node) if self.spaces else "",
            listen=self.spaces.endpoint(node) if self.spaces else "",
        )

    def start_supervisor(self) -> None:
        """Start the supervisor, and with it all nodes; returns once they run. Raises ToolError."""
        options = ClusterOptions(
            self.scene.nodes,
            self.ports[1],
            f"redis://{HOST}:{self.registry.port}/0",
            NAME,
            ("tools.chaos_lab.worker",),
            dict(self.scene.timing) or None,
            self.scene.quorum,
            # In plain text a node answers nobody from another host, and this one is no node's.
            secure=self.scene.spaces,
        )
        self.supervisor, _ = detach(self.layout, options)
        end = time.monotonic() + _UP_WITHIN_S
        while time.monotonic() < end and self.supervisor.poll() is None:
            with contextlib.suppress(ClusterError):
                if self.layout.supervisor_pid() == self.supervisor.pid and len(self.processes().nodes) == len(self.ids):
                    return
            time.sleep(0.02)
        log = self.layout.supervisor_log.read_text(errors="replace")[-1000:]
        raise ToolError(f"the supervisor did not start the nodes:\n{log}")

    def bring_down(self) -> None:
        """End the nodes and their supervisor, in good order where that is possible."""
        self.thaw_all()
        with contextlib.suppress(ClusterError):
            bring_down(self.layout, 15)
        if self.supervisor is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.supervisor.wait(5)

    def close(self) -> None:
        """End everything else."""
        self.handles.close()
        self.watcher.close()
        if self._asker is not None:
            self._asker.close()
        self._context.destroy(linger=0)
        if self._links is not None:
            self._links.close()
        self.registry.close()
        self.job_server.stop()

    def accepted(self) -> list[str]:
        """What the job's Redis accepted, in its order, each "KIND TERM NODE". Raises OSError, ToolError."""
        wire = Wire(self.job_server.port)
        try:
            return [item.decode() for item in wire.call("LRANGE", JobKeys(NAME).accepted, 0, -1)]
        finally:
            wire.close()

    # -- processes ------------------------------------------------------------------------

    def listed(self) -> Processes:
        """The processes as whoever started them sees them. Raises ClusterError."""
        return request(self.layout, "status")

    def processes(self) -> Processes:
        """The newest process of each node. Raises ClusterError."""
        processes = self.listed()
        for node in processes.nodes:
            self.every_pid.add(node.pid)
            if node.state != "ended":
                self.handles.know(node.id, node.pid)
        return processes

    @property
    def pids(self) -> dict[int, int]:
        """The newest process of each node, whether it still runs or not."""
        return self.handles.pids

    def signal(self, node: int, number: Signals) -> None:
        """To the process itself: the way through the supervisor would cost milliseconds. Harmless
        for one that has ended."""
        if number in (Signals.SIGKILL, Signals.SIGTERM):
            self.leaving.add(node)
        self.handles.signal(node, number)

    def thaw_all(self) -> None:
        for node in self.pids:
            self.signal(node, Signals.SIGCONT)

    def await_end(self, node: int, within_s: float = 10.0) -> int | None:
        """The exit code of a process that is about to end; None when it does not."""
        end = time.monotonic() + within_s
        while time.monotonic() < end:
            state = self.processes().node(node)
            if state.state == "ended":
                self.leaving.discard(node)
                return state.exit_code
            time.sleep(0.01)
        return None

    def end_node(self, node: int, number: Signals = Signals.SIGKILL) -> None:
        """End the process of `node` by a signal, and wait for its end."""
        self.signal(node, number)
        self.await_end(node)

    def start(self, node: int) -> None:
        """Start `node` unless it runs."""
        if self.processes().node(node).state == "ended":
            self.spawn(node)
            self.leaving.discard(node)
            self.started_us = now_us()
            self.processes()

    def spawn(self, node: int) -> None:
        """Start the process of `node`, which does not run."""
        request(self.layout, "start", node)

    def start_all(self) -> None:
        """Start every node that should run and does not."""
        for state in self.processes().nodes:
            if state.state == "ended" and state.id in self.ids:
                self.spawn(state.id)
        self.processes()

    def data_of(self, node: int) -> Path:
        return self.layout.data / f"n{node}"

    def forget(self, node: int) -> None:
        """Take away what `node`, which does not run, remembers."""
        shutil.rmtree(self.data_of(node), ignore_errors=True)

    # -- how they fare --------------------------------------------------------------------

    def look(self, since_us: int = 0) -> dict[int, NodeReport]:
        """The newest answers, of those that answered after `since_us`. Asks again now and then."""
        assert self._asker is not None
        self._asker.collect()
        now = now_us()
        if now - self._asked_us >= _ASK_EVERY_US:
            self._asked_us = now
            self._asker.ask()
        return {node: report for node, report in self._asker.reports.items() if report.at_us > since_us}

    def active(self) -> int:
        """Who says that it is active, asked now; 0: nobody within a second."""
        since, end = now_us(), now_us() + 1_000_000
        while now_us() < end:
            head = controller_of(self.look(since))
            if head is not None:
                return head.id
            time.sleep(0.002)
        return 0

    def wait(self, ms: float, until: Callable[[], bool] = lambda: False) -> bool:
        """Let time pass; whether `until` came true before."""
        end = now_us() + int(ms * 1000)
        while (left_us := end - now_us()) > 0:
            self.turn()
            self.look()
            if until():
                return True
            time.sleep(min(0.01, left_us / 1e6))
        return until()

    def turn(self) -> None:
        """What else goes on, a little at a time, while this thread waits."""

    def await_successor(self, of: int, within_ms: float = 5000) -> int:
        """Wait until somebody but `of` is active; 0: nobody is in time."""
        since = now_us()
        found: list[int] = []

        def another() -> bool:
            head = controller_of(self.look(since))
            if head is not None and head.id != of:
                found.append(head.id)
            return bool(found)

        self.wait(within_ms, another)
        return found[0] if found else 0

    def settled(self, since_us: int) -> NodeReport | None:
        """The controller, once all nodes have answered after `since_us` and agree: it is active,
        everybody follows it in its term, with all links up, and everybody is a member by the same
        record, which it wrote."""
        reports = self.look(since_us)
        head = controller_of(reports)
        if head is None or len(reports) < len(self.ids):
            return None
        record = (head.voters.generation, head.term, head.voters.version, tuple(self.ids))
        for report in reports.values():
            if report.id != head.id and (report.active or report.role != "follower" or report.status != "running"):
                return None
            if (report.term, report.links) != (head.term, len(report.peers)):
                return None
            if (*report.voters.age, report.voters.members) != record:
                return None
        return head
