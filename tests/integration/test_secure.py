"""Clusters of real nodes whose links are encrypted: unknown clients, stolen ids, operators, and new keys."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zmq

import zelect as zelect_package
from tests.support.clusters import CALM, OPERATOR, READER, Cluster, Fleet, fleet_of, zelect
from tests.support.records import made_record
from tests.support.waiting import wait_until
from zelect.client.query import ask_all, ask_cluster, tell_all
from zelect.core.messages import Envelope, NodeOffline, Ping, Reset, Result
from zelect.security.key_files import DIRECTORY_FILE, Owner, make_keys, secret_file
from zelect.security.keys import ClientKeys, KeyPair, Keyring, read_directory, read_key
from zelect.wire import encode


@pytest.fixture(scope="module")
def living(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three nodes with keys that nothing that follows may disturb."""
    with fleet_of(request, tmp_path_factory.mktemp("secure")) as fleet:
        cluster = fleet.cluster(timing=CALM, secure=True)
        cluster.start()
        cluster.settled()
        yield cluster


def keyring(cluster: Cluster, pair: KeyPair) -> Keyring:
    return Keyring(pair, read_directory(cluster.keys / DIRECTORY_FILE))


def key_of(cluster: Cluster, owner: Owner) -> Keyring:
    return keyring(cluster, read_key(secret_file(cluster.keys, owner)))


def says(cluster: Cluster, node: int, pair: KeyPair | None, *messages: Envelope) -> Callable[[], None]:
    """Send `messages` to `node` with a key (None: in plain text); call what is returned when they
    must have arrived."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    dealer = context.socket(zmq.DEALER)
    dealer.setsockopt(zmq.LINGER, 0)
    if pair is not None:
        ClientKeys(pair, keyring(cluster, pair).directory.nodes[node]).apply_to(dealer, 0)
    dealer.connect(cluster.addresses[node])
    for message in messages:
        dealer.send(encode(message))

    def end() -> None:
        dealer.close()  # kept until now, since a forgotten socket drops what it has not sent
        context.term()

    return end


SHUT_OUT = ("link_handshakes_failed", "link_handshakes_aborted")
"""A handshake that fails: which of them depends on who notices first."""


def rises(cluster: Cluster, node: int, names: tuple[str, ...], act: Callable[[], Callable[[], None]]) -> None:
    """A counter of `names` of `node` rises after `act`, nobody's leadership ends and no vote is cast."""
    head = cluster.settled()
    saved = {one: cluster.saved(one) for one in cluster.ids}
    before = cluster.counters(node)
    end = act()
    wait_until(lambda: any(cluster.counters(node)[one] > before[one] for one in names), 20, what=f"{names} rise")
    end()
    after = cluster.settled()
    assert (after.id, after.term, after.pid) == (head.id, head.term, head.pid)
    assert {one: cluster.saved(one) for one in cluster.ids} == saved


def leave_of(cluster: Cluster, sender: int) -> list[Envelope]:
    """What would end the controller's leadership if `sender` were believed."""
    said = cluster.ask(sender)
    digest = cluster.config(sender).settings().digest()
    messages = (NodeOffline(sender, said["incarnation"], "leave"), Ping(0, False, None, ()))
    return [Envelope(cluster.name, sender, said["incarnation"], digest, said["term"], one) for one in messages]


def test_unknown_keys_are_refused(living: Cluster) -> None:
    head = living.settled().id
    target = head % 3 + 1
    forged = leave_of(living, head)
    rises(living, target, SHUT_OUT, lambda: says(living, target, None, *forged))
    rises(living, target, ("link_keys_unknown",), lambda: says(living, target, KeyPair.new(), *forged))


def test_a_members_key_with_another_id_is_refused(living: Cluster) -> None:
    """The thief of one follower's key leaves in the controller's name."""
    head = living.settled().id
    target, thief = head % 3 + 1, (head + 1) % 3 + 1
    stolen = read_key(secret_file(living.keys, Owner(node=thief)))
    forged = leave_of(living, head)
    rises(living, target, ("refused_not_the_keys_owner",), lambda: says(living, target, stolen, *forged))
    denied = [fact for fact in living.events(target, "message_denied") if fact["reason"] == "not_the_keys_owner"]
    assert (denied[-1]["sender"], denied[-1]["key_of"]) == (head, f"node {thief}")


def test_an_operators_key_is_no_members(living: Cluster) -> None:
    head = living.settled().id
    target = head % 3 + 1
    operator = read_key(secret_file(living.keys, OPERATOR))
    forged = leave_of(living, head)
    rises(living, target, ("refused_not_a_member",), lambda: says(living, target, operator, *forged))


def test_operators_may_do_what_their_keys_permit(living: Cluster) -> None:
    # Of another cluster: refused by the election itself, once it gets there.
    admin = Reset(made_record(0, 1, (99,), None, 1, cluster_id=1), False)
    for owner, may_admin in ((READER, False), (Owner(node=1), False), (OPERATOR, True)):
        ring = key_of(living, owner)
        assert set(ask_all(living.name, living.addresses, 10, lambda some: len(some) == 3, ring)) == {1, 2, 3}
        answers = tell_all(living.name, living.addresses, admin, 10, ring)
        assert set(answers) == {1, 2, 3}
        lacks = {
            answer.detail == "sending admin commands needs the permission admin, which this key lacks"
            for answer in answers.values()
        }
        assert lacks == {not may_admin}
        refused = {Result.FORBIDDEN, Result.OTHER_CLUSTER}
        assert all(answer.result in refused for answer in answers.values()), "refused by one or the other"


def test_a_client_without_a_key_learns_that_it_needs_one(living: Cluster, tmp_path: Path) -> None:
    for ring, text in ((None, "name a key with --key"), (keyring(living, KeyPair.new()), "does not accept this key")):
        told = ask_cluster(living.name, living.addresses, 10, keyring=ring)
        denials = told.denials
        assert (told.reports, told.exit_code) == ({}, 5)
        assert set(denials) == {1, 2, 3}
        assert all(text in why for why in denials.values()), denials


def test_an_observer_asks_with_the_key_of_its_configuration(living: Cluster) -> None:
    with zelect_package.Observer(living.conf(2), believe_redis=False) as observer:
        seen = wait_until(observer.controller)
        assert seen is not None
        assert seen.source == "nodes"


@pytest.mark.long
def test_the_command_line_finds_its_key(living: Cluster) -> None:
    conf, reader = living.conf(2), secret_file(living.keys, READER)
    assert zelect("status", "-c", conf).returncode == 0
    assert zelect("members", "-c", conf, "--key", reader).returncode == 0
    unknown = living.directory / "elsewhere"
    make_keys(unknown, [OPERATOR])
    for command in (("status",), ("who",), ("members",), ("members", "reset")):
        place = ("-c", conf, "--key", secret_file(unknown, OPERATOR))
        nodes = ("1", "2", "3", "--yes-i-know") if "reset" in command else ()
        done = zelect(command[0], *place, *command[1:], *nodes)
        assert done.returncode == 5
        assert done.stderr.count("does not accept this key") == 1
        assert "start it" not in done.stderr
    wrong = zelect("status", "-c", conf, "--key", living.keys / DIRECTORY_FILE)
    assert wrong.returncode == 2
    assert "can be read by others" in wrong.stderr
    mode = secret_file(living.keys, OPERATOR)
    mode.chmod(0o640)
    try:
        wide = zelect("status", "-c", conf)
    finally:
        mode.chmod(0o600)
    assert (wide.returncode, "run: chmod 600" in wide.stderr) == (2, True)


def test_a_node_whose_key_others_can_read_does_not_start(fleet: Fleet) -> None:
    cluster = fleet.cluster(secure=True)
    secret_file(cluster.keys, Owner(node=1)).chmod(0o644)
    done = zelect("node", "-c", cluster.conf(1))
    assert done.returncode == 2
    assert "n1.key: can be read by others (mode 0644); run: chmod 600" in done.stderr
    assert not cluster.data_dirs[1].exists(), "nothing was touched"


def test_a_killed_controller_is_replaced_and_returns(fleet: Fleet) -> None:
    cluster = fleet.cluster(secure=True)
    cluster.start()
    head = cluster.settled()
    cluster.kill(head.id)
    others = set(cluster.ids) - {head.id}
    after = cluster.settled(*others, term_above=head.term)
    cluster.start(head.id)
    assert cluster.settled().term == after.term


def reload(cluster: Cluster, *nodes: int) -> None:
    for node in nodes or cluster.ids:
        done = zelect("reload", "-c", cluster.conf(node))
        assert (done.returncode, done.stdout) == (0, f"node {node}: reloaded\n"), done.stderr


def linked(cluster: Cluster) -> bool:
    return all(peer["linked"] for node in cluster.ids for peer in cluster.ask(node).get("peers", [{"linked": False}]))


def campaigns(cluster: Cluster) -> int:
    """How often somebody campaigned, or was taken for dead."""
    return sum(len(cluster.events(node, "campaign_began", "peer_died")) for node in cluster.ids)


@pytest.mark.long
def test_all_keys_change_and_the_controller_stays(fleet: Fleet) -> None:
    """Node after node, the controller too, by the commands of the documents."""
    cluster = fleet.cluster(secure=True, timing=CALM)
    cluster.start()
    head = cluster.settled()
    begun = campaigns(cluster)  # the first start may have taken more than one
    old = read_directory(cluster.keys / DIRECTORY_FILE)
    for step in ("--next", "--promote", "--retire"):
        for node in cluster.ids if step == "--promote" else (0,):
            which = [node] if node else list(cluster.ids)
            assert zelect("keygen", "--dir", cluster.keys, step, *which).returncode == 0
            reload(cluster, *([node] if node else []))
            wait_until(lambda: linked(cluster), 20, what=f"all links stand after {step} {node}")
    new = read_directory(cluster.keys / DIRECTORY_FILE)
    assert not set(old.nodes.values()) & set(new.nodes.values())
    after = cluster.settled()
    assert (after.id, after.term, after.pid) == (head.id, head.term, head.pid)
    assert len(cluster.events(head.id, "became_active")) == 1
    assert campaigns(cluster) == begun
    thief = read_key(secret_file(cluster.keys, OPERATOR))  # any pair; the old secrets are gone
    assert thief.public in new.owners
    cluster.kill(head.id)
    others = set(cluster.ids) - {head.id}
    assert cluster.settled(*others, term_above=head.term).id != head.id


@pytest.mark.long
def test_a_changed_priority_takes_effect(fleet: Fleet) -> None:
    """Of two followers the one with the lower id is next, until the other gets a higher priority."""
    cluster = fleet.cluster(timing=CALM)
    cluster.start()
    head = cluster.settled()
    first, second = sorted(set(cluster.ids) - {head.id})
    wait_until(lambda: cluster.ask(first)["succession"] == [first, second], 20)
    conf = cluster.conf(second)
    conf.write_text(
        conf.read_text().replace("[node]", "[node]\npriority = 7").replace("[log]", '[log]\nlevel = "debug"')
    )
    reload(cluster, second)
    wait_until(lambda: cluster.ask(first)["succession"] == [second, first], 20, what="the order changes")
    assert cluster.settled().term == head.term
    assert cluster.events(second, "priority_changed")[0]["priority"] == 7
    assert cluster.events(second, "reloaded")[0]["log_level"] == "debug"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda text: text.replace("heartbeat_ms = 250", "heartbeat_ms = 251"), "timing.heartbeat_ms"),
        pytest.param(
            lambda text: text.replace("[log]", "[limits]\nmax_connections = 77\n\n[log]"),
            "limits.max_connections",
            marks=pytest.mark.long,
        ),
        pytest.param(lambda text: text.replace('"json"', '"text"'), "log.format", marks=pytest.mark.long),
        pytest.param(
            lambda text: text + '\n[[peers]]\nid = 4\naddress = "tcp://127.0.0.1:7104"\n',
            "peers",
            marks=pytest.mark.long,
        ),
        pytest.param(
            lambda text: text.replace("[log]", "[security]\nallow_plaintext = true\n\n[log]"),
            "security.allow_plaintext",
            marks=pytest.mark.long,
        ),
    ],
)
def test_what_takes_a_restart_is_refused_and_nothing_changes(
    fleet: Fleet, change: Callable[[str], str], named: str
) -> None:
    cluster = fleet.cluster(timing=CALM, ids=(1,), quorum="static")
    cluster.start()
    cluster.settled()
    conf = cluster.conf(1)
    before = conf.read_text()
    conf.write_text(change(before).replace("[node]", "[node]\npriority = 7"))
    assert conf.read_text() != before
    done = zelect("reload", "-c", conf)
    assert done.returncode == 1
    assert f"{named} cannot change without a restart" in done.stderr
    conf.write_text(change(before).replace("[node]", "[node]\nprioritea = 7"))
    cluster.signal(signal.SIGHUP, 1)
    wait_until(lambda: len(cluster.events(1, "reload_refused")) == 2, 20, what="a broken file is refused too")
    conf.write_text(before)
    assert cluster.counters(1)["reload_refused"] == 2
    refused = cluster.events(1, "reload_refused")
    assert [fact["level"] for fact in refused] == ["error", "error"]
    assert "prioritea: unknown key" in refused[1]["problem"]
    assert not cluster.events(1, "reloaded", "priority_changed")
    assert cluster.settled().pid == cluster.processes[1].pid


@pytest.mark.long
def test_keys_that_cannot_be_used_are_refused_and_the_old_ones_hold(fleet: Fleet) -> None:
    cluster = fleet.cluster(timing=CALM, secure=True)
    cluster.start()
    head = cluster.settled()
    secret = secret_file(cluster.keys, Owner(node=head.id))
    secret.chmod(0o644)
    cluster.signal(signal.SIGHUP, head.id)
    wait_until(lambda: cluster.events(head.id, "reload_refused"), 20)
    assert "run: chmod 600" in cluster.events(head.id, "reload_refused")[0]["problem"]
    secret.chmod(0o600)
    assert linked(cluster)
    assert cluster.settled().term == head.term
    reload(cluster, head.id)
