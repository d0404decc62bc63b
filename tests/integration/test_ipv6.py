"""Nodes, commands, Observer, reload and HTTP at addresses of IPv6, alone and beside IPv4."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

import zelect as package
from tests.support.clusters import CALM, Cluster, Fleet, zelect
from tests.support.name_server import NameServer, use_it
from tests.support.paths import ROOT
from tests.support.ports import free_port
from tests.support.redis_server import running_server
from tests.support.waiting import wait_until
from tests.support.wires import in_namespace
from zelect.client.query import ask_all

pytestmark = pytest.mark.timeout(300)

ASKS: tuple[tuple[str, ...], ...] = (
    ("who",),
    ("status",),
    ("wait", "--timeout", "5"),
    ("wait", "--quorum", "--timeout", "5"),
    ("members",),
    ("check",),
    ("why",),
    ("pause", "--for", "60s", "--reason", "test"),
    ("resume",),
    ("transfer",),
    ("stepdown", "--for", "1s"),
    ("reload",),
)


def _places(cluster: Cluster, hosts: dict[int, str], listens: dict[int, str], http: str) -> None:
    """Let each node be known at a host, and listen at another one; node 1 answers over HTTP too."""
    cluster.addresses = {node: f"tcp://{host}:{cluster.ports[node]}" for node, host in hosts.items()}
    for node in cluster.ids:
        text = cluster.text(node, CALM)
        for other, port in cluster.ports.items():
            text = text.replace(f"tcp://127.0.0.1:{port}", cluster.addresses[other])
        listen = f'listen = "tcp://{listens[node]}:{cluster.ports[node]}"\n'
        text = text.replace("[node]\n", f"[node]\n{listen}", 1) + "\n[security]\nallow_plaintext = true\n"
        if http and node == 1:
            text += f'\n[http]\nlisten = "{http}"\nallow_remote = true\n'
        cluster.conf(node).write_text(text)


def _every_command_works(cluster: Cluster) -> None:
    """Commands that ask, and those that tell; and what follows a cluster from outside."""
    head = cluster.settled()
    for command in ASKS:
        done = zelect(*command, "-c", cluster.conf(head.id))
        assert done.returncode == 0, (command, done.stdout, done.stderr)
    head = cluster.settled()
    told = json.loads(zelect("status", "--json", "-c", cluster.conf(1)).stdout)
    assert {node["address"] for node in told["nodes"] if node["reachable"]} == set(cluster.addresses.values())
    assert "no answer" not in zelect("doctor", "-c", cluster.conf(1)).stdout
    with package.Observer(cluster.conf(2), believe_redis=False) as observer:
        seen = observer.controller(5.0)
        assert seen is not None
        assert (seen.id, seen.address) == (head.id, cluster.addresses[head.id])
    path = cluster.directory / "controller"
    command = (sys.executable, "-m", "zelect", "file", "-c", str(cluster.conf(3)), str(path))
    process = subprocess.Popen(command, cwd=ROOT)
    try:
        wait_until(lambda: path.exists() and path.read_text().split()[0] == str(head.id), 20, what="the file names it")
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    follower = next(node for node in cluster.ids if node != head.id)
    cluster.kill(head.id)
    began = time.monotonic()
    cluster.controller(head.term)
    assert time.monotonic() - began < CALM["lease_ms"] / 1000, "the refused address proves the death"  # type: ignore[operator]
    cluster.start(head.id)
    cluster.settled()
    assert zelect("who", "-c", cluster.conf(follower)).returncode == 0


def _get(host: str, port: int, path: str = "/live") -> int:
    with urllib.request.urlopen(f"http://{host}:{port}{path}", timeout=5) as answer:
        return int(answer.status)


@pytest.mark.long
def test_a_cluster_at_literals_of_ipv6(fleet: Fleet) -> None:
    cluster, port = fleet.cluster(), free_port()
    ipv6 = dict.fromkeys(cluster.ids, "[::1]")
    _places(cluster, ipv6, ipv6, f"[::1]:{port}")
    cluster.start()
    _every_command_works(cluster)
    assert _get("[::1]", port) == 200


@pytest.mark.parametrize("wildcard", ["*", "[::]"])
def test_a_node_that_listens_everywhere_is_reached_both_ways(fleet: Fleet, wildcard: str) -> None:
    cluster, port = fleet.cluster((1,)), free_port()
    _places(cluster, {1: "[::1]"}, {1: wildcard}, f"{wildcard}:{port}")
    cluster.start()
    cluster.controller()
    for host in ("127.0.0.1", "[::1]"):
        assert ask_all(cluster.name, {1: f"tcp://{host}:{cluster.ports[1]}"}, 5.0).keys() == {1}, host
        assert _get(host, port) == 200, host


@pytest.mark.long
def test_a_cluster_on_both_families(fleet: Fleet) -> None:
    cluster, port = fleet.cluster(), free_port()
    listens = {1: "*", 2: "[::]", 3: "localhost"}
    _places(cluster, {1: "127.0.0.1", 2: "[::1]", 3: "localhost"}, listens, f"localhost:{port}")
    cluster.start()
    _every_command_works(cluster)
    assert _get("localhost", port) == 200


def named(directory: Path) -> None:
    """In a namespace: names that have addresses of IPv6 alone."""
    use_it(directory)
    server = NameServer({f"n{node}": "::1" for node in (1, 2, 3)} | {"store": "::1"})
    (directory / "redis").mkdir()
    with running_server(directory / "redis", "--bind", "127.0.0.1", "::1") as store:
        cluster = Cluster(directory, "named", (1, 2, 3), f"redis://store:{store.port}/0")
        try:
            port = free_port()
            _places(
                cluster, {node: f"n{node}" for node in cluster.ids}, dict.fromkeys(cluster.ids, "[::1]"), f"[::]:{port}"
            )
            cluster.start()
            _every_command_works(cluster)
            assert server.questions
            wait_until(lambda: cluster.reports()[1].redis.state == "up", 20, what="Redis by name")
            assert zelect("history", "-c", cluster.conf(1)).returncode == 0
            assert _get("n1", port) == 200
        finally:
            cluster.end()


@pytest.mark.long
def test_a_cluster_and_its_redis_at_names_of_ipv6_alone(tmp_path: Path) -> None:
    script = f"""
from pathlib import Path
from tests.integration import test_ipv6
test_ipv6.named(Path({str(tmp_path)!r}))
"""
    in_namespace(script, mount=True, within_s=240)
