"""Which messages a node accepts: its keys, the directory and its permissions, from the connection to the machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zmq

from tests.support.ports import free_ports
from tests.support.waiting import wait_until
from zelect.config.loading import load
from zelect.config.rendering import render
from zelect.core.messages import (
    AdminAction,
    AdminCommand,
    CommonResp,
    Envelope,
    Message,
    NodeOnline,
    Query,
    Report,
    Result,
)
from zelect.node.loop import NodeLoop
from zelect.security.key_files import DIRECTORY_FILE, Owner, add_next, make_keys, promote, retire, secret_file
from zelect.security.keys import ClientKeys, Permission, read_key
from zelect.system.log import setup
from zelect.wire import decode, encode

HOST = "127.0.0.1"
MEMBERS = [Owner(node=node) for node in (1, 2, 3)]
READER, STEERER = Owner(operator="r", permission=Permission.READ), Owner(operator="s")


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    made = tmp_path / "keys"
    make_keys(made, [*MEMBERS, READER, STEERER])
    return made


@pytest.fixture
def node(tmp_path: Path, keys: Path) -> Iterator[NodeLoop]:
    """Node 1 of three with keys, bound and without its loop."""
    ports = dict(zip((1, 2, 3), free_ports(3), strict=True))
    security = {"key_file": str(keys / "n1.key"), "directory_file": str(keys / DIRECTORY_FILE)}
    conf = tmp_path / "n1.toml"
    conf.write_text(render("heard", 1, HOST, ports, "", {1: str(tmp_path / "data")}, security=security))
    made = NodeLoop(load(conf), setup("error", "text", str(tmp_path / "log"), 1, "heard"))
    try:
        yield made
    finally:
        try:
            made.close()
        finally:
            made.context.destroy(linger=0)  # a socket that was left open would hold up the end of all tests


class Speaker:
    """Somebody who speaks to `node` with the key of `owner`."""

    def __init__(self, node: NodeLoop, keys: Path, owner: Owner) -> None:
        self._node = node
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        ClientKeys(read_key(secret_file(keys, owner)), (read_key(keys / "n1.key").public,)).apply_to(self._socket, 0)
        self._socket.connect(node.settings.addresses[1])

    def say(self, sender: int, message: Message, incarnation: int = 0) -> None:
        digest = self._node.settings.digest()
        self._socket.send(encode(Envelope("heard", sender, incarnation, digest, 0, message)))

    def hello(self, sender: int, incarnation: int) -> None:
        self.say(sender, NodeOnline(self._node.settings.addresses[sender], priority=0, epoch=incarnation), incarnation)

    def answer(self) -> Message:
        until(self._node, lambda: self._socket.poll(0), "an answer")
        return decode(self._socket.recv()).message

    def close(self) -> None:
        self._context.destroy(linger=0)


@pytest.fixture
def speaker(node: NodeLoop, keys: Path) -> Iterator[Callable[[Owner], Speaker]]:
    made: list[Speaker] = []

    def begin(owner: Owner) -> Speaker:
        made.append(Speaker(node, keys, owner))
        return made[-1]

    yield begin
    for one in made:
        one.close()


def until(node: NodeLoop, condition: Callable[[], object], what: str) -> None:
    """Turn the loop until `condition` holds."""

    def looked() -> object:
        node._read(node.poller.poll(5), 0, everywhere=True)
        return condition()

    wait_until(looked, what=what)


def test_a_removed_key_is_refused_on_a_connection_that_is_open(
    node: NodeLoop, keys: Path, speaker: Callable[[Owner], Speaker]
) -> None:
    thief = speaker(MEMBERS[1])
    thief.hello(2, 77)
    until(node, lambda: node.machine.state.peers[2].incarnation == 77, "node 2 is heard")
    for step in (add_next, promote, retire):
        step(keys, [MEMBERS[1]])
    node.handle.reload()
    node._carry_out_requests()
    assert node.counters["reloaded"] == 1
    thief.hello(2, 78)
    until(node, lambda: node.counters["refused_key_removed"], "the old key is refused")
    until(
        node,
        lambda: node.transport.counters["keys_unknown"],
        "it was disconnected, and is refused afterwards",
    )
    assert node.machine.state.peers[2].incarnation == 77
    speaker(MEMBERS[1]).hello(2, 79)
    until(node, lambda: node.machine.state.peers[2].incarnation == 79, "the new key is heard")


def test_a_new_own_key_is_used_and_clients_have_to_connect_again(
    node: NodeLoop, keys: Path, speaker: Callable[[Owner], Speaker]
) -> None:
    before = speaker(MEMBERS[1])
    before.hello(2, 77)
    until(node, lambda: node.machine.state.peers[2].incarnation == 77, "node 2 is heard")
    for step in (add_next, promote):
        step(keys, [MEMBERS[0]])
    node.handle.reload()
    node._carry_out_requests()
    client = speaker(MEMBERS[2])
    client.hello(3, 88)
    until(node, lambda: node.machine.state.peers[3].incarnation == 88, "a client with the new key is heard")
    counters = node.transport.counters
    shut_out = ("handshakes_failed", "handshakes_aborted")  # which of them depends on who notices first
    until(
        node,
        lambda: any(counters[name] for name in shut_out),
        "earlier clients are disconnected and refused",
    )
    before.hello(2, 78)
    received = node.counters["received"]
    client.hello(3, 88)
    until(node, lambda: node.counters["received"] > received, "the loop has read on")
    assert node.machine.state.peers[2].incarnation == 77


def test_what_is_denied_goes_no_further(node: NodeLoop, speaker: Callable[[Owner], Speaker]) -> None:
    member, reader, steerer = speaker(MEMBERS[1]), speaker(READER), speaker(STEERER)
    member.hello(3, 99)
    member.hello(2, 77)
    until(node, lambda: node.machine.state.peers[2].incarnation == 77, "node 2 is heard")
    assert node.counters["refused_not_the_keys_owner"] == 1
    for operator in (reader, steerer):
        operator.hello(3, 99)
        operator.say(0, Query("status"))
        assert isinstance(operator.answer(), Report)
    assert node.counters["refused_not_a_member"] == 2
    assert node.machine.state.peers[3].incarnation == 0
    pause = AdminCommand(AdminAction.PAUSE, 0, 60_000, "release day", "ops@host1")
    for operator, lacks in ((reader, True), (steerer, False)):
        operator.say(0, pause)
        said = operator.answer()
        assert isinstance(said, CommonResp)
        assert (said.result is Result.FORBIDDEN and "needs the permission admin" in said.detail) is lacks
    assert node.counters["refused_forbidden"] == 1
