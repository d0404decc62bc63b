"""A cluster whose members come, go, move and get other durations while it runs. There is no supervisor: its files and
processes are kept as an operator keeps them on several hosts."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from signal import Signals

from tools.chaos_lab.chaos_log import ChaosLog
from tools.chaos_lab.cluster import ChaosCluster, Scene
from tools.chaos_lab.worker_setup import NAME
from tools.common.ports import free_ports
from zelect.config.rendering import render
from zelect.core.timing import Timing
from zelect.devcluster.control import Processes, ProcessState
from zelect.devcluster.layout import HOST, write_private
from zelect.system.child import start_logged
from zelect.system.clock import now_us
from zelect.system.parent_death import prefix
from zelect.system.secure_files import make_directory

_LEAVE_WITHIN_S = 5.0
_DOUBLED = ("heartbeat_ms", "election_timeout_ms", "lease_ms")


class WalkedCluster(ChaosCluster):
    """It begins with the nodes 1 to `first` of `scene`. `members`: who belongs to it, as far as the operator knows;
    `work`: the change that the operator is making, which goes on a little at each turn of whatever waits."""

    def __init__(self, scene: Scene, log: ChaosLog, first: int) -> None:
        super().__init__(scene, log)
        self.members = list(range(1, first + 1))
        self.durations = (dict(scene.timing), _doubled(self.timing))
        """Those of the beginning, and those that they change to and back."""
        self.work: Iterator[None] | None = None
        self._there = set(self.members)
        self._children: dict[int, subprocess.Popen[bytes]] = {}
        self._timings: dict[int, Mapping[str, int | str]] = {}
        self._spare_ports = self.ports
        while set(self._spare_ports.values()) & set(self.ports.values()):
            self._spare_ports = dict(zip(scene.ids, free_ports(scene.nodes), strict=True))

    @property
    def ids(self) -> Sequence[int]:
        return sorted(self._there)

    @property
    def places(self) -> Sequence[tuple[int, str, int]]:
        return [(node, HOST, port) for ports in (self.ports, self._spare_ports) for node, port in ports.items()]

    def turn(self) -> None:
        if self.work is not None:
            try:
                next(self.work)
            except StopIteration:
                self.work = None

    def newest_record(self) -> tuple[int, ...]:
        """Which voter record is the newest that a node has told of."""
        return max((report.voters.age for report in self.look().values()), default=())

    # -- files ----------------------------------------------------------------------------

    def write(self, node: int, timing: Mapping[str, int | str] | None = None) -> None:
        """Write the configuration of `node`, with those that belong to the cluster now; those of the others lag
        behind. `timing`: None for what it had, or what the cluster began with."""
        self._timings[node] = timing if timing is not None else self._timings.get(node, self.scene.timing)
        write_private(self.layout.conf_of(node), self._text(node, self._timings[node]))

    def operators_file(self) -> str:
        """A configuration that lists everybody who belongs or runs now, for commands."""
        path = self.layout.conf / "operator.toml"
        write_private(path, self._text(self.members[0], self.scene.timing))
        return str(path)

    def _text(self, node: int, timing: Mapping[str, int | str]) -> str:
        ports = {one: self.ports[one] for one in sorted({*self.members, *self._there, node})}
        data_dirs = {one: str(self.data_of(one)) for one in ports}
        url = f"redis://{HOST}:{self.registry.port}/0"
        return render(NAME, node, HOST, ports, url, data_dirs, timing, "text", self.scene.quorum)

    # -- processes ------------------------------------------------------------------------

    def start_nodes(self) -> None:
        for directory in (self.layout.conf, self.layout.data, self.layout.logs):
            make_directory(directory)
        for node in self.members:
            self.write(node)
            self.spawn(node)
        self.processes()

    def listed(self) -> Processes:
        found = []
        for node, child in sorted(self._children.items()):
            code = child.poll()
            found.append(ProcessState(node, child.pid, "up" if code is None else "ended", code, False))
        return Processes(os.getpid(), "", None, tuple(found))

    def spawn(self, node: int) -> None:
        program = (sys.executable, "-P", "-m", "tools.chaos_lab.worker")
        command = (*prefix(), *program, "-c", str(self.layout.conf_of(node)))
        self._children[node] = start_logged(command, self.layout.log_of(node))

    def admit(self, node: int) -> None:
        """Start `node`, which is to run from now on."""
        self._there.add(node)
        self.spawn(node)
        self.started_us = now_us()
        self.processes()
        self.meet()

    def stop(self, node: int) -> Iterator[None]:
        """Have `node` leave, which is not to run any more; one that is frozen is waited for."""
        self._there.discard(node)
        self.meet()
        self.signal(node, Signals.SIGTERM)
        while self._children[node].poll() is None:
            yield
        self.leaving.discard(node)
        self.processes()

    def move(self, node: int) -> None:
        """From now on `node`, which does not run, is at its other address."""
        self.ports[node], self._spare_ports[node] = self._spare_ports[node], self.ports[node]

    def bring_down(self) -> None:
        self.thaw_all()
        running = [child for child in self._children.values() if child.poll() is None]
        for child in running:
            child.send_signal(Signals.SIGUSR1)
            child.send_signal(Signals.SIGTERM)
        for child in running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(_LEAVE_WITHIN_S)
            child.kill()
            child.wait()


def _doubled(timing: Timing) -> dict[str, int | str]:
    """The keys in which a timing of twice the durations differs from the defaults."""
    differs = {name for name in timing.__dataclass_fields__ if getattr(timing, name) != getattr(Timing(), name)}
    values = {name: getattr(timing, name) * (2 if name in _DOUBLED else 1) for name in (*differs, *_DOUBLED)}
    values["down_after_ms"] = max(timing.down_after_ms, values["election_timeout_ms"])
    return values
