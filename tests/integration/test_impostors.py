"""Nodes that are not what their peers expect, by id or by settings: refused by name, and nothing changes."""

from __future__ import annotations

import contextlib
import json
import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.clusters import CALM, Cluster, Fleet, holds_for, zelect
from tests.support.marks import long_but
from tests.support.ports import free_port
from tests.support.redis_server import running_server
from tests.support.waiting import wait_until
from tests.support.watches import Registry, TermWatch
from zelect.client.query import tell_all
from zelect.core.messages import AdminAction, AdminCommand, Result


def refused(cluster: Cluster, node: int, sender: int, reason: str) -> bool:
    return any((fact["sender"], fact["reason"]) == (sender, reason) for fact in cluster.events(node, "message_refused"))


def second_process(cluster: Cluster, node: int) -> int:
    """Start another process with the id of `node` and its address, but a port and a data_dir of its
    own; returns its key among the cluster's processes."""
    other = cluster.directory / "other"
    other.mkdir()
    text = cluster.text(node, CALM).replace(str(cluster.data_dirs[node]), str(other / "data"))
    text = text.replace("[node]", f'[node]\nlisten = "tcp://127.0.0.1:{free_port()}"')
    (other / "conf.toml").write_text(text)
    cluster.spawn(node + 20, other / "conf.toml", cluster.directory / f"n{node + 20}.log")
    return node + 20


@pytest.mark.parametrize("twin", long_but([1, 2], 1), ids=["controller's", "follower's"])
def test_a_second_process_with_one_id_is_refused(fleet: Fleet, twin: int) -> None:
    cluster = fleet.cluster(timing=CALM)
    cluster.start()
    head = cluster.settled()
    others = set(cluster.ids) - {twin}
    second = second_process(cluster, twin)
    wait_until(lambda: all(refused(cluster, node, twin, "id_in_use") for node in others), 20, what="they refuse")
    complaints = wait_until(lambda: cluster.events(twin, "error_received"), 20, what="the first process hears of it")
    assert complaints[0]["level"] == "error"
    assert f"two processes claim to be node {twin}" in complaints[0]["detail"]
    assert all(cluster.counters(node)["refused_id_in_use"] > 0 for node in others)
    holds_for(lambda: cluster.active() is not None, 1.5, "active")
    cluster.term(second)
    assert cluster.exit_code(second) == 0
    after = cluster.settled()
    assert (after.id, after.term, after.pid) == (head.id, head.term, head.pid)
    for node in others:
        known = next(peer for peer in cluster.ask(node)["peers"] if peer["id"] == twin)
        assert not known["offline"], "the leave of the second process is not that of the first"
        assert not known["dead"]


@pytest.mark.long
def test_a_second_process_with_the_controllers_id_leaves_the_record_alone(fleet: Fleet, tmp_path: Path) -> None:
    (tmp_path / "redis").mkdir()
    with running_server(tmp_path / "redis") as server:
        cluster = fleet.cluster(redis_url=server.url, timing=CALM)
        registry = Registry(server.url, cluster.name)
        cluster.start()
        head = cluster.settled()
        registry.published(head)
        watch = TermWatch(registry)
        second = second_process(cluster, head.id)
        others = set(cluster.ids) - {head.id}
        wait_until(lambda: all(refused(cluster, node, head.id, "id_in_use") for node in others), 20, what="refused")
        cluster.term(second)
        assert cluster.exit_code(second) == 0
        assert cluster.settled().term == head.term
        wait_until(
            lambda: registry.nodes().get(head.id, {}).get("role") == "controller", what="its entry is its own again"
        )
        watch.stop()
    assert watch.seen == [(head.term, head.id)]
    assert watch.absent == 0, "the record of the living controller was taken away"


def _slower(cluster: Cluster) -> str:
    return cluster.text(3, {**CALM, "election_timeout_ms": 3500})


@pytest.mark.long
def test_a_node_with_other_settings_is_refused(fleet: Fleet) -> None:
    cluster = fleet.cluster(timing=CALM)
    cluster.start()
    head = cluster.settled()
    assert head.id != 3
    cluster.kill(3)
    cluster.conf(3).write_text(_slower(cluster))
    cluster.start(3)
    wait_until(lambda: all(refused(cluster, node, 3, "settings_mismatch") for node in (1, 2)), 20, what="they refuse")
    wait_until(lambda: refused(cluster, 3, head.id, "settings_mismatch"), 20, what="and is refused")
    assert all(fact["level"] == "warning" for fact in cluster.events(3, "message_refused"))
    assert cluster.ask(3)["controller"] is None, "it follows nobody"
    holds_for(lambda: cluster.active() is not None, 1.0, "active")
    assert cluster.settled(1, 2).term == head.term
    cluster.kill(3)
    cluster.write(3, CALM)
    cluster.start(3)
    assert cluster.settled().term == head.term, "and is welcome again with the right settings"


def test_a_node_with_other_settings_is_told_what_must_be_equal(fleet: Fleet) -> None:
    cluster = fleet.cluster(timing=CALM)
    cluster.found()
    cluster.conf(3).write_text(_slower(cluster))
    cluster.start()
    cluster.settled(1, 2)
    wait_until(lambda: refused(cluster, 3, 1, "settings_mismatch"), 20, what="refused")
    wait_until(lambda: "is 3500 here, 3000 there" in json.dumps(cluster.events(3)), 10, what="node 3 says which")
    wait_until(lambda: "is 3000 here, 3500 there" in json.dumps(cluster.events(1)), 10, what="node 1 says which")


def _leads_elsewhere(cluster: Cluster, address: str) -> Cluster:
    """A founded cluster whose configurations, that of node 3 too, name `address` as that of node 3."""
    cluster.found()
    right, cluster.addresses[3] = cluster.addresses[3], address
    for node in cluster.ids:
        text = cluster.text(node, CALM).replace(right, address)
        listen = f'listen = "{right}"\n' if node == 3 else ""
        cluster.conf(node).write_text(text.replace("[node]\n", f"[node]\n{listen}", 1))
    return cluster


def _problem_of_3(cluster: Cluster) -> str:
    told = zelect("status", "-c", cluster.conf(1), "--json")
    (three,) = [node for node in json.loads(told.stdout)["nodes"] if node["id"] == 3]
    return "" if three["reachable"] else str(three["problem"])


def _is_neither_asked_nor_told(cluster: Cluster, words: str) -> None:
    """What answers at the address of node 3 is taken for no answer of it, and is told nothing."""
    held = cluster.settled(1, 2)
    told = zelect("status", "-c", cluster.conf(1))
    assert f"its address {words}" in " ".join(told.stderr.split())
    seen = f"its address {words} (seen by "
    wait_until(lambda: seen in " ".join(zelect("status", "-c", cluster.conf(1)).stdout.split()), 60, what="it was seen")
    pause = AdminCommand(AdminAction.PAUSE, 0, 60_000, "test", "test")
    answers = tell_all(cluster.name, {3: cluster.addresses[3]}, pause, 3.0)
    assert all(answer.result is not Result.OK for answer in answers.values()), answers
    assert [report.pause for report in cluster.reports().values()] == [None, None], "nobody else did it instead"
    doctor = zelect("doctor", "-c", cluster.conf(1))
    assert words in " ".join(doctor.stdout.split())
    assert (cluster.settled(1, 2).id, cluster.settled(1, 2).term) == (held.id, held.term)


def test_an_address_that_leads_to_another_member_is_told(fleet: Fleet) -> None:
    cluster = fleet.cluster(timing=CALM)
    _leads_elsewhere(cluster, cluster.addresses[2].replace("127.0.0.1", "localhost"))
    cluster.start()
    cluster.settled(1, 2)
    wait_until(lambda: "seen by nodes 1, 2" in _problem_of_3(cluster), 30, what="both say so")
    assert "its address answers as node 2" in _problem_of_3(cluster)
    _is_neither_asked_nor_told(cluster, "answers as node 2")
    assert cluster.events(1, "wrong_node_answered")[0]["problem"] == "wrong_node: answers as node 2"
    assert not cluster.events(2, "epoch_raised"), "what was remembered of node 3 is not node 2's"
    # A connection is tried now and then, and rejected as soon as the wrong node answers.
    wait_until(lambda: not linked_to_3(cluster, 1), what="node 1 has no connection to node 3")
    wait_until(lambda: not linked_to_3(cluster, 2), what="node 2 has no connection to node 3")


def linked_to_3(cluster: Cluster, node: int) -> bool:
    return bool(next(peer for peer in cluster.ask(node)["peers"] if peer["id"] == 3)["linked"])


def test_an_address_that_leads_to_another_cluster_is_told(fleet: Fleet) -> None:
    other = fleet.cluster((1,), timing=CALM)
    other.start()
    other.controller()
    cluster = _leads_elsewhere(fleet.cluster(timing=CALM), other.addresses[1])
    cluster.start()
    cluster.settled(1, 2)
    words = f"answers as node 1 of cluster {other.name!r}"
    wait_until(lambda: words in _problem_of_3(cluster), 30, what="it is told")
    _is_neither_asked_nor_told(cluster, words)
    assert other.active() is not None


@contextlib.contextmanager
def _program(says: bytes) -> Iterator[str]:
    """Another program's address: it greets everybody with `says`, and reads what comes."""

    class Greeter(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.sendall(says)
            with contextlib.suppress(OSError):
                while self.request.recv(4096):
                    pass

    with socketserver.ThreadingTCPServer(("127.0.0.1", free_port()), Greeter) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"tcp://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()


@pytest.mark.parametrize("says", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"", b"220 ready\r\n" * 30])
def test_an_address_that_leads_to_another_program_is_told(fleet: Fleet, says: bytes) -> None:
    with _program(says) as address:
        cluster = _leads_elsewhere(fleet.cluster(timing=CALM), address)
        cluster.start()
        cluster.settled(1, 2)
        words = "takes connections, but is another program"
        wait_until(lambda: words in _problem_of_3(cluster), 30, what="it is told")
        assert cluster.settled(1, 2)
