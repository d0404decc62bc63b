"""A lone survivor and its witness, with real nodes and a real Redis (R11, R12): after two of three fail at once
nobody is elected; the last of two is active while the witness remembers, and not when it has forgotten."""

from __future__ import annotations

import contextlib
import json
import selectors
import shutil
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.clusters import Cluster, Fleet, holds_for, zelect
from tests.support.marks import long_but
from tests.support.ports import free_port
from tests.support.records import made_record
from tests.support.waiting import wait_until
from tests.support.watches import Registry, TermWatch, VoteWatch
from zelect.core.quorum import Witness
from zelect.core.voters import failures_survived
from zelect.devcluster.bundled_server import RedisServer
from zelect.status.report import NodeReport

ELECTION_TIMEOUT_S = 0.5
"""The default, which the clusters without timings of their own use."""
SEVERAL_S = 5 * ELECTION_TIMEOUT_S
UNHURRIED = {
    "heartbeat_ms": 150,
    "lease_ms": 1200,
    "election_timeout_ms": 1500,
    "stagger_ms": 100,
    "down_after_ms": 1500,
}
"""For what must not change although the machine is busy."""


@pytest.fixture
def server(own_server: RedisServer) -> RedisServer:
    """Every test here may damage it."""
    return own_server


class Relay:
    """What the nodes connect to as Redis: it passes bytes on to the server at `to`, and refuses while it is
    cut. So the server can change unseen, and is back for all nodes at the same moment."""

    def __init__(self, to: int) -> None:
        self.to, self.port = to, free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._thread: threading.Thread | None = None
        self.fix()

    def fix(self) -> None:
        """Listen (again)."""
        listener = socket.create_server(("127.0.0.1", self.port))
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._serve, args=(listener, self._over), daemon=True)
        self._thread.start()

    def cut(self) -> None:
        """Close every connection, and refuse new ones."""
        self._over.set()
        if self._thread is not None:
            self._thread.join(30)

    def _serve(self, listener: socket.socket, over: threading.Event) -> None:
        ends: dict[socket.socket, socket.socket] = {}
        with selectors.DefaultSelector() as ready, listener:
            ready.register(listener, selectors.EVENT_READ)
            while not over.is_set():
                for key, _ in ready.select(0.02):
                    if key.fileobj is listener:
                        self._accept(listener, ready, ends)
                    elif isinstance(key.fileobj, socket.socket) and key.fileobj in ends:
                        _pass_on(key.fileobj, ready, ends)
            for end in ends:
                _reset(end)

    def _accept(
        self, listener: socket.socket, ready: selectors.BaseSelector, ends: dict[socket.socket, socket.socket]
    ) -> None:
        near, _ = listener.accept()
        try:
            far = socket.create_connection(("127.0.0.1", self.to), timeout=5)
        except OSError:
            _reset(near)
            return
        for end, other in ((near, far), (far, near)):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            ends[end] = other
            ready.register(end, selectors.EVENT_READ)


def _pass_on(end: socket.socket, ready: selectors.BaseSelector, ends: dict[socket.socket, socket.socket]) -> None:
    try:
        data = end.recv(65536)
        ends[end].sendall(data)
    except OSError:
        data = b""
    if not data:
        for one in (end, ends[end]):
            ready.unregister(one)
            del ends[one]
            _reset(one)


def _reset(end: socket.socket) -> None:
    # A reset, so that no connection in TIME_WAIT keeps the port.
    with contextlib.suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    end.close()


@pytest.fixture
def relay(server: RedisServer) -> Iterator[Relay]:
    made = Relay(server.port)
    try:
        yield made
    finally:
        made.cut()


class Scene:
    """Three nodes that reach their Redis through `relay`. `memory` is what the witness remembers."""

    def __init__(self, fleet: Fleet, server: RedisServer, relay: Relay, timing: dict[str, int] | None = None) -> None:
        self.server, self.relay = server, relay
        self.cluster: Cluster = fleet.cluster(redis_url=relay.url, timing=timing)
        self.registry = Registry(server.url, self.cluster.name)

    def memory(self) -> dict[str, str]:
        return dict(self.registry.client.hgetall(self.registry.key("witness")))

    def two_left(self) -> NodeReport:
        """Start three and kill the third: the voters adapt to two and the witness."""
        self.cluster.start()
        self.cluster.adapted(1, 2, 3)
        self.cluster.kill(3)
        head = self.cluster.adapted(1, 2)
        self.registry.published(head)
        return head

    def voters(self) -> dict[str, Any]:
        """What `zelect members --json` prints."""
        done = zelect("members", "-c", self.cluster.conf(1), "--json")
        assert done.returncode in (0, 1, 5), done.stderr
        table: dict[str, Any] = json.loads(done.stdout)
        assert (table["controller"] is None) == (done.returncode != 0)
        return table

    def nobody(self, seconds: float, *left: int) -> None:
        """For `seconds` none of `left` (all that run) becomes active, publishes anything or saves
        anything."""
        cluster, registry = self.cluster, self.registry
        assert cluster.running() == set(left)
        record, elections = registry.record(), registry.elections()
        terms = {node: cluster.saved(node).term for node in left}
        wins = {node: len(cluster.events(node, "elected", "became_active")) for node in left}
        holds_for(lambda: cluster.active(0.05) is None and registry.record() in ({}, record), seconds, "nobody active")
        said = {node: cluster.ask(node) for node in left}
        assert all(one["role"] == "follower" and one["controller"] is None for one in said.values())
        assert registry.elections() == elections
        assert {node: cluster.saved(node).term for node in left} == terms
        assert {node: len(cluster.events(node, "elected", "became_active")) for node in left} == wins


# -- two of three at once -----------------------------------------------------------------------


@pytest.mark.parametrize("survives", ["follower", "controller"])
@pytest.mark.long
def test_two_of_three_killed_at_once_elect_nobody(
    fleet: Fleet, server: RedisServer, relay: Relay, survives: str
) -> None:
    scene = Scene(fleet, server, relay)
    cluster, registry = scene.cluster, scene.registry
    watch, votes_seen = TermWatch(registry), VoteWatch(cluster)
    cluster.start()
    head = cluster.adapted(1, 2, 3)
    registry.published(head)
    left = head.id if survives == "controller" else max(set(cluster.ids) - {head.id})
    one, other = sorted(set(cluster.ids) - {left})
    cluster.kill(one, other)
    wait_until(lambda: cluster.active(0.05) is None, 20, what="not active")
    scene.nobody(SEVERAL_S, left)
    wait_until(lambda: not registry.record(), 20, what="the record expired")
    table = scene.voters()
    assert (table["controller"], table["answered"], table["survives"]) == (None, [left], -1)
    assert set(table["voters"]) == {1, 2, 3}, "nobody may be removed without a quorum"

    cluster.start(one)
    new = cluster.adapted(left, one)
    assert new.term > head.term
    registry.published(new)
    cluster.start(other)
    again = cluster.adapted(1, 2, 3)
    assert again.term >= new.term
    watch.stop()
    votes_seen.stop()


# -- the witness remembers ----------------------------------------------------------------------


@pytest.mark.parametrize("way", long_but([signal.SIGTERM, signal.SIGKILL], signal.SIGKILL), ids=["term", "kill"])
@pytest.mark.parametrize("goes", long_but(["controller", "follower"], "controller"))
def test_the_last_of_three_is_active_alone(
    fleet: Fleet, server: RedisServer, relay: Relay, way: signal.Signals, goes: str
) -> None:
    scene = Scene(fleet, server, relay, UNHURRIED)
    cluster, registry = scene.cluster, scene.registry
    watch, votes_seen = TermWatch(registry), VoteWatch(cluster)
    head = scene.two_left()
    gone = head.id if goes == "controller" else 3 - head.id
    left = 3 - gone
    cluster.signal(way, gone)
    assert cluster.exit_code(gone) == (0 if way is signal.SIGTERM else -signal.SIGKILL)
    alone = cluster.adapted(left, members={1, 2})
    assert (alone.term > head.term) is (goes == "controller"), "a controller that survives stays controller"
    registry.published(alone)
    holds_for(lambda: cluster.active() is not None and registry.names(alone), 3.0, "active, alone")
    assert cluster.settled(left).term == alone.term
    table = scene.voters()
    assert (table["controller"], table["voters"], table["witness"]) == (left, [1, 2], "member")
    assert (table["survives"], table["answered"]) == (0, [left])
    assert scene.memory()["acked"] == str(left), "the witness answers its PINGs"

    # Redis goes away and comes back as it was: leadership ends with the lease, and begins again.
    relay.cut()
    wait_until(lambda: cluster.active(0.05) is None, 20, what="not active without the witness")
    scene.nobody(1.0, left)
    relay.fix()
    back = cluster.adapted(left, members={1, 2})
    assert back.term > alone.term
    registry.published(back)
    watch.stop()
    votes_seen.stop()


@pytest.mark.parametrize("secure", long_but([False, True], False), ids=["plain", "keys"])
def test_the_first_two_that_failed_come_back_without_the_last(
    fleet: Fleet, server: RedisServer, relay: Relay, secure: bool
) -> None:
    """The controller is killed, then its successor, then the last. The witness hands its record to the other two;
    while Redis is away, it is said by name who must return."""
    cluster = fleet.cluster(redis_url=relay.url, timing=UNHURRIED, secure=secure)
    votes_seen = VoteWatch(cluster)
    cluster.start()
    first = cluster.adapted(1, 2, 3).id
    cluster.kill(first)
    second = cluster.adapted(*{1, 2, 3} - {first}).id
    cluster.kill(second)
    (last,) = {1, 2, 3} - {first, second}
    alone = cluster.adapted(last, members={second, last})
    wait_until(lambda: cluster.ask(last)["redis"]["published_term"] == alone.term, 20, what="published")
    cluster.kill(last)
    relay.cut()
    cluster.start(first, second)

    def needs() -> Any:
        return json.loads(zelect("status", "-c", cluster.conf(second), "--json").stdout)["needs"]

    wait_until(lambda: needs() == {"count": 1, "nodes": [last], "witness": True}, 20, what="it is said who must return")
    text = f"no quorum: node {last} or Redis with the witness's data must return"
    for command in ("status", "check", "why"):
        said = zelect(command, "-c", cluster.conf(second))
        assert text in " ".join(said.stdout.split()), (command, said.stdout, said.stderr)

    relay.fix()
    new = cluster.adapted(first, second)
    assert new.term > alone.term
    assert new.id == second, "the other one was no voter"
    cluster.start(last)
    cluster.adapted(1, 2, 3)
    votes_seen.stop()


@pytest.mark.long
def test_with_keys_and_without_the_secret_the_others_wait_for_the_last(
    fleet: Fleet, server: RedisServer, relay: Relay
) -> None:
    cluster = fleet.cluster(redis_url=relay.url, timing=UNHURRIED, secure=True)
    for node in cluster.ids:
        conf = cluster.conf(node)
        conf.write_text("\n".join(line for line in conf.read_text().splitlines() if "secret_file" not in line))
    cluster.start()
    first = cluster.adapted(1, 2, 3).id
    cluster.kill(first)
    second = cluster.adapted(*{1, 2, 3} - {first}).id
    cluster.kill(second)
    (last,) = {1, 2, 3} - {first, second}
    cluster.adapted(last, members={second, last})
    cluster.kill(last)
    cluster.start(first, second)
    wait_until(
        lambda: cluster.ask(second).get("voters", {}).get("witness") == "member", 20, what="the witness is there"
    )
    holds_for(lambda: cluster.active(0.05) is None, SEVERAL_S, "nobody active")
    cluster.start(last)
    cluster.adapted(1, 2, 3)


# -- the witness forgets ------------------------------------------------------------------------


class Losses(Scene):
    """Ways in which Redis loses all or some of the witness's memory while the nodes can't reach it."""

    replica: RedisServer | None = None

    def two_left_and(self, kind: str, directory: Path) -> NodeReport:
        """As `two_left`, with what `kind` needs beforehand."""
        if kind in ("failed over", "there and back"):
            (directory / "replica").mkdir()
            self.replica = RedisServer(directory / "replica", free_port())
            self.replica.start()
            self.replica.wait_ready(30)
            self._follows(self.replica, self.server)
        head = self.two_left()
        if kind != "restored":
            return head
        self.registry.client.save()
        shutil.copy(self._dump, directory / "old.rdb")
        old = self.memory()
        self.cluster.kill(head.id)
        alone = self.cluster.adapted(3 - head.id, members={1, 2})
        self.cluster.start(head.id)
        head = self.cluster.adapted(1, 2)
        assert int(self.memory()["term"]) >= alone.term > int(old["term"]), "a vote that the old dump doesn't know"
        shutil.copy(directory / "old.rdb", self._dump)
        return head

    @property
    def _dump(self) -> Path:
        return self.server.directory / "dump.rdb"

    def strike(self, kind: str) -> None:
        """Let `kind` happen; the witness's memory is then gone, or old, or another server's."""
        before = self.memory()
        if kind in ("restarted", "restored"):
            self.server.kill()
            self.server.start()
            self.server.wait_ready(30)
        elif kind == "flushed":
            self.registry.client.flushall()
        else:
            self._fail_over(back=kind == "there and back")
        after = self.memory()
        if kind in ("restarted", "flushed"):
            assert not after
        elif kind == "restored":
            assert after["key"] == before["key"]
            assert int(after["term"]) < int(before["term"])
        else:
            assert after == before

    def _fail_over(self, back: bool) -> None:
        replica = self.replica
        assert replica is not None
        old, new = self.registry, Registry(replica.url, self.cluster.name)
        wait_until(lambda: new.client.hgetall(new.key("witness")) == self.memory(), 20, what="replicated")
        new.client.replicaof("NO", "ONE")
        if back:
            self._follows(self.server, replica)
            old.client.replicaof("NO", "ONE")
        else:
            self.registry, self.relay.to = new, replica.port

    def _follows(self, one: RedisServer, other: RedisServer) -> None:
        client = Registry(one.url, self.cluster.name).client
        client.config_set("repl-diskless-sync-delay", 0)
        Registry(other.url, self.cluster.name).client.config_set("repl-diskless-sync-delay", 0)
        client.replicaof("127.0.0.1", str(other.port))
        wait_until(lambda: client.info("replication")["master_link_status"] == "up", 30, what="the replica is in step")

    def forgets(self, kind: str, directory: Path, survives: str) -> tuple[int, int, int]:
        """Two are left; Redis goes away, one of the two is killed, Redis comes back without the memory, and
        nobody is elected. Returns the survivor, the dead one, and the term."""
        head = self.two_left_and(kind, directory)
        left = head.id if survives == "controller" else 3 - head.id
        self.relay.cut()
        self.cluster.kill(3 - left)
        wait_until(lambda: self.cluster.active(0.05) is None, 20, what="not active")
        self.strike(kind)
        self.relay.fix()
        asked = self.cluster.ask
        wait_until(lambda: asked(left)["voters"]["witness"] == "unrecognized", 20, what="the witness is unrecognized")
        wait_until(lambda: asked(left)["redis"]["state"] == "up", 20, what="Redis is up for the registry too")
        self.nobody(SEVERAL_S, left)
        table = self.voters()
        assert (table["voters"], table["witness"], table["survives"]) == ([1, 2], "unrecognized", -1)
        return left, 3 - left, head.term


@pytest.mark.parametrize(
    ("members", "alive", "lost", "survives"),
    [
        ((1, 2), {1, 2}, False, 1),
        ((1, 2), {1, 2}, True, 1),  # two nodes are a quorum that adds another witness
        ((1, 2), {2}, False, 0),
        ((1, 2), {2}, True, -1),
        ((1, 2, 3, 4), {1, 2, 3}, True, 2),
        ((1, 2, 3, 4), {1, 2}, False, 1),
        ((1, 2, 3, 4), {1, 2}, True, -1),
    ],
)
def test_how_a_witness_that_forgot_is_counted(
    members: tuple[int, ...], alive: set[int], lost: bool, survives: int
) -> None:
    record = made_record(1, 1, members, Witness("key", "run", "repl"))
    assert failures_survived(record, alive, True, True, witness_lost=lost) == survives


@pytest.fixture
def losses(fleet: Fleet, server: RedisServer, relay: Relay) -> Iterator[Losses]:
    made = Losses(fleet, server, relay)
    try:
        yield made
    finally:
        if made.replica is not None:
            made.replica.stop()


@pytest.mark.parametrize(
    ("kind", "survives"),
    [
        ("restarted", "follower"),
        ("flushed", "follower"),
        ("failed over", "follower"),
        ("there and back", "follower"),
        ("restored", "follower"),
        ("flushed", "controller"),
        ("failed over", "controller"),
    ],
)
@pytest.mark.long
def test_a_survivor_whose_witness_forgot_waits_for_the_other(
    losses: Losses, tmp_path: Path, kind: str, survives: str
) -> None:
    votes_seen = VoteWatch(losses.cluster)
    left, dead, term = losses.forgets(kind, tmp_path, survives)
    key = losses.memory().get("key")
    losses.cluster.start(dead)
    new = losses.cluster.adapted(left, dead)
    assert new.term > term
    losses.registry.published(new)
    assert losses.memory()["key"] != key, "a new memory was created"
    votes_seen.stop()


@pytest.mark.long
def test_a_node_that_is_no_voter_does_not_help(losses: Losses, tmp_path: Path) -> None:
    left, dead, term = losses.forgets("flushed", tmp_path, "follower")
    losses.cluster.start(3)
    wait_until(lambda: losses.cluster.ask(left)["peers"][-1]["linked"], 20, what="node 3 is back")
    wait_until(lambda: losses.cluster.ask(3)["voters"]["members"] == [1, 2], 20, what="it knows the voters")
    losses.nobody(SEVERAL_S, left, 3)
    losses.cluster.start(dead)
    assert losses.cluster.adapted(1, 2, 3).term > term


@pytest.mark.long
def test_the_operator_resets_the_voters_of_a_survivor_again(losses: Losses, tmp_path: Path) -> None:
    left, _, term = losses.forgets("restarted", tmp_path, "follower")
    done = zelect("members", "-c", losses.cluster.conf(left), "reset", "--yes-i-know", left)
    assert done.returncode == 0, done.stderr
    new = losses.cluster.adapted(left)
    assert new.term > term, "the token grows although the voters were reset"
    losses.registry.published(new)
    holds_for(lambda: losses.registry.names(new), 1.0, "active")
