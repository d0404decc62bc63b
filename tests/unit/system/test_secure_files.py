"""A node's files are its user's alone, whatever was there before and whatever the umask."""

from __future__ import annotations

import os
import re
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.clusters import CALM, ROOT, Cluster, Fleet
from tests.support.records import made_record
from tests.support.waiting import wait_until
from zelect.core.effects import Saved
from zelect.devcluster.layout import Layout
from zelect.node.storage.data_dir import DataDir, DataDirError
from zelect.node.storage.vote_store import VoteStore, VoteStoreError
from zelect.system.secure_files import UnsafeFile, read_secret

CLUSTER, NODE, NOBODY = "demo", 1, 65_534
FIRST = Saved(0, 0, 1, made_record(0, 1, (1,), epochs=(1,)), epoch=1)
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def use(path: Path) -> int:
    """Use `path` as a node at its start does; returns the mode of a directory that was open."""
    held = DataDir.open(path, CLUSTER, NODE)
    try:
        VoteStore.open(held, CLUSTER, NODE, FIRST).close()
        return held.was_open
    finally:
        held.close()


# -- the data directory -------------------------------------------------------------------


@pytest.mark.parametrize("umask", [0, 0o022, 0o077, 0o777])
def test_modes_do_not_depend_on_the_umask(tmp_path: Path, umask: int) -> None:
    code = (
        "import os, sys; from pathlib import Path; from tests.unit.system.test_secure_files import use\n"
        f"os.umask({umask}); use(Path(sys.argv[1]))"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "a" / "n1")], check=True, cwd=ROOT)
    assert [mode(tmp_path / "a"), mode(tmp_path / "a" / "n1")] == [0o700, 0o700]
    assert {path.name: mode(path) for path in (tmp_path / "a" / "n1").iterdir()} == {"lock": 0o600, "vote": 0o600}


@pytest.mark.parametrize("before", [0o755, 0o750, 0o711, 0o501])
def test_a_directory_that_others_can_read_is_made_private_and_that_is_logged(tmp_path: Path, before: int) -> None:
    path = tmp_path / "n1"
    path.mkdir()
    path.chmod(before)
    assert use(path) == before
    assert mode(path) == 0o700
    assert use(path) == 0


@pytest.mark.parametrize("before", [0o777, 0o1777, 0o770, 0o722, 0o702])
def test_a_directory_that_others_can_write_is_refused_with_the_fix(tmp_path: Path, before: int) -> None:
    path = tmp_path / "n1"
    path.mkdir()
    path.chmod(before)
    with pytest.raises(DataDirError) as caught:
        use(path)
    assert f"{path}: can be changed by others (mode {before:04o})" in str(caught.value)
    assert f"chmod 700 {path}" in str(caught.value)
    assert mode(path) == before
    assert not list(path.iterdir())


def _as_kubelet(path: Path, group: int) -> None:
    """Give all of `path` to `group`, to write too, as at each mount of a volume with this `fsGroup`."""
    for one in (path, *path.iterdir()):
        os.chown(one, -1, group)
        one.chmod(mode(one) | (0o2070 if one.is_dir() else 0o060))


def _starts(path: Path, *groups: int) -> subprocess.CompletedProcess[str]:
    code = "from pathlib import Path; from tests.unit.system.test_secure_files import use"
    command = [sys.executable, "-c", f"{code}; print(use(Path({str(path)!r})))"]
    return subprocess.run(command, cwd=ROOT, extra_groups=groups, capture_output=True, text=True, timeout=60)


@needs_root
def test_a_volume_that_kubernetes_gave_to_its_group_starts_every_time(tmp_path: Path) -> None:
    path, group = tmp_path / "n1", 1_954_321
    use(path)
    for _ in range(3):
        _as_kubelet(path, group)
        started = _starts(path, group)
        assert (started.returncode, started.stdout) == (0, f"{0o2770}\n"), started.stderr
        assert [mode(one) for one in (path, path / "lock", path / "vote")] == [0o700, 0o600, 0o600]


@needs_root
@pytest.mark.parametrize(("group", "own"), [(1_954_321, False), (65_534, True)], ids=["not its own", "with a name"])
def test_a_directory_that_another_group_can_write_is_refused(tmp_path: Path, group: int, own: bool) -> None:
    path = tmp_path / "n1"
    use(path)
    _as_kubelet(path, group)
    started = _starts(path, *([group] if own else []))
    assert started.returncode == 1
    assert "can be changed by others (mode 2770)" in started.stderr


def test_a_linked_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    for target in ("real", "nowhere"):
        link = tmp_path / f"link-{target}"
        link.symlink_to(tmp_path / target)
        with pytest.raises(DataDirError, match=f"link-{target}: is a symbolic link"):
            use(link)
    assert not list((tmp_path / "real").iterdir())
    assert not (tmp_path / "nowhere").exists()


@needs_root
@pytest.mark.parametrize("name", ["", "lock", "vote"])
def test_what_another_user_owns_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "n1"
    use(path)
    os.chown(path / name, NOBODY, NOBODY)
    with pytest.raises((DataDirError, VoteStoreError)) as caught:
        use(path)
    assert str(path / name) in str(caught.value)
    assert f"belongs to user {NOBODY}, but this process runs as user 0" in str(caught.value)


@pytest.mark.parametrize("name", ["lock", "vote"])
def test_files_that_others_can_read_are_made_private(tmp_path: Path, name: str) -> None:
    path = tmp_path / "n1"
    use(path)
    (path / name).chmod(0o644)
    use(path)
    assert mode(path / name) == 0o600


@pytest.mark.parametrize("name", ["lock", "vote"])
@pytest.mark.parametrize("before", [0o666, 0o620])
def test_files_that_others_can_write_are_refused(tmp_path: Path, name: str, before: int) -> None:
    path = tmp_path / "n1"
    use(path)
    content = (path / name).read_bytes()
    (path / name).chmod(before)
    with pytest.raises((DataDirError, VoteStoreError)) as caught:
        use(path)
    assert str(path / name) in str(caught.value)
    assert f"chmod 600 {path / name}" in str(caught.value)
    assert (path / name).read_bytes() == content


@pytest.mark.parametrize("name", ["lock", "vote"])
def test_linked_files_and_pipes_are_refused_and_not_written_through(tmp_path: Path, name: str) -> None:
    path, target = tmp_path / "n1", tmp_path / "target"
    path.mkdir(mode=0o700)
    target.write_text("precious")
    (path / name).symlink_to(target)
    with pytest.raises((DataDirError, VoteStoreError), match="is a symbolic link"):
        use(path)
    (path / name).unlink()
    os.mkfifo(path / name, 0o600)
    with pytest.raises((DataDirError, VoteStoreError), match="is not a regular file"):
        use(path)
    assert target.read_text() == "precious"


@pytest.mark.parametrize("kind", ["file", "link", "hard link"])
def test_a_draft_that_lies_there_is_never_written_into(tmp_path: Path, kind: str) -> None:
    path, target = tmp_path / "n1", tmp_path / "target"
    path.mkdir(mode=0o700)
    target.write_text("precious")
    draft = path / "vote.new"
    if kind == "file":
        draft.write_text("left over")
    elif kind == "link":
        draft.symlink_to(target)
    else:
        draft.hardlink_to(target)
    use(path)
    assert target.read_text() == "precious"
    assert (path / "vote").stat().st_nlink == 1
    assert not draft.exists()


def test_a_node_says_what_is_wrong_with_its_directory_and_ends(fleet: Fleet) -> None:
    cluster = fleet.cluster((1,), timing=CALM)
    cluster.data_dirs[1].mkdir()
    cluster.data_dirs[1].chmod(0o777)
    cluster.start(1)
    assert cluster.exit_code(1) == 3
    text = cluster.log_of(1).read_text()
    assert "can be changed by others (mode 0777)" in text
    assert f"chmod 700 {cluster.data_dirs[1]}" in text
    cluster.data_dirs[1].chmod(0o755)
    cluster.start(1)
    cluster.controller()
    (told,) = cluster.events(1, "data_dir_tightened")
    assert (told["level"], told["mode_before"]) == ("warning", "0755")


def test_the_directory_of_a_local_cluster_is_its_owners_alone(tmp_path: Path) -> None:
    umask = os.umask(0)
    try:
        layout = Layout(tmp_path / "made" / "here")
        os.close(layout.hold())
        layout.prepare(layout.plan(2, 20_000, "", "demo"))
    finally:
        os.umask(umask)
    made = [layout.directory, *layout.directory.rglob("*")]
    assert len(made) > 6
    assert not [f"{path} {mode(path):o}" for path in made if mode(path) & 0o077]


# -- secrets ------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["s3cret", "s3cret\n", "s3cret\r\n"])
def test_a_secret_is_one_line(tmp_path: Path, text: str) -> None:
    file = tmp_path / "password"
    file.write_bytes(text.encode())
    file.chmod(0o600)
    (tmp_path / "link").symlink_to(file)
    assert read_secret(file) == read_secret(tmp_path / "link") == "s3cret"


@pytest.mark.parametrize("content", [b"", b"\n", b"two\nlines\n", b"\xff\xfe", b"a\0b", b"x" * 4097])
def test_other_content_is_refused_and_not_shown(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "password"
    file.write_bytes(content)
    file.chmod(0o600)
    with pytest.raises(UnsafeFile, match="does not hold one line of text") as caught:
        read_secret(file)
    assert len(str(caught.value)) < 300 + len(str(file))
    assert "lines" not in str(caught.value).replace(str(file), "")


@pytest.mark.parametrize("wide", [0o644, 0o640, 0o604, 0o620, 0o602, 0o601])
def test_a_secret_that_others_can_get_at_is_refused(tmp_path: Path, wide: int) -> None:
    file = tmp_path / "password"
    file.write_text("s3cret")
    file.chmod(wide)
    with pytest.raises(UnsafeFile) as caught:
        read_secret(file)
    assert f"{file}: can be read or changed by others (mode {wide:04o})" in str(caught.value)
    assert f"chmod 600 {file}" in str(caught.value)
    assert "s3cret" not in str(caught.value)
    assert mode(file) == wide


def test_no_secret_where_there_is_none(tmp_path: Path) -> None:
    with pytest.raises(UnsafeFile, match="cannot be read: No such file"):
        read_secret(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe", 0o600)
    for path in (tmp_path, tmp_path / "pipe", Path("/dev/null")):
        with pytest.raises(UnsafeFile, match="is not a regular file"):
            read_secret(path)


@needs_root
def test_a_secret_of_another_user_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("s3cret")
    file.chmod(0o600)
    os.chown(file, NOBODY, NOBODY)
    with pytest.raises(UnsafeFile, match=f"belongs to user {NOBODY}"):
        read_secret(file)


# -- nowhere else -------------------------------------------------------------------------

WRITING = re.compile(
    r"\b(?:open|openat|creat|mkdir|mkdirat|rename|renameat2?|unlink|unlinkat|link|linkat|symlink|symlinkat|"
    r"truncate|chmod|fchmodat)\((?P<arguments>.*)"
)
PATH = re.compile(r'"([^"]*)"')


def written(trace: str) -> set[str]:
    """The paths that the calls of an strace of open files and directories could change."""
    found: set[str] = set()
    for line in trace.splitlines():
        call = WRITING.search(line)
        if call is None or ("open" in line.split("(")[0] and not re.search(r"O_(WRONLY|RDWR|CREAT|TRUNC)", line)):
            continue
        found |= set(PATH.findall(call["arguments"]))
    return found


def active_and_not(cluster: Cluster, process: subprocess.Popen[bytes]) -> None:
    assert process.poll() is None
    wait_until(lambda: cluster.active(), 40, what="the only node active")
    os.kill(cluster.ask(1)["pid"], signal.SIGTERM)  # strace would keep the signal to itself
    assert cluster.exit_code(1) == 0


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_a_node_writes_nowhere_but_in_its_data_dir(fleet: Fleet, tmp_path: Path) -> None:
    cluster = fleet.cluster((1,), timing=CALM)
    trace = tmp_path / "trace"
    calls = "open,openat,creat,mkdir,mkdirat,rename,renameat,renameat2,unlink,unlinkat,link,linkat,symlink,symlinkat,"
    command = ["strace", "-f", "-qq", "-s", "4096", "-o", str(trace), "-e", f"trace={calls}truncate,chmod,fchmodat"]
    command += [sys.executable, "-B", "-m", "zelect", "node", "-c", str(cluster.conf(1))]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}  # no HOME, no TMPDIR
    with cluster.log_of(1).open("ab") as log:
        cluster.processes[1] = subprocess.Popen(command, env=environment, cwd="/", stdout=log, stderr=log)
    active_and_not(cluster, cluster.processes[1])
    changed = written(trace.read_text(errors="replace"))
    data_dir = str(cluster.data_dirs[1])
    assert data_dir + "/vote" in changed, "the trace shows what is written"
    elsewhere = {path for path in changed if not (path + "/").startswith(data_dir + "/")}
    assert elsewhere <= {"/dev/null", "/proc/self/fd/2", "/dev/tty"}, elsewhere


def _namespaces() -> bool:
    return os.geteuid() == 0 and subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode == 0


@pytest.mark.skipif(not _namespaces(), reason="needs root and mount namespaces")
def test_a_node_runs_on_a_read_only_root(fleet: Fleet) -> None:
    """As a container with a read-only root file system and the data_dir mounted into it."""
    cluster = fleet.cluster((1,), timing=CALM)
    data_dir = cluster.data_dirs[1]
    data_dir.mkdir(mode=0o700)
    script = (
        'set -e; mount --make-rprivate /; mount --bind "$1" "$1"; '
        "for place in $(awk '{print $5}' /proc/self/mountinfo | sort -r); do "
        'case "$place" in "$1"|/proc*|/sys*|/dev*) ;; *) mount -o remount,bind,ro "$place" || true;; esac; done; '
        'cd /; if touch "$2" 2>/dev/null; then echo "not read-only" >&2; exit 9; fi; shift 2; exec "$@"'
    )
    node = [sys.executable, "-m", "zelect", "node", "-c", str(cluster.conf(1))]
    command = ["unshare", "--mount", "sh", "-c", script, "sh", str(data_dir), str(cluster.directory / "x"), *node]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    with cluster.log_of(1).open("ab") as log:
        cluster.processes[1] = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    active_and_not(cluster, cluster.processes[1])
    assert {path.name for path in data_dir.iterdir()} == {"lock", "vote"}
