"""`zelect init`: the files of a cluster on several hosts."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from zelect.cli import main
from zelect.config.loading import load
from zelect.deployment.hosts import Hosts, HostsError
from zelect.deployment.systemd import NODE, RUN, units
from zelect.security.keys import read_keyring


def init(*arguments: str, code: int = 0) -> str:
    done = CliRunner().invoke(main, ["init", *arguments])
    assert done.exit_code == code, done.output
    return done.output


@pytest.mark.parametrize(
    ("listed", "addresses"),
    [
        ("a,b,c", ["tcp://a:7101", "tcp://b:7101", "tcp://c:7101"]),
        ("a:1, b.example:32767", ["tcp://a:1", "tcp://b.example:32767"]),
        ("10.0.0.1,2001:db8::1,[2001:db8::2]:7102", ["tcp://10.0.0.1:7101", "tcp://[2001:db8::1]:7101", "tcp://[2001:db8::2]:7102"]),
    ],
)  # fmt: skip
def test_hosts(listed: str, addresses: list[str]) -> None:
    assert list(Hosts.of(listed).addresses) == addresses


@pytest.mark.parametrize(
    ("listed", "problem"),
    [
        (" , ", "no hosts"),
        ("a,b,a", "a:7101 is named twice"),
        ("a b", '"a b" is no host'),
        ("*", '"*" is no host'),
        ("a:40000", "a:40000: a node's port lies between 1 and 32767"),
        ("a:0", "port lies between"),
        ("tcp://a:7101", "is no host"),
    ],
)
def test_what_is_no_host_is_named(listed: str, problem: str) -> None:
    with pytest.raises(HostsError, match=re.escape(problem)):
        Hosts.of(listed)
    assert problem in init("unused", "--hosts", listed, code=2)


def test_each_host_can_start_its_node_with_the_same_files(tmp_path: Path) -> None:
    said = init(str(tmp_path / "new"), "--hosts", "db1,db2,db3", "--redis", "redis://cache/0", "--systemd")
    for node in (1, 2, 3):
        config = load(tmp_path / "new" / "zelect.toml", node_id=node, environ={})
        assert (config.node.listen, config.address) == ("tcp://*:7101", f"tcp://db{node}:7101")
        assert config.node.data_dir == Path(f"/var/lib/zelect/n{node}")
        keyring = read_keyring(config)
        assert keyring is not None
        assert keyring.caller is not None
        assert keyring.caller.node == node
    assert "systemctl enable --now zelect@N" in said
    assert len(said.splitlines()) <= 7


def test_one_host_more_keeps_the_keys_and_says_how_it_is_added(tmp_path: Path) -> None:
    init(str(tmp_path), "--hosts", "a,b,c")
    keys = {path: path.read_bytes() for path in tmp_path.glob("keys/*") if path.name != "public.toml"}
    said = init(str(tmp_path), "--hosts", "a,b,c,d")
    assert said.endswith("then: zelect reload on the other hosts, and zelect members add 4 tcp://d:7101\n")
    assert {path: path.read_bytes() for path in keys} == keys
    assert (tmp_path / "keys" / "n4.key").exists()
    assert len(load(tmp_path / "zelect.toml", node_id=4, environ={}).peers) == 4


def test_a_file_of_somebody_else_is_kept(tmp_path: Path) -> None:
    init(str(tmp_path), "--hosts", "a,b,c", "--plain")
    file = tmp_path / "zelect.toml"
    file.write_text(text := file.read_text() + "\n[timing]\nlease_ms = 300\n")
    assert "is there already" in init(str(tmp_path), "--hosts", "a,b,c,d", "--plain", code=2)
    assert file.read_text() == text


def test_plain_text_between_hosts_is_chosen_and_on_one_host_the_default(tmp_path: Path) -> None:
    init(str(tmp_path / "net"), "--hosts", "a,b", "--plain")
    assert load(tmp_path / "net" / "zelect.toml", node_id=1, environ={}).security.allow_plaintext
    init(str(tmp_path / "here"), "--hosts", "127.0.0.1:7101,127.0.0.1:7102")
    config = load(tmp_path / "here" / "zelect.toml", node_id=2, environ={})
    assert not config.security.allow_plaintext
    assert config.node.listen == "tcp://127.0.0.1:7102"


def test_a_dry_run_prints_and_writes_nothing(tmp_path: Path) -> None:
    said = init(str(tmp_path / "new"), "--hosts", "a,b,c", "--systemd", "--dry-run")
    assert "[cluster]" in said
    assert f"--- {tmp_path / 'new' / NODE}" in said
    assert not (tmp_path / "new").exists()


def test_a_bad_name_or_url_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    assert "cluster.name" in init(str(tmp_path / "new"), "--hosts", "a,b", "--name", "a b", code=2)
    assert "redis.url" in init(str(tmp_path / "new"), "--hosts", "a,b", "--redis", "http://x", code=2)
    assert not (tmp_path / "new").exists()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is missing")
def test_systemd_finds_nothing_wrong_with_the_units(tmp_path: Path) -> None:
    for name, text in units(sys.executable).items():
        (tmp_path / name).write_text(text)
    paths = [str(tmp_path / name) for name in (NODE, RUN)]
    verified = subprocess.run(["systemd-analyze", "verify", *paths], capture_output=True, text=True, timeout=60)
    assert (verified.returncode, verified.stderr) == (0, "")
    rated = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=25", "--no-pager", paths[0]],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert rated.returncode == 0, rated.stdout[-400:]
