"""Redis with TLS, users with the least permissions, and passwords that are shown nowhere."""

from __future__ import annotations

import json
import os
import re
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
import zmq

from tests.support.clusters import CALM, ROOT, Cluster, Fleet, zelect
from tests.support.ports import free_port
from tests.support.records import made_record
from tests.support.redis_server import running_server
from tests.support.tls import Papers, papers, tls_proxy
from tests.support.waiting import wait_until
from tests.support.watches import Registry
from zelect.client.observer import Observer
from zelect.config.rendering import render
from zelect.core.effects import Depart, PublishController, PublishNode, WithdrawController, WitnessCreate, WitnessLook
from zelect.core.election_trace import ElectionTrace
from zelect.core.events import WitnessCreated, WitnessSeen
from zelect.core.messages import Reason
from zelect.devcluster.bundled_server import RedisServer
from zelect.redis.credentials import Credentials, CredentialsError
from zelect.redis.registry import RegistryClient, RegistryStatus
from zelect.redis.witness import WitnessClient, WitnessEvent
from zelect.redis.worker import RedisSettings
from zelect.system.clock import now_us

SECRET = "hunter2-Zq%/#"
RUNNING = PublishNode("follower", "running", 1)
MEMBERS = {1: "tcp://127.0.0.1:7101", 2: "tcp://127.0.0.1:7102", 3: "tcp://127.0.0.1:7103"}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with running_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def server(shared: RedisServer) -> RedisServer:
    """A server without data, without scripts, and with the default user alone."""
    with admin_of(shared) as admin:
        admin.flushall()
        admin.script_flush()
        for user in admin.acl_users():
            if user != "default":
                admin.acl_deluser(user)
        admin.config_set("maxmemory", 0)
        admin.config_set("maxmemory-policy", "noeviction")
    return shared


@contextmanager
def admin_of(server: RedisServer) -> Iterator[Any]:
    with redis.Redis.from_url(server.url, decode_responses=True) as admin:
        yield admin


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Papers:
    return papers(tmp_path_factory.mktemp("tls") / "papers")


def documented(user: str, cluster: str, password: str = SECRET) -> list[str]:
    """The words of the ACL line for `user` in the documentation, after ACL SETUSER."""
    text = (ROOT / "docs" / "security.md").read_text()
    (line,) = re.findall(rf"^    ACL SETUSER ({user} .*)$", text, re.MULTILINE)
    words: list[str] = line.replace("{NAME}", f"{{{cluster}}}").split()
    return [f">{password}" if word == ">PASSWORD" else word for word in words]


def password_file(directory: Path, password: str = SECRET, mode: int = 0o600) -> str:
    file = directory / "password"
    file.write_text(password + "\n")
    file.chmod(mode)
    return str(file)


def settings_of(url: str, credentials: Credentials | None = None, **changes: Any) -> RedisSettings:
    settings: dict[str, Any] = {"url": url, "ttl_ms": 60_000, "timeout_ms": 2000, "cluster": "demo", "node": 1}
    settings |= {"address": MEMBERS[1], "incarnation": 1, "members": MEMBERS}
    return RedisSettings(**(settings | {"credentials": credentials or Credentials()} | changes))


@contextmanager
def a_registry(url: str, credentials: Credentials | None = None, incarnation: int = 1) -> Iterator[RegistryClient]:
    with zmq.Context() as context:
        registry = RegistryClient(context, settings_of(url, credentials, incarnation=incarnation))
        registry.know(MEMBERS, 7)
        registry.start()
        try:
            yield registry
        finally:
            registry.close(0.2)


def status_of(registry: RegistryClient, word: str, up: bool | None = None) -> RegistryStatus:
    """Have the entry written, again and again, until the status has `word` in its problem."""
    registry.submit([RUNNING])

    def looked() -> bool:
        registry.pipe.poll(100)
        registry.receive()
        return (
            word in registry.status.problem
            and up in (None, registry.status.up)
            and registry.status.problem != "not asked yet"
        )

    wait_until(looked, what=f"{word!r}, not {registry.status}")
    return registry.status


def leadership() -> PublishController:
    now = now_us()
    return PublishController(9, now, now + 60_000_000, 0, Reason.START, -1, ElectionTrace(-1, -1, now, now, ()))


def answers_of(client: WitnessClient) -> list[WitnessEvent]:
    """Wait for something to come from `client`."""

    def heard() -> list[WitnessEvent]:
        client.pipe.poll(100)
        return client.receive()

    return wait_until(heard, what="an answer of the witness")


def configure(cluster: Cluster, **keys: str | bool) -> None:
    """Add `keys` to [redis] in the files of all nodes."""
    lines = "".join(f"{key} = {json.dumps(value)}\n" for key, value in keys.items())
    for node in cluster.ids:
        text = cluster.conf(node).read_text()
        cluster.conf(node).write_text(text.replace("[redis]\n", f"[redis]\n{lines}"))


# -- users --------------------------------------------------------------------------------


def test_a_cluster_needs_only_the_documented_permissions(fleet: Fleet, server: RedisServer, tmp_path: Path) -> None:
    cluster = fleet.cluster(redis_url=server.url, timing=CALM)
    configure(cluster, username="zelect-node", password_file=password_file(tmp_path))
    with admin_of(server) as admin:
        admin.execute_command("ACL", "SETUSER", *documented("zelect-node", cluster.name))
    registry = Registry(server.url, cluster.name)
    with registry.client.pubsub() as heard:
        heard.subscribe(registry.changes)
        cluster.start()
        first = cluster.adapted(*cluster.ids)
        registry.published(first)
        wait_until(lambda: first.id in registry.nodes(), what="its entry, which a node writes once it belongs")
        cluster.kill(first.id)
        left = sorted(set(cluster.ids) - {first.id})
        second = cluster.adapted(*left)  # the witness is a member now
        registry.published(second)
        assert [int(entry["term"]) for entry in registry.elections()] == [first.term, second.term]
        wait_until(lambda: registry.nodes()[first.id]["status"] == "offline", what="the dead node's entry")
        for node in left:
            redis_of = cluster.ask(node)["redis"]
            assert (redis_of["state"], redis_of["problem"]) == ("up", "")
        cluster.term(*left)
        assert [cluster.exit_code(node) for node in left] == [0, 0]
        wait_until(
            lambda: not registry.client.exists(registry.key("controller"), registry.key("nodes")), what="withdrawn"
        )
        said = [message["data"] for message in iter(lambda: heard.get_message(timeout=0.2), None)]
    texts = [json.loads(text) for text in said if isinstance(text, str)]
    assert {text["id"] for text in texts} >= {first.id, second.id, None}
    with admin_of(server) as admin:
        assert not [entry for entry in admin.acl_log() if entry["username"] == "zelect-node"], "nothing was refused"
    for node in cluster.ids:
        assert not cluster.events(node, "redis_failed", "witness_failed")


def test_the_documented_node_reaches_nothing_else(server: RedisServer) -> None:
    """What a thief of its password can't do."""
    with admin_of(server) as admin:
        admin.execute_command("ACL", "SETUSER", *documented("zelect-node", "demo"))
        admin.set("zelect:{other}:controller", "theirs")
    thief: Any = redis.Redis(port=server.port, username="zelect-node", password=SECRET, socket_timeout=5)
    with thief:
        assert thief.hset("zelect:{demo}:nodes", "1", "x") == 1
        for command in (
            ("HGETALL", "zelect:{other}:controller"),
            ("UNLINK", "zelect:{other}:controller"),
            ("PUBLISH", "zelect:{other}:changes", "x"),
            ("SUBSCRIBE", "zelect:{demo}:changes"),
            ("GETDEL", "zelect:{demo}:nodes"),
            ("GET", "zelect:{other}:identity"),
            ("KEYS", "*"),
            ("FLUSHALL",),
            ("CONFIG", "SET", "maxmemory", "1"),
            ("ACL", "SETUSER", "zelect-node", "+@all"),
            ("SHUTDOWN",),
        ):
            with pytest.raises(redis.exceptions.NoPermissionError):
                thief.execute_command(*command)
        with pytest.raises(redis.exceptions.ResponseError, match="No permissions to access a key"):
            thief.eval("return redis.call('UNLINK', ARGV[1])", 0, "zelect:{other}:controller")


NODE_COMMANDS = [word[1:] for word in documented("zelect-node", "demo") if word.startswith("+")]


@pytest.mark.parametrize("command", NODE_COMMANDS)
def test_each_missing_command_is_named(server: RedisServer, tmp_path: Path, command: str) -> None:
    with admin_of(server) as admin:
        words = [word for word in documented("zelect-node", "demo") if word != f"+{command}"]
        admin.execute_command("ACL", "SETUSER", *words)
    credentials = Credentials("zelect-node", password_file(tmp_path))
    with a_registry(server.url, credentials) as registry:
        problem = status_of(registry, command).problem
        assert f"+{command}" in problem or f"run the '{command}' command" in problem
        others = {other for other in NODE_COMMANDS if re.search(rf"\+{other}\b", problem)}
        assert others <= {command}, "nothing is reported as missing that is not"
        assert SECRET not in problem
        with admin_of(server) as admin:
            admin.execute_command("ACL", "SETUSER", "zelect-node", f"+{command}")
        registry.submit([leadership()])
        wait_until(
            lambda: (registry.pipe.poll(100) is not None and not registry.receive() and registry.status.up) or None
        )


PARTS = ("controller", "nodes", "elections", "witness", "identity")


@pytest.mark.parametrize("part", PARTS)
def test_each_missing_key_is_named(server: RedisServer, tmp_path: Path, part: str) -> None:
    keys = [f"~zelect:{{demo}}:{name}" for name in PARTS if name != part]
    with admin_of(server) as admin:
        words = [word for word in documented("zelect-node", "demo") if not word.startswith("~")]
        admin.execute_command("ACL", "SETUSER", *words, *keys)
    with a_registry(server.url, Credentials("zelect-node", password_file(tmp_path))) as registry:
        problem = status_of(registry, f"~zelect:{{demo}}:{part}").problem
        assert "ACL SETUSER zelect-node ~zelect" in problem, "no command is reported as missing"


@pytest.mark.parametrize(
    ("instead", "named"),
    [
        ("%R~zelect:{demo}:*", "ACL SETUSER zelect-node ~zelect:{demo}:*"),
        ("~other:*", "ACL SETUSER zelect-node ~zelect:{demo}:*"),
        ("&other", "&zelect:{demo}:changes"),
    ],
)
def test_other_keys_or_channels_are_named(server: RedisServer, tmp_path: Path, instead: str, named: str) -> None:
    with admin_of(server) as admin:
        kind = "&" if instead.startswith("&") else "~"
        words = [word for word in documented("zelect-node", "demo") if not word.startswith(kind)]
        admin.execute_command("ACL", "SETUSER", *words, instead)
    with a_registry(server.url, Credentials("zelect-node", password_file(tmp_path))) as registry:
        status_of(registry, named)


def test_permissions_taken_away_later_are_named_too(server: RedisServer, tmp_path: Path) -> None:
    with admin_of(server) as admin:
        admin.execute_command("ACL", "SETUSER", *documented("zelect-node", "demo"))
        with a_registry(server.url, Credentials("zelect-node", password_file(tmp_path))) as registry:
            status_of(registry, "", up=True)
            admin.execute_command("ACL", "SETUSER", "zelect-node", "-hset", "-xadd")
            assert "+hset" in status_of(registry, "+xadd", up=False).problem
            admin.execute_command("ACL", "SETUSER", "zelect-node", "+hset", "+xadd")
            wait_until(lambda: status_of(registry, "", up=True).up)


def test_the_documented_reader_reads_and_writes_nothing(server: RedisServer) -> None:
    with admin_of(server) as admin, a_registry(server.url) as registry:
        admin.execute_command("ACL", "SETUSER", *documented("zelect-reader", "demo"))
        reader: Any = redis.Redis(
            port=server.port, username="zelect-reader", password=SECRET, decode_responses=True, socket_timeout=5
        )
        with reader, reader.pubsub() as heard:
            heard.subscribe("zelect:{demo}:changes")
            wait_until(lambda: heard.get_message(timeout=0.1))
            registry.submit([leadership(), RUNNING])
            message = wait_until(lambda: heard.get_message(timeout=0.1), what="the change")
            assert json.loads(message["data"])["id"] == 1
            assert reader.hgetall("zelect:{demo}:controller")["term"] == "9"
            assert reader.pttl("zelect:{demo}:controller") > 0
            wait_until(lambda: reader.hgetall("zelect:{demo}:nodes"), what="the node's entry")
            assert len(reader.xrange("zelect:{demo}:elections")) == 1
            for command in (
                ("HSET", "zelect:{demo}:controller", "id", "2"),
                ("DEL", "zelect:{demo}:controller"),
                ("PEXPIRE", "zelect:{demo}:controller", "1"),
                ("XADD", "zelect:{demo}:elections", "*", "id", "2"),
                ("PUBLISH", "zelect:{demo}:changes", "x"),
                ("EVAL", "return redis.call('DEL', KEYS[1])", "1", "zelect:{demo}:controller"),
                ("HGETALL", "zelect:{other}:controller"),
                ("FLUSHALL",),
                ("CONFIG", "GET", "*"),
                ("ACL", "LIST"),
            ):
                with pytest.raises(redis.exceptions.NoPermissionError):
                    reader.execute_command(*command)
            heard.subscribe("zelect:{other}:changes")
            with pytest.raises(redis.exceptions.NoPermissionError):
                wait_until(lambda: heard.get_message(timeout=0.1))
            assert admin.hget("zelect:{demo}:controller", "id") == "1"


@pytest.mark.long
def test_an_observer_needs_the_readers_permissions_only(fleet: Fleet, server: RedisServer, tmp_path: Path) -> None:
    cluster = fleet.cluster((1,), redis_url=server.url, timing=CALM)
    with admin_of(server) as admin:
        admin.execute_command("ACL", "SETUSER", *documented("zelect-reader", cluster.name))
    cluster.start()
    Registry(server.url, cluster.name).published(cluster.controller())
    configure(cluster, username="zelect-reader", password_file=password_file(tmp_path))
    with Observer(cluster.conf(1)) as observer:
        seen = observer.controller()
        assert seen is not None
        assert (seen.id, seen.source) == (1, "redis")


# -- passwords ----------------------------------------------------------------------------


@pytest.mark.long
def test_a_password_is_seen_nowhere(fleet: Fleet, server: RedisServer, tmp_path: Path) -> None:
    """With the right password and with a wrong one: not in logs, answers, messages, process lists."""
    with admin_of(server) as admin:
        admin.execute_command("ACL", "SETUSER", *documented("zelect-node", "none"))
    cluster = fleet.cluster((1,), redis_url=server.url, timing=CALM)
    for password in (SECRET, SECRET + "-wrong"):
        configure(cluster, username="zelect-node", password_file=password_file(tmp_path, password))
        cluster.start()
        cluster.controller()
        wait_until(lambda: cluster.ask(1)["redis"]["problem"] not in ("", "not asked yet"), what="a problem")
        pid = cluster.ask(1)["pid"]
        seen = [Path(f"/proc/{pid}/cmdline").read_text(), json.dumps(cluster.ask(1)), cluster.log_of(1).read_text()]
        for arguments in (("--json",), ()):
            seen.append(zelect("status", "-c", cluster.conf(1), *arguments).stdout)
        assert "WRONGPASS" in seen[1] or "ACL SETUSER" in seen[1]
        assert not [text for text in seen if SECRET in text]
        cluster.term(1)
        assert cluster.exit_code(1) == 0
        cluster.write(1, CALM)


def test_a_password_from_the_environment(server: RedisServer) -> None:
    with admin_of(server) as admin:
        admin.execute_command("ACL", "SETUSER", *documented("zelect-node", "demo"))
    name = "ZELECT_TEST_PASSWORD"
    os.environ[name] = SECRET
    try:
        with a_registry(server.url, Credentials("zelect-node", password_env=name)) as registry:
            assert status_of(registry, "", up=True).problem == ""
    finally:
        del os.environ[name]
    with a_registry(server.url, Credentials("zelect-node", password_env=name)) as registry:
        assert f"redis.password_env: {name} is not set" in status_of(registry, name, up=False).problem


def test_a_changed_password_needs_no_restart(server: RedisServer, tmp_path: Path) -> None:
    with admin_of(server) as admin:
        admin.execute_command("ACL", "SETUSER", *documented("zelect-node", "demo"))
        with a_registry(server.url, Credentials("zelect-node", password_file(tmp_path))) as registry:
            status_of(registry, "", up=True)
            admin.execute_command("ACL", "SETUSER", "zelect-node", "resetpass", ">another")
            for client in admin.client_list():
                if client["user"] == "zelect-node":
                    admin.client_kill_filter(_id=client["id"])
            status_of(registry, "WRONGPASS", up=False)
            password_file(tmp_path, "another")
            status_of(registry, "", up=True)
            password_file(tmp_path, "another", 0o644)
            for client in admin.client_list():
                if client["user"] == "zelect-node":
                    admin.client_kill_filter(_id=client["id"])
            assert "chmod 600" in status_of(registry, "redis.password_file", up=False).problem


@pytest.mark.parametrize("mode", [0o644, 0o640])
def test_a_node_refuses_a_password_file_that_others_can_read(fleet: Fleet, tmp_path: Path, mode: int) -> None:
    cluster = fleet.cluster((1,), redis_url=f"redis://127.0.0.1:{free_port()}/0")
    file = password_file(tmp_path, mode=mode)
    configure(cluster, password_file=file)
    done = zelect("node", "-c", cluster.conf(1))
    assert done.returncode == 2
    assert f"{cluster.conf(1)}: redis.password_file: {file}: can be read or changed by others" in done.stderr
    assert f"chmod 600 {file}" in done.stderr
    assert SECRET not in done.stdout + done.stderr
    assert not cluster.data_dirs[1].exists(), "changed nothing"


def test_a_password_on_the_command_line_is_refused(tmp_path: Path) -> None:
    for url in (f"redis://:{SECRET}@127.0.0.1:1/0", f"redis://127.0.0.1:1/0?password={SECRET}"):
        done = zelect("cluster", "up", 1, "--dir", tmp_path / "c", "--redis", url)
        assert done.returncode == 2
        assert "ZELECT_REDIS_URL" in done.stderr
        assert SECRET not in done.stdout + done.stderr
        assert not (tmp_path / "c").exists()


@pytest.mark.long
def test_a_local_cluster_takes_the_url_from_the_environment_and_shows_no_password(
    server: RedisServer, tmp_path: Path
) -> None:
    with admin_of(server) as admin:
        admin.execute_command("ACL", "SETUSER", *documented("zelect-node", "demo", "pass-word"))
    url = f"redis://zelect-node:pass-word@127.0.0.1:{server.port}/0"
    directory = tmp_path / "c"
    run = [sys.executable, "-m", "zelect", "cluster"]
    up = [*run, "up", "1", "--detach", "--dir", str(directory), "--base-port", str(free_port())]
    done = subprocess.run(
        up,
        env={**os.environ, "PYTHONPATH": str(ROOT), "ZELECT_REDIS_URL": url},
        capture_output=True,
        text=True,
        timeout=90,
    )
    try:
        assert done.returncode == 0, done.stderr
        with admin_of(server) as admin:
            wait_until(lambda: admin.hget("zelect:{demo}:controller", "id") == "1", what="published with the password")
        control = json.loads((directory / "supervisor.json").read_text())
        pids = [control["pid"], *(pid for pid, _ in control["children"])]
        lines = "".join(Path(f"/proc/{pid}/cmdline").read_text() for pid in pids)
        shown = zelect("cluster", "status", "--dir", directory, "--json").stdout
        logs = "".join(path.read_text() for path in (directory / "logs").iterdir())
        assert "***@" in shown
        assert "pass-word" not in lines + shown + logs + done.stdout + done.stderr
        secret_files = [
            path for path in directory.rglob("*") if path.is_file() and "pass-word" in path.read_text("latin-1")
        ]
        assert secret_files
        assert not [path for path in secret_files if path.stat().st_mode & 0o077]
    finally:
        subprocess.run([*run, "down", "--dir", str(directory)], capture_output=True, timeout=60)


# -- TLS ----------------------------------------------------------------------------------


def test_a_cluster_runs_with_redis_behind_tls(fleet: Fleet, server: RedisServer, authority: Papers) -> None:
    """Registry and witness, with a certificate of the node's own."""
    cert, key = authority.issue("localhost")
    own_cert, own_key = authority.issue("node1")
    with tls_proxy(server.port, cert, key, client_ca=authority.ca_file) as port:
        cluster = fleet.cluster((1, 2), redis_url=f"rediss://localhost:{port}/0", timing=CALM)
        configure(cluster, ca_file=authority.ca_file, cert_file=own_cert, key_file=own_key)
        cluster.start()
        head = cluster.adapted(1, 2)  # the witness is a member
        Registry(server.url, cluster.name).published(head)
        assert [cluster.ask(node)["redis"]["problem"] for node in cluster.ids] == ["", ""]
        cluster.kill(head.id)
        left = 3 - head.id
        second = cluster.settled(left, term_above=head.term)  # by the witness's vote
        Registry(server.url, cluster.name).published(second)
        assert not cluster.events(left, "redis_not_verified")


def test_what_is_wrong_with_tls_is_named(server: RedisServer, authority: Papers, tmp_path: Path) -> None:
    cert, key = authority.issue("localhost")
    own_cert, own_key = authority.issue("node1")
    unknown = papers(tmp_path / "unrecognized")
    with tls_proxy(server.port, cert, key) as port, tls_proxy(server.port, cert, key, authority.ca_file) as strict:
        good, by_ip = f"rediss://localhost:{port}/0", f"rediss://127.0.0.1:{port}/0"
        for url, credentials, word in (
            (good, Credentials(), "redis.ca_file"),
            (good, Credentials(ca_file=unknown.ca_file), "redis.ca_file"),
            (by_ip, Credentials(ca_file=authority.ca_file), "is not for 127.0.0.1"),
            (f"rediss://localhost:{strict}/0", Credentials(ca_file=authority.ca_file), "redis.cert_file"),
            (f"rediss://localhost:{server.port}/0", Credentials(ca_file=authority.ca_file), "without TLS"),
        ):
            with a_registry(url, credentials) as registry:
                assert "TLS" in status_of(registry, word, up=False).problem, url
        for url, credentials in (
            (good, Credentials(ca_file=authority.ca_file)),
            (by_ip, Credentials(tls_verify=False)),
            (
                f"rediss://localhost:{strict}/0",
                Credentials(ca_file=authority.ca_file, cert_file=own_cert, key_file=own_key),
            ),
        ):
            with a_registry(url, credentials) as registry:
                assert status_of(registry, "", up=True).problem == ""


def test_the_witness_verifies_too(server: RedisServer, authority: Papers) -> None:
    cert, key = authority.issue("localhost")
    with tls_proxy(server.port, cert, key) as port, zmq.Context() as context:
        for credentials, ready in ((Credentials(), False), (Credentials(ca_file=authority.ca_file), True)):
            client = WitnessClient(context, settings_of(f"rediss://localhost:{port}/0", credentials, timeout_ms=5000))
            client.start()
            try:
                client.submit([WitnessLook(None)])
                assert answers_of(client) == [WitnessSeen(None, ready=ready, same=False)]
                assert bool(client.problem) is not ready
            finally:
                client.close()


def test_an_unverified_server_is_warned_about(fleet: Fleet, server: RedisServer, authority: Papers) -> None:
    cert, key = authority.issue("elsewhere.example")
    with tls_proxy(server.port, cert, key) as port:
        cluster = fleet.cluster((1,), redis_url=f"rediss://127.0.0.1:{port}/0", timing=CALM)
        configure(cluster, tls_verify=False)
        cluster.start()
        Registry(server.url, cluster.name).published(cluster.controller())
        (warning,) = cluster.events(1, "redis_not_verified")
        assert warning["level"] == "warning"
        assert "redis.ca_file" in warning["fix"]


def test_files_for_tls_are_checked_before_the_start(authority: Papers, tmp_path: Path) -> None:
    cert, key = authority.issue("node1")
    other_cert, _ = authority.issue("node2")
    Credentials(ca_file=authority.ca_file, cert_file=cert, key_file=key).check(tls=True)
    noise = tmp_path / "noise.pem"
    noise.write_text("noise")
    noise.chmod(0o600)
    wide = tmp_path / "wide.key"
    wide.write_bytes(Path(key).read_bytes())
    wide.chmod(0o644)
    for credentials, key_name, word in (
        (Credentials(ca_file=str(tmp_path / "nowhere")), "ca_file", "No such file"),
        (Credentials(ca_file=str(noise)), "ca_file", "no certificate"),
        (Credentials(cert_file=str(noise), key_file=key), "cert_file", "PEM"),
        (Credentials(cert_file=other_cert, key_file=key), "cert_file", "key values mismatch"),
        (Credentials(cert_file=cert, key_file=str(wide)), "key_file", f"chmod 600 {wide}"),
        (Credentials(cert_file=cert, key_file=str(tmp_path / "nowhere")), "key_file", "No such file"),
    ):
        with pytest.raises(CredentialsError, match=f"^redis.{key_name}: ") as caught:
            credentials.check(tls=True)
        assert word in str(caught.value)


# -- warnings -----------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["volatile-lru", "allkeys-lru", "volatile-ttl"])
def test_an_eviction_policy_is_warned_about(server: RedisServer, policy: str) -> None:
    with admin_of(server) as admin, a_registry(server.url) as registry:
        admin.config_set("maxmemory-policy", policy)
        assert status_of(registry, "", up=True).problem == "", "without maxmemory nothing is evicted"
        admin.config_set("maxmemory", "1gb")
    with a_registry(server.url) as registry:
        problem = status_of(registry, policy, up=True).problem
        assert "noeviction" in problem


def entry(address: str, incarnation: int = 1, status: str = "running") -> str:
    table = {"address": address, "incarnation": incarnation, "role": "follower", "status": status, "term": 1}
    return json.dumps(table | {"seen_ms": 0})


def test_another_cluster_of_the_same_name_is_warned_about(server: RedisServer) -> None:
    nodes, controller = "zelect:{demo}:nodes", "zelect:{demo}:controller"
    record = {"id": "2", "term": "1", "address": MEMBERS[2], "since_ms": "0", "incarnation": "1"}
    with admin_of(server) as admin:
        for name, text in (("4", entry("tcp://10.0.0.4:7101")), ("2", entry("tcp://10.0.0.2:7101"))):
            admin.delete(nodes)
            admin.hset(nodes, name, text)
            with a_registry(server.url) as registry:
                problem = status_of(registry, "another cluster named demo", up=True).problem
                assert f"there is a node {name} at tcp://10.0.0.{name}:7101" in problem
                assert f"HDEL {nodes} {name}" in problem
        admin.delete(nodes)
        for changes in (
            {"address": "tcp://10.0.0.2:7101"},
            {"id": "9"},
            {"id": "1", "address": MEMBERS[1], "incarnation": "5"},
        ):
            admin.delete(controller)
            admin.hset(controller, mapping=record | changes)
            with a_registry(server.url) as registry:
                assert "give each its own cluster.name" in status_of(registry, "another cluster named demo").problem
        admin.delete(controller, nodes)
        admin.hset(controller, mapping=record)
        admin.hset(nodes, "2", entry(MEMBERS[2]))
        admin.hset(nodes, "9", entry("tcp://10.0.0.9:7101", status="offline"))
        admin.hset(nodes, "8", "garbage")
        with a_registry(server.url, incarnation=3) as registry:
            assert status_of(registry, "", up=True).problem == "", (
                "members, nodes that left, and garbage are no other cluster"
            )


def test_two_processes_under_one_id_are_warned_about(server: RedisServer) -> None:
    """As when two clusters with the same addresses (each on its own host's loopback) share a Redis."""
    with a_registry(server.url, incarnation=1) as one, a_registry(server.url, incarnation=7) as other:
        assert status_of(one, "", up=True).problem == ""
        assert status_of(other, "", up=True).problem == ""
        with admin_of(server) as admin:
            # The entry is the other one's; the first one checks before it writes again.
            admin.execute_command("ACL", "SETUSER", "default", "-pexpire")
            try:
                one.submit([leadership()])
                wait_until(
                    lambda: (
                        one.pipe.poll(100) is not None
                        and one.receive() is not None
                        and "another process writes as node 1" in one.status.problem
                    )
                )
            finally:
                admin.execute_command("ACL", "SETUSER", "default", "+@all")


def test_too_many_entries_are_not_read(server: RedisServer) -> None:
    with admin_of(server) as admin:
        admin.hset("zelect:{demo}:nodes", mapping={str(number): "x" for number in range(1001)})
        with a_registry(server.url) as registry:
            assert "1001 entries" in status_of(registry, "entries", up=True).problem


@pytest.mark.long
def test_two_real_clusters_of_one_name_are_reported(fleet: Fleet, server: RedisServer, tmp_path: Path) -> None:
    clusters = [Cluster(tmp_path / where, "same", (1,), server.url, CALM) for where in ("here", "there")]
    fleet.clusters += clusters
    clusters[0].start()
    clusters[0].controller()
    clusters[1].start()
    clusters[1].controller()

    def told(cluster: Cluster) -> bool:
        return "own cluster.name" in cluster.ask(1)["redis"]["problem"]

    wait_until(lambda: any(told(cluster) for cluster in clusters), 30, what="a warning in the status")
    (loud,) = [cluster for cluster in clusters if told(cluster)][:1]
    assert any("own cluster.name" in fact["problem"] for fact in loud.events(1, "redis_connected", "redis_failed"))
    assert "own cluster.name" in re.sub(r"\s+", " ", zelect("status", "-c", loud.conf(1)).stdout)


@pytest.mark.long
def test_a_shared_witness_is_reported(fleet: Fleet, server: RedisServer) -> None:
    """A newer memory of another cluster is where this one's should be."""
    cluster = fleet.cluster((1, 2), redis_url=server.url, timing=CALM)
    with zmq.Context() as context:
        rival = WitnessClient(
            context, settings_of(server.url, timeout_ms=5000, cluster=cluster.name, node=7, incarnation=7)
        )
        rival.start()
        try:
            rival.submit([WitnessCreate("theirs", 1000, made_record(1000, 1, (1, 2, 3), None, 5))])
            assert isinstance(answers_of(rival)[0], WitnessCreated)
        finally:
            rival.close()
    cluster.start()
    head = cluster.controller()
    wait_until(lambda: "witness memory" in cluster.ask(head.id)["redis"]["problem"], 30, what="the warning")
    (told, *_) = cluster.events(head.id, "witness_failed")
    assert told["level"] == "warning"
    assert "own cluster.name" in told["problem"]


def test_withdrawal_needs_its_permissions_at_the_start(server: RedisServer, tmp_path: Path) -> None:
    """A permission that is needed only at the end is reported at the start."""
    with admin_of(server) as admin:
        admin.execute_command("ACL", "SETUSER", *documented("zelect-node", "demo"), "-hdel", "-hgetall")
        with a_registry(server.url, Credentials("zelect-node", password_file(tmp_path))) as registry:
            problem = status_of(registry, "ACL SETUSER zelect-node +hdel +hgetall", up=True).problem
            assert "docs/security.md" in problem
            admin.execute_command("ACL", "SETUSER", "zelect-node", "+hdel", "+hgetall")
            registry.submit([WithdrawController(9, "leaving"), Depart(True)])
            wait_until(lambda: not admin.exists("zelect:{demo}:nodes"), what="departed")


def doctored(directory: Path, url: str, user: str = "") -> dict[str, dict[str, str]]:
    """What `zelect doctor` finds of Redis, by what it looked at."""
    more = f'username = "{user}"\npassword_file = "{password_file(directory)}"\n' if user else ""
    text = render("demo", 1, "127.0.0.1", {1: free_port()}, url, {1: str(directory / "data")}, None, "text")
    conf = directory / "n1.toml"
    conf.write_text(text.replace("[redis]\n", f"[redis]\n{more}", 1))
    table = json.loads(zelect("doctor", "--json", "-c", conf).stdout)
    return {one["what"]: one for one in table["findings"] if one["what"].startswith("Redis")}


def test_the_doctor_is_content_with_the_documented_user_and_names_what_another_lacks(
    server: RedisServer, tmp_path: Path
) -> None:
    with admin_of(server) as admin:
        words = documented("zelect-node", "demo")
        admin.execute_command("ACL", "SETUSER", *words)
        told = doctored(tmp_path, server.url, "zelect-node")
        assert {one["verdict"] for one in told.values()} == {"ok"}, told
        assert told["Redis persistence"]["figure"] == "unknown", "CONFIG is not for nodes"
        admin.execute_command("ACL", "SETUSER", "zelect-node", "-hset")
        told = doctored(tmp_path, server.url, "zelect-node")
        assert told["Redis permissions"]["verdict"] == "bad"
        assert told["Redis permissions"]["advice"].endswith("ACL SETUSER zelect-node +hset")


def test_the_doctor_names_another_cluster_with_the_same_keys(server: RedisServer, tmp_path: Path) -> None:
    with admin_of(server) as admin:
        record = {"id": 7, "term": 3, "address": "tcp://10.0.0.7:7101", "incarnation": 5, "since_ms": 1}
        admin.hset("zelect:{demo}:controller", mapping=record)
    told = doctored(tmp_path, server.url)
    assert told["Redis keys"]["verdict"] == "bad"
    assert "node 7 at tcp://10.0.0.7:7101" in told["Redis keys"]["advice"]


def test_the_doctor_names_a_node_of_a_redis_cluster_and_a_sentinel(tmp_path: Path) -> None:
    """Both answer INFO and PING like any other server."""
    for mode, word in (("cluster", "part of a Redis Cluster"), ("sentinel", "is a Sentinel")):
        with pretending(mode) as url:
            told = doctored(tmp_path, url)
        bad = [one for one in told.values() if one["verdict"] == "bad"]
        assert [word in one["advice"] for one in bad] == [True], told


@contextmanager
def pretending(mode: str) -> Iterator[str]:
    """A server that answers what a node of a Redis Cluster, or a Sentinel, answers; its URL."""
    info = f"redis_mode:{mode}\r\nrole:master\r\nmaxmemory_policy:noeviction\r\n"

    def reply(words: list[bytes]) -> bytes:
        match words[0].upper():
            case b"INFO":
                return b"$%d\r\n%s\r\n" % (len(info), info.encode())
            case b"GET" if mode == "cluster":
                return b"$-1\r\n"
            case b"EVALSHA" if mode == "cluster":
                texts = [b"hset nodes yes", b"0", b"noeviction", b"0", b"", b"", b"", b""]
                return b"*8\r\n" + b"".join(b"$%d\r\n%s\r\n" % (len(text), text) for text in texts)
            case b"CONFIG" if mode == "cluster":
                return b"*2\r\n$4\r\nsave\r\n$6\r\n3600 1\r\n"
        return b"-ERR unknown command\r\n"

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            while head := self.rfile.readline():
                words = []
                for _ in range(int(head[1:])):
                    size = int(self.rfile.readline()[1:])
                    words.append(self.rfile.read(size + 2)[:-2])
                self.wfile.write(reply(words))

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"redis://127.0.0.1:{server.server_address[1]}/0"
        finally:
            server.shutdown()
