"""How much a node reads before it looks at the clock (R14): whom it must hear, and not a flood."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from tests.support.ports import free_ports
from tests.support.waiting import wait_until
from zelect.config.loading import load
from zelect.config.rendering import render
from zelect.core.messages import Envelope, NodeOnline, Query
from zelect.node.loop import NodeLoop
from zelect.system.log import setup
from zelect.wire import encode

HOST = "127.0.0.1"
SLOW = {"heartbeat_ms": 1000, "lease_ms": 4000, "election_timeout_ms": 5000, "down_after_ms": 6000}
"""So that a quarter of a heartbeat is time for more than one batch on a busy machine too."""
STRANGERS = 40
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
    socket.connect(node.config.address)
    return socket


def flood(context: zmq.Context[zmq.Socket[bytes]], node: NodeLoop) -> None:
    question = encode(Envelope("drain", 0, 0, 0, 0, Query("status")))
    for unknown in [dealer(context, node) for _ in range(STRANGERS)]:
        for _ in range(EACH):
            unknown.send(question)


def test_a_late_turn_hears_every_peer_and_leaves_the_rest_of_a_flood(
    node: NodeLoop, context: zmq.Context[zmq.Socket[bytes]]
) -> None:
    flood(context, node)
    settings = node.settings
    hello = NodeOnline(settings.addresses[2], priority=0, epoch=77)
    peer = dealer(context, node)
    peer.send(encode(Envelope("drain", 2, 77, settings.digest(), 0, hello)))
    wait_until(node.transport.backlog, what="the flood has begun to arrive")
    assert node.machine.state.peers[2].incarnation == 0
    turns = 0
    while node.machine.state.peers[2].incarnation != 77:
        assert turns < 200, "the peer's word is lost in the flood"
        node._take_in({}, node.drain_us, everywhere=True)
        turns += 1
    assert node.transport.backlog(), "a turn ends although more is waiting"
    assert node.counters["received"] < STRANGERS * EACH


def test_r14_a_late_turn_reads_more_than_a_usual_one(node: NodeLoop, context: zmq.Context[zmq.Socket[bytes]]) -> None:
    flood(context, node)
    taken: dict[bool, list[int]] = {False: [], True: []}
    for turn in range(200):
        late, before = turn % 2 == 1, node.counters["received"]
        wait_until(node.transport.backlog, what="more of the flood")
        node._take_in({}, node.drain_us if late else 0, everywhere=True)
        taken[late].append(node.counters["received"] - before)
        if taken[late][-1] > 64:
            break
    assert max(taken[False]) <= 64 < max(taken[True])
