"""Files that an old controller can't overwrite.

Beside a file PATH stand PATH.term, the newest term that has written it, and PATH.lock, which writers of this host
take. A write is: lock, compare, replace the token if it rises, replace the file. Each replacement is a new file that is
synced and then renamed, and the directory is synced: a writer that is killed, or a host that loses power, at any
moment leaves the old or the new content, whole, and a token at least as new.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path

from zelect.core.timing import MAX_TERM
from zelect.fencing.core import FenceBroken, FencedOut, HasTerm, term_of

_TOKEN_BYTES = 32


def write_file(path: str | Path, term: HasTerm | int, data: bytes) -> None:
    """Replace the content of `path` by `data`, unless a newer term has written it: then `FencedOut`, and nothing is
    changed. `term`: a `zelect.Leadership`, or its term. Mode, owner and group of a file that is there are kept where
    this user may; links are followed.

    Waits for a writer that is at it. Raises `FenceBroken` when the token is none, and `OSError`.
    """
    number, place = term_of(term), Path(os.path.realpath(path))
    token = place.with_name(place.name + ".term")
    lock = os.open(place.with_name(place.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        newest = _read(token)
        if number < newest:
            raise FencedOut(str(path), number, newest)
        if number > newest:
            _replace(token, b"%d\n" % number)
        _replace(place, data)
    finally:
        os.close(lock)


def _read(token: Path) -> int:
    """The newest term; 0 where nobody has written yet."""
    try:
        with open(os.open(token, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW), "rb") as file:
            text = file.read(_TOKEN_BYTES).removesuffix(b"\n")
    except FileNotFoundError:
        return 0
    if not (text.isdigit() and len(text) <= 16 and 0 < int(text) <= MAX_TERM):
        raise FenceBroken(f"{token} holds no term: find out who wrote it, then write the newest term into it")
    return int(text)


def _replace(path: Path, data: bytes) -> None:
    """Replace `path` in one step, durably. Only the holder of the lock does, so one name for the new file is enough:
    what a killed writer left there is overwritten."""
    new = path.with_name(f".{path.name}.new")
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666), "wb") as file:
        _take_over(path, file.fileno())
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(new, path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _take_over(path: Path, new: int) -> None:
    """Give `new` owner, group and mode of what it replaces."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return
    if (status.st_uid, status.st_gid) != (os.geteuid(), os.getegid()):
        with suppress(PermissionError):  # only root may: else it becomes this user's
            os.fchown(new, status.st_uid, status.st_gid)
    os.fchmod(new, status.st_mode & 0o7777)
