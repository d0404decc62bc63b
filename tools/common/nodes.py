"""The nodes of one cluster as child processes: their files, their start and end, what they log and say when asked."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgpack
import zmq

from tools.common.checkout import THIS, JsonDict, Tree
from tools.common.ports import free_ports
from zelect.config.rendering import render
from zelect.core.messages import Envelope, Query, Type
from zelect.devcluster.layout import HOST
from zelect.security.key_files import DIRECTORY_FILE, Owner, make_keys, secret_file
from zelect.security.keys import ClientKeys, read_key
from zelect.wire import encode


def _question(tree: Tree, cluster: str) -> bytes:
    """What asks a node of `tree` for its status. Before messages named their recipient, frames had one item less, and
    before there were cluster ids another one."""
    frame = msgpack.unpackb(encode(Envelope(cluster, 0, 0, 0, 0, Query("status"))))
    source = (tree.root / "zelect" / "wire.py").read_text(encoding="utf-8")
    if "_HEADER = 11\n" not in source:
        del frame[10:]
    if "_HEADER = 9\n" in source:
        del frame[6]
    question: bytes = msgpack.packb(frame)
    return question


class NodeProcesses:
    """Nodes `ids` of `tree` below `directory`, not started yet and without configuration files until `write`.
    `timing`: what differs from the defaults. `operators`: who has a key besides the nodes; None: links are
    plain text. `prefix`: a command that replaces itself with the node."""

    def __init__(
        self,
        directory: Path,
        name: str,
        ids: Iterable[int],
        redis_url: str = "",
        timing: Mapping[str, int | str] | None = None,
        quorum: str = "dynamic",
        operators: Sequence[Owner] | None = None,
        tree: Tree = THIS,
        prefix: Sequence[str] = (),
    ) -> None:
        self.directory, self.name, self.redis_url, self.quorum = directory, name, redis_url, quorum
        self.timing, self.tree, self.secure = timing, tree, operators is not None
        self.ids = tuple(ids)
        self.ports = dict(zip(self.ids, free_ports(len(self.ids)), strict=True))
        self.addresses = {node: f"tcp://{HOST}:{port}" for node, port in self.ports.items()}
        self.data_dirs = {node: directory / f"data{node}" for node in self.ids}
        self.keys = directory / "keys"
        self.processes: dict[int, subprocess.Popen[bytes]] = {}
        self._prefix = tuple(prefix)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.question = _question(tree, name)
        directory.mkdir(parents=True, exist_ok=True)
        if operators is not None:
            make_keys(self.keys, [*(Owner(node=node) for node in self.ids), *operators])

    # -- files ----------------------------------------------------------------------------

    def conf(self, node: int) -> Path:
        return self.directory / f"n{node}.toml"

    def log_of(self, node: int) -> Path:
        return self.directory / f"n{node}.log"

    def security(self, node: int) -> dict[str, str]:
        """The section of `node`, in a secure cluster."""
        key_file = str(secret_file(self.keys, Owner(node=node)))
        return {"key_file": key_file, "directory_file": str(self.keys / DIRECTORY_FILE)}

    def text(self, node: int, timing: Mapping[str, int | str] | None = None) -> str:
        """The configuration of `node`; `timing`: None for that of the cluster."""
        security = self.security(node) if self.secure else None
        data_dirs = {one: str(path) for one, path in self.data_dirs.items()}
        timing = self.timing if timing is None else timing
        return render(
            self.name, node, HOST, self.ports, self.redis_url, data_dirs, timing, "json", self.quorum, security
        )

    def write(self, node: int, timing: Mapping[str, int | str] | None = None) -> None:
        self.conf(node).write_text(self.text(node, timing), encoding="utf-8")

    def tails(self, lines: int = 12) -> str:
        """The ends of all logs."""
        parts = []
        for log in sorted(self.directory.glob("*.log")):
            parts += [f"--- {self.name}: {log.name}", *log.read_text(errors="replace").splitlines()[-lines:]]
        return "\n".join(parts)

    # -- processes ------------------------------------------------------------------------

    def start(self, *nodes: int, failpoint: str = "") -> None:
        """Start `nodes`, all without any; `failpoint`: see zelect/node/failpoints.py."""
        for node in nodes or self.ids:
            self.spawn(node, self.conf(node), self.log_of(node), failpoint)

    def spawn(self, key: int, conf: Path, log: Path, failpoint: str = "") -> subprocess.Popen[bytes]:
        """Start a process with `conf` and count it among this cluster's as `key`."""
        assert key not in self.running(), f"node {key} runs already"
        command = (*self._prefix, sys.executable, "-P", *self.tree.program, "node", "-c", str(conf))
        with log.open("ab") as out:
            self.processes[key] = subprocess.Popen(
                command,
                env={**self.tree.environment(), "ZELECT_FAILPOINT": failpoint},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        return self.processes[key]

    def running(self) -> set[int]:
        return {node for node, process in self.processes.items() if process.poll() is None}

    def signal(self, number: signal.Signals, *nodes: int) -> None:
        for node in nodes:
            self.processes[node].send_signal(number)

    def kill(self, *nodes: int) -> None:
        """SIGKILL them, all before the first is reaped."""
        self.signal(signal.SIGKILL, *nodes)
        for node in nodes:
            self.processes[node].wait(30)

    def exit_code(self, node: int) -> int:
        return self.processes[node].wait(30)

    def end(self) -> None:
        """End what still runs, stopped processes too."""
        for process in self.processes.values():
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            process.wait(30)
        self._context.destroy(linger=0)

    # -- what they say when asked ---------------------------------------------------------

    def dealer(
        self, node: int, asks: Owner | None = None, options: Mapping[int, int] | None = None
    ) -> zmq.Socket[bytes]:
        """A connection of its own to `node`, with the key that `node` has now; `asks`: whose key it is asked
        with (None: its own, as any member's key may ask); `options`: of the socket."""
        socket = self._context.socket(zmq.DEALER)
        for option, value in ({zmq.LINGER: 0} | dict(options or {})).items():
            socket.setsockopt(option, value)
        if self.secure:
            own = read_key(secret_file(self.keys, Owner(node=node)))
            pair = own if asks is None else read_key(secret_file(self.keys, asks))
            ClientKeys(pair, (own.public,)).apply_to(socket, 0)
        socket.setsockopt(zmq.IPV6, 1)
        socket.connect(self.addresses[node])
        return socket

    def answer(self, dealer: zmq.Socket[bytes], within_s: float) -> JsonDict | None:
        """The report that comes from `dealer`; None: none in time."""
        if not dealer.poll(int(within_s * 1000)):
            return None
        frame = msgpack.unpackb(dealer.recv())
        code, body = frame[2], next(item for item in reversed(frame) if isinstance(item, list))  # in all trees
        report: JsonDict | None = json.loads(body[0]) if code == int(Type.REPORT) else None
        return report
