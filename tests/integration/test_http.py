"""What nodes answer over HTTP: never green after the lease, and nothing of it unless configured."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import zmq
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from tests.support.clusters import CALM, Cluster, Fleet, zelect
from tests.support.paths import ROOT
from tests.support.ports import free_port, free_ports
from tests.support.waiting import wait_until
from zelect.config.loading import ConfigError, load
from zelect.config.rendering import render
from zelect.core.lease import Lease
from zelect.node.http.app import HttpApp
from zelect.node.http.snapshot import Histogram
from zelect.node.leadership.handle import Controller, NodeHandle
from zelect.node.startup import publisher_of
from zelect.system.clock import now_us
from zelect.system.log import Log

DOCS = ROOT / "docs"
HOST = "127.0.0.1"
QUIET = Log(-1, "error", "text", 1, "demo")


def lone(directory: Path, more: str = "") -> Path:
    """The file of a cluster of one, with `more` lines."""
    path = directory / "n1.toml"
    text = render("demo", 1, HOST, {1: free_port()}, "", {1: str(directory / "data")}, None, "json")
    path.write_text(f"{text}\n{more}\n")
    return path


class Served:
    """A cluster whose nodes answer over HTTP."""

    def __init__(self, fleet: Fleet, timing: Mapping[str, int | str] = CALM) -> None:
        # Nothing answers there, so that the store's metrics are those of one that is down.
        self.cluster = fleet.cluster(redis_url=f"redis://{HOST}:{free_port()}/0", timing=timing)
        self.ports = dict(zip(self.cluster.ids, free_ports(3), strict=True))
        for node in self.cluster.ids:
            with self.cluster.conf(node).open("a") as conf:
                conf.write(f'\n[http]\nlisten = "{HOST}:{self.ports[node]}"\n')
        self.cluster.start()

    def get(self, node: int, path: str, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection(HOST, self.ports[node], timeout=30)
        try:
            connection.request(method, path)
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        finally:
            connection.close()

    def codes(self, node: int) -> tuple[int, ...]:
        """Of /controller, /follower, /ready and /live."""
        return tuple(self.get(node, path)[0] for path in ("/controller", "/follower", "/ready", "/live"))

    def families(self, node: int) -> dict[str, Metric]:
        status, headers, body = self.get(node, "/metrics")
        assert status == 200
        assert headers["Content-Type"].startswith("text/plain; version=0.0.4")
        return {family.name: family for family in text_string_to_metric_families(body.decode())}

    def value(self, node: int, name: str, **labels: str) -> float:
        """Of the sample `name`; 0 where there is none with such labels, and those of the node."""
        labels |= {"cluster": self.cluster.name, "node": str(node)}
        samples = [sample for family in self.families(node).values() for sample in family.samples]
        return next((s.value for s in samples if s.name == name and s.labels == labels), 0.0)


# -- one leadership, by the clock ----------------------------------------------------------------------


class Stand:
    """The pages of a node whose leadership the test gives and takes. Its loop has just turned."""

    def __init__(self, directory: Path) -> None:
        self.publisher = publisher_of(load(lone(directory, f'[http]\nlisten = "{HOST}:{free_port()}"')))
        self.handle = NodeHandle()
        self.handle.votes = True
        self.app = HttpApp(self.publisher, self.handle, "demo", 1, QUIET)

    def lead(self, lease_ms: int, term: int = 4) -> None:
        now = now_us()
        self.handle.update(Lease(term, now, now + lease_ms * 1000), Controller(1, term, 2, "death"))

    def get(self, path: str, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
        said: list[Any] = []
        body = b"".join(self.app({"REQUEST_METHOD": method, "PATH_INFO": path}, lambda *head: said.append(head)))
        ((status, headers),) = said
        return int(status.split()[0]), dict(headers), body


@pytest.fixture
def stand(tmp_path: Path) -> Iterator[Stand]:
    stand = Stand(tmp_path)
    yield stand
    stand.publisher.close()


def test_green_as_long_as_the_lease_lasts_and_no_longer(stand: Stand) -> None:
    stand.lead(lease_ms=200)
    lapses_us = stand.handle.lease.lapses_us if stand.handle.lease else 0
    green = 0
    while True:
        before_us = now_us()
        status, headers, _ = stand.get("/controller")
        assert headers["X-Zelect-Term"] == "4"
        left_ms = int(headers["X-Zelect-Lease-Ms"])
        if status != 200:
            break
        green += 1
        assert before_us < lapses_us
        assert 0 < left_ms * 1000 <= lapses_us - before_us
    assert (status, left_ms) == (503, 0)
    assert green
    assert now_us() >= lapses_us - 1000, "up to a millisecond early is fine: less can't be told in the header"


def test_leadership_withdrawn_or_a_node_that_ended(stand: Stand) -> None:
    stand.lead(lease_ms=60_000)
    assert [stand.get(path)[0] for path in ("/controller", "/follower", "/ready")] == [200, 503, 200]
    stand.handle.withdraw()
    assert [stand.get(path)[0] for path in ("/controller", "/follower", "/ready")] == [503, 503, 503]
    stand.handle.update(None, Controller(2, 5, 1, "death"))
    assert [stand.get(path)[0] for path in ("/controller", "/follower", "/ready", "/live")] == [503, 200, 200, 200]
    assert stand.get("/follower")[1]["X-Zelect-Term"] == "5"
    stand.handle.close()
    assert [stand.get(path)[0] for path in ("/controller", "/follower", "/ready", "/live")] == [503] * 4


def test_a_node_whose_vote_does_not_count_is_not_ready(stand: Stand) -> None:
    stand.handle.votes = False
    stand.handle.update(None, Controller(2, 5, 1, "death"))
    assert [stand.get(path)[0] for path in ("/follower", "/ready", "/live")] == [200, 503, 200]
    assert stand.get("/ready")[2] == b"node 1 follows node 2; its vote does not count now\n"
    stand.handle.votes = True
    assert stand.get("/ready")[0] == 200


def test_a_loop_that_hangs_is_not_live_and_follows_nobody(stand: Stand) -> None:
    stand.handle.update(None, Controller(2, 5, 1, "death"))
    stand.publisher.turned_us = now_us() - 60_000_000
    assert [stand.get(path)[0] for path in ("/follower", "/ready", "/live")] == [503] * 3
    stand.lead(lease_ms=60_000)
    assert [stand.get(path)[0] for path in ("/controller", "/ready", "/live")] == [200, 200, 503]


def test_head_says_the_same_without_a_body(stand: Stand) -> None:
    stand.lead(lease_ms=60_000)
    for path in ("/controller", "/follower", "/live", "/ready", "/nowhere"):
        status, headers, body = stand.get(path)
        assert body
        assert int(headers["Content-Length"]) == len(body)
        headers.pop("X-Zelect-Lease-Ms", None)
        bare_status, bare_headers, bare_body = stand.get(path, "HEAD")
        bare_headers.pop("X-Zelect-Lease-Ms", None)
        assert (bare_status, bare_headers, bare_body) == (status, headers, b"")


def test_unknown_pages_and_methods(stand: Stand) -> None:
    status, _, body = stand.get("/controllers")
    assert status == 404
    assert b"/controller /follower" in body
    status, headers, _ = stand.get("/controller", "POST")
    assert (status, headers["Allow"]) == (405, "GET, HEAD")


def test_before_the_first_snapshot_there_is_no_status(stand: Stand) -> None:
    assert [stand.get(path)[0] for path in ("/v1/status", "/metrics")] == [503, 503]


def test_a_histogram_counts_each_duration_once() -> None:
    histogram = Histogram((10, 20), (0, 0, 0), 0)
    for us in (1, 10, 11, 20, 21, 1000):
        histogram = histogram.with_one(us)
    assert histogram == Histogram((10, 20), (2, 2, 2), 1063)


# -- nodes --------------------------------------------------------------------------------------------


def test_a_controller_and_its_followers_before_and_after_a_kill(fleet: Fleet) -> None:
    served = Served(fleet)
    head = served.cluster.settled()
    others = sorted(set(served.cluster.ids) - {head.id})
    assert served.codes(head.id) == (200, 503, 200, 200)
    for node in others:
        wait_until(lambda node=node: served.codes(node) == (503, 200, 200, 200))  # type: ignore[misc]
    status, headers, body = served.get(head.id, "/controller", "HEAD")
    assert (status, body, headers["X-Zelect-Term"]) == (200, b"", str(head.term))
    assert 0 < int(headers["X-Zelect-Lease-Ms"]) <= CALM["lease_ms"]  # type: ignore[operator]

    served.cluster.kill(head.id)
    heir = served.cluster.settled(*others, term_above=head.term)
    (last,) = set(others) - {heir.id}
    assert served.codes(heir.id) == (200, 503, 200, 200)
    assert served.codes(last) == (503, 200, 200, 200)
    assert served.get(heir.id, "/controller")[1]["X-Zelect-Term"] == str(heir.term)

    def counted() -> bool:
        return served.value(heir.id, "zelect_elections_won_total", reason="death") == 1

    wait_until(counted, what="the election is in the metrics")
    gap = served.value(heir.id, "zelect_election_gap_seconds_count")
    assert gap == 1
    assert 0 < served.value(heir.id, "zelect_election_gap_seconds_sum") < 60


def test_status_and_metrics(fleet: Fleet) -> None:
    served = Served(fleet)
    head = served.cluster.settled()
    node = head.id
    wait_until(lambda: served.value(node, "zelect_heartbeat_round_trip_seconds_count") > 2, what="answers are counted")
    wait_until(lambda: served.value(node, "zelect_active"))
    assert 0 < served.value(node, "zelect_lease_remaining_seconds") <= 2.5
    assert served.value(node, "zelect_term") == head.term
    assert {n: served.value(n, "zelect_controller_id") for n in served.cluster.ids} == dict.fromkeys((1, 2, 3), node)
    assert served.value(node, "zelect_redis_up") == 0
    assert sum(served.value(n, "zelect_elections_won_total", reason="start") for n in served.cluster.ids) == 1

    status, headers, body = served.get(node, "/v1/status")
    assert (status, headers["Content-Type"]) == (200, "application/json")
    report = json.loads(body)
    assert (report["id"], report["active"], report["term"]) == (node, True, head.term)
    assert 0 < report["lease_left_ms"] <= 2500
    assert report["age_ms"] >= 0
    assert set(report) == {*served.cluster.ask(node), "age_ms"}

    garbage: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
    garbage.connect(served.cluster.addresses[node])
    garbage.send(b"\xc1")
    wait_until(lambda: served.value(node, "zelect_frames_dropped_total", reason="not_msgpack") == 1)
    garbage.close(linger=0)

    samples = [sample for family in served.families(node).values() for sample in family.samples]
    assert all({"cluster", "node"} <= sample.labels.keys() for sample in samples)
    exported = set(re.findall(r"^# TYPE (\S+) ", served.get(node, "/metrics")[2].decode(), re.MULTILINE))
    assert exported == documented()
    asked = set(re.findall(r"\b(?:zelect|process)_\w+", (DOCS / "grafana.json").read_text()))
    known = exported | {f"{name}_{part}" for name in exported for part in ("bucket", "sum", "count")}
    assert asked
    assert asked <= known


def documented() -> set[str]:
    """The metrics that docs/http.md has a row for."""
    return set(re.findall(r"^\| `((?:zelect|process)_\w+)", (DOCS / "http.md").read_text(), re.MULTILINE))


@pytest.mark.long
def test_a_rolling_restart_that_waits_for_ready_has_no_gap(fleet: Fleet) -> None:
    """Each node in turn is stopped with SIGTERM and started again; the next one when /ready is green."""
    served = Served(fleet, {})
    cluster = served.cluster
    cluster.settled()
    for node in cluster.ids:
        wait_until(lambda node=node: served.codes(node)[2] == 200, what="all are ready")  # type: ignore[misc]
    for _ in range(2):
        for node in cluster.ids:
            cluster.term(node)
            assert cluster.exit_code(node) == 0
            cluster.start(node)
            wait_until(lambda node=node: _is_ready(served, node), 30)  # type: ignore[misc]
    gaps = inactive_ms(cluster)
    print("longest times without an active node, ms:", gaps[-3:])
    assert gaps[-1] < 100, "handovers only"


def _is_ready(served: Served, node: int) -> bool:
    with contextlib.suppress(OSError):
        return served.get(node, "/ready")[0] == 200
    return False


def inactive_ms(cluster: Cluster) -> list[float]:
    """How long no node was active each time, by the logs, shortest first."""
    times: list[tuple[datetime, int]] = []
    for node in cluster.ids:
        for fact in cluster.events(node, "became_active", "stopped_being_active"):
            times.append((datetime.fromisoformat(fact["time"]), 1 if fact["event"] == "became_active" else -1))
    gaps, active, ended = [0.0], 0, None
    for at, change in sorted(times):
        if change > 0 and active == 0 and ended is not None:
            gaps.append((at - ended).total_seconds() * 1000)
        active += change
        ended = at if active == 0 else None
    return sorted(gaps)


@pytest.mark.long
def test_a_frozen_controller_is_red_as_soon_as_it_thaws(fleet: Fleet) -> None:
    served = Served(fleet)
    head = served.cluster.settled()
    others = sorted(set(served.cluster.ids) - {head.id})
    assert served.codes(head.id)[0] == 200
    served.cluster.freeze(head.id)
    heir = served.cluster.settled(*others, term_above=head.term)
    with socket.create_connection((HOST, served.ports[head.id]), 30) as waiting:
        waiting.sendall(b"GET /controller HTTP/1.0\r\n\r\n")  # the kernel takes it; it is answered after the thaw
        served.cluster.thaw(head.id)
        assert waiting.recv(100).startswith(b"HTTP/1.0 503 ")
    wait_until(lambda: served.codes(head.id) == (503, 200, 200, 200), what="it follows the new controller")
    assert served.get(head.id, "/follower")[1]["X-Zelect-Term"] == str(heir.term)


@pytest.mark.long
def test_a_node_that_leaves_gives_its_port_back(fleet: Fleet) -> None:
    served = Served(fleet)
    head = served.cluster.settled()
    idle = socket.create_connection((HOST, served.ports[head.id]), 30)  # a client that never asks
    served.cluster.term(head.id)
    assert served.cluster.exit_code(head.id) == 0
    idle.close()
    socket.create_server((HOST, served.ports[head.id])).close()


# -- off by default, and errors ---------------------------------------------------------------------


def loaded_by(path: Path) -> set[str]:
    """The modules that a node of `path` has loaded when it is ready to run."""
    script = (
        "import sys; from pathlib import Path; import zelect.node.foreground as f;"
        "from zelect.config.loading import load;"
        "from zelect.system.log import Log;"
        f"f.NodeLoop(load(Path({str(path)!r})), Log(-1, 'error', 'text', 1, 'demo')).close(); print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    return set(done.stdout.split())


def test_without_the_section_nothing_of_it_is_loaded(tmp_path: Path) -> None:
    extra = {
        "waitress",
        "prometheus_client",
        "zelect.node.http.snapshot",
        "zelect.node.http.app",
        "zelect.node.http.metrics",
    }
    extra.add("zelect.node.http.server")
    assert not loaded_by(lone(tmp_path)) & extra
    assert loaded_by(lone(tmp_path, f'[http]\nlisten = "{HOST}:{free_port()}"')) >= extra


@pytest.mark.parametrize("package", ["waitress", "prometheus_client"])
def test_without_the_extra_the_fix_is_named(tmp_path: Path, package: str) -> None:
    path = lone(tmp_path, f'[http]\nlisten = "{HOST}:{free_port()}"')
    script = f"import sys; sys.modules[{package!r}] = None; import zelect.cli as c; c.main(['node', '-c', sys.argv[1]])"
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr == (
        f"Error: {path}: http.listen: {package} is not installed; pip install 'zelect[http]', or set it to \"\"\n"
    )
    assert not (tmp_path / "data").exists()


@pytest.mark.long
def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        for command in (["node"], ["run"]):
            path = lone(tmp_path, f'[http]\nlisten = "{HOST}:{port}"')
            more = ["--", "true"] if command == ["run"] else []
            done = zelect(*command, "-c", path, *more)
            assert done.returncode == 4
            assert f"cannot listen on http://{HOST}:{port}: the port is taken" in done.stderr
            assert "another port for http.listen" in done.stderr.replace("\n", " ")
            assert not (tmp_path / "data").exists()


def test_an_address_of_another_host(tmp_path: Path) -> None:
    done = zelect("node", "-c", lone(tmp_path, '[http]\nlisten = "192.0.2.1:8101"\nallow_remote = true'))
    assert done.returncode == 4
    assert "http.listen must be an address of this host" in done.stderr


@pytest.mark.parametrize("listen", ["8101", "127.0.0.1", "127.0.0.1:0", "127.0.0.1:65536", "http://127.0.0.1:1", ":1"])
def test_addresses_that_are_none(tmp_path: Path, listen: str) -> None:
    with pytest.raises(ConfigError, match=r'http\.listen: is ".*"; write "127\.0\.0\.1:8101"'):
        load(lone(tmp_path, f'[http]\nlisten = "{listen}"'))


@pytest.mark.parametrize("host", ["0.0.0.0", "[::]", "192.0.2.1", "node1.example"])
def test_other_hosts_are_let_in_only_in_as_many_words(tmp_path: Path, host: str) -> None:
    line = f'[http]\nlisten = "{host}:8101"\n'
    with pytest.raises(ConfigError, match=r"http\.allow_remote = true"):
        load(lone(tmp_path, line))
    assert load(lone(tmp_path, f"{line}allow_remote = true")).http.listen == f"{host}:8101"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "[::1]", "localhost"])
def test_this_host_may_always_ask(tmp_path: Path, host: str) -> None:
    assert load(lone(tmp_path, f'[http]\nlisten = "{host}:8101"')).http.listen == f"{host}:8101"
