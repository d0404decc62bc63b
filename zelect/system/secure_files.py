"""Files and directories that belong to one user alone: made so whatever the umask, and checked
before they are used.

What others can only *read* is made private without asking: its content is this user's own. What others can
*write*, or own, is refused: they may have put an older vote file or another password there, and no mode set
afterwards undoes that. One group's right to write is taken away without asking: that of a group of this process which
no account of the system has. Kubernetes gives it (`fsGroup`) to every file of a volume at each mount.
"""

from __future__ import annotations

import errno
import fcntl
import grp
import os
import stat
from contextlib import suppress
from pathlib import Path

_LOW_FDS = 3
_SECRET_BYTES = 4096
_OWN_BYTES = 1 << 20


class UnsafeFile(Exception):
    """A file or directory is not this user's alone. `what`: what is wrong; `fix`: the way out. The
    text begins with the path."""

    def __init__(self, path: Path, what: str, fix: str) -> None:
        super().__init__(f"{path}: {what}; {fix}")
        self.what = what
        self.fix = fix


def open_file(path: Path, flags: int) -> int:
    """Open `path` (mode 0600, closed in children) and return a descriptor above those of the
    standard streams. Raises `OSError`, and `UnsafeFile` where it is a symbolic link, no regular
    file, another user's, or writable by others.

    A process started with standard error closed would otherwise get a file of ours as descriptor
    2, and a library's error message would be written over it.
    """
    fd = _open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NOCTTY)
    if fd < _LOW_FDS:
        low = fd
        try:
            fd = fcntl.fcntl(low, fcntl.F_DUPFD_CLOEXEC, _LOW_FDS)
        finally:
            os.close(low)
    try:
        _claim(path, fd, 0o600)
    except BaseException:
        os.close(fd)
        raise
    return fd


def open_directory(path: Path) -> tuple[int, int]:
    """A descriptor of the directory `path`, and the mode that it had when others could
    read it, which they no longer can (else 0). Raises as `open_file` does."""
    fd = _open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        return fd, _claim(path, fd, 0o700)
    except BaseException:
        os.close(fd)
        raise


def check_own(path: Path) -> None:
    """Raises `UnsafeFile` when `path` is there and is no directory, a link, another user's, or writable by others."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return
    if stat.S_ISLNK(status.st_mode):
        raise UnsafeFile(path, "is a symbolic link", "name the directory behind it")
    if not stat.S_ISDIR(status.st_mode):
        raise UnsafeFile(path, "is not a directory", "move it away")
    _refuse_others(path, status, 0o700)


def read_own(path: Path) -> bytes:
    """The first MiB of a regular file that only this user can have written; links are not followed. Raises `OSError`
    and `UnsafeFile`."""
    fd = _open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY)
    with open(fd, "rb") as file:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise UnsafeFile(path, "is not a regular file", "move it away")
        _refuse_others(path, status, 0o600)
        return file.read(_OWN_BYTES)


def make_directory(path: Path) -> None:
    """Make `path` and what is missing above it (mode 0700), durably: a directory that a power cut
    takes away would take the saved votes along. Raises `OSError`."""
    if path.is_dir():
        return
    if path.parent != path:
        make_directory(path.parent)
    with suppress(FileExistsError):
        path.mkdir(mode=0o700)
        path.chmod(0o700)  # whatever the umask took away
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make the entries of directory `path` durable. Raises `OSError`."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def read_secret(path: Path) -> str:
    """The text of a file that only this user (or root) can read or change, without the end of its
    line. Raises `UnsafeFile`, which never shows the text.

    Links are followed, since secrets are often mounted so: what counts is the file behind them.
    No mode is changed here: somebody else may have read the secret already, so it must be changed.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        raise UnsafeFile(
            path, f"cannot be read: {error.strerror or error}", "name a file that the node may read"
        ) from None
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise UnsafeFile(path, "is not a regular file", "name a file that holds the secret and nothing else")
        if status.st_uid not in (os.geteuid(), 0):
            raise _foreign(path, status)
        if status.st_mode & 0o077:
            raise UnsafeFile(
                path,
                f"can be read or changed by others (mode {_mode(status):04o})",
                f"change the secret if they may have seen it, then: chmod 600 {path}",
            )
        content = os.read(fd, _SECRET_BYTES + 1)
    finally:
        os.close(fd)
    try:
        text = content.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        text = ""
    if not text or "\n" in text or "\0" in text or len(content) > _SECRET_BYTES:
        raise UnsafeFile(path, "does not hold one line of text", "write the secret into it, and nothing else")
    return text


def _open(path: Path, flags: int) -> int:
    try:
        return os.open(path, flags, 0o600)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR) and path.is_symlink():
            raise UnsafeFile(path, "is a symbolic link", "put what it points to in its place, or name that") from error
        raise


def _claim(path: Path, fd: int, mode: int) -> int:
    """See that what is open as `fd` is this user's alone, and give it `mode`. Returns the mode that
    it had if others could read it, else 0."""
    status = os.fstat(fd)
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
        raise UnsafeFile(path, "is not a regular file", "move it away")
    _refuse_others(path, status, mode)
    if _mode(status) & 0o777 == mode:
        return 0
    os.fchmod(fd, mode)
    return _mode(status) if status.st_mode & 0o077 else 0


def _refuse_others(path: Path, status: os.stat_result, mode: int) -> None:
    """Raises `UnsafeFile` when somebody else may have written to it; `mode`: what it should be."""
    if status.st_uid != os.geteuid():
        raise _foreign(path, status)
    if status.st_mode & 0o002 or (status.st_mode & 0o020 and not _is_nobodys(status.st_gid)):
        raise UnsafeFile(
            path,
            f"can be changed by others (mode {_mode(status):04o})",
            f"make sure that they have not changed it, then: chmod {mode:o} {path}",
        )


def _is_nobodys(group: int) -> bool:
    """Whether `group` is one of this process's, and has no name here, so that no account can belong to it."""
    try:
        grp.getgrgid(group)
    except KeyError:
        return group in {os.getegid(), *os.getgroups()}
    return False


def _foreign(path: Path, status: os.stat_result) -> UnsafeFile:
    me = os.geteuid()
    return UnsafeFile(
        path,
        f"belongs to user {status.st_uid}, but this process runs as user {me}",
        f"run it as its owner, or, if you trust the content: chown {me} {path}",
    )


def _mode(status: os.stat_result) -> int:
    return stat.S_IMODE(status.st_mode)
