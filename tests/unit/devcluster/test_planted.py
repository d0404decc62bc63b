"""A directory of a local cluster that somebody else has planted: it is refused, and nothing that it names is run,
ended, written to or believed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.clusters import zelect
from zelect.devcluster.control import bring_down, request
from zelect.devcluster.layout import ChildMark, ClusterError, ClusterPlan, Control, Layout
from zelect.devcluster.supervisor import ClusterOptions, detach, supervise
from zelect.system.child import start_logged
from zelect.system.processes import started

NOBODY = 65_534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = Layout(tmp_path / "planted")
    made.directory.mkdir()
    made.prepare(ClusterPlan("demo", 1, 7101, "", 20_000))
    return made


@pytest.fixture
def victim() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen((sys.executable, "-c", "import time; time.sleep(600)")) as process:
        yield process
        process.kill()


def foreign(layout: Layout) -> None:
    os.chown(layout.directory, NOBODY, NOBODY)


def foreign_below(layout: Layout) -> None:
    os.chown(layout.logs, NOBODY, NOBODY)


def open_to_others(layout: Layout) -> None:
    layout.conf.chmod(0o777)


def a_link(layout: Layout) -> None:
    moved = layout.directory.rename(layout.directory.with_name("elsewhere"))
    layout.directory.symlink_to(moved)


def a_link_below(layout: Layout) -> None:
    layout.logs.rmdir()
    layout.logs.symlink_to(layout.directory.parent)


def foreign_file(layout: Layout) -> None:
    os.chown(layout.plan_file, NOBODY, NOBODY)


def file_that_is_a_link(layout: Layout) -> None:
    moved = layout.plan_file.rename(layout.directory.parent / "plan")
    layout.plan_file.symlink_to(moved)


PLANTED = [
    *(pytest.param(plant, marks=as_root) for plant in (foreign, foreign_below, foreign_file)),
    *(open_to_others, a_link, a_link_below, file_that_is_a_link),
]


def files_under(directory: Path) -> dict[Path, int]:
    """All files but the lock, with when they were written to."""
    return {path: path.lstat().st_mtime_ns for path in directory.rglob("*.*") if path.suffix != ".lock"}


@pytest.mark.parametrize("plant", PLANTED)
def test_what_may_be_somebody_elses_is_refused(layout: Layout, plant: Callable[[Layout], None]) -> None:
    plant(layout)
    before = files_under(layout.directory.parent)
    for use in (
        lambda: bring_down(layout, 1),
        lambda: request(layout, "status"),
        lambda: supervise(layout.directory, ClusterOptions(1), live=False),
        layout.read_plan,
    ):
        with pytest.raises(ClusterError, match=r"belongs to user|can be changed by others|symbolic link") as refused:
            use()
        assert refused.value.exit_code == 2
    if plant not in (foreign_file, file_that_is_a_link):
        with pytest.raises(ClusterError):
            detach(layout, ClusterOptions(1))
    assert files_under(layout.directory.parent) == before
    for command in ("down", "status", "logs"):
        done = zelect("cluster", command, "--dir", layout.directory)
        assert (done.returncode, done.stdout) == (2, "")
        assert "Traceback" not in done.stderr


def test_no_process_is_ended_that_only_has_the_number_of_one(layout: Layout, victim: subprocess.Popen[bytes]) -> None:
    layout.write_control(Control(victim.pid, "1", 20_000, "secret", (ChildMark(victim.pid, "1"), ChildMark(1, ""))))
    assert not bring_down(layout, 1)
    assert victim.poll() is None
    assert not layout.control_file.exists()
    layout.write_control(Control(1, "1", 20_000, "secret", (ChildMark(victim.pid, started(victim.pid)),)))
    assert bring_down(layout, 1)
    assert victim.wait(20) == -9


def test_a_supervisor_that_is_not_found_here_is_not_signalled(layout: Layout, victim: subprocess.Popen[bytes]) -> None:
    """As in another PID namespace: the number in the lock file is another process here."""
    code = (
        "import fcntl, os, sys; fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o600); "
        "fcntl.lockf(fd, fcntl.LOCK_EX); os.write(fd, sys.argv[2].encode()); "
        "print('held', flush=True); sys.stdin.read()"
    )
    command = (sys.executable, "-c", code, str(layout.lock_file), str(victim.pid))
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        layout.write_control(Control(victim.pid, "1", 20_000, "secret", ()))
        with pytest.raises(ClusterError, match="not to be found here") as refused:
            bring_down(layout, 0.1)
        assert refused.value.exit_code == 5
        assert victim.poll() is None


def test_a_log_that_is_a_link_is_not_written_through(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("mine\n")
    (tmp_path / "log").symlink_to(target)
    with pytest.raises(OSError, match="symbolic links"):
        start_logged((sys.executable, "-c", "print('theirs')"), tmp_path / "log")
    assert target.read_text() == "mine\n"
