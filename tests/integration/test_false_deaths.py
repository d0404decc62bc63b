"""Real nodes: what refuses or looks free for a controller that lives is no proof of its death (R9).

The nodes reach each other through a proxy, as where addresses are those of load balancers, are moved from host to
host, or belong to a firewall. It can refuse the connections to a node whose own connections stand.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.support.clusters import CALM, HOST, Cluster, Fleet, holds_for
from tests.support.waiting import wait_until
from tools.chaos_lab.links import Links, between
from tools.common.checkout import THIS
from zelect.node.storage.data_dir import DataDir
from zelect.node.storage.vote_store import VoteStore
from zelect.system.clock import unix_ms

LEASE_S = int(CALM["lease_ms"]) / 1000
NODE = """
import sys, threading
from dataclasses import replace
from pathlib import Path
from zelect.config.loading import load
from zelect.node.loop import NodeLoop
from zelect.system.log import setup
import json

config = load(Path(sys.argv[1]))
connect_to = json.loads(sys.argv[2])
data_dirs = {int(node): path for node, path in json.loads(sys.argv[3]).items()}
known = {node: Path(path) for node, path in data_dirs.items()}
config = replace(config, peers=tuple(replace(peer, data_dir=known.get(peer.id)) for peer in config.peers))

def back_up():
    for _ in sys.stdin:
        for file in sorted(config.node.data_dir.iterdir()):
            file.read_bytes()
        print("backed up", flush=True)

threading.Thread(target=back_up, daemon=True).start()
node = NodeLoop(config, setup("info", "json", sys.argv[4], config.node.id, config.cluster.name), connect_to)
sys.exit(node.run())
"""


@pytest.fixture
def cluster(fleet: Fleet) -> Cluster:
    return fleet.cluster(timing=CALM)


@pytest.fixture
def links(cluster: Cluster) -> Iterator[Links]:
    made = Links([(node, HOST, port) for node, port in cluster.ports.items()], (HOST, 1))
    try:
        yield made
    finally:
        made.close()


def _start(cluster: Cluster, links: Links, data_dirs: dict[int, str]) -> int:
    """Start the nodes; each knows `data_dirs` of its peers. The controller's id, once all follow it."""
    for node in cluster.ids:
        others = {peer: path for peer, path in data_dirs.items() if peer != node}
        arguments = [str(cluster.conf(node)), *map(json.dumps, (links.dial(node), others)), str(cluster.log_of(node))]
        cluster.processes[node] = subprocess.Popen(
            [sys.executable, "-c", NODE, *arguments],
            env=THIS.environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
    return cluster.settled().id


def _two_are_active(cluster: Cluster, head: int) -> bool:
    """Whether another node is active, and `head` is so after that."""
    others = [node for node in cluster.ids if node != head]
    return any(cluster.ask(node).get("active") for node in others) and bool(cluster.ask(head).get("active"))


def _no_death(cluster: Cluster) -> bool:
    return not [fact for node in cluster.ids for fact in cluster.events(node, "peer_died")]


def test_a_controller_behind_a_front_that_refuses_is_not_dead(cluster: Cluster, links: Links) -> None:
    """No answer reaches it any more, so it stops being active when its lease ends, and only then another one is."""
    head = _start(cluster, links, {})
    others = [node for node in cluster.ids if node != head]
    links.refuse("front", {(node, head) for node in others})
    end = time.monotonic() + LEASE_S + 1
    while time.monotonic() < end:
        assert not _two_are_active(cluster, head)
    assert _no_death(cluster)
    after = wait_until(lambda: next((n for n in others if cluster.ask(n).get("active")), None), 30, what="a successor")
    assert not cluster.ask(head).get("active")
    links.refuse("front", set())
    assert cluster.settled(term_above=0).id == after


def test_a_program_that_reads_its_data_dir_drops_its_lock_and_is_not_dead(cluster: Cluster, links: Links) -> None:
    head = _start(cluster, links, {node: str(path) for node, path in cluster.data_dirs.items()})
    program = cluster.processes[head]
    assert program.stdin is not None
    assert program.stdout is not None
    program.stdin.write(b"back up\n")
    program.stdin.flush()
    assert program.stdout.readline() == b"backed up\n"
    term = cluster.ask(head)["term"]
    links.reset({(node, head) for node in cluster.ids if node != head})
    wait_until(lambda: all(cluster.events(node, "link_closed") for node in cluster.ids if node != head), 20)
    _keeps(cluster, head, term)


def test_a_lock_that_never_looked_held_proves_nothing(cluster: Cluster, links: Links) -> None:
    """As on an overlay mount: the file names the living process, and nobody holds the lock that is seen."""
    views = {node: cluster.directory / f"view{node}" for node in cluster.ids}
    for view in views.values():
        view.mkdir()
    head = _start(cluster, links, {node: str(view) for node, view in views.items()})
    lock, view = cluster.data_dirs[head] / "lock", views[head] / "lock"
    view.touch()
    view.write_text(" ".join([*lock.read_text().split()[:4], str(view.stat().st_ino)]))
    term = cluster.ask(head)["term"]
    links.reset(between([head], cluster.ids))
    wait_until(lambda: all(cluster.events(node, "probe_ended") for node in cluster.ids if node != head), 20)
    _keeps(cluster, head, term)


def _keeps(cluster: Cluster, head: int, term: int) -> None:
    """Nobody takes `head` for dead, and it leads on in its term."""
    holds_for(lambda: _no_death(cluster), 0.5, "no death")
    settled = cluster.settled()
    assert (settled.id, settled.term) == (head, term)
    assert _no_death(cluster)


def test_a_node_that_lost_its_data_comes_back_although_its_clock_is_behind(fleet: Fleet) -> None:
    """Its peers remember a process that began a day later than this one says it did."""
    cluster = fleet.cluster(timing=CALM)
    cluster.found()
    ahead = unix_ms() + 86_400_000
    data_dir = DataDir.open(cluster.data_dirs[3], cluster.name, 3)
    store = VoteStore.open(data_dir, cluster.name, 3, cluster.saved(3))
    store.save(replace(store.saved, incarnation=ahead))
    store.close()
    data_dir.close()
    cluster.start()
    head = cluster.settled(1, 2)
    wait_until(lambda: cluster.ask(3).get("controller") == head.id, 30, what="node 3 follows")
    cluster.kill(3)
    shutil.rmtree(cluster.data_dirs[3])
    cluster.start(3)
    wait_until(lambda: cluster.ask(3).get("belongs") == "voter", 60, what="node 3 votes again")
    assert cluster.ask(3)["incarnation"] > ahead + 1
    (fact,) = cluster.events(3, "earlier_process_remembered")
    assert fact["incarnation"] == ahead + 1
    assert cluster.settled().term == head.term
