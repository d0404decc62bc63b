"""AdminAction real nodes: `zelect transfer`, `stepdown`, `pause`, `resume`, `check`, `doctor`."""

from __future__ import annotations

import getpass
import json
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.support.clusters import CALM, READER, Cluster, Fleet, zelect
from tests.support.waiting import wait_until
from zelect.devcluster.bundled_server import RedisServer
from zelect.security.key_files import secret_file

pytestmark = pytest.mark.timeout(180)
ASKER = f"{getpass.getuser()}@{socket.gethostname()}"[:64]


@pytest.fixture
def cluster(fleet: Fleet, server: RedisServer) -> Cluster:
    made = fleet.cluster(redis_url=server.url, timing=CALM)
    made.start()
    return made


def admin(cluster: Cluster, command: str, *arguments: str | int | Path) -> subprocess.CompletedProcess[str]:
    return zelect(command, "-c", cluster.conf(1), *arguments)


def fit(cluster: Cluster, *nodes: int) -> int:
    """Wait until the controller would hand over to each of `nodes`; returns its id."""

    def found() -> int:
        head = cluster.active()
        ready = head is not None and {peer.id for peer in head.peers if not peer.ineligible} >= set(nodes) - {head.id}
        return head.id if ready and head is not None else 0

    return wait_until(found, 40.0, what=f"nodes {nodes} may lead")


def history(cluster: Cluster, server: RedisServer) -> list[dict[bytes, bytes]]:
    client: Any = redis.Redis.from_url(server.url)
    return [fields for _, fields in client.xrange(f"zelect:{{{cluster.name}}}:elections")]


def test_leadership_goes_to_the_node_that_is_named_at_once(cluster: Cluster, server: RedisServer) -> None:
    before = cluster.settled()
    fit(cluster, 1, 2, 3)
    to = 3 if before.id != 3 else 2
    done = admin(cluster, "transfer", "--to", to, "--reason", "a new kernel", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["controller_before"], told["controller_after"]) == (before.id, to)
    assert told["term_after"] == before.term + 1
    after = cluster.settled(term_above=before.term)
    assert after.id == to
    # Well below the lease: nobody's promise was waited for; and it ended before the next began.
    (left,) = cluster.events(before.id, "stopped_being_active")
    (entered,) = cluster.events(to, "became_active")
    assert left["why"] == "transferred"
    assert entered["asked"] == f"{ASKER}: a new kernel"
    assert left["time"] <= entered["time"]
    assert entered["gap_ms"] < int(CALM["lease_ms"])
    wait_until(lambda: len(history(cluster, server)) > 1)
    trace = json.loads(history(cluster, server)[-1][b"trace"])
    assert trace["asked"] == f"{ASKER}: a new kernel"
    assert cluster.ask(to)["election"]["trace"]["asked"] == trace["asked"]
    assert f"asked by  {ASKER}: a new kernel" in admin(cluster, "why", told["term_after"]).stdout


@pytest.mark.long
def test_a_dry_run_changes_nothing_and_names_every_reason(cluster: Cluster) -> None:
    head = cluster.settled()
    fit(cluster, 1, 2, 3)
    gone, stays = (node for node in (1, 2, 3) if node != head.id)
    cluster.kill(gone)
    wait_until(lambda: "dead" in {peer["ineligible"] for peer in cluster.ask(head.id)["peers"] if "ineligible" in peer})
    done = admin(cluster, "transfer", "--dry-run", "--json")
    told = json.loads(done.stdout)
    assert (done.returncode, told["controller_after"]) == (0, stays)
    reasons = {one["id"]: one["reason"] for one in told["candidates"]}
    assert reasons == {gone: "dead", stays: None}
    for arguments in (["--dry-run"], []):
        done = admin(cluster, "transfer", "--to", gone, *arguments)
        assert done.returncode == 1
        assert "is dead" in done.stdout + done.stderr
        assert all(len(line) <= 80 for line in done.stdout.splitlines())
    assert cluster.controller().term == head.term
    assert cluster.controller().id == head.id


@pytest.mark.long
def test_a_pause_stops_elections_of_choice_and_ends_by_itself(cluster: Cluster) -> None:
    head = cluster.settled()
    fit(cluster, 1, 2, 3)
    done = admin(cluster, "pause", "--for", "1h", "--reason", "release day")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("no planned transfers for 3600 s") == 3
    shown = admin(cluster, "status", "--json")
    assert json.loads(shown.stdout)["pause"]["asked"] == f"{ASKER}: release day"
    assert f"planned transfers are paused for 60 min: {ASKER}: release day" in admin(cluster, "status").stdout
    for command in ("transfer", "stepdown"):
        done = admin(cluster, command)
        assert done.returncode == 1
        assert f"by {ASKER}: release day" in done.stderr
    assert cluster.controller().term == head.term
    assert admin(cluster, "resume").stdout.count("planned transfers are possible again") == 3
    assert admin(cluster, "pause", "--for", "1s", "--reason", "a short one").returncode == 0
    wait_until(lambda: cluster.ask(head.id)["pause"] is None)
    assert admin(cluster, "transfer").returncode == 0
    assert cluster.settled(term_above=head.term).id != head.id


@pytest.mark.long
def test_who_steps_down_rests_and_another_leads(cluster: Cluster) -> None:
    head = cluster.settled()
    fit(cluster, 1, 2, 3)
    done = admin(cluster, "stepdown", "--for", "1h", "--reason", "a bad disk")
    assert done.returncode == 0, done.stderr
    after = cluster.settled(term_above=head.term)
    assert after.id != head.id
    assert cluster.ask(head.id)["cooling_left_ms"] > 0
    (left,) = cluster.events(head.id, "stopped_being_active")
    assert left["why"] == "stepped_down"
    fit(cluster, *({1, 2, 3} - {head.id}))
    wait_until(
        lambda: admin(cluster, "transfer", "--to", head.id, "--dry-run").stdout.count(
            "stepped down and is cooling down"
        )
    )
    assert admin(cluster, "transfer", "--to", head.id).returncode == 1


@pytest.mark.long
def test_a_priority_changed_while_running_counts(cluster: Cluster) -> None:
    head = cluster.settled()
    last = max({1, 2, 3} - {head.id})
    conf = cluster.conf(last)
    conf.write_text(conf.read_text().replace("[node]\n", "[node]\npriority = 7\n"))
    cluster.signal(signal.SIGHUP, last)
    wait_until(lambda: any(peer.priority == 7 and not peer.ineligible for peer in cluster.controller().peers))
    assert admin(cluster, "transfer").returncode == 0
    assert cluster.settled(term_above=head.term).id == last


@pytest.mark.long
def test_only_an_operator_with_the_permission_changes_anything(fleet: Fleet) -> None:
    cluster = fleet.cluster(timing=CALM, secure=True)
    cluster.start()
    head = cluster.settled()
    fit(cluster, 1, 2, 3)
    reader = secret_file(cluster.keys, READER)
    for arguments in (["transfer"], ["stepdown"], ["pause", "--reason", "no"], ["resume"]):
        done = admin(cluster, arguments[0], *arguments[1:], "--key", reader)
        assert done.returncode == 1, arguments
        assert "needs the permission admin" in done.stdout + done.stderr
    assert admin(cluster, "transfer", "--dry-run", "--key", reader).returncode == 0, "looking takes less"
    assert cluster.controller().term == head.term
    assert admin(cluster, "transfer").returncode == 0
    (received,) = cluster.events(head.id, "admin_command_received")
    assert received["asked"] == f"operator steerer ({ASKER})"[:64], "whose key it was"


@pytest.mark.long
def test_exit_codes_say_who_was_at_fault(fleet: Fleet) -> None:
    cluster = fleet.cluster(timing=CALM)
    for arguments in (["transfer"], ["stepdown"], ["pause", "--reason", "x"], ["resume"], ["check"]):
        done = admin(cluster, arguments[0], *arguments[1:])
        assert (done.returncode, "no node of" in done.stderr) == (5, True), arguments
    wrong = (
        ["transfer", "--to", "9"],
        ["stepdown", "--for", "5x"],
        ["stepdown", "--for", "8d"],
        ["pause", "--for", "1h"],
        ["pause", "--reason", "x" * 129],
        ["pause", "--reason", "two\nlines"],
        ["check", "--down", "9"],
    )
    for arguments in wrong:
        assert admin(cluster, arguments[0], *arguments[1:]).returncode == 2, arguments
    cluster.start(1)
    wait_until(lambda: cluster.ask(1))
    done = admin(cluster, "transfer")
    assert (done.returncode, "no node is active" in done.stderr) == (1, True)
    assert admin(cluster, "check").returncode == 1
    done = admin(cluster, "pause", "--reason", "alone")
    assert (done.returncode, "nodes 2, 3 did not answer" in done.stderr) == (0, True)


@pytest.mark.long
def test_check_and_doctor_look_at_living_nodes(cluster: Cluster) -> None:
    head = cluster.settled()
    fit(cluster, 1, 2, 3)
    others = [node for node in (1, 2, 3) if node != head.id]
    told = json.loads(admin(cluster, "check", "--down", others[0], "--json").stdout)
    assert (told["survives"], told["would_lead"]) == (True, head.id)
    told = json.loads(admin(cluster, "check", "--down", head.id, "--json").stdout)
    assert (told["survives"], told["would_lead"]) == (True, others[0])
    assert admin(cluster, "check", "--down", ",".join(map(str, others))).returncode == 1

    told = json.loads(admin(cluster, "doctor", "--json").stdout)
    verdicts: dict[str, Any] = {one["what"]: one["verdict"] for one in told["findings"]}
    assert {f"round trip, node {node}" for node in (1, 2, 3)} <= set(verdicts)
    assert (verdicts["Redis eviction"], verdicts["Redis role"]) == ("ok", "ok")
    assert {one["key"] for one in told["timings"]} >= {"heartbeat_ms", "election_timeout_ms"}
    shown = admin(cluster, "doctor").stdout
    assert all(len(line) <= 80 for line in shown.splitlines()), shown
