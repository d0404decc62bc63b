"""Values of a configuration from the environment, the command line and the host's name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from zelect.config.loading import ConfigError, load
from zelect.config.origins import Setting, json_schema, settings_of
from zelect.config.sections import SCHEMA
from zelect.config.sources import NO_FILE, find, overlay, set_id, without
from zelect.core.timing import Proof

CONF = ROOT / "conf" / "n1.toml"
ALL = {
    "ZELECT_CLUSTER__NAME": "demo",
    "ZELECT_NODE_ID": "2",
    "ZELECT_PEERS": "1=tcp://127.0.0.1:7101, 2=tcp://127.0.0.1:7102",
    "ZELECT_REDIS__URL": "",
}


def problems_of(environ: dict[str, str], path: Path = CONF) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(path, environ=environ)
    return str(caught.value).splitlines()


def test_one_file_serves_all_nodes() -> None:
    for node in (1, 2, 3):
        config = load(CONF, environ={}, node_id=node)
        assert (config.node.id, config.node.listen) == (node, f"tcp://127.0.0.1:710{node}")
        assert config.node.data_dir == ROOT / "conf" / "data" / f"n{node}"
        assert load(CONF, environ={"ZELECT_NODE_ID": str(node)}).node == config.node
        assert load(CONF, environ={"ZELECT_NODE__ID": str(node)}).node == config.node
    assert load(CONF, environ={"ZELECT_NODE_ID": "2"}, node_id=3).node.id == 3, "the command line wins"


@pytest.mark.parametrize(
    ("said", "host", "node"),
    [("from-hostname", "zelect-2", 2), ("from-hostname", "n03", 3), ("from-hostname+1", "zelect-0", 1)],
)
def test_an_id_from_the_name_of_the_host(said: str, host: str, node: int) -> None:
    for in_file in (True, False):
        problems = list[str]()
        table: dict[str, dict[str, object]] = {"node": {"id": said}} if in_file else {}
        environ = {} if in_file else {"ZELECT_NODE_ID": said}
        assert set_id(table, 0, environ, host, problems) == f"the host's name, {host}"
        assert (table["node"]["id"], problems) == (node, [])


def test_a_host_whose_name_has_no_number() -> None:
    problems = list[str]()
    assert set_id({}, 0, {"ZELECT_NODE_ID": "from-hostname"}, "alpha", problems)
    assert problems == [
        'node.id: is "from-hostname", but the host\'s name, alpha, does not end in a number; give --id N or '
        "ZELECT_NODE_ID=N"
    ]


def test_every_key_can_be_set_by_the_environment() -> None:
    samples = {int: ("5", 5), str: ("text", "text"), bool: ("true", True), list: ("run me", ["run me"])}
    for section, keys in SCHEMA.items():
        for key in keys if section != "peers" else ():
            if (section, key.name) == ("node", "id"):
                continue
            raw, problems = dict[str, dict[str, object]](), list[str]()
            text, value = samples[key.kind]
            variable = f"ZELECT_{section.upper()}__{key.name.upper()}"
            assert overlay(raw, {variable: text}, problems) == {f"{section}.{key.name}": variable}
            assert (raw, problems) == ({section: {key.name: value}}, [])


def test_the_environment_wins_over_the_file_and_is_checked_like_it() -> None:
    config = load(CONF, environ={"ZELECT_TIMING__LEASE_MS": "300", "ZELECT_TIMING__PROOF": "none"})
    assert (config.timing.lease_ms, config.timing.proof) == (300, Proof.NONE)
    assert problems_of({"ZELECT_REDIS__TTL_MS": "5"}) == [
        "ZELECT_REDIS__TTL_MS: is 5; must lie between 2000 and 86400000 ms"
    ]


@pytest.mark.parametrize(
    ("variable", "text", "problem"),
    [
        ("ZELECT_REDIS__URI", "x", "ZELECT_REDIS__URI: sets no key; the nearest is ZELECT_REDIS__URL"),
        ("ZELECT_TIMING__LEASE_MS", "0x10", 'ZELECT_TIMING__LEASE_MS: is "0x10"; must be of type integer'),
        ("ZELECT_TIMING__LEASE_MS", "9" * 5000, "must be of type integer"),
        ("ZELECT_SECURITY__ALLOW_PLAINTEXT", "yes", "must be of type boolean"),
        (
            "ZELECT_PEERS",
            "1=tcp://127.0.0.1:7101,b",
            'ZELECT_PEERS: "b" is no member; write 1=tcp://host:port, with commas',
        ),
        ("ZELECT_PEERS", "1=tcp://127.0.0.1:7101,2=x", "ZELECT_PEERS: peers[2].address: is"),
        ("ZELECT_NODE_ID", "9", "ZELECT_NODE_ID: 9 has no [[peers]] entry"),
        ("ZELECT_NODE_ID", "x", 'ZELECT_NODE_ID: is "x"; write a number'),
        ("ZELECT_NODE_ID", "0", "ZELECT_NODE_ID: is 0; must lie between 1 and 65535"),
        ("ZELECT_HOOKS__ON_ELECTED", '"', "ZELECT_HOOKS__ON_ELECTED: command 1 can't be split into words"),
    ],
)
def test_a_bad_variable_is_named_with_the_fix(variable: str, text: str, problem: str) -> None:
    found = problems_of({variable: text})
    assert len(found) == 1, found
    assert problem in found[0]
    assert found[0].startswith(variable)


def test_no_file_is_needed() -> None:
    config = load(NO_FILE, environ=ALL)
    assert (config.node.id, [peer.id for peer in config.peers], config.redis.url) == (2, [1, 2], "")
    assert config.node.data_dir == Path.cwd() / "data" / "n2"
    assert problems_of({}, NO_FILE) == [
        "environment: cluster.name: is missing; add a line name = ... to this section",
        "environment: node.id: is missing; add a line id = ... to [node], or give --id N or ZELECT_NODE_ID=N",
    ]


def test_which_file_counts_where_none_is_named() -> None:
    assert find({"ZELECT_CONFIG": "here.toml", **ALL}) == Path("here.toml")
    assert find(ALL) == NO_FILE
    assert find({}) is None


def test_who_only_asks_needs_no_id(tmp_path: Path) -> None:
    text = CONF.read_text(encoding="utf-8").replace("[node]\nid = 1\n", "")
    path = tmp_path / "zelect.toml"
    path.write_text(f'{text}\n[security]\ndirectory_file = "public.toml"\noperator_key_file = "ops.secret"\n')
    config = load(path, environ={}, member=False)
    assert config.node.id == 0
    assert list(config.settings().addresses) == [1, 2, 3]
    assert problems_of({}, path)[-1].startswith(f"{path}: security.key_file: is missing")


def test_what_changes_a_configuration_is_kept_from_nodes_that_have_a_whole_one() -> None:
    kept = {"PATH": "/bin", "ZELECT_KEY": "k", "ZELECT_FAILPOINT": "f", "ZELECT_HISTORY": "h"}
    assert without({**ALL, **kept, "ZELECT_CONFIG": "c"}) == kept


def test_each_setting_says_where_it_was_set() -> None:
    config = load(CONF, environ={"ZELECT_TIMING__LEASE_MS": "300"}, node_id=3)
    found = {setting.key: setting for setting in settings_of(config, "redis://***@host")}
    assert found["node.id"] == Setting("node.id", "3", "--id")
    assert found["timing.lease_ms"] == Setting("timing.lease_ms", "300", "ZELECT_TIMING__LEASE_MS")
    assert found["cluster.name"].origin == str(CONF)
    assert found["peers.2"] == Setting("peers.2", "tcp://127.0.0.1:7102", str(CONF))
    assert found["redis.url"].value == "redis://***@host"
    assert found["limits.max_connections"].origin == "default"
    assert len(found) == sum(len(keys) for name, keys in SCHEMA.items() if name != "peers") + 3


def test_the_schema_for_editors_knows_every_key() -> None:
    schema = json.loads(json.dumps(json_schema()))
    for section, keys in SCHEMA.items():
        table = schema["properties"][section]
        known = table["items" if section == "peers" else "properties"]
        known = known["properties"] if section == "peers" else known
        assert list(known) == [key.name for key in keys]
