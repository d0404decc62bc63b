"""A node's data directory, and the POSIX lock on it that shows whether its process runs (R9, R14).

The lock keeps a second node out of the directory, and it is the proof of death for peers on the
same host: the kernel frees it with the process, and a forked child that survives does not keep it
(POSIX locks belong to a process, unlike those of flock). The price is a trap: closing *any*
descriptor of the file drops the lock of the whole process. Hence the lock file is opened once for
as long as its node lives, and this module never opens one that this very process holds.

The file holds one line, ``cluster id incarnation pid inode``. The inode is that of the file
itself, so that a copy of a data directory proves nothing: no process holds the copy's lock, though the
process named in it may well be running.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from zelect.system.secure_files import UnsafeFile, make_directory, open_directory, open_file

HOLD_BYTE = 2**40
"""The byte of the lock that another process may hold for the node's job, see `zelect.node.storage.lock_holder`."""

_LOCK = "lock"
_LINE_BYTES = 160  # cluster 64, id 5, incarnation 16, pid 10, inode 20, and room

# struct flock per system as (format, index of type, whence, pid); only layouts that we know.
_FLOCK = {"linux": ("@hhqqi4x", 0, 1, 4), "darwin": ("@qqihh", 3, 4, 2)}
_FLOCK_FIELDS = 5

_held: set[tuple[int, int]] = set()
"""(device, inode) of the lock files that this process holds; they must not be opened again."""
_looked_at: list[tuple[int, int]] = []
"""Those that a thread of this process has opened to look at: closing them would drop a lock taken meanwhile."""
_guard = threading.Condition()
"""Protects both; never held while a file is touched."""


class DataDirError(Exception):
    """The data directory cannot be made, written or locked; the text names it and the fix."""


class DataDirInUse(DataDirError):
    """A living process holds the data directory. `pid`: which one (0: not known)."""

    def __init__(self, path: Path, pid: int) -> None:
        holder = f"process {pid}" if pid else "another process"
        super().__init__(
            f"{path}: in use by {holder}, which holds its lock; every node needs its own data_dir: "
            "stop that process or set another node.data_dir"
        )
        self.pid = pid


class DataDir:
    """A data directory held by this process. `path`: the directory; `ran_before`: a node that
    could send to its peers used it before this process did; `last_incarnation`: under which
    incarnation (0: unknown), for a node that lost its vote file; `was_open`: the mode it had when
    others could read it (0: they could not)."""

    __slots__ = ("_fd", "_identity", "_key", "last_incarnation", "path", "ran_before", "was_open")

    def __init__(self, path: Path, fd: int, identity: str, line: bytes, was_open: int) -> None:
        self.path = path
        self.was_open = was_open
        self.ran_before = bool(line)
        words = line.split()
        self.last_incarnation = int(words[2]) if len(words) > 2 and words[2].isdigit() else 0
        self._fd = fd
        self._identity = identity
        self._key = _key(os.fstat(fd))

    @classmethod
    def open(cls, path: Path, cluster: str, node: int) -> DataDir:
        """Make the directory if need be (mode 0700) and hold its lock until this process ends.

        Raises `DataDirInUse` when a living process, this one included, holds it, and
        `DataDirError` when it cannot be made, written or locked, or is not this user's alone.
        """
        lock = path / _LOCK
        fd = directory = -1
        try:
            make_directory(path)
            directory, was_open = open_directory(path)
            if _is_held(lock):
                raise DataDirInUse(path, os.getpid())
            fd = open_file(lock, os.O_RDWR | os.O_CREAT)
            _take(path, fd)
            line = os.pread(fd, _LINE_BYTES, 0)
            if not line:
                os.fsync(directory)
        except UnsafeFile as error:
            raise DataDirError(f"{error}; a data_dir must be accessible only to the user that runs the node") from error
        except OSError as error:
            _give_up(fd)
            raise DataDirError(
                f"{path}: cannot be used as data_dir: {error.strerror or error}; make it a writable "
                "directory of the user that runs the node, or set another node.data_dir"
            ) from error
        except DataDirInUse:
            _give_up(fd)
            raise
        finally:
            _close(directory)
        return cls(path, fd, f"{cluster} {node}", line, was_open)

    def announce(self, incarnation: int) -> None:
        """Write durably who holds the directory.

        To be called after the vote file is open and before the first message leaves: from then on a
        missing vote file means lost state. Raises `DataDirError`.
        """
        line = f"{self._identity} {incarnation} {os.getpid()} {self._key[1]}"
        block = line.ljust(_LINE_BYTES - 1).encode() + b"\n"
        try:
            if os.pwrite(self._fd, block, 0) != len(block):
                raise OSError(errno.EIO, "not written in full")
            os.ftruncate(self._fd, _LINE_BYTES)
            os.fsync(self._fd)
        except OSError as error:
            raise DataDirError(
                f"{self.path / _LOCK}: cannot be written: {error.strerror or error}; free space on or repair the "
                "file system, then restart the node"
            ) from error

    def share(self) -> int:
        """Leave the lock's byte for the job to another process, which locks it on the descriptor returned; it
        stays open here. A later node can't start before both have given the lock up. Raises `DataDirError`."""
        try:
            fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, HOLD_BYTE)
        except OSError as error:
            raise DataDirError(f"{self.path / _LOCK}: its lock can't be shared: {error.strerror or error}") from error
        return self._fd

    def close(self) -> None:
        """Give the directory up, for a process that outlives its node. The node must be gone: from
        now on its peers may take it for dead."""
        _give_up(self._fd)
        self._fd = -1


def lock_evidence(data_dir: Path, cluster: str, node: int, incarnation: int) -> bool:
    """Whether the lock in a peer's `data_dir` on this host shows that process dead (R9).

    True only when the lock file names exactly that cluster, node and incarnation, and no process holds
    it. Anything unexpected proves nothing. The line is read *before* the lock is looked at: its writer
    held the lock from before it wrote until it died, so a lock that is free afterwards means that
    this writer is dead; the other way round, a new process could have started in between.
    """
    return _is_locked(data_dir, cluster, node, incarnation) is False


def lock_is_held(data_dir: Path, cluster: str, node: int, incarnation: int) -> bool:
    """Whether the lock in a peer's `data_dir` shows here that its process `incarnation`, which lives, holds it."""
    return _is_locked(data_dir, cluster, node, incarnation) is True


def _is_locked(data_dir: Path, cluster: str, node: int, incarnation: int) -> bool | None:
    """Whether a process holds the lock in a file that names exactly these; None where that can't be known."""
    if sys.platform not in _FLOCK or struct.calcsize("@P") != 8:
        return None
    lock = data_dir / _LOCK
    fd = -1
    try:
        if _is_held(lock):
            return None  # closing it below would drop this process's own lock
        fd = os.open(lock, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        status = os.fstat(fd)
        if not _begin_look(_key(status)):
            fd = -1  # it became our own since the look above: better a descriptor lost than the lock
            return None
        if not stat.S_ISREG(status.st_mode):
            return None
        words = os.pread(fd, _LINE_BYTES + 1, 0).decode().split()
        named = len(words) == 5 and words[:3] == [cluster, str(node), str(incarnation)]
        return _holder(fd) is not None if named and words[4] == str(status.st_ino) else None
    except (OSError, ValueError, struct.error):
        return None
    finally:
        if fd >= 0:
            _end_look(fd)


def adopted(fd: int) -> Callable[[], None]:
    """Have this process never open the lock file that is open as `fd` again, since closing that
    would drop what it holds; returns how to undo that. To be called before a lock is taken on it."""
    key = _key(os.fstat(fd))
    with _guard:
        _held.add(key)
        while key in _looked_at:
            _guard.wait()
    return lambda: _held.discard(key)


def _begin_look(key: tuple[int, int]) -> bool:
    """Whether a file that was opened to be looked at may be closed again: it is not held here, and won't be before."""
    with _guard:
        if key in _held:
            return False
        _looked_at.append(key)
    return True


def _end_look(fd: int) -> None:
    """Close what was looked at."""
    key = _key(os.fstat(fd))
    os.close(fd)
    with _guard:
        if key in _looked_at:
            _looked_at.remove(key)
            _guard.notify_all()


def holder(data_dir: Path, cluster: str, node: int) -> int:
    """The pid of the process that runs that node in `data_dir` on this host; 0: none does, or the
    system doesn't say. Not for this process's own directory."""
    lock = data_dir / _LOCK
    fd = -1
    try:
        if _is_held(lock):
            return 0
        fd = os.open(lock, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        words = os.pread(fd, _LINE_BYTES + 1, 0).decode().split()
        # The line's pid: the kernel may name another process that holds the lock for the node's job.
        held = len(words) == 5 and words[:2] == [cluster, str(node)] and _holder(fd) is not None
        return int(words[3]) if held else 0
    except (OSError, ValueError, KeyError, struct.error):
        return 0
    finally:
        _close(fd)


def _take(path: Path, fd: int) -> None:
    """Take the lock on `fd`. Raises `DataDirInUse`, and `OSError` where locks do not work."""
    adopted(fd)
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EAGAIN):
            raise
        raise DataDirInUse(path, _holder_pid(fd)) from error


def _holder(fd: int) -> int | None:
    """The pid of the process that holds a lock on `fd`, or None when none does. Asks without
    taking the lock, so that two probes, or a probe and a starting node, never meet. Raises
    `OSError`, and `KeyError` on a system whose layout is not known."""
    layout, kind, whence, pid = _FLOCK[sys.platform]
    query = [0] * _FLOCK_FIELDS
    query[kind], query[whence] = fcntl.F_WRLCK, os.SEEK_SET
    answer = struct.unpack(layout, fcntl.fcntl(fd, fcntl.F_GETLK, struct.pack(layout, *query)))
    return None if answer[kind] == fcntl.F_UNLCK else int(answer[pid])


def _holder_pid(fd: int) -> int:
    """The holder's pid for a message: from the kernel, else (a holder in another pid namespace)
    from the file, else 0."""
    with suppress(OSError, KeyError, struct.error):
        pid = _holder(fd)
        if pid is not None and pid > 0:
            return pid
    with suppress(OSError, ValueError, IndexError):
        return int(os.pread(fd, _LINE_BYTES, 0).split()[3])
    return 0


def _key(status: os.stat_result) -> tuple[int, int]:
    return (status.st_dev, status.st_ino)


def _is_held(lock: Path) -> bool:
    """Whether this process holds `lock` itself; looks without opening it."""
    try:
        return _key(os.stat(lock)) in _held
    except FileNotFoundError:
        return False


def _close(fd: int) -> None:
    if fd >= 0:
        os.close(fd)


def _give_up(fd: int) -> None:
    """Close a lock file that may be held here."""
    if fd >= 0:
        _held.discard(_key(os.fstat(fd)))
        os.close(fd)
