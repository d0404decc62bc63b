"""When a turn of the loop is late, and how much it reads before it judges a deadline (R14): every peer, and not a
flood. When the beginning and the end of a leadership are shown (R1, R7)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import zmq

from tests.support.ports import free_ports
from tests.support.waiting import wait_until
from zelect.config.loading import load
from zelect.config.rendering import render
from zelect.core.effects import Effects
from zelect.core.events import Event, Tick
from zelect.core.lease import Lease
from zelect.core.machine import Machine
from zelect.core.messages import Envelope, NodeOnline, Query
from zelect.node.failpoints import Failpoint
from zelect.node.loop import BREATH_US, LoopTiming, NodeLoop
from zelect.system.clock import now_us
from zelect.system.log import setup
from zelect.wire import encode

HOST = "127.0.0.1"
SLOW = {"heartbeat_ms": 1000, "lease_ms": 4000, "election_timeout_ms": 5000, "down_after_ms": 6000}
"""So that a quarter of a heartbeat is time for more than one batch on a busy machine too."""
CLIENTS = 40
EACH = 200
"""What a connection holds before its sender has to wait: together far more than can be read in time."""


@pytest.fixture
def node(tmp_path: Path) -> Iterator[NodeLoop]:
    """Node 1 of two, bound and without its loop."""
    ports = dict(zip((1, 2), free_ports(2), strict=True))
    conf = tmp_path / "n1.toml"
    conf.write_text(render("drain", 1, HOST, ports, "", {1: str(tmp_path / "data")}, SLOW))
    config = load(conf)
    made = NodeLoop(config, setup("error", "text", str(tmp_path / "log"), 1, "drain"))
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def context() -> Iterator[zmq.Context[zmq.Socket[bytes]]]:
    made: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    yield made
    made.destroy(linger=0)


def dealer(context: zmq.Context[zmq.Socket[bytes]], node: NodeLoop) -> zmq.Socket[bytes]:
    socket = context.socket(zmq.DEALER)
    socket.setsockopt(zmq.SNDTIMEO, 20_000)
    socket.setsockopt(zmq.IMMEDIATE, 1)
    socket.connect(node.settings.addresses[1])
    return socket


def flood(context: zmq.Context[zmq.Socket[bytes]], node: NodeLoop) -> None:
    question = encode(Envelope("drain", 0, 0, 0, 0, Query("status")))
    for unknown in [dealer(context, node) for _ in range(CLIENTS)]:
        for _ in range(EACH):
            unknown.send(question)


def test_r14_a_late_turn_reads_every_peer_and_leaves_the_rest_of_a_flood(
    node: NodeLoop, context: zmq.Context[zmq.Socket[bytes]]
) -> None:
    flood(context, node)
    settings = node.settings
    hello = NodeOnline(settings.addresses[2], priority=0, epoch=77)
    peer = dealer(context, node)
    peer.send(encode(Envelope("drain", 2, 77, settings.digest(), 0, hello)))
    wait_until(node.transport.router.backlog, what="the flood has begun to arrive")
    assert node.machine.state.peers[2].incarnation == 0
    turns = 0
    while node.machine.state.peers[2].incarnation != 77:
        assert turns < 200, "the peer's message is lost in the flood"
        node._read({}, node.timing.drain_us, everywhere=True)
        turns += 1
    assert node.transport.router.backlog(), "a turn ends although more is waiting"
    assert node.counters["received"] < CLIENTS * EACH


def test_r14_a_late_turn_reads_more_than_a_usual_one(node: NodeLoop, context: zmq.Context[zmq.Socket[bytes]]) -> None:
    flood(context, node)
    late_us = 10 * node.timing.drain_us  # time for more than one batch however busy the machine is
    taken: dict[bool, list[int]] = {False: [], True: []}
    for turn in range(200):
        late, before = turn % 2 == 1, node.counters["received"]
        wait_until(node.transport.router.backlog, what="more of the flood")
        node._read({}, late_us if late else 0, everywhere=True)
        taken[late].append(node.counters["received"] - before)
        if taken[late][-1] > 64:
            break
    assert max(taken[False]) <= 64 < max(taken[True])


@pytest.mark.parametrize(("after_us", "late"), [(0, False), (50_000, False), (50_001, True), (9_000_000, True)])
def test_r14_a_turn_is_late_by_more_than_a_bound(after_us: int, late: bool) -> None:
    assert LoopTiming(heartbeat_us=100_000).judge(1_000, 1_000 + after_us) is late


def test_r14_the_turn_after_a_late_one_has_a_moment_and_is_judged_by_that() -> None:
    timing = LoopTiming(heartbeat_us=100_000)
    assert timing.due_us(1_000, 900_000) == 1_000
    assert timing.judge(1_000, 900_000)
    due_us = timing.due_us(1_000, 901_000)
    assert due_us == 901_000 + BREATH_US
    assert not timing.judge(due_us, due_us + 100)
    assert timing.due_us(1_000, 910_000) == 1_000, "only the turn after a late one"


class Leading(Machine):
    """A machine that has something to save in each step, and a lease from the first one on, until it is `over`."""

    over = False

    def step(self, event: Event, at_us: int) -> Effects:
        return Effects(save=replace(self.state.saved, term=self.state.term + 1))

    @property
    def lease(self) -> Lease | None:
        return None if self.over else Lease(1, 1, now_us() + 60_000_000)


class BeforeSave(Failpoint):
    """Notes whether the node shows that it is active, each time before it saves."""

    def __init__(self, node: NodeLoop) -> None:
        super().__init__("before_save:nothing")
        self.shown: list[bool] = []
        self._node = node

    def __call__(self, point: str, effects: Effects) -> None:
        if point == "before_save":
            self.shown.append(self._node.handle.active_lease() is not None)


def test_r7_active_is_shown_only_once_what_it_rests_on_is_saved(node: NodeLoop) -> None:
    """A crash in the save would leave no trace of a leadership in which somebody has acted."""
    node.failpoint = watched = BeforeSave(node)
    node.machine = machine = Leading(node.settings, node.machine.state.saved, ran_before=False)
    node.step(Tick())
    assert watched.shown == [False]
    assert node.handle.active_lease() is not None
    machine.over = True
    node.step(Tick())
    assert watched.shown == [False, False], "the end of a leadership does not wait for a save"
    assert node.handle.active_lease() is None
