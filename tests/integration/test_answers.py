"""What commands and an `Observer` say where only some nodes may be asked, or only some answer: never that no node is
active in a cluster that is well."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

import zelect
from tests.integration.test_cli import answering, run, three_ports, write_conf
from tests.support.clusters import CALM, Fleet
from tests.support.clusters import zelect as command
from tests.support.paths import ROOT
from tests.support.reports import report, said
from tests.support.waiting import wait_until
from tools.chaos_lab.namespaces import Spaces, why_not
from zelect.config.rendering import render
from zelect.core.messages import CommonResp, Envelope, Result
from zelect.devcluster.bundled_server import RedisServer
from zelect.status.cluster import ClusterStatus
from zelect.status.codec import plain
from zelect.status.election import Election, TraceReport
from zelect.wire import encode

NO_SPACES = why_not(os.geteuid() == 0, {tool for tool in ("ip", "nft", "ss") if shutil.which(tool)})
WHY = "reading is allowed from the node's own host only"
CAN_NOT_TELL = "not known which node is active"


def denial(node: int) -> bytes:
    """What a node says to a client on another host, in plain text."""
    return encode(Envelope("demo", node, 1, 0, 4, CommonResp(8, Result.FORBIDDEN, WHY)))


@contextmanager
def cluster(directory: Path, first: dict[str, Any], others: str) -> Iterator[Path]:
    """The configuration of a cluster in which node 1 says `first`, and nodes 2 and 3 are `others`: denied, silent, or
    refused (nobody listens there)."""
    ports = three_ports()
    told = said(1, ports[1], **first)
    told["voters"]["addresses"] = {str(node): f"tcp://127.0.0.1:{port}" for node, port in ports.items()}
    nodes: dict[int, Any] = {1: told}
    with ExitStack() as stack:
        if others == "denied":
            nodes |= {2: denial(2), 3: denial(3)}
        elif others == "silent":
            for node in (2, 3):
                stack.enter_context(socket.create_server(("127.0.0.1", ports[node])))
        stack.enter_context(answering(nodes, ports))
        yield write_conf(directory / "n1.toml", ports)


COMMANDS: dict[str, tuple[str, ...]] = {
    "status": (),
    "who": (),
    "wait": ("--timeout", "1.5"),
    "transfer": (),
    "stepdown": (),
    "members": (),
    "check": (),
}


@pytest.mark.parametrize("others", ["denied", "silent"])
@pytest.mark.parametrize("command", [*COMMANDS, "why"])
def test_where_nobody_knows_no_command_says_that_no_node_is_active(tmp_path: Path, command: str, others: str) -> None:
    with cluster(tmp_path, {"controller": None}, others) as conf:
        told = run(command, *COMMANDS.get(command, ()), "-c", conf)
    assert "no node is active" not in told.output.lower()
    assert CAN_NOT_TELL in " ".join(told.output.split())
    if command != "why":
        assert told.exit_code == 5
    if command != "members":
        assert (WHY if others == "denied" else "no answer from nodes 2, 3") in " ".join(told.output.split())
    assert max((len(line) for line in told.stdout.splitlines() if str(conf) not in line), default=0) <= 80


@pytest.mark.parametrize("others", ["denied", "silent", "refused"])
@pytest.mark.parametrize("command", COMMANDS)
def test_followers_name_the_controller_that_could_not_be_asked(tmp_path: Path, command: str, others: str) -> None:
    with cluster(tmp_path, {"controller": 2}, others) as conf:
        told = run(command, *COMMANDS[command], "-c", conf)
    assert "no node is active" not in told.output
    if command in ("transfer", "stepdown"):
        assert told.exit_code == 5
        assert "node 2 is active, term 4, as its follower 1 says, but it could not be asked" in told.output
    else:
        assert told.exit_code == 0
        if command not in ("members", "check"):
            assert "node 2 is active, term 4, as its follower 1 says" in told.output
    if command == "who":
        assert told.stdout == "2\n"
    assert max(map(len, told.stdout.splitlines()), default=0) <= 80


def test_programs_are_told_who_says_so(tmp_path: Path) -> None:
    with cluster(tmp_path, {"controller": 2}, "denied") as conf:
        table = json.loads(run("status", "--json", "-c", conf).stdout)
        one = json.loads(run("who", "--json", "-c", conf).stdout)
    assert one == table["controller"]
    assert (one["id"], one["term"], one["source"], one["followers"]) == (2, 4, "followers", [1])
    assert (table["known"], table["quorate"]) == (True, True)
    assert [node["problem"] for node in table["nodes"]] == ["", WHY, WHY]


def test_the_witness_may_be_one_of_those_that_were_not_asked() -> None:
    at = {node: f"tcp://127.0.0.1:{7100 + node}" for node in (1, 2)}
    one = report(1, controller=None, members=(1, 2), witness_votes=True)
    assert not ClusterStatus("demo", at, {1: one}).is_known
    assert ClusterStatus("demo", at, {1: one}, {}, (2,)).is_known


def test_a_node_that_answers_speaks_for_itself() -> None:
    """It was controller when its follower heard it last; now it says that it is not."""
    at = {node: f"tcp://127.0.0.1:{7100 + node}" for node in (1, 2, 3)}
    state = ClusterStatus("demo", at, {1: report(1, controller=2), 2: report(2, controller=None)})
    assert (state.named, state.is_known, state.exit_code) == (None, True, 1)


@pytest.mark.parametrize(
    ("answered", "refused", "witness_votes", "known"),
    [
        ((1, 2, 3), (), False, True),
        ((1, 2), (), False, True),  # the third alone is no quorum
        ((1,), (2,), False, True),
        ((1,), (), False, False),
        ((1,), (2, 3), False, True),
        ((), (1, 2, 3), False, False),
        ((1, 2), (), True, True),  # the third and the witness are two of four
        ((1,), (3,), True, True),
    ],
)
def test_that_no_node_is_active_is_said_where_the_rest_is_no_quorum(
    answered: tuple[int, ...], refused: tuple[int, ...], witness_votes: bool, known: bool
) -> None:
    at = {node: f"tcp://127.0.0.1:{7100 + node}" for node in (1, 2, 3)}
    reports = {node: report(node, controller=None, witness_votes=witness_votes) for node in answered}
    assert ClusterStatus("demo", at, reports, {}, refused).is_known is known


def test_an_observer_tells_nobody_from_not_known(tmp_path: Path) -> None:
    with cluster(tmp_path, {"controller": None}, "denied") as conf, zelect.Observer(conf) as observer:
        with pytest.raises(zelect.ControllerUnknown, match=WHY):
            observer.controller()
        changes = iter(observer.changes(0.01))
        with cluster(tmp_path, {"controller": None}, "refused") as conf, zelect.Observer(conf) as other:
            assert other.controller() is None
            assert next(iter(other.changes(0.01))) is None
        observer.close()
        assert list(changes) == []
    with cluster(tmp_path, {"controller": 2}, "denied") as conf, zelect.Observer(conf) as observer:
        seen = observer.controller()
        assert seen is not None
        assert (seen.id, seen.term, seen.source, seen.fresh) == (2, 4, "followers", True)
    late = {"controller": 2, "controller_heard_ago_ms": 5000.0}
    with (
        cluster(tmp_path, late, "denied") as conf,
        zelect.Observer(conf) as observer,
        pytest.raises(zelect.ControllerUnknown, match="not heard for a lease"),
    ):
        observer.controller()


@pytest.mark.parametrize("follows", [None, 2])
def test_a_file_and_a_watch_say_what_is_not_known(tmp_path: Path, follows: int | None) -> None:
    target = tmp_path / "controller"
    with cluster(tmp_path, {"controller": follows}, "denied") as conf:
        program = [sys.executable, "-m", "zelect"]
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        with (
            subprocess.Popen([*program, "file", target, "-c", conf], **pipes) as file,
            subprocess.Popen([*program, "watch", "-c", conf], **pipes) as watch,
        ):
            try:
                assert watch.stdout is not None
                assert file.stderr is not None
                line = json.loads(watch.stdout.readline())
                if follows is None:
                    assert (line["id"], line["known"], line["answered"]) == (None, False, 1)
                    assert WHY in file.stderr.readline()
                    assert not target.exists()
                else:
                    assert (line["id"], line["known"], line["source"]) == (2, True, "followers")
                    wait_until(target.exists)
                    assert target.read_text() == "2 4\n"
            finally:
                file.send_signal(signal.SIGTERM)
                watch.send_signal(signal.SIGINT)


def health(conf: Path) -> subprocess.CompletedProcess[str]:
    """What the image's health check says with this configuration."""
    (found,) = re.findall(r"HEALTHCHECK .*?CMD (\[.*?\])", (ROOT / "Dockerfile").read_text(), re.DOTALL)
    program, *words = json.loads(found)
    assert program == "zelect"
    environment = {**os.environ, "ZELECT_CONFIG": str(conf)}
    command = [sys.executable, "-m", "zelect", *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)


def test_the_containers_health_check_asks_its_own_node(fleet: Fleet) -> None:
    """A node that is dead or frozen is red, also while the others are well; a follower is green."""
    node = fleet.cluster(timing=CALM)
    node.start()
    head = node.settled()
    frozen, dead = sorted(set(node.ids) - {head.id})
    told = health(node.conf(frozen))
    assert told.returncode == 0
    assert told.stdout == f"node {frozen} follows node {head.id}, term {head.term}; its vote counts\n"
    node.freeze(frozen)
    node.kill(dead)
    assert health(node.conf(head.id)).returncode == 0
    for away in (frozen, dead):
        told = health(node.conf(away))
        assert (told.returncode, told.stdout) == (5, "")
        assert told.stderr == f"node {away}: no answer\n"
    node.thaw(frozen)


def test_waiting_for_a_spare_does_not_say_that_no_node_is_active(tmp_path: Path) -> None:
    first = {"active": True, "role": "controller", "lease_left_ms": 300.0}
    with cluster(tmp_path, first | {"voters": {**said(1, 7101)["voters"], "survives": 0}}, "refused") as conf:
        told = run("wait", "--quorum", "--timeout", "0.3", "-c", conf)
    assert told.exit_code == 1
    assert "not reached after 0.3 s: node 1 is active, term 4, but no member may fail now" in told.output
    assert f"zelect members -c {conf}" in told.output


def test_a_rehearsal_says_that_a_node_with_other_settings_runs(tmp_path: Path) -> None:
    """The controller, which refuses its messages, takes it for dead."""
    ports = three_ports()
    at = {str(node): f"tcp://127.0.0.1:{port}" for node, port in ports.items()}
    nodes = {node: said(node, ports[node], active=node == 1) for node in ports}
    peers = [
        {"id": node, "linked": True, "dead": node == 3, "offline": False, "heard_ago_ms": 3.0, "priority": 0}
        | ({"ineligible": "dead"} if node == 3 else {})
        for node in (2, 3)
    ]
    differs = "settings_mismatch: lease_ms is 500 here, 400 there"
    nodes[1]["peers"] = peers
    nodes[3]["peers"] = [{"id": 1, "linked": True, "dead": False, "offline": False, "heard_ago_ms": 1.0}]
    nodes[3]["peers"][0]["problem"] = differs
    for node in nodes.values():
        node["voters"]["addresses"] = at
    conf = write_conf(tmp_path / "n1.toml", ports)
    with answering(nodes, ports):
        told = run("transfer", "--dry-run", "-c", conf)
        table = json.loads(run("transfer", "--dry-run", "--json", "-c", conf).stdout)
    assert "dead" not in told.output
    assert "node 3 runs, but: other settings on node 1: lease_ms is 500 here, 400 there" in " ".join(
        told.output.split()
    )
    assert "would hand over to node 2" in told.output
    assert max(map(len, told.stdout.splitlines())) <= 80
    (third,) = [one for one in table["candidates"] if one["id"] == 3]
    assert (third["eligible"], third["reason"]) == (False, "dead")
    assert third["detail"].startswith("runs, but: other settings")


@pytest.mark.parametrize("command", ["history", "why"])
def test_an_election_that_only_the_controller_remembers_is_not_called_unknown(tmp_path: Path, command: str) -> None:
    """Without Redis only the controller knows its election, and it can't be asked from here."""
    with cluster(tmp_path, {"controller": 2}, "denied") as conf:
        told = run(command, "-c", conf)
    assert told.exit_code == 5
    assert "node 2 is active, term 4, as its follower 1 says; it could not be asked" in told.output
    assert WHY in told.output


def test_what_redis_lost_is_not_called_never(own_server: RedisServer, tmp_path: Path) -> None:
    """Redis was emptied just now; the controller still knows its own election."""
    ports = three_ports()
    conf = tmp_path / "n1.toml"
    conf.write_text(render("demo", 1, "127.0.0.1", ports, own_server.url, {1: str(tmp_path / "n1")}, None, "text"))
    election = Election(4, 1, 2, "death", 9000, 1_770_000_000_000, TraceReport(9000, 8000, 1000, ()))
    with answering({1: plain(report(1, active=True, election=election)), 2: said(2, ports[2])}, ports):
        for name in ("history", "why"):
            told = run(name, "-c", conf)
            assert told.exit_code == 0
            assert "Redis has no elections of demo, whose term is 4: it lost its data" in told.stderr
            assert "term 4: node 1 became active" in told.stdout or told.stdout.split("\n")[1].split()[:2] == ["4", "1"]
        (one,) = json.loads(run("history", "--json", "-c", conf).stdout)
        assert (one["inactive_ms"], one["detection_ms"], one["gap_ms"]) == (8.0, 1.0, 9.0)
    told = run("history", "-c", conf)
    assert told.exit_code == 5
    assert "Redis: has no elections; it may have lost its data" in told.stderr


def test_a_watch_asks_the_nodes_of_the_voter_record(tmp_path: Path) -> None:
    """The configuration knows node 1 alone; node 2, which joined later, is active."""
    ports = three_ports()
    nodes = {node: said(node, ports[node], active=node == 2) for node in ports}
    for node in nodes.values():
        node["voters"]["addresses"] = {str(at): f"tcp://127.0.0.1:{port}" for at, port in ports.items()}
        node["controller"] = None
    conf = write_conf(tmp_path / "n1.toml", {1: ports[1]})
    words = [sys.executable, "-m", "zelect", "watch", "-c", str(conf)]
    with answering(nodes, ports), subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as watch:
        try:
            assert watch.stdout is not None
            line = json.loads(watch.stdout.readline())
        finally:
            watch.send_signal(signal.SIGINT)
    assert (line["id"], line["source"]) == (2, "node")


@pytest.mark.long
@pytest.mark.skipif(bool(NO_SPACES), reason=NO_SPACES)
def test_on_one_of_several_hosts_in_plain_text_the_cluster_is_seen_as_it_is(tmp_path: Path) -> None:
    """Three hosts (network namespaces). Commands run beside a follower, which alone answers them; then in the root
    namespace, where no node does."""
    ports = three_ports()
    spaces = Spaces(ports)
    try:
        at = {node: f"tcp://{spaces.address(node)}:{ports[node]}" for node in ports}
        for node in ports:
            text = render("hosts", node, "127.0.0.1", ports, "", {node: str(tmp_path / f"d{node}")}, None, "json")
            for peer, port in ports.items():
                text = text.replace(f"tcp://127.0.0.1:{port}", at[peer])
            (tmp_path / f"n{node}.toml").write_text(text + "\n[security]\nallow_plaintext = true\n")
        with ExitStack() as stack:
            nodes = [stack.enter_context(_node_on(spaces, node, tmp_path)) for node in ports]
            try:
                _on_the_hosts(spaces, tmp_path)
            finally:
                for process in nodes:
                    process.terminate()
    finally:
        spaces.close()


def _node_on(spaces: Spaces, node: int, directory: Path) -> subprocess.Popen[bytes]:
    words = ["ip", "netns", "exec", spaces.name(node), sys.executable, "-m", "zelect", "node"]
    with open(directory / f"n{node}.log", "wb") as log:
        return subprocess.Popen([*words, "-c", directory / f"n{node}.toml"], cwd=ROOT, stdout=log, stderr=log)


def _on_the_hosts(spaces: Spaces, directory: Path) -> None:
    def ask(node: int, *words: str) -> subprocess.CompletedProcess[str]:
        space = ("ip", "netns", "exec", spaces.name(node))
        return command(*words, "-c", directory / f"n{node}.toml", prefix=space if node else ())

    def own() -> dict[int, Any]:
        told = {node: ask(node, "status", "--self", "--json").stdout for node in (1, 2, 3)}
        reports = {node: json.loads(text or "null") for node, text in told.items()}
        settled = all(report and report["votes"] for report in reports.values())
        return reports if settled and len({report["controller"] for report in reports.values()}) == 1 else {}

    reports = wait_until(own, 60)
    controller = reports[1]["controller"]
    follower = min({1, 2, 3} - {controller})
    term = reports[follower]["term"]
    assert ask(controller, "who").stdout == f"{controller}\n"
    says = f"node {controller} is active, term {term}, as its follower {follower} says"
    told = ask(follower, "who")
    assert (told.returncode, told.stdout) == (0, f"{controller}\n")
    assert says in told.stderr
    assert WHY in told.stderr
    assert says in ask(follower, "wait").stdout
    assert f"hosts: {says}" in ask(follower, "status").stdout
    told = ask(follower, "transfer")
    assert told.returncode == 5
    assert "run this on its host" in told.stderr
    away = directory / "n0.toml"
    away.write_text((directory / "n1.toml").read_text())
    for words in (("who",), ("status",), ("wait", "--timeout", "1"), ("transfer",)):
        told = ask(0, *words)
        assert told.returncode == 5, told
        assert "no node is active" not in told.stdout + told.stderr
        assert WHY in told.stderr
