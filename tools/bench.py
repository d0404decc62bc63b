"""Measures zelect as it runs: a real cluster on this host, with real faults.

    python tools/bench.py failover [--fault kill|freeze|term] [--trials N] [--nodes 3] [--redis-kill]
    python tools/bench.py idle [--seconds S] [--nodes N]
    python tools/bench.py start [--trials N] [--nodes N]

Nodes are child processes on their own configurations, Redis is the bundled server, ports are free
ones below the ephemeral range. What is waited for is what a user of zelect would wait for: the
change of controller on Redis' channel, read from a plain socket. With `--redis-kill` Redis dies
just before the controller, and the successor's log line `office_entered` is waited for instead.
After SIGTERM the time without anybody in office counts from the change to nobody; with
`--redis-kill` from the signal.

A figure alone says little on a shared machine, so floors are taken between the trials of the same
run: how soon a bare process's death can be seen, what a ZeroMQ round trip, a synced write and a
script cost. Times are in milliseconds. All processes end with this one, Ctrl-C or not.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import platform
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Any

import zmq

from zelect.cluster.layout import HOST, find_port, port_is_free
from zelect.cluster.server import RedisServer, ServerFailed
from zelect.cluster.tether import prefix
from zelect.config import render
from zelect.core.messages import Envelope, Query, Report
from zelect.core.timing import Timing
from zelect.shell.clock import now_us
from zelect.shell.scripts import Keys
from zelect.wire import decode, encode

NAME = "bench"
KEYS = Keys.of(NAME)
TIMING = Timing()
SUCCESSOR_WITHIN_S = 20.0
SETTLED_WITHIN_S = 60.0
# A restarted node votes for nobody during one election timeout (R4); a trial waits until it may.
SILENCE_US = (TIMING.election_timeout_ms + 100) * 1000
WATCH_THAWED_US = 500_000
FLOOR_REPEATS = 5
JsonDict = dict[str, Any]


class BenchError(Exception):
    """The cluster does not do what has to be measured; the text says what, with its last words."""


# -- Redis, by hand ------------------------------------------------------------------------


class Wire:
    """A plain connection to Redis: no library between the socket and the clock. Raises OSError;
    TimeoutError leaves what was read for the next call of `line`."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection((HOST, port), timeout=5)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = b""

    def say(self, *words: str | int) -> None:
        encoded = [str(word).encode() for word in words]
        parts = [b"*%d\r\n" % len(encoded), *(b"$%d\r\n%s\r\n" % (len(word), word) for word in encoded)]
        self._socket.sendall(b"".join(parts))

    def call(self, *words: str | int) -> Any:
        """The reply to one command: bytes, int, None or a list of these. Raises BenchError on an error."""
        self.say(*words)
        return self._reply()

    def line(self, within_s: float) -> bytes:
        """The next line of what the server says, whatever it belongs to."""
        end_us = now_us() + int(within_s * 1e6)
        while b"\r\n" not in self._buffer:
            self._fill(max(0.0001, (end_us - now_us()) / 1e6))
        line, _, self._buffer = self._buffer.partition(b"\r\n")
        return line

    def _fill(self, within_s: float) -> None:
        self._socket.settimeout(within_s)
        more = self._socket.recv(65536)
        if not more:
            raise ConnectionResetError("Redis closed the connection")
        self._buffer += more

    def _reply(self) -> Any:
        line = self.line(5)
        kind, rest = line[:1], line[1:]
        if kind == b"-":
            raise BenchError(f"Redis: {rest.decode()}")
        if kind == b"$":
            return None if rest == b"-1" else self._exactly(int(rest))
        if kind == b"*":
            return [self._reply() for _ in range(int(rest))]
        return int(rest) if kind == b":" else rest

    def _exactly(self, size: int) -> bytes:
        while len(self._buffer) < size + 2:
            self._fill(5)
        value, self._buffer = self._buffer[:size], self._buffer[size + 2 :]
        return value

    def close(self) -> None:
        self._socket.close()


# -- the cluster ---------------------------------------------------------------------------


class Cluster:
    """Redis and `nodes` nodes in `directory`, all ended on leaving the `with` block."""

    def __init__(self, directory: Path, nodes: int) -> None:
        self.directory = directory
        self.ids = range(1, nodes + 1)
        self.children: dict[int, subprocess.Popen[bytes]] = {}
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._dealers: dict[int, zmq.Socket[bytes]] = {}
        self.ports: dict[int, int] = {}
        self._heard_us: dict[int, int] = {}  # pid to its first answer
        self._read: dict[int, int] = {}  # how far each log was read
        self._question = encode(Envelope(NAME, 0, 0, 0, 0, Query("status")))

    def __enter__(self) -> Cluster:
        try:
            self.redis = self._first_redis()
            self._listen()
            self._configure()
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self.end()

    def _first_redis(self) -> RedisServer:
        for attempt in range(5):
            self.redis = RedisServer(self.directory, find_port(), prefix())
            try:
                self.redis.start()
                self.redis.wait_ready()
                break
            except ServerFailed:  # most likely somebody took the port first
                self.redis.stop()
                if attempt == 4:
                    raise
        return self.redis

    def _listen(self) -> None:
        self.control = Wire(self.redis.port)
        self._changes = Wire(self.redis.port)
        self._changes.say("SUBSCRIBE", KEYS.changes)
        while self._changes.line(5) != b":1":
            pass

    def revive_redis(self) -> None:
        self.redis.start()
        self.redis.wait_ready()
        self._listen()

    def _configure(self) -> None:
        ports = self.ports
        for node in self.ids:
            while (port := find_port()) in ports.values():
                pass
            ports[node] = port
        data_dirs = {node: str(self.directory / f"data{node}") for node in self.ids}
        for node in self.ids:
            text = render(NAME, node, HOST, ports, self.redis.url, data_dirs, None, "json")
            self._file(node, "toml").write_text(text, encoding="utf-8")
            dealer = self._context.socket(zmq.DEALER)
            for option, value in ((zmq.LINGER, 0), (zmq.IMMEDIATE, 1), (zmq.RECONNECT_IVL, 50)):
                dealer.setsockopt(option, value)
            dealer.connect(f"tcp://{HOST}:{ports[node]}")
            self._dealers[node] = dealer

    def _file(self, node: int, suffix: str) -> Path:
        return self.directory / f"n{node}.{suffix}"

    def start(self, node: int) -> None:
        command = (*prefix(), sys.executable, "-m", "zelect", "node", "-c", str(self._file(node, "toml")))
        with self._file(node, "log").open("ab") as log:
            self.children[node] = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def start_all(self) -> None:
        for node in self.ids:
            self.start(node)

    def signal(self, node: int, number: signal.Signals) -> None:
        self.children[node].send_signal(number)

    def end(self) -> None:
        for child in self.children.values():
            child.kill()  # ends a stopped process too
            child.wait()
        if hasattr(self, "redis"):
            self.redis.stop()
        self._context.destroy(linger=0)

    # -- what is going on -----------------------------------------------------------------

    def change(self, within_s: float) -> tuple[int, JsonDict]:
        """The next change of controller, and when it arrived. Raises TimeoutError."""
        end_us = now_us() + int(within_s * 1e6)
        while not (line := self._changes.line((end_us - now_us()) / 1e6)).startswith(b"{"):
            pass
        return now_us(), json.loads(line)

    def by_channel(self) -> Iterator[tuple[int, JsonDict]]:
        """Changes as Redis tells them. Raises TimeoutError when no successor comes for long."""
        end_us = now_us() + int(SUCCESSOR_WITHIN_S * 1e6)
        while True:
            yield self.change((end_us - now_us()) / 1e6)

    def by_log(self, logged: list[JsonDict]) -> Iterator[tuple[int, JsonDict]]:
        """Changes as the nodes' logs tell them, for as long; what was read is added to `logged`."""
        end_us = now_us() + int(SUCCESSOR_WITHIN_S * 1e6)
        while now_us() < end_us:
            time.sleep(0.0001)
            for fact in self.facts():
                logged.append(fact)
                if fact["event"] == "office_entered":
                    yield now_us(), {"id": fact["node"], "term": fact["term"], "reason": fact["trigger"]}
                elif fact["event"] == "office_left":
                    yield now_us(), {"id": None, "term": fact["term"], "reason": fact["why"]}
        raise TimeoutError

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
            found += [json.loads(line) for line in lines]
        return sorted(found, key=lambda fact: str(fact["time"]))

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
        return json.loads(message.text) if isinstance(message, Report) else None

    def reports(self) -> dict[int, JsonDict]:
        for node in self.ids:
            self.post(node)
        taken = {node: self.take(node, 0.2) for node in self.ids}
        return {node: report for node, report in taken.items() if report is not None}

    def settle(self) -> int:
        """Wait until all is as it is on a quiet day; returns the controller. Raises BenchError."""
        end = time.monotonic() + SETTLED_WITHIN_S
        while True:
            reports = self.reports()
            for report in reports.values():
                self._heard_us.setdefault(report["pid"], now_us())
            if all(now_us() - self._heard_us[report["pid"]] >= SILENCE_US for report in reports.values()):
                controller = _controller_if_settled(reports, len(self.ids))
                if controller:
                    return controller
            ended = [f"node {n} ended with {c.returncode}" for n, c in self.children.items() if c.poll() is not None]
            if ended or time.monotonic() > end:
                why = ", ".join(ended) or "no reason known"
                raise BenchError(f"the cluster does not settle: {why}\n{self._tails()}")
            time.sleep(0.02)

    def _tails(self) -> str:
        return "\n".join(
            f"-- node {node}\n" + "\n".join(self._file(node, "log").read_text(errors="replace").splitlines()[-12:])
            for node in self.children
        )


def _controller_if_settled(reports: Mapping[int, JsonDict], nodes: int) -> int:
    heads = [report for report in reports.values() if report["in_office"]]
    if len(reports) < nodes or len(heads) != 1:
        return 0
    head = heads[0]
    for report in reports.values():
        agrees = (report["controller"], report["term"]) == (head["id"], head["term"])
        linked = all(peer["linked"] for peer in report["peers"])
        if not agrees or not linked or report["status"] != "running":
            return 0
        if report is not head and len(report["succession"]) != nodes - 1:
            return 0
    return int(head["id"]) if head["store"]["published_term"] == head["term"] else 0


@contextlib.contextmanager
def running(nodes: int) -> Iterator[Cluster]:
    """A cluster in a directory of its own, with its nodes started."""
    with tempfile.TemporaryDirectory(prefix="zelect-bench-") as name, Cluster(Path(name), nodes) as cluster:
        cluster.start_all()
        yield cluster


# -- floors --------------------------------------------------------------------------------

_VICTIM = """
import socket, sys, time
server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
connection, _ = server.accept()
connection.sendall(b"x")
time.sleep(600)
"""
_ECHO = """
import sys, zmq
router = zmq.Context().socket(zmq.ROUTER)
router.bind("tcp://127.0.0.1:" + sys.argv[1])
while True:
    router.send_multipart(router.recv_multipart())
"""
# The write and the news of a publication, without its judgement.
_SCRIPT = "redis.call('HSET', KEYS[1], 'id', ARGV[1]) redis.call('PUBLISH', KEYS[1], ARGV[1]) return 1"


class Floors:
    """What the parts of a failover cost by themselves; `samples` in ms by name."""

    def __init__(self, cluster: Cluster) -> None:
        self.samples: dict[str, list[float]] = {name: [] for name in ("closed", "refused", "zeromq", "sync", "script")}
        self._cluster = cluster
        self._file = os.open(cluster.directory / "floor", os.O_RDWR | os.O_CREAT)
        os.pwrite(self._file, os.urandom(8192), 0)
        os.fsync(self._file)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        port = find_port()
        self._echo = _python(_ECHO, port)
        self._dealer = self._context.socket(zmq.DEALER)
        self._dealer.connect(f"tcp://{HOST}:{port}")
        self._round_trip()

    def __enter__(self) -> Floors:
        return self

    def __exit__(self, *exception: object) -> None:
        self._echo.kill()
        self._echo.wait()
        self._context.destroy(linger=0)
        os.close(self._file)

    def take(self) -> None:
        """One sample of each, of the short ones several, with pauses: elections find caches cold."""
        closed, refused = _death()
        self.samples["closed"].append(closed)
        self.samples["refused"].append(refused)
        sha = self._cluster.control.call("SCRIPT", "LOAD", _SCRIPT).decode()
        script = ("EVALSHA", sha, 1, f"zelect:{{{NAME}}}:floor", "1")
        for _ in range(FLOOR_REPEATS):
            time.sleep(0.005)
            self.samples["zeromq"].append(_took(self._round_trip))
            self.samples["sync"].append(_took(self._write))
            self.samples["script"].append(_took(lambda: self._cluster.control.call(*script)))

    def _round_trip(self) -> None:
        self._dealer.send(b"x" * 100)
        if not self._dealer.poll(10_000):
            raise BenchError("the echo process does not answer")
        self._dealer.recv()

    def _write(self) -> None:
        os.pwrite(self._file, b"\0" * 4096, 4096)
        getattr(os, "fdatasync", os.fsync)(self._file)


def _took(action: Callable[[], object]) -> float:
    began_us = now_us()
    action()
    return (now_us() - began_us) / 1000


def _python(script: str, *arguments: object) -> subprocess.Popen[bytes]:
    command = (*prefix(), sys.executable, "-c", script, *map(str, arguments))
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)


def _death() -> tuple[float, float]:
    """Kill a small listening process: ms until its connection is seen closed, and a new one refused."""
    port = find_port()
    victim = _python(_VICTIM, port)
    try:
        connection = _connected(port)
        connection.recv(1)
        began_us = now_us()
        victim.kill()
        with contextlib.suppress(ConnectionResetError):
            connection.recv(1)
        closed_us = now_us()
        while not _refused(port):
            pass
        refused_us = now_us()
        connection.close()
    finally:
        victim.kill()
        victim.wait()
    return (closed_us - began_us) / 1000, (refused_us - began_us) / 1000


def _connected(port: int) -> socket.socket:
    end = time.monotonic() + 20
    while True:
        try:
            return socket.create_connection((HOST, port), timeout=20)
        except ConnectionRefusedError as error:
            if time.monotonic() > end:
                raise BenchError("the process to be killed does not start") from error
            time.sleep(0.005)


def _refused(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.005)  # the kernel would repeat a SYN that got lost only after a second
        try:
            probe.connect((HOST, port))
        except ConnectionRefusedError:
            return True
        except OSError:  # lost, or reset while the dying process still listens
            return False
    return False


# -- failover ------------------------------------------------------------------------------

# Of a crash, as its successor went through them, and what they are called on paper.
_PHASES = {
    "closed": "its connections closed",
    "lost": "noticed and proven (+-0.5)",
    "campaign": "until the campaign that won",
    "pre_vote": "pre-vote",
    "vote": "vote, saved twice",
    "office": "elected to in office, saved twice",
    "published": "until the change (+-0.5)",
}
_FAULTS = {"kill": signal.SIGKILL, "freeze": signal.SIGSTOP, "term": signal.SIGTERM}


def _await_successor(
    cluster: Cluster, old: int, redis_kill: bool, logged: list[JsonDict]
) -> tuple[int | None, int, JsonDict]:
    """When `old` was seen to leave office (None: not seen), when another took office, and the change
    that says so. Raises TimeoutError."""
    left_us = None
    for at_us, change in cluster.by_log(logged) if redis_kill else cluster.by_channel():
        if change["id"] is None:
            left_us = at_us
        elif change["id"] != old:
            return left_us, at_us, change
    raise TimeoutError


class _Closing(threading.Thread):
    """Sees when the process that listens on `port` closes its connections; `at_us` 0: not yet. Says
    nothing itself, so it serves for less than a second, then it is taken for a stray and cut off."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.at_us = 0
        self._connection = socket.create_connection((HOST, port), timeout=5)
        self.start()

    def run(self) -> None:
        with self._connection, contextlib.suppress(OSError):
            while self._connection.recv(4096):
                pass
        self.at_us = now_us()


def _trial(cluster: Cluster, fault: str, redis_kill: bool, rng: random.Random) -> JsonDict:
    """One fault and its recovery, begun when the cluster is settled. `gap_ms` None: no successor."""
    old = cluster.settle()
    cluster.changes_so_far()
    cluster.facts()
    logged: list[JsonDict] = []
    trial: JsonDict = {"old": old, "gap_ms": None, "violations": 0, "exit_code": None}
    closing = _Closing(cluster.ports[old])
    time.sleep(rng.uniform(0, TIMING.heartbeat_ms / 1000))  # no favourite moment between two heartbeats
    if redis_kill:
        cluster.redis.kill()
    began_unix_ms, began_us = time.time_ns() / 1e6, now_us()
    cluster.signal(old, _FAULTS[fault])
    with contextlib.suppress(TimeoutError):
        left_us, at_us, change = _await_successor(cluster, old, redis_kill, logged)
        trial |= {"successor": change["id"], "term": change["term"], "reason": change["reason"]}
        trial["from_fault_ms"] = trial["gap_ms"] = (at_us - began_us) / 1000
        if fault == "term" and not redis_kill:  # a log line may come milliseconds after the fact
            trial["gap_ms"] = (at_us - left_us) / 1000 if left_us is not None else None
    if redis_kill:
        cluster.revive_redis()
    if fault == "freeze":
        trial["violations"] = _thaw_and_watch(cluster, trial)
    else:
        trial["exit_code"] = cluster.children[old].wait(30)
    _read_until_entered(cluster, trial.get("successor"), logged)
    _tell_facts(trial, logged, began_unix_ms)
    if fault == "kill":
        _tell_phases(trial, (closing.at_us - began_us) / 1000)
    if fault == "term" and trial["gap_ms"] is None and "from_fault_ms" in trial:
        # The successor was published before the withdrawal was; then the log must do.
        left = _first(trial, old, "office_left")
        trial["gap_ms"] = trial["from_fault_ms"] - left["at_ms"] if left else None
    if fault != "freeze":
        cluster.start(old)
    return trial


def _thaw_and_watch(cluster: Cluster, trial: JsonDict) -> int:
    """Let the old controller go on; how often it, or Redis, then said that it is in office by a term
    that has passed to another. Its first words answer a question that waited while it was frozen."""
    old, new, term = trial["old"], trial.get("successor", 0), trial.get("term", 0)
    violations: int = 0
    cluster.post(old)
    cluster.signal(old, signal.SIGCONT)
    end_us = now_us() + WATCH_THAWED_US
    while now_us() < end_us:
        node, recorded = (int(value or 0) for value in cluster.control.call("HMGET", KEYS.controller, "id", "term"))
        violations += 0 < recorded < term or (recorded == term and node != new)
        report = cluster.take(old, 0.005)
        if report is not None:
            violations += int(report["in_office"] and report["term"] <= term)
            cluster.post(old)
    claims = [change for change in cluster.changes_so_far() if change["id"] == old]
    return violations + sum(int(change["term"] <= term) for change in claims)


def _read_until_entered(cluster: Cluster, successor: int | None, logged: list[JsonDict]) -> None:
    """Read the logs until they, too, tell of the successor: the news may come first."""
    end = time.monotonic() + 2
    while True:
        logged += cluster.facts()
        entered = [fact["node"] for fact in logged if fact["event"] == "office_entered"]
        if successor in entered or successor is None or time.monotonic() > end:
            return
        time.sleep(0.005)


def _tell_facts(trial: JsonDict, logged: list[JsonDict], began_unix_ms: float) -> None:
    """Add to `trial` what the nodes logged until the change was seen. Logs tell whole milliseconds, so
    `at_ms`, since the fault, may be half of one off; durations within the facts are exact."""
    until_ms = trial.get("from_fault_ms", SUCCESSOR_WITHIN_S * 1000) + 5
    trial["facts"] = []
    for fact in logged:
        at_ms = datetime.fromisoformat(fact["time"]).timestamp() * 1000 + 0.5 - began_unix_ms
        if -1 <= at_ms <= until_ms:
            rest = {key: value for key, value in fact.items() if key not in ("time", "level", "cluster")}
            trial["facts"].append({"at_ms": round(at_ms, 2), **rest})


def _first(trial: JsonDict, node: int, name: str) -> JsonDict | None:
    facts = (fact for fact in trial["facts"] if (fact["node"], fact["event"]) == (node, name))
    return next(facts, None)


def _tell_phases(trial: JsonDict, closed_ms: float) -> None:
    """Add to `trial` where the time of a crash went, by what its successor logged."""
    names = ("controller_lost", "pre_vote_won", "elected", "office_entered")
    found = [_first(trial, trial.get("successor", 0), name) for name in names]
    if None in found:
        return
    lost, asked, elected, entered = (fact for fact in found if fact is not None)
    office_ms = entered["elected_to_office_ms"]
    # Both count from the last heartbeat, so their difference is exact.
    lost_to_office_ms = entered["gap_ms"] - lost["heard_ms"]
    trial["phases_ms"] = {
        "closed": closed_ms,
        "lost": lost["at_ms"] - closed_ms,
        "campaign": lost_to_office_ms - office_ms - elected["took_ms"],
        "pre_vote": asked["took_ms"],
        "vote": elected["took_ms"] - asked["took_ms"],
        "office": office_ms,
        "published": trial["from_fault_ms"] - lost["at_ms"] - lost_to_office_ms,
    }


def failover(options: argparse.Namespace) -> JsonDict:
    """Trials of one fault, with the floors between them."""
    rng = random.Random(options.seed)
    trials: list[JsonDict] = []
    with running(options.nodes) as cluster, Floors(cluster) as floors:
        for number in range(1, options.trials + 1):
            _progress(number, options.trials, trials[-1]["gap_ms"] if trials else None)
            trials.append(_trial(cluster, options.fault, options.redis_kill, rng))
            cluster.settle()
            floors.take()
        server = _server_version(cluster)
    gaps = [trial["gap_ms"] for trial in trials if trial["gap_ms"] is not None]
    floor = {name: spread(samples) for name, samples in floors.samples.items()}
    return {
        **_header("failover", options, server),
        "fault": options.fault,
        "redis_kill": options.redis_kill,
        "gap_ms": spread(gaps),
        "from_fault_ms": spread([t["from_fault_ms"] for t in trials if "from_fault_ms" in t]),
        "without_successor": len(trials) - len(gaps),
        "violations": sum(trial["violations"] for trial in trials),
        "bad_exits": sum(trial["exit_code"] != 0 for trial in trials) if options.fault == "term" else 0,
        "phases_ms": {name: spread([t["phases_ms"][name] for t in trials if "phases_ms" in t]) for name in _PHASES},
        "floors_ms": floor,
        "sum_of_parts_ms": _sum_of_parts(options.fault, options.redis_kill, floor),
        "floor_samples_ms": floors.samples,
        "trials": trials,
    }


def _sum_of_parts(fault: str, redis_kill: bool, floor: Mapping[str, JsonDict]) -> float:
    """The medians of what one election is made of: three round trips (pre-vote, vote, PING), four
    synced writes (vote of candidate and voter, record of winner and follower), the publication; and
    before it what the fault itself costs."""
    parts = {name: spread_["p50"] for name, spread_ in floor.items()}
    election_ms = 3 * parts["zeromq"] + 4 * parts["sync"]
    if fault == "term":  # from one publication, or log line, to the next: those cancel out
        return float(parts["zeromq"] / 2 + election_ms)
    published_ms = 0 if redis_kill else parts["script"]
    # A promise counts from the last heartbeat, which was half an interval ago on average.
    waited_ms = parts["refused"] if fault == "kill" else TIMING.election_timeout_ms - TIMING.heartbeat_ms / 2
    return float(waited_ms + election_ms + published_ms)


# -- idle ----------------------------------------------------------------------------------


def _cpu_s(pid: int) -> float:
    """User and system time that process `pid` has taken."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _rss_mb(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def idle(options: argparse.Namespace) -> JsonDict:
    """What a settled cluster takes while nothing happens."""
    with running(options.nodes) as cluster:
        controller = cluster.settle()
        pids: dict[object, int] = {node: child.pid for node, child in cluster.children.items()}
        pids["redis"] = cluster.redis.pid or 0
        reports, began_us = cluster.reports(), now_us()
        cpu = {key: _cpu_s(pid) for key, pid in pids.items()}
        for second in range(options.seconds):
            _progress(second + 1, options.seconds, None)
            time.sleep(1)
        taken_s = (now_us() - began_us) / 1e6
        cpu = {key: (_cpu_s(pid) - cpu[key]) / taken_s for key, pid in pids.items()}
        after = cluster.reports()
        same = cluster.settle() == controller
        rows = []
        for key, pid in pids.items():
            row: JsonDict = {"id": key, "role": "redis", "cpu_percent": 100 * cpu[key], "rss_mb": _rss_mb(pid)}
            if isinstance(key, int):
                row["role"] = "controller" if key == controller else "follower"
                before, now = reports[key]["counters"], after[key]["counters"]
                # Less the question that asked for this.
                row["received_per_s"] = (now["received"] - before["received"] - 1) / taken_s
                row["sent_per_s"] = (now["sent"] - before["sent"]) / taken_s
            rows.append(row)
        server = _server_version(cluster)
    return {**_header("idle", options, server), "seconds": taken_s, "same_controller": same, "processes": rows}


# -- start ---------------------------------------------------------------------------------


def start(options: argparse.Namespace) -> JsonDict:
    """How long until there is a controller, beside what the interpreter alone takes to start."""
    samples: dict[str, list[float]] = {name: [] for name in ("up", "office", "bare", "imports")}
    server = ""
    for number in range(1, options.trials + 1):
        _progress(number, options.trials, samples["up"][-1] if samples["up"] else None)
        samples["bare"].append(_took(lambda: _run("-c", "pass")))
        samples["imports"].append(_took(lambda: _run("-c", "import zmq, msgpack")))
        samples["up"].append(_up(options.nodes))
        with tempfile.TemporaryDirectory(prefix="zelect-bench-") as name, Cluster(Path(name), options.nodes) as cluster:
            began_us = now_us()
            cluster.start_all()
            _, at_us, _ = _await_successor(cluster, 0, False, [])
            samples["office"].append((at_us - began_us) / 1000)
            server = _server_version(cluster)
    spreads = {name: spread(taken) for name, taken in samples.items()}
    return {**_header("start", options, server), "ms": spreads, "samples_ms": samples}


def _run(*arguments: object) -> None:
    done = subprocess.run([sys.executable, *map(str, arguments)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchError(f"{' '.join(map(str, arguments))} ended with {done.returncode}:\n{done.stdout}{done.stderr}")


def _up(nodes: int) -> float:
    with tempfile.TemporaryDirectory(prefix="zelect-bench-") as name:
        base = find_port()
        while not all(port_is_free(base + offset) for offset in range(nodes)) or base + nodes > 32_767:
            base = find_port()
        directory = ("--dir", Path(name) / "cluster")
        up = ("-m", "zelect", "cluster", "up", nodes, "--detach", *directory, "--base-port", base)
        try:
            return _took(lambda: _run(*up))
        finally:
            _run("-m", "zelect", "cluster", "down", *directory)


# -- telling -------------------------------------------------------------------------------


def spread(samples: Sequence[float]) -> JsonDict:
    """min, p50, p90, p99 and max (nearest rank), to a microsecond; None where there is nothing."""
    if not samples:
        return dict.fromkeys(("min", "p50", "p90", "p99", "max"))
    ordered = sorted(samples)
    ranks = {"min": 0, "p50": 50, "p90": 90, "p99": 99, "max": 100}
    return {name: round(ordered[max(0, math.ceil(rank * len(ordered) / 100) - 1)], 3) for name, rank in ranks.items()}


def histogram(samples: Sequence[float], bins: int = 10) -> list[str]:
    """A line a bin; the bins end at the 90th percentile, what lies above has a line of its own."""
    if not samples:
        return []
    least, most = min(samples), spread(samples)["p90"]
    raw = max((most - least) / bins, 0.1)
    step = next(s for e in range(-3, 9) for m in (1, 2, 5) if (s := m * 10.0**e) >= raw)
    counts: dict[int, int] = {}
    last = math.floor(most / step)
    for sample in samples:
        at = min(math.floor(sample / step), last + 1)
        counts[at] = counts.get(at, 0) + 1
    digits = max(0, -math.floor(math.log10(step)))
    lines = []
    for at in range(math.floor(least / step), max(counts) + 1):
        count = counts.get(at, 0)
        to = f"< {(at + 1) * step:.{digits}f}" if at <= last else "above"
        bar = "#" * math.ceil(48 * count / max(counts.values()))
        lines.append(f"{at * step:>11.{digits}f} {to:<11} {count:>3} {bar}")
    return lines


def _header(bench: str, options: argparse.Namespace, server: str) -> JsonDict:
    return {
        "bench": bench,
        "nodes": options.nodes,
        "seed": options.seed,
        "timing": {"heartbeat_ms": TIMING.heartbeat_ms, "lease_ms": TIMING.lease_ms}
        | {"election_timeout_ms": TIMING.election_timeout_ms, "stagger_ms": TIMING.stagger_ms},
        "versions": {"zelect": version("zelect"), "python": platform.python_version(), "pyzmq": zmq.__version__}
        | {"libzmq": zmq.zmq_version(), "redis": server, "kernel": platform.release()},
        "cpus": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
    }


def _server_version(cluster: Cluster) -> str:
    text = cluster.control.call("INFO", "server").decode()
    known = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    return f"valkey {known['valkey_version']}" if "valkey_version" in known else f"redis {known['redis_version']}"


def _row(label: str, numbers: Mapping[str, float | None]) -> str:
    return f"{label:<35}" + "".join(f"{'-' if value is None else f'{value:.2f}':>9}" for value in numbers.values())


def _tell_header(result: JsonDict) -> None:
    versions = ", ".join(f"{name} {result['versions'][name]}" for name in ("zelect", "python", "pyzmq", "libzmq"))
    timing = ", ".join(f"{name} {value}" for name, value in result["timing"].items())
    where = f"{result['cpus']} CPUs, load {result['load']}"
    print(f"{result['bench']}: {result['nodes']} nodes, {where}, seed {result['seed']}")
    print(f"{versions}, {result['versions']['redis']}\n{timing}\n")


def _tell_failover(result: JsonDict) -> None:
    fault, trials = result["fault"], result["trials"]
    print(_row(f"{len(trials)} trials, ms", {}) + "".join(f"{name:>9}" for name in ("min", "p50", "p90", "p99", "max")))
    news = "logged" if result["redis_kill"] else "the change"
    if fault == "term" and not result["redis_kill"]:
        print(_row("nobody in office", result["gap_ms"]))
    print(_row(f"{fault} to {news}", result["from_fault_ms"]))
    for name, numbers in result["phases_ms"].items() if fault == "kill" else ():
        print(_row(f"  {_PHASES[name]}", numbers))
    print("floors, taken between the trials")
    labels = ("kill, connection closed", "kill, refused", "ZeroMQ round trip", "fdatasync of 4 KiB", "EVALSHA")
    for label, numbers in zip(labels, result["floors_ms"].values(), strict=True):
        print(_row(f"  {label}", numbers))
    first = {"kill": "refused", "freeze": "timeout - heartbeat/2", "term": "half a round trip"}[fault]
    last = "" if fault == "term" or result["redis_kill"] else " + 1 EVALSHA"
    print(f"  {first} + 3 round trips + 4 fdatasyncs{last} = {result['sum_of_parts_ms']:.2f}\n")
    print("\n".join(histogram([trial["gap_ms"] for trial in trials if trial["gap_ms"] is not None])))
    print(f"\nwithout successor: {result['without_successor']}", end="")
    print(f", claims after a thaw: {result['violations']}" if fault == "freeze" else "", end="")
    print(f", exits other than 0: {result['bad_exits']}" if fault == "term" else "")


def _tell_idle(result: JsonDict) -> None:
    same = "one controller throughout" if result["same_controller"] else "the controller CHANGED meanwhile"
    print(f"{result['seconds']:.1f} s, {same}\n")
    print("".join(f"{name:>12}" for name in ("process", "role", "CPU %", "RSS MB", "received/s", "sent/s")))
    for row in result["processes"]:
        numbers = [row.get(name) for name in ("cpu_percent", "rss_mb", "received_per_s", "sent_per_s")]
        cells = "".join(f"{'-' if number is None else f'{number:.2f}':>12}" for number in numbers)
        print(f"{row['id']:>12}{row['role']:>12}{cells}")
    totals = [sum(row.get(name, 0) for row in result["processes"]) for name in ("cpu_percent", "rss_mb")]
    print(f"{'all':>12}{'':>12}{totals[0]:>12.2f}{totals[1]:>12.2f}")


def _tell_start(result: JsonDict) -> None:
    print(_row("ms", {}) + "".join(f"{name:>9}" for name in ("min", "p50", "p90", "p99", "max")))
    labels = ("cluster up --detach", "nodes spawned to in office", "python alone", "python -c 'import zmq, msgpack'")
    for label, numbers in zip(labels, result["ms"].values(), strict=True):
        print(_row(label, numbers))


def _progress(number: int, of: int, last_ms: float | None) -> None:
    if sys.stderr.isatty():
        text = f"{number}/{of}" + (f", the last {last_ms:.1f} ms" if last_ms is not None else "")
        print(f"\r{text:<40}", end="" if number < of else "\n", file=sys.stderr, flush=True)


_BENCHES = {"failover": (failover, _tell_failover), "idle": (idle, _tell_idle), "start": (start, _tell_start)}


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure a real cluster on this host.")
    benches = parser.add_subparsers(dest="bench", required=True)
    texts = {"failover": "how soon a successor is in office", "idle": "what it takes at rest", "start": "a start"}
    for name, text in texts.items():
        bench = benches.add_parser(name, help=text, description=text)
        bench.add_argument("--nodes", type=_positive, default=3)
        bench.add_argument("--json", action="store_true", help="all samples, as JSON")
        bench.add_argument("--seed", type=int, default=random.randrange(2**32))
        if name == "failover":
            bench.add_argument("--fault", choices=tuple(_FAULTS), default="kill")
            bench.add_argument("--redis-kill", action="store_true", help="kill Redis just before the controller")
        if name == "idle":
            bench.add_argument("--seconds", type=_positive, default=30)
        else:
            bench.add_argument("--trials", type=_positive, default=30 if name == "failover" else 5)
    options = parser.parse_args(arguments)
    if options.bench == "failover" and options.nodes < 3:
        parser.error("a failover needs at least --nodes 3: with fewer, nobody can be elected after a fault")
    return options


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _stop(number: int, frame: FrameType | None) -> None:
    for other in (signal.SIGINT, signal.SIGTERM):
        signal.signal(other, signal.SIG_IGN)  # the end of the processes must not be interrupted
    sys.exit(128 + number)


def main(arguments: Sequence[str]) -> int:
    options = _options(arguments)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    measure, tell = _BENCHES[options.bench]
    try:
        result = measure(options)
    except (BenchError, ServerFailed) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    if options.json:
        print(json.dumps(result, indent=1))
        return 0
    _tell_header(result)
    tell(result)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
