"""The vote file: a node's durable state (R1).

Two slots of `SLOT_BYTES`, written in turn. A save writes the older slot in place with one `pwrite`, of as many
blocks of 4096 bytes as it needs, and one `fdatasync`, so the newer one is never touched, and costs a tenth of
rename-and-sync:

    magic 8 | format 2 | length 2 | payload (msgpack) | zeros to the end of the block | checksum 32 over all before it
    payload: sequence, cluster, node, inode, epoch, term, voted_for, voted_epoch, incarnation, promise_ms,
             founding, record

Sequence 1 goes to slot 0, 2 to slot 1, 3 to slot 0 again: two good slots have consecutive numbers.

The file names its own inode. A copy has another one, and is not read as this node's state: a restored backup, or
the data of a machine that was cloned, could vote a second time. The node then begins a new storage epoch
(R16). What keeps the inode (a snapshot of the volume or of the machine, `rsync --inplace`) is not noticed here.

A damaged file is never guessed at. A torn slot could be a save that a power cut interrupted, which
no other node ever learned of; it could as well be the newest vote, damaged since. Taking the other slot could
then give a second vote in one term. So any damage raises `VoteStoreError`.

A save that fails ends the node and is never tried again: after a failed fdatasync the kernel may
take the lost page for clean, and a second fdatasync then succeeds without having written it. For
the same reason a node saves (its new incarnation) before it sends anything after a restart.
"""

from __future__ import annotations

import hashlib
import os
import struct
from dataclasses import dataclass, replace
from pathlib import Path

import msgpack

from zelect.core.effects import Saved
from zelect.core.messages import MalformedMessage
from zelect.core.timing import MAX_NODE_ID, MAX_TERM
from zelect.errors import ZelectError
from zelect.node.storage.data_dir import DataDir
from zelect.system.forks import in_child
from zelect.system.secure_files import UnsafeFile, open_file, sync_directory
from zelect.wire import record_fields, record_of

SLOT_BYTES = 65_536
VOTE_FILE_BYTES = 2 * SLOT_BYTES

_NAME = "vote"
_MAGIC = b"zelectV\n"
_FORMAT = 2
_BLOCK_BYTES = 4096
_HEADER = struct.Struct(">8sHH")
_CHECKSUM_BYTES = 32
_ROOM_BYTES = SLOT_BYTES - _HEADER.size - _CHECKSUM_BYTES
_PAYLOAD_FIELDS = 12
_sync = getattr(os, "fdatasync", os.fsync)
"""Makes what was written durable. macOS lacks fdatasync, and its fsync leaves data in the drive, which serves
development only."""
_MAX_NUMBER = 2**53 - 1

_REPLACE = (
    "do not restore a backup (an older copy would vote a second time); move this file away, leave the rest of "
    "data_dir, and restart the node: it comes back as a member that lost its state"
)
_ELSEWHERE = "set node.data_dir to this node's own directory, or correct node.id and cluster.name"
_REPAIR = "free space on or repair the file system of data_dir, then restart the node"


class VoteStoreError(ZelectError):
    """The durable state cannot be used; the node must end. `what`: what is wrong; `fix`: the way
    out. The text begins with the file's name."""

    def __init__(self, what: str, fix: str, file: object = _NAME) -> None:
        super().__init__(f"{file}: {what}; {fix}")
        self.what = what
        self.fix = fix


@dataclass(frozen=True, slots=True)
class Slot:
    """The content of one slot. `sequence` counts the saves from 1; `inode` is that of the file."""

    sequence: int
    inode: int
    saved: Saved


def encode_slot(slot: Slot, cluster: str, node: int) -> bytes:
    """The blocks of `slot` that are to be written. Raises `VoteStoreError` when the record has too many
    members to fit (above one thousand), `ValueError` for what `decode` would refuse: a bug of the caller
    must not be found at the next start."""
    saved = slot.saved
    voter = [saved.epoch, saved.term, saved.voted_for, saved.voted_epoch, saved.incarnation, saved.promise_ms]
    founding = [list(pair) for pair in saved.founding]
    fields = [slot.sequence, cluster, node, slot.inode, *voter, founding, record_fields(saved.record)]
    _unpack(fields)
    payload: bytes = msgpack.packb(fields)
    if len(payload) > _ROOM_BYTES:
        raise VoteStoreError(f"the state takes {len(payload)} bytes, {_ROOM_BYTES} fit", "configure fewer members")
    body = _HEADER.pack(_MAGIC, _FORMAT, len(payload)) + payload
    body = body.ljust(_blocks(len(payload)) - _CHECKSUM_BYTES, b"\0")
    return body + hashlib.blake2b(body, digest_size=_CHECKSUM_BYTES).digest()


def _blocks(payload_bytes: int) -> int:
    """How many bytes the blocks of a slot with such a payload take."""
    return -(-(_HEADER.size + payload_bytes + _CHECKSUM_BYTES) // _BLOCK_BYTES) * _BLOCK_BYTES


def decode(file_bytes: bytes, cluster: str, node: int) -> Saved:
    """The newest state in a vote file of `node` of `cluster`. Raises `VoteStoreError`."""
    return newest_slot(file_bytes, cluster, node).saved


def newest_slot(file_bytes: bytes, cluster: str, node: int) -> Slot:
    """The newer slot of a vote file of `node` of `cluster`. Raises `VoteStoreError` unless every
    byte of the file is as it must be."""
    if len(file_bytes) != VOTE_FILE_BYTES:
        short = len(file_bytes) < VOTE_FILE_BYTES
        size = f"truncated: {len(file_bytes)} bytes instead of" if short else "too long: more than"
        raise VoteStoreError(f"{size} {VOTE_FILE_BYTES} bytes", _REPLACE)
    first, second = (
        _decode_slot(file_bytes[at : at + SLOT_BYTES], index, cluster, node) for index, at in enumerate((0, SLOT_BYTES))
    )
    if first is None:
        raise _damaged("slot 0 is empty")
    if second is None:
        if first.sequence != 1:
            raise _damaged(f"slot 1 is empty after {first.sequence} saves")
        return first
    if abs(first.sequence - second.sequence) != 1:
        raise _damaged(f"the slots hold saves {first.sequence} and {second.sequence}, which are not consecutive")
    return max(first, second, key=lambda slot: slot.sequence)


class VoteStore:
    """The open vote file. `saved`: the newest durable state. `fresh`: made now, for a node that
    never ran before (R4). `lost`: why what was saved before is not there any more (empty: it is, or there
    was nothing)."""

    __slots__ = ("__weakref__", "_cluster", "_error", "_fd", "_node", "_path", "_slot", "fresh", "lost")

    def __init__(self, path: Path, fd: int, cluster: str, node: int, slot: Slot, fresh: bool, lost: str) -> None:
        self._path = path
        self._fd = fd
        in_child(self.close)
        self._cluster = cluster
        self._node = node
        self._slot = slot
        self._error: str | None = None
        self.fresh = fresh
        self.lost = lost

    @property
    def saved(self) -> Saved:
        return self._slot.saved

    @property
    def saves(self) -> int:
        """How often the state was saved in this storage epoch."""
        return self._slot.sequence

    @classmethod
    def open(cls, data_dir: DataDir, cluster: str, node: int, first: Saved) -> VoteStore:
        """Open the vote file in `data_dir`, or make it with `first` in it.

        A missing vote file where the node ran before means that its state was lost, and so does one that is a
        copy: see `lost`. Raises `VoteStoreError` when the file is damaged, of another node, or cannot be read
        and written.
        """
        path = data_dir.path / _NAME
        lost = ""
        try:
            try:
                fd, slot = _open_existing(path, cluster, node)
            except FileNotFoundError:
                fd, lost = -1, f"{path} is missing" if data_dir.ran_before else ""
            if fd >= 0 and slot.inode != os.fstat(fd).st_ino:
                os.close(fd)
                fd, lost = -1, f"{path} is a copy of another file"
                last = max(slot.saved.epoch, slot.saved.incarnation)
                first = replace(first, epoch=max(first.epoch, last + 1), incarnation=max(first.incarnation, last + 1))
            fresh = fd < 0 and not lost
            if fd < 0:
                fd, slot = _create(path, first, cluster, node)
        except (VoteStoreError, UnsafeFile) as error:
            raise VoteStoreError(error.what, error.fix, path) from error
        except OSError as error:
            raise VoteStoreError(f"cannot be opened: {_text(error)}", _REPAIR, path) from error
        return cls(path, fd, cluster, node, slot, fresh, lost)

    def save(self, saved: Saved) -> None:
        """Make `saved` durable; on return it is (R1).

        Raises `VoteStoreError` when that fails, and ever after: the node must end.
        """
        if self._error is not None:
            raise VoteStoreError(self._error, _REPAIR, self._path)
        slot = Slot(self._slot.sequence + 1, self._slot.inode, saved)
        try:
            block = encode_slot(slot, self._cluster, self._node)
            written = os.pwrite(self._fd, block, _offset(slot.sequence))
            if written != len(block):
                raise OSError(f"{written} of {len(block)} bytes written")
            _sync(self._fd)
        except (OSError, VoteStoreError) as error:
            self._error = f"a save failed and will not be retried: {_text(error)}"
            raise VoteStoreError(self._error, _REPAIR, self._path) from error
        self._slot = slot

    def close(self) -> None:
        """Close the file, for a process that outlives its node; any later save fails."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            self._error = "closed"


def _decode_slot(block: bytes, index: int, cluster: str, node: int) -> Slot | None:
    """The content of the slot at `index`; None when it was never written. Raises `VoteStoreError`."""
    magic, version, length = _HEADER.unpack_from(block)
    if magic != _MAGIC:
        if not any(block):
            return None
        raise _damaged(f"slot {index} lacks the vote-file header")
    if version != _FORMAT:
        raise VoteStoreError(
            f"written in format {version}, but this release only knows {_FORMAT}",
            "run the release that wrote it",
        )
    if length > _ROOM_BYTES:
        raise _damaged(f"slot {index} has the wrong length")
    written = block[: _blocks(length)]
    body, checksum = written[:-_CHECKSUM_BYTES], written[-_CHECKSUM_BYTES:]
    if hashlib.blake2b(body, digest_size=_CHECKSUM_BYTES).digest() != checksum:
        raise _damaged(f"slot {index} fails its checksum")
    try:
        owner, slot = _unpack(msgpack.unpackb(body[_HEADER.size : _HEADER.size + length]))
    except (ValueError, TypeError, MalformedMessage, msgpack.UnpackException) as error:
        raise _damaged(f"slot {index}: {error}") from error
    if owner != (cluster, node):
        raise VoteStoreError(
            f"belongs to node {owner[1]} of cluster {owner[0]}, not to node {node} of cluster {cluster}", _ELSEWHERE
        )
    if _offset(slot.sequence) != index * SLOT_BYTES:
        raise _damaged(f"slot {index} holds save {slot.sequence}, which belongs in the other slot")
    return slot


def _unpack(value: object) -> tuple[tuple[str, int], Slot]:
    """((cluster, node), slot) of a decoded payload. Raises `ValueError` and `MalformedMessage`: a right checksum
    says who wrote it, not that it makes sense."""
    if type(value) is not list or len(value) != _PAYLOAD_FIELDS:
        raise ValueError("the payload does not have the fields of a vote file")
    sequence, cluster, node, inode, epoch, term, voted_for, voted_epoch, incarnation, promise_ms, founding, plain = (
        value
    )
    if type(cluster) is not str or type(founding) is not list:
        raise ValueError("a field of the payload has the wrong type")
    if not all(type(pair) is list and len(pair) == 2 for pair in founding):
        raise ValueError("a field of the payload has the wrong type")
    record = record_of(plain)
    for number, least, most in (
        (sequence, 1, _MAX_NUMBER),
        (node, 1, MAX_NODE_ID),
        (inode, 0, 2**64 - 1),
        (epoch, 0, _MAX_NUMBER),
        (term, 0, MAX_TERM),
        (voted_for, 0, MAX_NODE_ID),
        (voted_epoch, 0, _MAX_NUMBER),
        (incarnation, 0, _MAX_NUMBER),
        (promise_ms, 0, _MAX_NUMBER),
        (record.cluster_id, 0, _MAX_NUMBER),
        (record.generation, 0, _MAX_NUMBER),
        (record.config_term, 0, MAX_TERM),
        (record.version, 0, _MAX_NUMBER),
        *((member, 1, MAX_NODE_ID) for member in (*record.members, *record.nodes)),
        *((each, 0, _MAX_NUMBER) for each in record.epochs),
        *((member, 1, MAX_NODE_ID) for member, _ in founding),
        *((each, 0, _MAX_NUMBER) for _, each in founding),
    ):
        if type(number) is not int or not least <= number <= most:
            raise ValueError("a number of the payload is out of range")
    votes = (voted_for, incarnation, record, epoch, voted_epoch)
    saved = Saved(term, *votes, tuple((member, each) for member, each in founding), promise_ms)
    return (cluster, node), Slot(sequence, inode, saved)


def _open_existing(path: Path, cluster: str, node: int) -> tuple[int, Slot]:
    """The descriptor and the newest slot of an existing vote file. Raises `OSError`, `UnsafeFile`,
    `VoteStoreError`."""
    fd = open_file(path, os.O_RDWR)
    try:
        return fd, newest_slot(os.pread(fd, VOTE_FILE_BYTES + 1, 0), cluster, node)
    except BaseException:
        os.close(fd)
        raise


def _create(path: Path, first: Saved, cluster: str, node: int) -> tuple[int, Slot]:
    """Make the file under another name, then rename it: a vote file is there in full or not at all.
    Returns the descriptor it was written through, and what was written. Raises `OSError`, `UnsafeFile`."""
    draft = path.with_name(f"{_NAME}.new")
    draft.unlink(missing_ok=True)  # left by a start that was cut short
    fd = open_file(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL)
    try:
        slot = Slot(1, os.fstat(fd).st_ino, first)
        content = encode_slot(slot, cluster, node).ljust(VOTE_FILE_BYTES, b"\0")
        written = os.pwrite(fd, content, 0)
        if written != len(content):
            raise OSError(f"{written} of {len(content)} bytes written")
        os.fsync(fd)
        os.rename(draft, path)
        sync_directory(path.parent)
    except BaseException:
        os.close(fd)
        raise
    return fd, slot


def _offset(sequence: int) -> int:
    return (sequence - 1) % 2 * SLOT_BYTES


def _damaged(what: str) -> VoteStoreError:
    return VoteStoreError(f"damaged: {what}", _REPLACE)


def _text(error: Exception) -> str:
    if isinstance(error, VoteStoreError):
        return error.what
    return str(error.strerror or error) if isinstance(error, OSError) else str(error)
