"""Key files: made safely, read with suspicion, changed in steps."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.clusters import zelect
from zelect.config.loading import ConfigError, load
from zelect.config.rendering import render
from zelect.security.key_files import (
    DIRECTORY_FILE,
    SECRET_FILE,
    Owner,
    add_next,
    make_keys,
    make_missing_keys,
    promote,
    retire,
    secret_file,
)
from zelect.security.keys import (
    Caller,
    KeyPair,
    Keyring,
    Permission,
    cluster_secret_of,
    keyring_to_ask,
    read_directory,
    read_key,
    read_keyring,
)

NODES = [Owner(node=1), Owner(node=2)]
ALICE = Owner(operator="alice")
BOB = Owner(operator="bob", permission=Permission.READ)


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    made = tmp_path / "keys"
    make_keys(made, [*NODES, ALICE, BOB])
    return made


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def keyring(keys: Path, node: int, changes: Callable[[str], str] = str) -> Keyring | None:
    """What node `node` reads by a configuration that `changes` may alter."""
    security = {
        "key_file": str(secret_file(keys, Owner(node=node))),
        "directory_file": str(keys / DIRECTORY_FILE),
    }
    conf = keys.parent / "n.toml"
    conf.write_text(changes(render("demo", node, "127.0.0.1", {1: 7101, 2: 7102}, "", {}, security=security)))
    return read_keyring(load(conf))


def test_what_is_made_can_be_read(keys: Path) -> None:
    directory = read_directory(keys / DIRECTORY_FILE)
    assert sorted(directory.nodes) == [1, 2]
    pairs = {owner: read_key(secret_file(keys, owner)) for owner in (*NODES, ALICE, BOB)}
    assert {directory.owners[pair.public] for pair in pairs.values()} == {
        Caller("node 1", 1, Permission.READ),
        Caller("node 2", 2, Permission.READ),
        Caller("operator alice", 0, Permission.ADMIN),
        Caller("operator bob", 0, Permission.READ),
    }
    own = keyring(keys, 2)
    assert own is not None
    assert own.pair == pairs[NODES[1]]
    assert pairs[ALICE].secret.decode() not in repr(pairs[ALICE])
    assert keyring(keys, 1, lambda text: text.split("[security]")[0]) is None, "without keys: plain text"


def test_the_cluster_has_one_secret_for_all_nodes(tmp_path: Path, keys: Path) -> None:
    def secret(path: Path | str) -> bytes:
        conf = tmp_path / "n.toml"
        conf.write_text(render("demo", 1, "127.0.0.1", {1: 7101}, "", {}, security={"secret_file": str(path)}))
        return cluster_secret_of(load(conf))

    made = keys / SECRET_FILE
    first = secret(made)
    assert len(first) == 32
    assert (mode(made), secret("")) == (0o600, b"")
    assert make_keys(keys, [Owner(node=3)]) == [secret_file(keys, Owner(node=3))]
    assert secret(made) == first, "made once"
    assert make_keys(tmp_path / "laptop", [ALICE]) == [secret_file(tmp_path / "laptop", ALICE)]
    for text in ("", 'secret = "00"', "secret = 7", 'secret = "x"'):
        made.write_text(text)
        with pytest.raises(ConfigError, match=r"holds no cluster secret.*zelect keygen"):
            secret(made)
    made.chmod(0o644)
    with pytest.raises(ConfigError, match=r"can be read by others.*chmod 600"):
        secret(made)


@pytest.mark.parametrize("umask", [0o000, 0o077, 0o777])
def test_secrets_are_their_owners_alone_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    script = (
        f"import os; os.umask({umask}); from pathlib import Path; from zelect.security.key_files import *; "
        f"make_keys(Path({str(tmp_path)!r}), [Owner(node=1)])"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
    assert mode(secret_file(tmp_path, NODES[0])) == 0o600
    assert mode(tmp_path / DIRECTORY_FILE) == 0o644
    assert [path.name for path in tmp_path.glob("*.part")] == []


def test_nothing_is_overwritten(keys: Path) -> None:
    before = {path: path.read_bytes() for path in keys.iterdir()}
    with pytest.raises(ConfigError, match=r"n2 already has a key, so nothing was changed.*--next"):
        make_keys(keys, [Owner(node=3), NODES[1]])
    assert {path: path.read_bytes() for path in keys.iterdir()} == before
    make_keys(keys, [NODES[1]], force=True)
    assert read_key(secret_file(keys, NODES[1])).public in read_directory(keys / DIRECTORY_FILE).nodes[2]
    assert secret_file(keys, NODES[1]).read_bytes() != before[secret_file(keys, NODES[1])]
    assert secret_file(keys, NODES[0]).read_bytes() == before[secret_file(keys, NODES[0])]


def test_no_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir()
    target = tmp_path / "precious"
    for owner in NODES:
        secret_file(tmp_path / "keys", owner).symlink_to(target)
    with pytest.raises(ConfigError, match="n1 already has a key"):
        make_keys(tmp_path / "keys", [NODES[0]])
    make_keys(tmp_path / "keys", [NODES[1]], force=True)
    assert not target.exists()
    assert mode(secret_file(tmp_path / "keys", NODES[1])) == 0o600


def test_what_is_missing_is_made(keys: Path) -> None:
    before = secret_file(keys, NODES[0]).read_bytes()
    make_missing_keys(keys, [*NODES, Owner(node=3)])
    assert secret_file(keys, NODES[0]).read_bytes() == before
    assert sorted(read_directory(keys / DIRECTORY_FILE).nodes) == [1, 2, 3]


@pytest.mark.parametrize("bits", [0o640, 0o604, 0o660, 0o610, 0o601, 0o644, 0o777])
def test_a_secret_open_to_others_is_refused_with_the_fix(keys: Path, bits: int) -> None:
    path = secret_file(keys, NODES[0])
    path.chmod(bits)
    with pytest.raises(ConfigError, match=rf"can be read by others \(mode {bits:04o}\); run: chmod 600 {path}"):
        read_key(path)
    path.chmod(0o400)
    read_key(path)


@pytest.mark.parametrize("bits", [0o664, 0o646, 0o666])
def test_a_directory_that_others_can_change_is_refused_with_the_fix(keys: Path, bits: int) -> None:
    path = keys / DIRECTORY_FILE
    path.chmod(bits)
    with pytest.raises(ConfigError, match=f"who could add any key.*run: chmod go-w {path}"):
        read_directory(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
@pytest.mark.parametrize("name", ["n1.key", DIRECTORY_FILE])
def test_another_users_file_is_refused(keys: Path, name: str) -> None:
    os.chown(keys / name, 12345, 12345)
    with pytest.raises(ConfigError, match=f"{name}: belongs to user 12345"):
        keyring(keys, 1)


def test_a_key_must_be_its_nodes_own(keys: Path) -> None:
    def swapped(text: str) -> str:
        return text.replace("n1.key", "n2.key")

    with pytest.raises(ConfigError, match=r"n2\.key: this key belongs to node 2, but must be node 1's"):
        keyring(keys, 1, swapped)
    with pytest.raises(ConfigError, match="this key belongs to operator alice"):
        keyring(keys, 1, lambda text: text.replace("n1.key", "operator-alice.key"))
    secret_file(keys, NODES[0]).unlink()
    with pytest.raises(ConfigError, match=r"n1\.key: cannot be read: No such file.*zelect keygen"):
        keyring(keys, 1)


def test_every_member_needs_a_key(keys: Path) -> None:
    more = '[[peers]]\nid = 9\naddress = "tcp://127.0.0.1:7109"\n\n[redis]'
    with pytest.raises(ConfigError, match=r"has no key of node 9.*zelect keygen 9"):
        keyring(keys, 1, lambda text: text.replace("[redis]", more))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[nodes]\nx = []", "nodes.x: is not a node"),
        ("[nodes]\n0 = []", "nodes.0: is not a node"),
        ("[nodes]\n1 = []", "nodes.1: must be a list of one public key"),
        ('[nodes]\n1 = "KEY"', "nodes.1: must be a list of one public key"),
        ('[nodes]\n1 = ["short"]', "nodes.1: must be a list of one public key"),
        ('[nodes]\n1 = ["KEY", "OTHER", "THIRD"]', "nodes.1: must be a list of one public key"),
        ('[nodes]\n1 = ["KEY"]\n2 = ["KEY"]', "node 2: has the key of node 1"),
        ('[nodes]\n1 = ["KEY"]\n[operators.a]\nkeys = ["KEY"]\nmay = "read"', "operator a: has the key of node 1"),
        ('[operators.a]\nkeys = ["KEY"]', "operators.a: must hold keys"),
        ('[operators.a]\nkeys = ["KEY"]\nmay = "rule"', 'operators.a: must hold keys = ["..."] and may = "read" or'),
        ('[operators.a]\nkeys = ["KEY"]\nmay = "read"\nx = 1', "operators.a: must hold keys"),
        ("[node]\n", "node: unknown section"),
        ("nodes = 1", "nodes: must be a section"),
        ("[nodes", "is not valid TOML"),
    ],
)
def test_a_directory_says_what_is_wrong_with_it(tmp_path: Path, text: str, problem: str) -> None:
    for name in ("KEY", "OTHER", "THIRD"):
        text = text.replace(name, KeyPair.new().public.decode())
    path = tmp_path / DIRECTORY_FILE
    path.write_text(text)
    path.chmod(0o644)
    with pytest.raises(ConfigError) as caught:
        read_directory(path)
    assert str(caught.value).startswith(f"{path}: {problem}")


def test_a_secret_file_that_is_none_is_not_shown(tmp_path: Path) -> None:
    path = tmp_path / "n1.key"
    one, other = KeyPair.new(), KeyPair.new()
    texts = [
        "hunter2 hunter2",
        'public = "hunter2"',
        f'public = "{one.public.decode()}"\nsecret = "{other.secret.decode()}"',
        f'secret = "{one.secret.decode()}"',
    ]
    for text in texts:
        path.write_text(text)
        path.chmod(0o600)
        with pytest.raises(ConfigError, match="zelect keygen") as caught:
            read_key(path)
        assert "hunter2" not in str(caught.value)
        assert other.secret.decode() not in str(caught.value)
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(ConfigError, match="is not a file"):
        read_key(tmp_path / "pipe")


def test_a_change_of_keys_step_by_step(keys: Path) -> None:
    path, one = keys / DIRECTORY_FILE, NODES[0]
    old = read_key(secret_file(keys, one)).public
    with pytest.raises(ConfigError):
        promote(keys, [one])
    add_next(keys, [one, BOB])
    new = read_key(secret_file(keys, one, upcoming=True)).public
    assert read_directory(path).nodes[1] == (old, new)
    assert read_key(secret_file(keys, one)).public == old
    assert mode(secret_file(keys, one, upcoming=True)) == 0o600
    with pytest.raises(ConfigError, match="n1 is already being changed"):
        add_next(keys, [one])
    promote(keys, [one, BOB])
    assert read_key(secret_file(keys, one)).public == new
    assert not secret_file(keys, one, upcoming=True).exists()
    assert read_directory(path).nodes[1] == (old, new), "the old one is still accepted"
    retire(keys, [one, BOB])
    assert read_directory(path).nodes[1] == (new,)
    with pytest.raises(ConfigError, match="there is nothing to retire"):
        retire(keys, [one, BOB])
    bob = read_key(secret_file(keys, BOB)).public
    assert read_directory(path).owners[bob] == Caller("operator bob", 0, Permission.READ), "his right is what it was"
    with pytest.raises(ConfigError, match="n7 has no key yet"):
        add_next(keys, [Owner(node=7)])
    stray = secret_file(keys, NODES[1], upcoming=True)
    stray.write_text("somebody's own")
    with pytest.raises(ConfigError, match="cannot be written: File exists"):
        add_next(keys, [NODES[1]])
    assert stray.read_text() == "somebody's own"


def test_the_key_to_ask_with(keys: Path) -> None:
    security = {"key_file": str(keys / "n1.key"), "directory_file": str(keys / DIRECTORY_FILE)}
    conf = keys.parent / "n.toml"

    def asked(given: str = "", **more: str) -> KeyPair:
        conf.write_text(render("demo", 1, "127.0.0.1", {1: 7101, 2: 7102}, "", {}, security=security | more))
        found = keyring_to_ask(load(conf), given)
        assert found is not None
        return found.pair

    alice = str(keys / "operator-alice.key")
    assert asked() == read_key(keys / "n1.key")
    assert asked(operator_key_file=alice) == read_key(keys / "operator-alice.key")
    assert asked(str(keys / "operator-bob.key"), operator_key_file=alice) == read_key(keys / "operator-bob.key")


def test_the_command_line(tmp_path: Path) -> None:
    keys = tmp_path / "k"
    made = zelect("keygen", "--dir", keys, 1, 2, 3, "--operator", "alice")
    assert made.returncode == 0
    assert made.stdout.splitlines()[-1] == f"{keys / DIRECTORY_FILE} (for every host)"
    assert sorted(path.name for path in keys.iterdir()) == [
        *(SECRET_FILE, "n1.key", "n2.key", "n3.key", "operator-alice.key", DIRECTORY_FILE)
    ]
    assert f"{keys / SECRET_FILE} (for every node's host)" in made.stdout.splitlines()
    again = zelect("keygen", "--dir", keys, 3)
    assert (again.returncode, "n3 already has a key" in again.stderr) == (2, True)
    for step in ("--next", "--promote", "--retire"):
        assert zelect("keygen", "--dir", keys, step, 3).returncode == 0
    assert zelect("keygen", "--dir", keys, "--retire", 3).returncode == 2
    assert zelect("keygen", "--dir", keys, "--operator", "bob", "--read-only").returncode == 0
    assert 'may = "read"' in (keys / DIRECTORY_FILE).read_text()
    for wrong in (["--operator", "a b"], ["--operator", "a.b"], [], ["--next", "--force", 1]):
        assert zelect("keygen", "--dir", keys, *wrong).returncode == 2
