"""Configuration files: what is read, what is refused and in which words."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from zelect.config.loading import Config, ConfigError, load
from zelect.config.rendering import reference, render
from zelect.config.schema import REQUIRED
from zelect.config.sections import SCHEMA
from zelect.core.settings import Settings
from zelect.core.timing import Proof, Timing

CONF = ROOT / "conf"
MEMBERS = """
[[peers]]
id = 1
address = "tcp://127.0.0.1:7101"
[[peers]]
id = 2
address = "tcp://127.0.0.2:7101"
"""
LEAST = '[cluster]\nname = "demo"\n[node]\nid = 1\n' + MEMBERS


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "n1.toml"


def read(file: Path, text: str) -> Config:
    file.write_text(text, encoding="utf-8")
    return load(file)


def refused(file: Path, text: str) -> list[str]:
    """The problems of `text`, without the file's name, which each must begin with."""
    with pytest.raises(ConfigError) as caught:
        read(file, text)
    lines = str(caught.value).splitlines()
    assert all(line.startswith(f"{file}: ") for line in lines)
    return [line.removeprefix(f"{file}: ") for line in lines]


def with_line(section: str, line: str) -> str:
    """The least configuration with one line more in `section`."""
    header = "[[peers]]" if section == "peers" else f"[{section}]"
    if header in LEAST:
        return LEAST.replace(header, f"{header}\n{line}", 1)
    return f"{LEAST}\n{header}\n{line}\n"


def test_the_least_that_is_needed(file: Path) -> None:
    config = read(file, LEAST)
    assert config.cluster.quorum == "dynamic"
    assert config.node.listen == config.address == "tcp://127.0.0.1:7101"
    assert config.node.data_dir == file.parent / "data" / "n1"
    assert config.node.priority == 0
    assert [(peer.id, peer.address) for peer in config.peers] == [
        (1, "tcp://127.0.0.1:7101"),
        (2, "tcp://127.0.0.2:7101"),
    ]
    assert [peer.data_dir for peer in config.peers] == [config.node.data_dir, None]
    assert (config.redis.url, config.redis.ttl_ms, config.redis.timeout_ms) == ("redis://127.0.0.1:6379/0", 3000, 200)
    assert config.timing == Timing()
    assert config.limits.max_message_bytes == 65536
    assert (config.log.level, config.log.format, config.log.file) == ("info", "text", "")
    assert config.path == file


def test_everything_set(file: Path) -> None:
    text = """
    [cluster]
    name = "a.B-9_"
    quorum = "static"
    [node]
    id = 7
    listen = "tcp://*:32767"
    data_dir = "../state"
    priority = 1000
    [[peers]]
    id = 65535
    address = "tcp://host-2.example:1"
    [[peers]]
    id = 7
    address = "tcp://[fd00::1]:32767"
    data_dir = "../state"
    [redis]
    url = "rediss://:hushhush@redis.example:6380/2"
    ttl_ms = 2000
    timeout_ms = 1
    [timing]
    heartbeat_ms = 10
    election_timeout_ms = 100
    lease_ms = 80
    proof = "process"
    [limits]
    max_message_bytes = 4096
    [security]
    allow_plaintext = true
    [log]
    level = "debug"
    format = "json"
    file = "n7.log"
    """
    config = read(file, text)
    assert config.node.data_dir == file.parent.parent / "state"
    assert config.log.file == str(file.parent / "n7.log")
    assert config.timing.proof is Proof.PROCESS
    assert config.settings() == Settings(
        cluster="a.B-9_",
        node=7,
        addresses={7: "tcp://[fd00::1]:32767", 65535: "tcp://host-2.example:1"},
        priority=1000,
        quorum="static",
        timing=Timing(heartbeat_ms=10, election_timeout_ms=100, lease_ms=80, proof=Proof.PROCESS),
    )
    assert [peer.id for peer in config.peers] == [7, 65535]
    assert "hushhush" not in repr(config)


@pytest.mark.parametrize("url", ["", "unix:///run/redis.sock", "unix:///run/redis.sock?db=1", "redis://[::1]:1/0"])
def test_other_redis_urls(file: Path, url: str) -> None:
    assert read(file, with_line("redis", f'url = "{url}"')).redis.url == url


@pytest.mark.parametrize(
    ("section", "line", "problem"),
    [
        ("cluster", 'quorum = "most"', 'cluster.quorum: is "most"; set one of "dynamic", "static"'),
        ("cluster", "quorun = 1", "cluster.quorun: unknown key; the nearest is quorum"),
        ("node", "data_dri = 1", "node.data_dri: unknown key; the nearest is data_dir"),
        ("node", 'zzz = "x"', "node.zzz: unknown key; the nearest is "),
        ("peers", "adress = 1", "peers[1].adress: unknown key; the nearest is address"),
        ("clusters", "a = 1", "clusters: unknown section; the nearest is [cluster]"),
        ("node", "priority = -1", "node.priority: is -1; must lie between 0 and 1000"),
        ("node", "priority = 1001", "node.priority: is 1001; must lie"),
        ("node", "priority = true", "node.priority: is of type boolean, but must be of type integer"),
        ("node", "priority = 1.0", "node.priority: is of type float, but must be of type integer"),
        ("node", "priority = 2026-01-01", "node.priority: is of type date or time, but must be of type integer"),
        ("node", "data_dir = []", "node.data_dir: is of type array, but must be of type text"),
        ("node", "data_dir.x = 1", "node.data_dir: is of type table, but must be of type text"),
        ("node", 'data_dir = ""', "node.data_dir: is empty or has a zero byte; write a path"),
        ("node", 'data_dir = "a\\u0000"', "node.data_dir: is empty or has a zero byte"),
        (
            "node",
            'advertise = "tcp://127.0.0.1:7101"',
            "node.advertise: is no longer a key: others connect",
        ),
        (
            "node",
            'listen = "tcp://127.0.0.1:32768"',
            "node.listen: has port 32768; choose one from 1 to 32767; higher ports are e",
        ),
        ("node", 'listen = "tcp://127.0.0.1:0"', "node.listen: has port 0; choose one from 1 to 32767"),
        ("node", 'listen = "127.0.0.1:7101"', 'node.listen: is "127.0.0.1:7101"; write "tcp://host:port"'),
        ("redis", "ttl_ms = 1999", "redis.ttl_ms: is 1999; must lie between 2000 and 86400000 ms"),
        ("redis", "timeout_ms = 0", "redis.timeout_ms: is 0; must lie between 1 and 60000 ms"),
        ("redis", 'url = "http://h:1/0"', "redis.url: is not the URL of a Redis server; write "),
        ("timing", "heartbeat_ms = 1", "timing.heartbeat_ms: is 1, but must lie between 5 and 60000"),
        ("timing", "lease_ms = 499", "timing.lease_ms: is 499, but a lease must end before the voters' promises do"),
        ("timing", "heartbeat_ms = 201", "timing.heartbeat_ms: is 201, but a lease of 400 ms must survive one lost"),
        ("timing", 'heartbeat_ms = "100"', "timing.heartbeat_ms: is of type text, but must be of type integer"),
        ("timing", 'proof = "maybe"', 'timing.proof: is "maybe"; set one of "refused", "process", "none"'),
        ("limits", "max_message_bytes = 4095", "limits.max_message_bytes: is 4095; must lie between 4096 and "),
        ("log", 'level = "INFO"', 'log.level: is "INFO"; set one of "debug", "info", "warning", "error"'),
        ("log", 'format = "xml"', 'log.format: is "xml"; set one of "text", "json"'),
    ],
)
def test_one_mistake_is_one_line(file: Path, section: str, line: str, problem: str) -> None:
    found = refused(file, with_line(section, line))
    assert len(found) == 1
    assert found[0].startswith(problem)


@pytest.mark.parametrize(
    "address",
    [
        *("", "tcp://", "tcp://h", "tcp://h:", "tcp://:1", "udp://h:1", "TCP://h:1", "tcp://h:1/", "tcp://h:01"),
        *("tcp://h:x", "tcp://h:1\\n", "tcp://a b:1", "tcp://::1:1", "tcp://[h]:1", "tcp://[]:1", "tcp://h:٣"),
        *("tcp://h:123456", "tcp://a@b:1", "tcp://0.0.0.0:1", "tcp://*:1", "tcp://[::]:1", "tcp://0:1"),
        *("tcp://[0:0::0]:1", "tcp://h:32768", "tcp://h:65535"),
    ],
)
def test_addresses_that_nobody_can_connect_to(file: Path, address: str) -> None:
    found = refused(file, LEAST.replace("tcp://127.0.0.2:7101", address))
    assert len(found) == 1
    assert found[0].startswith("peers[2].address: ")


@pytest.mark.parametrize("host", ["0.0.0.0", "*", "[::]", "127.0.0.1", "eth0"])
def test_a_node_may_listen_everywhere(file: Path, host: str) -> None:
    listen = f"tcp://{host}:7101"
    text = with_line("node", f'listen = "{listen}"') + "[security]\nallow_plaintext = true\n"
    assert read(file, text).node.listen == listen


@pytest.mark.parametrize("host", ["0.0.0.0", "*", "[::]", "10.0.0.1", "eth0", "127.0.0.1.example", "128.0.0.1"])
def test_plain_text_beyond_this_host_must_be_allowed_explicitly(file: Path, host: str) -> None:
    text = with_line("node", f'listen = "tcp://{host}:7101"')
    found = refused(file, text)
    assert len(found) == 1
    assert found[0].startswith(f"node.listen: tcp://{host}:7101 can be reached from other hosts")
    assert "zelect keygen" in found[0]
    assert "security.allow_plaintext = true" in found[0]
    assert refused(file, text + "[security]\nallow_plaintext = false\n") == found
    keys = '[security]\nkey_file = "keys/n1.key"\ndirectory_file = "/k/public.toml"\n'
    security = read(file, text + keys).security
    assert (security.key_file, security.directory_file) == (str(file.parent / "keys" / "n1.key"), "/k/public.toml")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.255.0.3", "localhost", "[::1]"])
def test_plain_text_on_this_host_needs_no_permission(file: Path, host: str) -> None:
    assert not read(file, with_line("node", f'listen = "tcp://{host}:7101"')).security.allow_plaintext


@pytest.mark.parametrize(("given", "missing"), [("key_file", "directory_file"), ("directory_file", "key_file")])
def test_a_key_and_a_directory_go_together(file: Path, given: str, missing: str) -> None:
    found = refused(file, with_line("security", f'{given} = "x"'))
    assert len(found) == 1
    assert found[0].startswith(f"security.{missing}: is missing")


@pytest.mark.parametrize("name", ["", "a b", "é", "{x}", "x" * 65, "a\\n"])
def test_cluster_names(file: Path, name: str) -> None:
    found = refused(file, LEAST.replace('"demo"', f'"{name}"'))
    assert len(found) == 1
    assert found[0].startswith("cluster.name: is ")


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ('url = "redis://:hunter2@h/0"\npassword_file = "p"', "redis.password_file: redis.url and redis.password_file"),
        (
            'url = "redis://h/0?password=hunter2"\npassword_env = "P"',
            "redis.password_env: redis.url and redis.password",
        ),
        ('password_file = "p"\npassword_env = "P"', "redis.password_env: redis.password_file and redis.password_env"),
        ('username = "u"', "redis.username: goes with password_file or password_env"),
        ('url = "redis://v:hunter2@h/0"\nusername = "u"', "redis.username: goes with password_file or password_env"),
        ('url = "redis://v@h/0"\nusername = "u"\npassword_env = "P"', "redis.username: goes with password_file or"),
        ('url = "rediss://h/0?ssl_cert_reqs=none"', "redis.url: holds options of TLS; set redis.ca_file"),
        ('ca_file = "ca.pem"', "redis.ca_file: is for TLS only; write rediss:// in redis.url"),
        ("tls_verify = false", "redis.tls_verify: is for TLS only; write rediss:// in redis.url"),
        ('url = "rediss://h/0"\ncert_file = "c.pem"', "redis.cert_file: and redis.key_file go together"),
        ('url = "rediss://h/0"\nkey_file = "c.key"', "redis.cert_file: and redis.key_file go together"),
    ],
)
def test_keys_of_redis_that_contradict_each_other(file: Path, lines: str, problem: str) -> None:
    found = refused(file, with_line("redis", lines))
    assert len(found) == 1
    assert found[0].startswith(problem)
    assert "hunter2" not in found[0]


def test_files_for_redis_are_relative_to_the_configuration(file: Path) -> None:
    lines = (
        'url = "rediss://h/0"\nusername = "u"\npassword_file = "p"\nca_file = "/ca"\ncert_file = "c"\nkey_file = "k"'
    )
    redis = read(file, with_line("redis", lines)).redis
    here = str(file.parent)
    assert (redis.password_file, redis.ca_file) == (here + "/p", "/ca")
    assert (redis.cert_file, redis.key_file, redis.tls_verify) == (here + "/c", here + "/k", True)


@pytest.mark.parametrize(
    "scheme",
    [
        "ftp://u:hunter2@h/",
        "redis://:hunter2@h:99999/0",
        "redis://:hunter2@/0",
        "unix:",
        "redis://:hunter2@h/abc",
        "redis://:hunter2@h/0?nonsense=1",
        "redis://h/0?password=hunter2&db=x",
    ],
)
def test_a_bad_redis_url_is_not_shown(file: Path, scheme: str) -> None:
    found = refused(file, with_line("redis", f'url = "{scheme}"'))
    assert len(found) == 1
    assert "hunter2" not in found[0]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (LEAST.replace("id = 1\n", "id = 3\n", 1), "node.id: 3 has no [[peers]] entry; list every member there"),
        (LEAST.replace("id = 2", "id = 1"), "node.id: 1, this node's own, has 2 [[peers]] entries; keep one"),
        (
            LEAST.replace("127.0.0.2", "127.0.0.1"),
            "peers.address: tcp://127.0.0.1:7101 is in peers[1], peers[2]; every",
        ),
        (LEAST.split("[[peers]]")[0], "node.id: 1 has no [[peers]] entry"),
        ("peers = 1\n" + LEAST.split("[[peers]]")[0], "peers: is of type integer, but must be an array of tables"),
        ("peers = [1]\n" + LEAST.split("[[peers]]")[0], "peers[1]: is of type integer, but must be a table"),
        ("log = 1\n" + LEAST, "log: is of type integer, but must be a table"),
        ("[[log]]\n" + LEAST, "log: is of type array, but must be a table"),
    ],
)
def test_members_must_fit_together(file: Path, text: str, problem: str) -> None:
    assert refused(file, text)[0].startswith(problem)


def test_the_same_member_or_directory_twice(file: Path) -> None:
    third = '[[peers]]\nid = 2\naddress = "tcp://127.0.0.3:7101"\n'
    assert refused(file, LEAST + third) == ["peers.id: 2 is in peers[2], peers[3]; every member needs its own"]
    third = '[[peers]]\nid = 3\naddress = "tcp://H:1"\n[[peers]]\nid = 4\naddress = "tcp://h:1"\n'
    assert refused(file, LEAST + third)[0].startswith("peers.address: tcp://h:1 is in peers[3], peers[4]")
    data_dir = file.parent / "data" / "n1"
    third = '[[peers]]\nid = 3\naddress = "tcp://127.0.0.3:7101"\ndata_dir = "./data/x/../n1"\n'
    assert refused(file, LEAST + third)[0].startswith(f"peers.data_dir: {data_dir} is in peers[1], peers[3]")


def test_a_data_directory_needs_to_be_said_once(file: Path) -> None:
    for section in ("node", "peers"):
        config = read(file, with_line(section, 'data_dir = "elsewhere"'))
        assert config.node.data_dir == config.peers[0].data_dir == file.parent / "elsewhere"
    twice = LEAST.replace("[node]", '[node]\ndata_dir = "here"').replace(
        "[[peers]]", '[[peers]]\ndata_dir = "there"', 1
    )
    (problem,) = refused(file, twice)
    assert problem.startswith(f"node.data_dir: is {file.parent / 'here'}, but this node's [[peers]] entry says ")
    assert read(file, twice.replace('"there"', '"../x/here"').replace('"here"', '"../x/here"')).peers[0].data_dir


def test_all_problems_come_at_once(file: Path) -> None:
    text = (
        '[cluster]\nquorum = "x"\n[node]\nid = "1"\npriorty = 1\n[[peers]]\nid = 0\n[redis]\nttl_ms = 1\n'
        '[timing]\nlease_ms = 600\nstagger_ms = 500\n[logs]\nlevel = "info"\n'
    )
    keys = {problem.split(": ")[0] for problem in refused(file, text)}
    assert keys == {
        *("cluster.quorum", "cluster.name", "node.id", "node.priorty", "peers[1].id", "peers[1].address"),
        *("redis.ttl_ms", "timing.lease_ms", "timing.stagger_ms", "logs"),
    }


def test_one_problem_hides_no_other_of_its_section(file: Path) -> None:
    text = with_line("node", 'listen = "tcp://*:7101"\npriority = -1') + '[redis]\nttl_ms = 1\nca_file = "x"\n'
    keys = [problem.split(": ")[0] for problem in refused(file, text)]
    assert keys == ["node.priority", "redis.ttl_ms", "redis.ca_file", "node.listen"]
    assert len(refused(file, LEAST + '[redis]\nurl = "rediss//h"\nca_file = "x"\n')) == 1


def test_an_empty_file_misses_what_is_required(file: Path) -> None:
    found = refused(file, "")
    assert found == [
        "cluster.name: is missing; add a line name = ... to this section",
        "node.id: is missing; add a line id = ... to [node], or give --id N or ZELECT_NODE_ID=N",
    ]


@pytest.mark.parametrize(
    ("text", "line"),
    [("[cluster]\nname = demo\n", 2), ("[cluster]\nname = ", 2), ("[a]\n\n[a]\n", 3), ("x = 1\nx = 2\n", 2)],
)
def test_toml_errors_name_the_line(file: Path, text: str, line: int) -> None:
    found = refused(file, text)
    assert len(found) == 1
    assert "not valid TOML" in found[0]
    assert f"line {line}" in found[0]


def test_files_that_cannot_be_read(file: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        load(file)
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load(file.parent)
    os.mkfifo(file)
    with pytest.raises(ConfigError, match="is not a plain file; name one"):
        load(file)
    file.unlink()
    with pytest.raises(ConfigError, match="is not a plain file"):
        load(Path("/dev/zero"))
    file.write_bytes(b"#" * (2 << 20))
    with pytest.raises(ConfigError, match="is longer than 1048576 bytes"):
        load(file)
    file.write_bytes(b"[cluster]\nname = '\xff'\n")
    with pytest.raises(ConfigError, match="not UTF-8 at byte 18"):
        load(file)
    for text in ("x = " + "[" * 100_000, "x = " + "1" * 10_000):
        assert "not valid TOML" in refused(file, text)[0]


@pytest.mark.parametrize("node", [1, 2, 3])
def test_the_demo_cluster(node: int) -> None:
    config = load(CONF / f"n{node}.toml")
    assert (config.cluster.name, config.node.id) == ("demo", node)
    assert config.settings().addresses == {id: f"tcp://127.0.0.1:710{id}" for id in (1, 2, 3)}
    assert [peer.data_dir for peer in config.peers] == [CONF / "data" / f"n{id}" for id in (1, 2, 3)]
    assert config.settings().digest() == load(CONF / "n1.toml").settings().digest()


def test_the_reference_is_what_the_schema_says() -> None:
    assert (CONF / "reference.toml").read_text() == reference(), (
        "run: python -m zelect.config.rendering > conf/reference.toml"
    )


def test_every_key_is_explained_and_has_a_default_or_an_example() -> None:
    for section, keys in SCHEMA.items():
        for key in keys:
            assert key.text.endswith("."), f"{section}.{key.name}"
            assert (key.default is None or key.default is REQUIRED) == bool(key.example), f"{section}.{key.name}"
            assert key.text.startswith("Required.") == (key.default is REQUIRED)


def test_every_default_and_every_example_is_valid(file: Path) -> None:
    lines = [line.removeprefix("# ") if re.match(r"# \w+ = ", line) else line for line in reference().splitlines()]
    config = read(file, "\n".join(lines))
    assert [peer.id for peer in config.peers] == [1, 2, 3]
    for section, keys in SCHEMA.items():
        for key in keys:
            if key.default not in (None, REQUIRED):
                assert key.check(key.default) == "", f"{section}.{key.name}"


def test_the_reference_is_what_one_gets_without_it(file: Path) -> None:
    text = (CONF / "reference.toml").read_text()
    required = re.findall(r"(?m)^# Required[^\n]*\n(?:# [^\n]*\n)*(\w+ = \S+)", text)
    assert required == ['name = "demo"', "id = 1", "id = 1", 'address = "tcp://127.0.0.1:7101"']
    peers = "".join(f'[[peers]]\nid = {id}\naddress = "tcp://127.0.0.1:710{id}"\n' for id in (1, 2, 3))
    least = read(file, '[cluster]\nname = "demo"\n[node]\nid = 1\n' + peers)
    reference = read(file, text)
    assert reference == least


def test_what_is_rendered_can_be_read(file: Path) -> None:
    ports = {3: 7203, 1: 7201, 2: 7202}
    data_dirs = {id: f'a "b"\\{id}\t\x7fé' for id in ports}
    timing: dict[str, int | str] = {"heartbeat_ms": 20, "lease_ms": 80, "election_timeout_ms": 100, "proof": "none"}
    text = render("demo", 2, "127.0.0.1", ports, "redis://:p%40ss@h:1/0", data_dirs, timing, "json")
    config = read(file, text)
    assert (config.cluster.name, config.node.id, config.log.format) == ("demo", 2, "json")
    assert {peer.id: peer.address for peer in config.peers} == {id: f"tcp://127.0.0.1:{ports[id]}" for id in ports}
    assert {peer.id: peer.data_dir for peer in config.peers} == {id: file.parent / data_dirs[id] for id in ports}
    assert config.node.data_dir == file.parent / data_dirs[2]
    assert config.redis.url == "redis://:p%40ss@h:1/0"
    assert config.timing == Timing(heartbeat_ms=20, lease_ms=80, election_timeout_ms=100, proof=Proof.NONE)
    plain = read(file, render("demo", 1, "[::1]", ports, "", {}))
    assert (plain.timing, plain.redis.url, plain.node.data_dir) == (Timing(), "", file.parent / "data" / "n1")
    assert plain.peers[1].data_dir is None
