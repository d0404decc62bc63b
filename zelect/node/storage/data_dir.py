"""A node's data directory, and the lock on it that shows whether its process runs (R9, R14).

The lock keeps a second node out of the directory, and it is the proof of death for peers on the same host. It is
a lock of the *open file* (F_OFD_SETLK), and not of the process: the kernel frees it with the last copy of the
descriptor, so the program around a node may read and copy its own data directory, which would drop a lock of
`fcntl.lockf`. A process that does the node's job holds it by holding a copy of the descriptor
(`zelect.node.storage.lock_holder`); a forked child gives its copy up at once (`zelect.system.forks`).

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
from contextlib import suppress
from pathlib import Path

from zelect.errors import ZelectError
from zelect.system.forks import in_child
from zelect.system.secure_files import UnsafeFile, make_directory, open_directory, open_file

_LOCK = "lock"
_LINE_BYTES = 160  # cluster 64, id 5, incarnation 16, pid 10, inode 20, and room

# struct flock per system as (format, index of type, whence); only layouts that we know.
_FLOCK = {"linux": ("@hhqqi4x", 0, 1), "darwin": ("@qqihh", 3, 4)}
_FLOCK_FIELDS = 5
_SET_LOCK: int = getattr(fcntl, "F_OFD_SETLK", 90)  # that of macOS, where the module does not name it


class DataDirError(ZelectError):
    """The data directory cannot be made, written or locked; the text names it and the fix."""


class DataDirInUse(DataDirError):
    """A living process holds the data directory. `pid`: which one (0: not known)."""

    def __init__(self, path: Path, pid: int) -> None:
        holder = f"process {pid}" if pid else "another process (perhaps a job of an earlier run that has not ended)"
        super().__init__(
            f"{path}: in use by {holder}, which holds its lock; every node needs its own data_dir: "
            "stop that process or set another node.data_dir"
        )
        self.pid = pid


class StartAgain(DataDirError):
    """A node that has no data was refused, because its peers remember a later process of this id (R16): it lost its
    data, and the clock of this host is behind. What it must be later than is saved by now, so that it may start again.
    """

    def __init__(self, node: int, incarnation: int, heard: int) -> None:
        super().__init__(
            f"node {node} has lost its data, and its clock is behind: it began as process {incarnation}, and its peers "
            f"remember {heard}; start it again, which now begins later, and set the clock"
        )


class DataDir:
    """A data directory held by this process. `path`: the directory; `ran_before`: a node that
    could send to its peers used it before this process did; `last_incarnation`: under which
    incarnation (0: unknown), for a node that lost its vote file; `was_open`: the mode it had when
    others could read it (0: they could not)."""

    __slots__ = ("__weakref__", "_fd", "_identity", "last_incarnation", "path", "ran_before", "was_open")

    def __init__(self, path: Path, fd: int, identity: str, line: bytes, was_open: int) -> None:
        self.path = path
        self.was_open = was_open
        self.ran_before = bool(line)
        words = line.split()
        self.last_incarnation = int(words[2]) if len(words) > 2 and words[2].isdigit() else 0
        self._fd = fd
        self._identity = identity
        in_child(self.close)

    @classmethod
    def open(cls, path: Path, cluster: str, node: int) -> DataDir:
        """Make the directory if need be (mode 0700) and hold its lock until `close`.

        Raises `DataDirInUse` when a living process, this one included, holds it, and
        `DataDirError` when it cannot be made, written or locked, or is not this user's alone.
        """
        lock = path / _LOCK
        fd = directory = -1
        try:
            make_directory(path)
            directory, was_open = open_directory(path)
            fd = open_file(lock, os.O_RDWR | os.O_CREAT)
            _take(path, fd)
            line = os.pread(fd, _LINE_BYTES, 0)
            if not line:
                os.fsync(directory)
        except UnsafeFile as error:
            raise DataDirError(f"{error}; a data_dir must be accessible only to the user that runs the node") from error
        except OSError as error:
            _close(fd)
            raise DataDirError(
                f"{path}: cannot be used as data_dir: {error.strerror or error}; make it a writable "
                "directory of the user that runs the node, or set another node.data_dir"
            ) from error
        except DataDirInUse:
            _close(fd)
            raise
        finally:
            _close(directory)
        return cls(path, fd, f"{cluster} {node}", line, was_open)

    def announce(self, incarnation: int) -> None:
        """Write durably who holds the directory.

        To be called after the vote file is open and before the first message leaves: from then on a
        missing vote file means lost state. Raises `DataDirError`.
        """
        line = f"{self._identity} {incarnation} {os.getpid()} {os.fstat(self._fd).st_ino}"
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

    @property
    def lock(self) -> int:
        """The descriptor that holds the lock. Every copy of it, in any process, holds it too."""
        return self._fd

    def close(self) -> None:
        """Give the directory up, for a process that outlives its node. The node must be gone: from
        now on its peers may take it for dead. Harmless when repeated."""
        _close(self._fd)
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
    fd = -1
    try:
        fd = os.open(data_dir / _LOCK, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            return None
        words = os.pread(fd, _LINE_BYTES + 1, 0).decode().split()
        named = len(words) == 5 and words[:3] == [cluster, str(node), str(incarnation)]
        return _is_taken(fd) if named and words[4] == str(status.st_ino) else None
    except (OSError, ValueError, KeyError, struct.error):
        return None
    finally:
        _close(fd)


def holder(data_dir: Path, cluster: str, node: int) -> int:
    """The pid of the process that runs that node in `data_dir` on this host, by what it wrote; 0: none does, or the
    system doesn't say."""
    fd = -1
    try:
        fd = os.open(data_dir / _LOCK, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        words = os.pread(fd, _LINE_BYTES + 1, 0).decode().split()
        return int(words[3]) if len(words) == 5 and words[:2] == [cluster, str(node)] and _is_taken(fd) else 0
    except (OSError, ValueError, KeyError, struct.error):
        return 0
    finally:
        _close(fd)


def _take(path: Path, fd: int) -> None:
    """Take the lock on `fd`. Raises `DataDirInUse`, and `OSError` where locks do not work."""
    try:
        _fcntl(fd, _SET_LOCK)
    except KeyError:
        raise OSError(errno.ENOSYS, "locks of open files are not known on this system") from None
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EAGAIN):
            raise
        raise DataDirInUse(path, _pid_in(fd)) from error


def _is_taken(fd: int) -> bool:
    """Whether an open file that is not `fd` holds a lock there. Asks without taking it, so that two probes, or a probe
    and a starting node, never meet. Raises `OSError`, and `KeyError` on a system whose layout is not known."""
    return _fcntl(fd, fcntl.F_GETLK) != fcntl.F_UNLCK


def _fcntl(fd: int, command: int) -> int:
    """Ask for, or about, a lock on the whole of `fd`; the type that the kernel answers."""
    layout, kind, whence = _FLOCK[sys.platform if struct.calcsize("@P") == 8 else ""]
    query = [0] * _FLOCK_FIELDS
    query[kind], query[whence] = fcntl.F_WRLCK, os.SEEK_SET
    return int(struct.unpack(layout, fcntl.fcntl(fd, command, struct.pack(layout, *query)))[kind])


def _pid_in(fd: int) -> int:
    """The holder's pid for a message, by what it wrote; 0 where that process is not there: then another one holds it
    for the node's job, or the pid is of another pid namespace."""
    with suppress(OSError, ValueError, IndexError):
        pid = int(os.pread(fd, _LINE_BYTES, 0).split()[3])
        with suppress(PermissionError):
            os.kill(pid, 0)
        return pid
    return 0


def _close(fd: int) -> None:
    if fd >= 0:
        os.close(fd)
