"""Nodes that are configured by name, and a name server that fails them."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

import zelect as package
from tests.support.clusters import CALM, Cluster, holds_for, zelect
from tests.support.name_server import NameServer, use_it
from tests.support.redis_server import running_server
from tests.support.waiting import wait_until
from tests.support.wires import in_namespace
from zelect.system.names import endpoint_of

pytestmark = pytest.mark.timeout(300)


def _named(directory: Path, addresses: dict[int, str]) -> tuple[NameServer, Cluster]:
    """A name server that knows n1, n2 …, and a cluster whose nodes are configured by these names."""
    use_it(directory)
    server = NameServer({f"n{node}": address for node, address in addresses.items()})
    cluster = Cluster(directory, "named", addresses, quorum="static", timing=CALM)
    for node, address in addresses.items():
        text = cluster.text(node, CALM)
        for other, port in cluster.ports.items():
            cluster.addresses[other] = f"tcp://n{other}:{port}"
            text = text.replace(f'address = "tcp://127.0.0.1:{port}"', f'address = "{cluster.addresses[other]}"')
        listen = endpoint_of(address, cluster.ports[node])
        cluster.conf(node).write_text(text.replace("[node]\n", f'[node]\nlisten = "{listen}"\n', 1))
    return server, cluster


def silent(directory: Path, addresses: dict[int, str]) -> None:
    """In a namespace: a follower dies while the name server says nothing; it comes back when that speaks again."""
    server, cluster = _named(directory, addresses)
    try:
        cluster.start()
        head = cluster.settled()
        follower = max(set(cluster.ids) - {head.id})
        server.silent = True
        cluster.kill(follower)
        before = server.questions
        holds_for(lambda: cluster.controller(within_s=2).term == head.term, 12, "the other two need no name")
        print("questions a second:", (server.questions - before) / 12)
        assert not cluster.events(head.id, "leadership_suspended", "controller_lost")
        began = time.monotonic()
        assert zelect("who", "-c", cluster.conf(head.id), "--timeout", "1").returncode == 5
        assert time.monotonic() - began < 10, "a command ends in its time"
        server.silent, server.delay_s = False, 0.3
        cluster.start(follower)
        wait_until(lambda: cluster.ask(follower).get("controller") == head.id, 60)
        server.silent = True
        began = time.monotonic()
        cluster.term(follower)
        assert cluster.exit_code(follower) == 0
        assert time.monotonic() - began < 10, "a stop waits for no name"
    finally:
        cluster.end()


def late(directory: Path, addresses: dict[int, str]) -> None:
    """In a namespace: no name is known while the nodes start; then all are."""
    server, cluster = _named(directory, addresses)
    try:
        known, server.names = server.names, {}
        cluster.start()
        wait_until(lambda: server.questions > 3, 30)
        server.names = known
        head = cluster.settled()
        told = zelect("who", "-c", cluster.conf(head.id))
        assert told.returncode == 0
        print(told.stdout)
    finally:
        cluster.end()


def redis(directory: Path, addresses: dict[int, str]) -> None:
    """In a namespace: Redis by name, and a name server that says nothing at first, and nothing again later."""
    use_it(directory)
    server = NameServer({"store": "127.0.0.1"})
    server.silent = True
    (directory / "redis").mkdir()
    with running_server(directory / "redis") as store:
        cluster = Cluster(directory, "named", (1, 2, 3), f"redis://store:{store.port}/0", CALM)
        try:
            cluster.start()
            head = cluster.settled()
            with package.Observer(cluster.conf(1)) as observer:
                began = time.monotonic()
                seen = observer.controller(2.0)
                assert (seen and seen.id, seen and seen.source) == (head.id, "nodes")
                assert time.monotonic() - began < 4, "a name keeps nobody waiting"
                began = time.monotonic()
                zelect("history", "-c", cluster.conf(1))
                assert time.monotonic() - began < 10
                server.silent = False
                wait_until(
                    lambda: (found := observer.controller()) and found.source == "redis", 40, what="Redis is found"
                )
                assert zelect("history", "-c", cluster.conf(1)).returncode == 0
                server.silent = True
                store.stop()
                store.start()
                wait_until(
                    lambda: (found := observer.controller()) and found.source == "redis", 40, what="it came back"
                )
        finally:
            cluster.end()


def moved(directory: Path, addresses: dict[int, str]) -> None:
    """In a namespace: a follower comes back at another address, then the controller; the names say so later."""
    server, cluster = _named(directory, addresses)
    try:
        cluster.start()
        head = cluster.settled()
        for node in (max(set(cluster.ids) - {head.id}), head.id):
            cluster.kill(node)
            text = cluster.conf(node).read_text()
            cluster.conf(node).write_text(text.replace(f"//{addresses[node]}:", f"//127.0.0.{node + 10}:"))
            cluster.start(node)
            holds_for(lambda moved=node: not _linked_to(cluster, moved), 2, "the name is old")  # type: ignore[misc]
            server.names[f"n{node}"] = f"127.0.0.{node + 10}"
            wait_until(lambda moved=node: len(_linked_to(cluster, moved)) == 2, 30, what="found")  # type: ignore[misc]
            assert zelect("who", "-c", cluster.conf(node)).returncode == 0
        print(cluster.settled().id)
    finally:
        cluster.end()


def _linked_to(cluster: Cluster, node: int) -> list[int]:
    """The others that have a connection to `node`."""
    others = (other for other in cluster.ids if other != node)
    return [one for one in others if any(peer["linked"] for peer in cluster.ask(one)["peers"] if peer["id"] == node)]


def _run(name: str, tmp_path: Path, addresses: dict[int, str]) -> str:
    script = f"""
from pathlib import Path
from tests.integration import test_names
test_names.{name}(Path({str(tmp_path)!r}), {addresses})
"""
    return in_namespace(script, mount=True, within_s=240)


IPV4 = {1: "127.0.0.1", 2: "127.0.0.2", 3: "127.0.0.3"}
IPV6 = dict.fromkeys((1, 2, 3), "::1")


def test_a_silent_name_server_costs_no_connection_that_stands(tmp_path: Path) -> None:
    told = _run("silent", tmp_path, IPV4)
    assert float(told.split(":")[1]) < 3


@pytest.mark.long
def test_redis_may_have_a_name_that_nobody_can_look_up_now(tmp_path: Path) -> None:
    _run("redis", tmp_path, IPV4)


@pytest.mark.long
def test_a_node_that_moves_is_found_by_its_name(tmp_path: Path) -> None:
    assert _run("moved", tmp_path, IPV4).split()[0] in {"1", "2", "3"}


@pytest.mark.parametrize("addresses", [IPV4, IPV6], ids=["ipv4", "ipv6 only"])
def test_names_may_appear_late(tmp_path: Path, addresses: dict[int, str]) -> None:
    assert _run("late", tmp_path, addresses).split()[0] in {"1", "2", "3"}
