"""A free lock counts only where the same process was seen to hold it (R9)."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from tests.support.waiting import wait_until
from tests.unit.node.storage.test_data_dir import CLUSTER, INCARNATION, NODE, holder
from zelect.node.storage.data_dir import DataDir, lock_evidence
from zelect.node.storage.peer_locks import PeerLocks


def _looked(locks: PeerLocks, path: Path, incarnation: int = INCARNATION) -> PeerLocks:
    """`locks` after a look that is over."""
    before = threading.active_count()
    locks.look(path, NODE, incarnation)
    wait_until(lambda: threading.active_count() <= before, 20, what="the look is over")
    return locks


def test_a_lock_that_was_seen_held_proves_the_death_of_its_holder(tmp_path: Path) -> None:
    with holder(tmp_path) as (process, _):
        locks = _looked(PeerLocks(CLUSTER), tmp_path)
        assert not locks.is_free(tmp_path, NODE, INCARNATION)
        process.kill()
        process.wait()
        assert locks.is_free(tmp_path, NODE, INCARNATION)
        assert not locks.is_free(tmp_path, NODE, INCARNATION + 1)
        assert not locks.is_free(tmp_path, NODE + 1, INCARNATION)


def test_a_lock_that_was_never_seen_held_proves_nothing(tmp_path: Path) -> None:
    """As on an overlay mount or a network file system, which show the file but not the lock."""
    with holder(tmp_path) as (process, _):
        process.kill()
        process.wait()
        assert lock_evidence(tmp_path, CLUSTER, NODE, INCARNATION), "though it looks free"
        assert not _looked(PeerLocks(CLUSTER), tmp_path).is_free(tmp_path, NODE, INCARNATION)


def test_a_lock_seen_held_by_an_earlier_process_proves_nothing_of_the_next(tmp_path: Path) -> None:
    locks = PeerLocks(CLUSTER)
    with holder(tmp_path):
        _looked(locks, tmp_path)
    with holder(tmp_path, INCARNATION + 1):
        pass
    assert lock_evidence(tmp_path, CLUSTER, NODE, INCARNATION + 1)
    assert not locks.is_free(tmp_path, NODE, INCARNATION + 1)


def test_a_look_returns_at_once_though_the_file_system_hangs(tmp_path: Path) -> None:
    locks, hangs, goes_on = PeerLocks(CLUSTER), threading.Event(), threading.Event()

    class Hanging(type(tmp_path)):  # type: ignore[misc]
        def __truediv__(self, name: str) -> Path:
            hangs.set()
            goes_on.wait(20)
            return Path(self).joinpath(name)

    with holder(tmp_path) as (process, _):
        path = Hanging(tmp_path)
        locks.look(path, NODE, INCARNATION)
        assert hangs.wait(20)
        process.kill()
        process.wait()
        assert not locks.is_free(path, NODE, INCARNATION), "it has shown nothing yet"
        goes_on.set()


def test_a_look_takes_no_lock_away_that_this_process_takes_meanwhile(tmp_path: Path) -> None:
    locks = PeerLocks(CLUSTER)
    for _ in range(50):
        locks.look(tmp_path, NODE, INCARNATION)
        held = DataDir.open(tmp_path, CLUSTER, NODE)
        locks.look(tmp_path, NODE, INCARNATION)
        wait_until(lambda: not [one for one in threading.enumerate() if one.name.startswith("look-at")], 20)
        probe = os.fork()
        if probe == 0:
            os._exit(_could_lock(tmp_path))
        assert os.waitstatus_to_exitcode(os.waitpid(probe, 0)[1]) == 0, "another process could take the lock"
        held.close()


def _could_lock(path: Path) -> int:
    import fcntl

    fd = os.open(path / "lock", os.O_RDWR)
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return 0
    return 1
