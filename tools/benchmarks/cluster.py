"""The cluster that is measured: Redis, node processes, and what can be learned of them."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import zmq

from tools.benchmarks.earlier_names import in_todays_names
from tools.benchmarks.http_load import Askers
from tools.common.checkout import KEYS, NAME, THIS, JsonDict, Tree
from tools.common.raw_redis import Wire
from tools.common.redis_server import started_server
from zelect.config.rendering import render
from zelect.core.messages import Envelope, Query, Report
from zelect.devcluster.layout import HOST, find_port
from zelect.security.key_files import DIRECTORY_FILE, Owner, make_keys, secret_file
from zelect.security.keys import ClientKeys, read_key
from zelect.system.clock import now_us
from zelect.system.parent_death import prefix
from zelect.wire import decode, encode


class Cluster:
    """Redis and `nodes` nodes of `tree` in `directory`, all ended on leaving the `with` block.
    `timing`: what differs from the defaults."""

    def __init__(
        self,
        directory: Path,
        nodes: int,
        quorum: str = "dynamic",
        tree: Tree = THIS,
        timing: Mapping[str, int | str] | None = None,
    ) -> None:
        self.directory = directory
        self.quorum = quorum
        self.tree = tree
        self.timing = timing
        self.ids = range(1, nodes + 1)
        self.children: dict[int, subprocess.Popen[bytes]] = {}
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._dealers: dict[int, zmq.Socket[bytes]] = {}
        self.ports: dict[int, int] = {}
        self.http_ports: dict[int, int] = {}
        self.heard_us: dict[int, int] = {}  # pid to its first answer
        self._read: dict[int, int] = {}  # how far each log was read
        self._question = encode(Envelope(NAME, 0, 0, 0, 0, Query("status")))

    def __enter__(self) -> Cluster:
        try:
            self.redis = started_server(self.directory)
            self._listen()
            self._configure()
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

    def _configure(self) -> None:
        ports = self.ports
        for node in self.ids:
            while (port := find_port()) in ports.values():
                pass
            ports[node] = port
        data_dirs = {node: str(self.directory / "data" / f"n{node}") for node in self.ids}
        secure, keys = self.tree.secure, self.directory / "keys"
        if secure:
            make_keys(keys, [Owner(node=node) for node in self.ids])
        for node in self.ids:
            security = None
            if secure:
                key_file = str(secret_file(keys, Owner(node=node)))
                security = {"key_file": key_file, "directory_file": str(keys / DIRECTORY_FILE)}
            rest = (self.redis.url, data_dirs, self.timing, "json", self.quorum, security)
            text = render(NAME, node, HOST, ports, *rest)
            if self.tree.requests:
                while (http := find_port()) in (*ports.values(), *self.http_ports.values()):
                    pass
                self.http_ports[node] = http
                text += f'\n[http]\nlisten = "{HOST}:{http}"\n'
            self._file(node, "toml").write_text(text, encoding="utf-8")
            dealer = self._context.socket(zmq.DEALER)
            for option, value in ((zmq.LINGER, 0), (zmq.IMMEDIATE, 1), (zmq.RECONNECT_IVL, 50)):
                dealer.setsockopt(option, value)
            if secure:  # any member's key may ask
                pair = read_key(secret_file(keys, Owner(node=node)))
                ClientKeys(pair, (pair.public,)).apply_to(dealer, 0)
            dealer.connect(f"tcp://{HOST}:{ports[node]}")
            self._dealers[node] = dealer

    def _file(self, node: int, suffix: str) -> Path:
        return self.directory / f"n{node}.{suffix}"

    # -- processes ------------------------------------------------------------------------

    def start(self, *nodes: int) -> None:
        """Start `nodes`, all without any."""
        for node in nodes or self.ids:
            command = (*prefix(), sys.executable, "-P", *self.tree.program, "node", "-c", str(self._file(node, "toml")))
            with self._file(node, "log").open("ab") as log:
                self.children[node] = subprocess.Popen(
                    command,
                    env=self.tree.environment(),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )

    def signal(self, node: int, number: signal.Signals) -> None:
        self.children[node].send_signal(number)

    def kill(self, *nodes: int) -> None:
        """SIGKILL them, all before the first is reaped."""
        for node in nodes:
            self.signal(node, signal.SIGKILL)
        for node in nodes:
            self.children[node].wait(30)

    def end(self) -> None:
        for child in self.children.values():
            child.kill()  # ends a stopped process too
            child.wait()
        if hasattr(self, "redis"):
            self.redis.stop()
        self._context.destroy(linger=0)

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
        for node in self.children:
            with self._file(node, "log").open("rb") as log:
                log.seek(self._read.get(node, 0))
                whole = log.read().rpartition(b"\n")[0]
            self._read[node] = self._read.get(node, 0) + len(whole) + (1 if whole else 0)
            lines = [line for line in whole.splitlines() if line.startswith(b"{")]
            found += [in_todays_names(json.loads(line)) for line in lines]
        return sorted(found, key=lambda fact: str(fact["time"]))

    def tails(self) -> str:
        """The ends of all logs."""
        return "\n".join(
            f"-- node {node}\n" + "\n".join(self._file(node, "log").read_text(errors="replace").splitlines()[-12:])
            for node in self.children
        )

    # -- what the nodes tell when asked ---------------------------------------------------

    def post(self, node: int) -> None:
        """Ask `node` how it is; the answer is for `take`. A frozen node will find the question."""
        dealer = self._dealers[node]
        with contextlib.suppress(zmq.Again):
            while True:  # answers that came too late
                dealer.recv(zmq.NOBLOCK)
        with contextlib.suppress(zmq.Again):
            dealer.send(self._question, zmq.NOBLOCK)

    def take(self, node: int, within_s: float) -> JsonDict | None:
        dealer = self._dealers[node]
        if not dealer.poll(int(within_s * 1000)):
            return None
        message = decode(dealer.recv()).message
        return in_todays_names(json.loads(message.text)) if isinstance(message, Report) else None

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
