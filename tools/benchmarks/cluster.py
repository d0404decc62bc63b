"""The cluster that is measured: Redis, node processes, and what can be learned of them."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

import zmq

from tools.benchmarks.earlier_names import in_todays_names
from tools.benchmarks.http_load import Askers
from tools.common.checkout import KEYS, NAME, THIS, JsonDict, Tree
from tools.common.nodes import NodeProcesses
from tools.common.ports import free_ports
from tools.common.raw_redis import Wire
from tools.common.redis_server import started_server
from zelect.devcluster.layout import HOST
from zelect.system.clock import now_us
from zelect.system.parent_death import prefix


class Cluster(NodeProcesses):
    """Redis and `nodes` nodes of `tree` in `directory`, all ended on leaving the `with` block.
    `timing`: what differs from the defaults; `wrapped`: a command that replaces itself with each node."""

    def __init__(
        self,
        directory: Path,
        nodes: int,
        quorum: str = "dynamic",
        tree: Tree = THIS,
        timing: Mapping[str, int | str] | None = None,
        wrapped: Sequence[str] = (),
    ) -> None:
        operators = () if tree.secure else None
        super().__init__(
            directory, NAME, range(1, nodes + 1), "", timing, quorum, operators, tree, (*prefix(), *wrapped)
        )
        # Where an older tree's default is, which it compares with what is listed.
        self.data_dirs = {node: directory / "data" / f"n{node}" for node in self.ids}
        self.http_ports: dict[int, int] = {}
        while tree.requests and (not self.http_ports or set(self.http_ports.values()) & set(self.ports.values())):
            self.http_ports = dict(zip(self.ids, free_ports(nodes), strict=True))
        self.heard_us: dict[int, int] = {}  # pid to its first answer
        self._dealers: dict[int, zmq.Socket[bytes]] = {}
        self._read: dict[int, int] = {}  # how far each log was read

    def __enter__(self) -> Cluster:
        try:
            self.redis = started_server(self.directory)
            self.redis_url = self.redis.url
            self._listen()
            for node in self.ids:
                self.write(node)
                self._dealers[node] = self.dealer(node, options={zmq.IMMEDIATE: 1, zmq.RECONNECT_IVL: 50})
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self.end()

    def _listen(self) -> None:
        self.control = Wire(self.redis.port)
        self._changes = Wire(self.redis.port)
        self._changes.say("SUBSCRIBE", KEYS.changes)
        while self._changes.line(5) != b":1":
            pass

    def revive_redis(self) -> None:
        """Start Redis again, empty, after its death."""
        self.redis.start()
        self.reconnect()

    def reconnect(self) -> None:
        """Wait for a Redis that was started again, and talk to it. Raises `ServerFailed`."""
        self.redis.wait_ready()
        self.control.close()
        self._changes.close()
        self._listen()

    def text(self, node: int, timing: Mapping[str, int | str] | None = None) -> str:
        http = f'\n[http]\nlisten = "{HOST}:{self.http_ports[node]}"\n' if self.http_ports else ""
        return super().text(node, timing) + http

    def end(self) -> None:
        super().end()
        if hasattr(self, "redis"):
            self.redis.stop()

    # -- what Redis and the logs tell -----------------------------------------------------

    def record(self) -> tuple[int, int]:
        """Id and term of the controller by Redis' record; (0, 0): there is none."""
        node, term = self.control.call("HMGET", KEYS.controller, "id", "term")
        return int(node or 0), int(term or 0)

    def change(self, within_s: float) -> tuple[int, JsonDict]:
        """The next change of controller, and when it arrived. Raises TimeoutError."""
        end_us = now_us() + int(within_s * 1e6)
        while not (line := self._changes.line((end_us - now_us()) / 1e6)).startswith(b"{"):
            pass
        return now_us(), json.loads(line)

    def changes_so_far(self) -> list[JsonDict]:
        found = []
        with contextlib.suppress(TimeoutError):
            while True:
                found.append(self.change(0.0)[1])
        return found

    def facts(self) -> list[JsonDict]:
        """What the nodes have logged since the last call, in the order of their clocks."""
        found: list[JsonDict] = []
        for node in self.processes:
            with self.log_of(node).open("rb") as log:
                log.seek(self._read.get(node, 0))
                whole = log.read().rpartition(b"\n")[0]
            self._read[node] = self._read.get(node, 0) + len(whole) + (1 if whole else 0)
            lines = [line for line in whole.splitlines() if line.startswith(b"{")]
            found += [in_todays_names(json.loads(line)) for line in lines]
        return sorted(found, key=lambda fact: str(fact["time"]))

    # -- what the nodes tell when asked ---------------------------------------------------

    def post(self, node: int) -> None:
        """Ask `node` how it is; the answer is for `take`. A frozen node will find the question."""
        dealer = self._dealers[node]
        with contextlib.suppress(zmq.Again):
            while True:  # answers that came too late
                dealer.recv(zmq.NOBLOCK)
        with contextlib.suppress(zmq.Again):
            dealer.send(self.question, zmq.NOBLOCK)

    def take(self, node: int, within_s: float) -> JsonDict | None:
        report = self.answer(self._dealers[node], within_s)
        return None if report is None else in_todays_names(report)

    def reports(self, nodes: Collection[int] | None = None) -> dict[int, JsonDict]:
        """What `nodes` (None: all) say of themselves, those that answer."""
        nodes = self.ids if nodes is None else nodes
        for node in nodes:
            self.post(node)
        taken = {node: self.take(node, 0.2) for node in nodes}
        return {node: report for node, report in taken.items() if report is not None}

    def zelect_version(self) -> str:
        """What the nodes say that they run."""
        found = {str(report["version"]) for report in self.reports().values()}
        return ", ".join(sorted(found))

    def server_version(self) -> str:
        """Which Redis it is."""
        text = self.control.call("INFO", "server").decode()
        known = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
        return f"valkey {known['valkey_version']}" if "valkey_version" in known else f"redis {known['redis_version']}"


@contextlib.contextmanager
def directory() -> Iterator[Path]:
    """A directory for one cluster."""
    with tempfile.TemporaryDirectory(prefix="zelect-bench-") as name:
        yield Path(name)


@contextlib.contextmanager
def running(nodes: int, quorum: str = "dynamic", tree: Tree = THIS) -> Iterator[Cluster]:
    """A cluster in a directory of its own, with its nodes started. Raises ToolError when its
    processes would run another tree than `tree`."""
    tree.check()
    with directory() as path, Cluster(path, nodes, quorum, tree) as cluster:
        cluster.start()
        with Askers(cluster.http_ports.values(), tree.requests) if tree.requests else contextlib.nullcontext():
            yield cluster
