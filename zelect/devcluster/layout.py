"""The directory of a local cluster: what is where in it, its plan, and which supervisor runs it.

DIR/cluster.json      the plan: name, nodes, ports
DIR/conf/nK.toml      configuration of node K, written at each start
DIR/keys/             secret keys of the nodes and of the operator "local", and the directory of public keys
DIR/data/nK/          durable state of node K
DIR/logs/nK.log       output of node K; supervisor.log: that of a detached supervisor
DIR/redis/            files of the bundled Redis
DIR/supervisor.lock   POSIX lock of the supervisor, with its pid
DIR/supervisor.json   how to reach it (readable by the owner alone, as it holds the token)
"""

from __future__ import annotations

import fcntl
import json
import os
import random
import socket
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from zelect.config.loading import ConfigError, load
from zelect.config.rendering import render
from zelect.security.key_files import DIRECTORY_FILE, SECRET_FILE, Owner, make_missing_keys, secret_file
from zelect.security.keys import Keyring, keyring_to_ask
from zelect.status.codec import plain, read
from zelect.system.foreign import read_json
from zelect.system.secure_files import UnsafeFile, check_own, make_directory, read_own

HOST = "127.0.0.1"
FIRST_EPHEMERAL = 32_768
DEFAULT_BASE_PORT = 7101
_OPERATOR = "local"
_PORTS = range(16_384, FIRST_EPHEMERAL)


class ClusterError(Exception):
    """The local cluster can't do what was asked; the text says how to fix that. `exit_code`: for the command."""

    def __init__(self, message: str, exit_code: int = 2) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@dataclass(frozen=True, slots=True)
class ClusterPlan:
    """A local cluster: `nodes` nodes on consecutive ports from `base_port` up. `redis_url` is empty
    where the supervisor runs a Redis of its own on `redis_port`. `secure`: links are encrypted."""

    name: str
    nodes: int
    base_port: int
    redis_url: str
    redis_port: int
    secure: bool = False

    @property
    def ids(self) -> range:
        """The nodes' ids."""
        return range(1, self.nodes + 1)

    @property
    def ports(self) -> dict[int, int]:
        """Node id to port."""
        return {node: self.base_port + node - 1 for node in self.ids}

    @property
    def addresses(self) -> dict[int, str]:
        """Node id to address."""
        return {node: f"tcp://{HOST}:{port}" for node, port in self.ports.items()}

    @property
    def url(self) -> str:
        """The Redis that the nodes use."""
        return self.redis_url or f"redis://{HOST}:{self.redis_port}/0"


@dataclass(frozen=True, slots=True)
class ChildMark:
    """A child of the supervisor: its pid, and when it started, by which it is known from a later process of that
    number (`zelect.system.processes`)."""

    pid: int
    started: str


@dataclass(frozen=True, slots=True)
class Control:
    """How to reach the supervisor `pid`, which `started` then: the port on loopback and the token that its questions
    need. `children`: what to end after it was killed."""

    pid: int
    started: str
    port: int
    token: str
    children: tuple[ChildMark, ...]


def port_is_free(port: int) -> bool:
    """Whether a server could listen on `port` of loopback now."""
    with socket.socket() as probe:
        # As servers do: a port with a listener still counts as taken, one with closing connections does not.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
            probe.listen()
        except OSError:
            return False
    return True


def find_port() -> int:
    """A free port below the ephemeral range, where no outgoing connection can take it. Raises
    `ClusterError` (4) when none is found."""
    for port in random.sample(_PORTS, 200):
        if port_is_free(port):
            return port
    raise ClusterError(f"found no free port from {_PORTS.start} to {_PORTS.stop - 1} on {HOST}", 4)


def write_private(path: Path, text: str) -> None:
    """Replace `path` by `text` in one step, readable by the owner alone."""
    part = path.with_name(path.name + ".part")
    part.unlink(missing_ok=True)
    with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    part.replace(path)


def _lock(descriptor: int) -> bool:
    """Take the lock; whether that was possible. Tries more than once, as `supervisor_pid` holds it for a
    moment."""
    for _ in range(10):
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            time.sleep(0.01)
        else:
            return True
    return False


class Layout:
    """The directory of one local cluster."""

    def __init__(self, directory: str | Path) -> None:
        self.directory = Path(directory).absolute()
        self.conf = self.directory / "conf"
        self.keys = self.directory / "keys"
        self.data = self.directory / "data"
        self.logs = self.directory / "logs"
        self.redis = self.directory / "redis"
        self.plan_file = self.directory / "cluster.json"
        self.lock_file = self.directory / "supervisor.lock"
        self.control_file = self.directory / "supervisor.json"
        self.supervisor_log = self.logs / "supervisor.log"

    def conf_of(self, node: int) -> Path:
        return self.conf / f"n{node}.toml"

    def log_of(self, node: int) -> Path:
        return self.logs / f"n{node}.log"

    def check(self) -> None:
        """Raises `ClusterError` (2) when what is here may be somebody else's: a directory that is a link, belongs to
        another user, or that others can write to. What it names would be run, killed, written and believed."""
        for directory in (self.directory, self.conf, self.keys, self.data, self.logs, self.redis):
            try:
                check_own(directory)
            except UnsafeFile as error:
                raise ClusterError(f"{error}; or give another --dir") from error

    def _read(self, path: Path) -> bytes:
        """A file of this directory. Raises `OSError`, and `ClusterError` when it may be somebody else's."""
        self.check()
        try:
            return read_own(path)
        except UnsafeFile as error:
            raise ClusterError(f"{error}; or give another --dir") from error

    # -- the one supervisor ---------------------------------------------------------------

    def hold(self) -> int:
        """Become the supervisor of this directory, until the returned descriptor is closed. Raises
        `ClusterError` (2) when there is one already."""
        make_directory(self.directory)
        self.check()
        descriptor = os.open(self.lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        if not _lock(descriptor):
            pid = os.pread(descriptor, 32, 0).decode().strip() or "unknown"
            os.close(descriptor)
            raise ClusterError(
                f"the cluster in {self.directory} is already running (supervisor pid {pid}): stop it with "
                f"'zelect cluster down --dir {self.directory}', or give another --dir"
            )
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        return descriptor

    def supervisor_pid(self) -> int | None:
        """The pid of the running supervisor, or None. Must not be called in the supervisor's own process:
        closing a file drops all locks that the process has on it."""
        self.check()
        try:
            descriptor = os.open(self.lock_file, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return None
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return None
        except OSError:
            text = os.pread(descriptor, 32, 0).strip()
            return int(text) if text.isdigit() else None
        finally:
            os.close(descriptor)

    def read_control(self) -> Control | None:
        """What the supervisor wrote about itself; it may be dead."""
        try:
            return read(Control, read_json(self._read(self.control_file)))
        except (OSError, ValueError):
            return None

    def write_control(self, control: Control) -> None:
        """Write how to reach the supervisor."""
        write_private(self.control_file, json.dumps(plain(control)))

    # -- the plan -------------------------------------------------------------------------

    def read_plan(self) -> ClusterPlan:
        """The plan of the cluster here; raises ClusterError (2) when there is none."""
        try:
            return read(ClusterPlan, read_json(self._read(self.plan_file)))
        except FileNotFoundError as error:
            raise ClusterError(
                f"no cluster in {self.directory}: start one with 'zelect cluster up 3', or give the --dir of another"
            ) from error
        except (OSError, ValueError, TypeError) as error:
            raise ClusterError(f"{self.plan_file}: {error}: remove {self.directory} to begin again") from error

    def plan(
        self,
        nodes: int,
        base_port: int | None,
        redis_url: str | None,
        name: str | None,
        secure: bool | None = None,
    ) -> ClusterPlan:
        """The plan for a start; None: as it was before, or else the default. Raises `ClusterError`: 2 when it
        contradicts the plan that is here, 4 when a port is taken."""
        self.check()
        old = self.read_plan() if self.plan_file.exists() else None
        if old is not None and (old.nodes != nodes or (name is not None and old.name != name)):
            raise ClusterError(
                f"{self.directory} holds cluster {old.name!r} of {old.nodes} nodes, and their durable state: "
                f"start it with 'zelect cluster up {old.nodes}', give another --dir, or remove the directory"
            )
        base = base_port or (old.base_port if old else DEFAULT_BASE_PORT)
        if base + nodes > FIRST_EPHEMERAL:
            raise ClusterError(
                f"--base-port {base}: the nodes' ports must lie below {FIRST_EPHEMERAL}, where no outgoing connection "
                f"takes them; the highest for {nodes} nodes is {FIRST_EPHEMERAL - nodes}"
            )
        redis_port = old.redis_port if old and port_is_free(old.redis_port) else find_port()
        if redis_url is None:
            redis_url = old.redis_url if old else ""
        if secure is None:
            secure = old.secure if old else False
        plan = ClusterPlan(name or (old.name if old else "demo"), nodes, base, redis_url, redis_port, secure)
        self.check_ports(plan)
        return plan

    def check_ports(self, plan: ClusterPlan) -> None:
        """Raises ClusterError (4) when a node's port is taken."""
        taken = [port for port in plan.ports.values() if not port_is_free(port)]
        if taken:
            ports = ", ".join(map(str, taken))
            raise ClusterError(
                f"port {ports} on {HOST} is taken: choose others with --base-port, for example "
                f"--base-port {plan.base_port + 100}",
                4,
            )

    def prepare(
        self, plan: ClusterPlan, timing: Mapping[str, int | str] | None = None, quorum: str = "dynamic"
    ) -> None:
        """Make the directories and write the configurations and the plan. Raises `ClusterError`, and writes
        nothing, when name, URL or timing make no valid configuration."""
        self._check(plan, timing, quorum)
        for directory in (self.conf, self.data, self.logs, self.redis):
            make_directory(directory)
        data_dirs = {node: str(self.data / f"n{node}") for node in plan.ids}
        try:
            if plan.secure:
                owners = [Owner(node=node) for node in plan.ids]
                make_missing_keys(self.keys, [*owners, Owner(operator=_OPERATOR)])
            for node in plan.ids:
                security = self._security(node) if plan.secure else None
                text = render(plan.name, node, HOST, plan.ports, plan.url, data_dirs, timing, "text", quorum, security)
                write_private(self.conf_of(node), text)
            load(self.conf_of(1), environ={})
        except ConfigError as error:
            raise ClusterError(str(error)) from error
        write_private(self.plan_file, json.dumps(asdict(plan)))

    def _check(self, plan: ClusterPlan, timing: Mapping[str, int | str] | None, quorum: str) -> None:
        data_dirs = {node: str(self.data / f"n{node}") for node in plan.ids}
        text = render(plan.name, 1, HOST, plan.ports, plan.url, data_dirs, timing, "text", quorum, None)
        with tempfile.TemporaryDirectory(prefix="zelect-") as place:
            path = Path(place) / "n1.toml"
            path.write_text(text, encoding="utf-8")
            try:
                load(path, environ={})
            except ConfigError as error:
                problem = str(error).replace(f"{path}: ", "")
                for key, option in (("redis.url:", "--redis:"), ("cluster.name:", "--name:")):
                    problem = problem.replace(key, option)
                raise ClusterError(problem) from error

    def _security(self, node: int) -> dict[str, str]:
        return {
            "key_file": str(secret_file(self.keys, Owner(node=node))),
            "directory_file": str(self.keys / DIRECTORY_FILE),
            "operator_key_file": str(secret_file(self.keys, Owner(operator=_OPERATOR))),
            "secret_file": str(self.keys / SECRET_FILE),
        }

    def keyring(self) -> Keyring | None:
        """The keys with which commands ask the nodes here; None: in plain text. Raises `ConfigError`."""
        return keyring_to_ask(load(self.conf_of(1), environ={}))
