"""The data directory's lock, held, lost and asked about by real processes (R9, R14)."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.waiting import wait_until
from zelect.node.storage.data_dir import DataDir, DataDirError, DataDirInUse, lock_evidence
from zelect.node.storage.data_dir import holder as node_pid

CLUSTER, NODE, INCARNATION = "demo", 2, 77

HOLDER = """
import os, sys, time
from pathlib import Path
from zelect.node.storage.data_dir import DataDir

data_dir = DataDir.open(Path(sys.argv[1]), "demo", 2)
data_dir.announce(int(sys.argv[2]))
child = 0
if sys.argv[3] == "fork":
    child = os.fork()
    if child == 0:
        time.sleep(600)
        os._exit(0)
print(child, flush=True)
sys.stdin.read()
"""


@contextmanager
def holder(
    path: Path, incarnation: int = INCARNATION, how: str = "plain"
) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A process that holds `path`, and the pid of its forked child (0: none)."""
    command = [sys.executable, "-c", HOLDER, str(path), str(incarnation), how]
    child = 0
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            child = int(process.stdout.readline())
            yield process, child
        finally:
            process.kill()
            process.wait()
            if child:
                os.kill(child, 9)


def evidence(path: Path, incarnation: int = INCARNATION) -> bool:
    return lock_evidence(path, CLUSTER, NODE, incarnation)


def test_the_directory_is_private_and_made_with_its_parents(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "n2"
    held = DataDir.open(path, CLUSTER, NODE)
    assert held.path == path
    assert not held.ran_before
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert stat.S_IMODE((path / "lock").stat().st_mode) == 0o600
    held.close()


def test_only_a_node_that_announced_itself_ran_before(tmp_path: Path) -> None:
    for announced in (False, False, True):
        held = DataDir.open(tmp_path, CLUSTER, NODE)
        assert not held.ran_before
        if announced:
            held.announce(INCARNATION)
        held.close()
    held = DataDir.open(tmp_path, CLUSTER, NODE)
    assert held.ran_before
    held.close()


def test_the_announcement_names_the_holder_and_is_written_in_place(tmp_path: Path) -> None:
    held = DataDir.open(tmp_path, CLUSTER, NODE)
    inode = (tmp_path / "lock").stat().st_ino
    for incarnation in (2**53 - 1, 7):
        held.announce(incarnation)
    held.close()
    words = (tmp_path / "lock").read_text().split()
    assert words[:4] == [CLUSTER, str(NODE), "7", str(os.getpid())]
    assert (tmp_path / "lock").stat().st_ino == inode == int(words[4])


def test_a_second_process_is_refused_and_learns_which_to_stop(tmp_path: Path) -> None:
    with holder(tmp_path) as (process, _):
        for _ in range(3):
            with pytest.raises(DataDirInUse) as caught:
                DataDir.open(tmp_path, CLUSTER, NODE)
            assert caught.value.pid == process.pid
            assert str(tmp_path) in str(caught.value)
            assert f"process {process.pid}" in str(caught.value)
        assert not evidence(tmp_path)


def test_a_second_node_in_the_same_process_is_refused_and_takes_no_lock_away(tmp_path: Path) -> None:
    held = DataDir.open(tmp_path, CLUSTER, NODE)
    held.announce(INCARNATION)
    with pytest.raises(DataDirInUse) as caught:
        DataDir.open(tmp_path, CLUSTER, NODE)
    assert caught.value.pid == os.getpid()
    assert locked_for_others(tmp_path)
    held.close()
    assert not locked_for_others(tmp_path)


def test_a_program_may_look_at_read_and_copy_its_own_data_dir(tmp_path: Path) -> None:
    """A backup of it, say. With `fcntl.lockf` each close of the file would drop the lock."""
    held = DataDir.open(tmp_path / "n2", CLUSTER, NODE)
    held.announce(INCARNATION)
    (tmp_path / "alias").symlink_to(tmp_path / "n2")
    assert not evidence(tmp_path / "n2")
    assert not evidence(tmp_path / "alias")
    assert node_pid(tmp_path / "n2", CLUSTER, NODE) == os.getpid()
    assert (tmp_path / "n2" / "lock").read_text().startswith("demo 2 77")
    shutil.copytree(tmp_path / "n2", tmp_path / "backup")
    with (tmp_path / "n2" / "lock").open("r+b") as again:
        again.read()
    assert locked_for_others(tmp_path / "n2")
    with pytest.raises(DataDirInUse):
        DataDir.open(tmp_path / "n2", CLUSTER, NODE)
    assert locked_for_others(tmp_path / "n2")
    held.close()
    assert not locked_for_others(tmp_path / "n2")


def test_a_child_that_closes_everything_does_not_drop_the_lock(tmp_path: Path) -> None:
    held = DataDir.open(tmp_path, CLUSTER, NODE)
    child = os.fork()
    if child == 0:
        os.closerange(3, 256)
        os._exit(0)
    os.waitpid(child, 0)
    assert locked_for_others(tmp_path)
    held.close()


def locked_for_others(path: Path) -> bool:
    """Whether another process is kept out."""
    code = f"import fcntl; fcntl.lockf(open({str(path / 'lock')!r}, 'r+'), fcntl.LOCK_EX | fcntl.LOCK_NB)"
    return subprocess.run([sys.executable, "-c", code], stderr=subprocess.DEVNULL).returncode != 0


def test_a_killed_holder_is_proven_dead(tmp_path: Path) -> None:
    with holder(tmp_path) as (process, _):
        assert not evidence(tmp_path)
        process.kill()
        assert wait_until(lambda: evidence(tmp_path))  # not yet reaped: the kernel knows before its parent
    held = DataDir.open(tmp_path, CLUSTER, NODE)
    assert held.ran_before
    assert not evidence(tmp_path)
    held.close()


def test_a_forked_child_that_survives_hides_nothing(tmp_path: Path) -> None:
    with holder(tmp_path, how="fork") as (process, child):
        assert child
        process.kill()
        process.wait()
        os.kill(child, 0)  # lives on; it closes what it inherited as soon as it runs
        assert wait_until(lambda: evidence(tmp_path))
        DataDir.open(tmp_path, CLUSTER, NODE).close()


def test_a_frozen_holder_is_not_dead(tmp_path: Path) -> None:
    with holder(tmp_path) as (process, _):
        os.kill(process.pid, 19)
        assert not evidence(tmp_path)


def test_a_process_that_took_over_is_no_evidence(tmp_path: Path) -> None:
    with holder(tmp_path, 5):
        pass
    assert evidence(tmp_path, 5)
    held = DataDir.open(tmp_path, CLUSTER, NODE)
    try:
        # Only another process can ask: this one holds the lock.
        asking = "import sys; from pathlib import Path; from zelect.node.storage.data_dir import lock_evidence as e"
        for announced in (None, 6):
            if announced:
                held.announce(announced)
            code = f"{asking}; print([e(Path(sys.argv[1]), 'demo', 2, incarnation) for incarnation in (5, 6)])"
            command = [sys.executable, "-c", code, str(tmp_path)]
            answer = subprocess.run(command, capture_output=True, text=True, check=True)
            assert answer.stdout == "[False, False]\n"
    finally:
        held.close()
    assert evidence(tmp_path, 6)
    assert not evidence(tmp_path, 5)


@pytest.mark.parametrize(
    ("cluster", "node", "incarnation"),
    [
        ("demo", 2, 76),
        ("demo", 2, 7),
        ("demo", 2, 777),
        ("demo", 1, 77),
        ("dem", 2, 77),
        ("", 2, 77),
        ("demo 2", 77, 77),
    ],
)
def test_another_identity_is_no_evidence(tmp_path: Path, cluster: str, node: int, incarnation: int) -> None:
    with holder(tmp_path):
        pass
    assert evidence(tmp_path)
    assert not lock_evidence(tmp_path, cluster, node, incarnation)


def test_a_copy_of_the_directory_is_no_evidence(tmp_path: Path) -> None:
    with holder(tmp_path / "n2"):
        shutil.copytree(tmp_path / "n2", tmp_path / "copy")
        assert not evidence(tmp_path / "copy")


@pytest.mark.parametrize("content", [b"", b"demo 2 77", b"demo 2 77 1", b"\xff\xfe", b"demo 2 77 1 0", b"x" * 4096])
def test_odd_content_is_no_evidence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "lock").write_bytes(content)
    assert not evidence(tmp_path)


def test_odd_files_are_no_evidence(tmp_path: Path) -> None:
    assert not evidence(tmp_path / "nowhere")
    assert not evidence(Path("\0"))
    for name in ("directory", "pipe", "link"):
        (tmp_path / name).mkdir()
    (tmp_path / "directory" / "lock").mkdir()
    os.mkfifo(tmp_path / "pipe" / "lock")
    with holder(tmp_path / "n2"):
        pass
    (tmp_path / "link" / "lock").symlink_to(tmp_path / "n2" / "lock")
    assert evidence(tmp_path / "n2")
    assert not any(evidence(tmp_path / name) for name in ("directory", "pipe", "link"))


def test_asking_takes_nothing(tmp_path: Path) -> None:
    with holder(tmp_path):
        pass
    before = (tmp_path / "lock").read_bytes()
    descriptors = len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0
    for _ in range(50):
        assert evidence(tmp_path)
    assert (tmp_path / "lock").read_bytes() == before
    assert not locked_for_others(tmp_path)
    if descriptors:
        assert len(os.listdir("/proc/self/fd")) == descriptors


def test_a_path_that_is_no_directory_is_refused_with_the_fix(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "lock").mkdir()
    for path in (tmp_path / "file", tmp_path / "file" / "below", tmp_path / "odd", Path("/proc/zelect")):
        with pytest.raises(DataDirError, match="cannot be used as data_dir") as caught:
            DataDir.open(path, CLUSTER, NODE)
        assert str(path) in str(caught.value)
        assert "node.data_dir" in str(caught.value)


def test_no_announcement_on_a_full_disk(tmp_path: Path) -> None:
    code = (
        "import resource, sys; from pathlib import Path\n"
        "from zelect.node.storage.data_dir import DataDir, DataDirError\n"
        "held = DataDir.open(Path(sys.argv[1]), 'demo', 2)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))\n"
        "try: held.announce(1)\n"
        "except DataDirError as error: print(error)\n"
    )
    answer = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert f"{tmp_path}/lock: cannot be written" in answer.stdout


def test_no_file_of_ours_becomes_standard_error(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from zelect.node.storage.data_dir import DataDir\n"
        "os.close(2)\n"
        "held = DataDir.open(Path(sys.argv[1]), 'demo', 2); held.announce(1)\n"
        "try: os.write(2, b'last words')\n"
        "except OSError: print('closed')\n"
    )
    answer = subprocess.run([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True, check=True)
    assert answer.stdout == "closed\n"
    assert (tmp_path / "lock").read_text().startswith("demo 2 1 ")
