"""Writes key files: makes keys, and changes them in steps that never lock out a member.

    keys/public.toml          the directory: for every host
    keys/n1.key               node 1's secret: for its host only
    keys/n1.next.key          the one that will take its place
    keys/operator-NAME.key    an operator's secret
    keys/cluster.secret       what all nodes share and Redis must not have: for every node's host (R12)

A change of keys goes `add_next` (both are accepted), `promote` (the node uses the new one), `retire`
(the old one is not accepted any more); after each step the nodes reload.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from zelect.config.loading import ConfigError
from zelect.security.keys import MAY, Directory, KeyPair, Permission, new_secret, read_directory, read_key
from zelect.system.secure_files import sync_directory

DIRECTORY_FILE = "public.toml"
SECRET_FILE = "cluster.secret"

_HEAD = """\
# Public keys of the cluster: whose key is whose. Copy this file to every host; it holds no secret,
# but anybody who can change it can add keys. A node or operator may have two keys while one is changed.
"""


@dataclass(frozen=True, slots=True)
class Owner:
    """The owner of a key: a node, or an operator with a permission."""

    node: int = 0
    operator: str = ""
    permission: Permission = Permission.ADMIN

    @property
    def name(self) -> str:
        return f"n{self.node}" if self.node else f"operator-{self.operator}"


def secret_file(directory: Path, owner: Owner, upcoming: bool = False) -> Path:
    """Where the secret of `owner` is; `upcoming`: the one that is to take its place."""
    return directory / f"{owner.name}{'.next' if upcoming else ''}.key"


def make_keys(directory: Path, owners: Sequence[Owner], force: bool = False) -> list[Path]:
    """Make a key pair for each of `owners` and enter it into the directory; the files written. With the first
    node's key the cluster's secret is made too.

    Raises `ConfigError` when one has a key already, unless `force`: then the old key is dropped.
    """
    known = _begin(directory)
    taken = [owner.name for owner in owners if _keys_of(known, owner) or os.path.lexists(secret_file(directory, owner))]
    if taken and not force:
        raise ConfigError(
            f"{directory}: {taken[0]} already has a key, so nothing was changed; change it without downtime with "
            "--next, or replace it with --force, which locks its owner out until every host has the new directory"
        )
    pairs = {owner: KeyPair.new() for owner in owners}
    for owner, pair in pairs.items():
        _write_secret(secret_file(directory, owner), owner, pair, force)
    _save(directory, known, {owner: (pair.public,) for owner, pair in pairs.items()})
    made = [secret_file(directory, owner) for owner in owners]
    return made + _made_secret(directory) if any(owner.node for owner in owners) else made


def make_missing_keys(directory: Path, owners: Sequence[Owner]) -> None:
    """Make keys for those of `owners` that have none. Raises `ConfigError`."""
    known = _begin(directory)
    missing = [owner for owner in owners if not _keys_of(known, owner)]
    if missing:
        make_keys(directory, missing)
    _made_secret(directory)


def _made_secret(directory: Path) -> list[Path]:
    """The file of the cluster's secret, if it had to be made."""
    path = directory / SECRET_FILE
    if os.path.lexists(path):
        return []
    head = (
        "# Secret of the cluster, for the hosts of its nodes. Who has it can forge what the witness in Redis keeps.\n"
    )
    try:
        _create(path, f'{head}secret = "{new_secret()}"\n', 0o600)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror}") from error
    return [path]


def add_next(directory: Path, owners: Sequence[Owner]) -> list[Path]:
    """Make the next key of each of `owners`, to be accepted alongside the current one. Raises
    `ConfigError` when one has none, or has a next one already."""
    known = _begin(directory)
    for owner in owners:
        count = len(_keys_of(known, owner))
        if count != 1:
            why = "has no key yet; make it without --next" if not count else "is already being changed; --retire first"
            raise ConfigError(f"{directory / DIRECTORY_FILE}: {owner.name} {why}")
    pairs = {owner: KeyPair.new() for owner in owners}
    for owner, pair in pairs.items():
        _write_secret(secret_file(directory, owner, upcoming=True), owner, pair, force=False)
    _save(directory, known, {owner: (*_keys_of(known, owner), pair.public) for owner, pair in pairs.items()})
    return [secret_file(directory, owner, upcoming=True) for owner in owners]


def promote(directory: Path, owners: Sequence[Owner]) -> list[Path]:
    """Put the next secret of each of `owners` in the place of the current one."""
    known = _begin(directory)
    for owner in owners:
        upcoming = secret_file(directory, owner, upcoming=True)
        if read_key(upcoming).public not in _keys_of(known, owner):
            raise ConfigError(f"{upcoming}: is not in {DIRECTORY_FILE}; make it with --next")
    for owner in owners:
        os.replace(secret_file(directory, owner, upcoming=True), secret_file(directory, owner))
    sync_directory(directory)
    return [secret_file(directory, owner) for owner in owners]


def retire(directory: Path, owners: Sequence[Owner]) -> list[Path]:
    """Leave in the directory only the key of each of `owners` that its secret file holds."""
    known = _begin(directory)
    kept: dict[Owner, tuple[bytes, ...]] = {}
    if all(len(_keys_of(known, owner)) == 1 for owner in owners):
        raise ConfigError(f"{directory / DIRECTORY_FILE}: already holds one key each; there is nothing to retire")
    for owner in owners:
        public = read_key(secret_file(directory, owner)).public
        if public not in _keys_of(known, owner):
            raise ConfigError(f"{secret_file(directory, owner)}: is not in {DIRECTORY_FILE}; nothing was changed")
        kept[owner] = (public,)
    _save(directory, known, kept)
    return [directory / DIRECTORY_FILE]


def _begin(directory: Path) -> Directory:
    """What the directory says now. Makes the folder where there is none."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{directory}: {error.strerror}; name another --dir") from error
    path = directory / DIRECTORY_FILE
    return read_directory(path) if os.path.lexists(path) else Directory({}, {})


def _keys_of(known: Directory, owner: Owner) -> tuple[bytes, ...]:
    if owner.node:
        return known.nodes.get(owner.node, ())
    return tuple(key for key, whose in known.owners.items() if whose.name == f"operator {owner.operator}")


def _write_secret(path: Path, owner: Owner, pair: KeyPair, force: bool) -> None:
    text = (
        f"# Secret key of {owner.name}. Anyone who can read this file can act in its name.\n"
        f'public = "{pair.public.decode()}"\nsecret = "{pair.secret.decode()}"\n'
    )
    try:
        if force:
            _replace(path, text, 0o600)
        else:
            _create(path, text, 0o600)
    except OSError as error:
        what = f"{path}: cannot be written: {error.strerror}; move it away, or name another --dir"
        raise ConfigError(what) from error


def _save(directory: Path, known: Directory, changed: Mapping[Owner, tuple[bytes, ...]]) -> None:
    nodes = dict(known.nodes) | {owner.node: keys for owner, keys in changed.items() if owner.node}
    operators: dict[str, tuple[list[bytes], Permission]] = {}
    for key, whose in known.owners.items():
        if not whose.node:
            operators.setdefault(whose.name.removeprefix("operator "), ([], whose.permission))[0].append(key)
    operators |= {owner.operator: (list(keys), owner.permission) for owner, keys in changed.items() if owner.operator}
    lines = [_HEAD, "[nodes]", *(f"{node} = {_listed(keys)}" for node, keys in sorted(nodes.items()))]
    words = {permission: word for word, permission in MAY.items()}
    for name, (keys, permission) in sorted(operators.items()):
        lines += ["", f"[operators.{name}]", f"keys = {_listed(keys)}", f'may = "{words[permission]}"']
    try:
        _replace(directory / DIRECTORY_FILE, "\n".join(lines) + "\n", 0o644)
    except OSError as error:
        raise ConfigError(f"{directory / DIRECTORY_FILE}: cannot be written: {error.strerror}") from error


def _listed(keys: Iterable[bytes]) -> str:
    return "[" + ", ".join(f'"{key.decode()}"' for key in keys) + "]"


def _create(path: Path, text: str, mode: int) -> None:
    """Write a file that must not be there, nor a link in its place."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with open(fd, "w", encoding="utf-8") as file:
        os.fchmod(fd, mode)  # whatever the umask is
        file.write(text)
        file.flush()
        os.fsync(fd)


def _replace(path: Path, text: str, mode: int) -> None:
    part = path.with_name(path.name + ".part")
    with suppress(FileNotFoundError):
        part.unlink()
    _create(part, text, mode)
    os.replace(part, path)
    sync_directory(path.parent)
