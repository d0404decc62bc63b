"""The vote file: a node's durable state (R1).

Two slots of 4096 bytes, written in turn. A save writes the older slot in place with one `pwrite`
and one `fdatasync`, so the newer one is never touched, and costs a tenth of rename-and-sync:

    magic 8 | format 2 | length 2 | payload (msgpack) | zeros | checksum 32 over all before it
    payload: sequence, cluster, node, lost_state, epoch, term, voted_for, incarnation,
             generation, config_term, version, members, witness, epochs

Sequence 1 goes to slot 0, 2 to slot 1, 3 to slot 0 again: two good slots have consecutive numbers.

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
from zelect.core.quorum import Record, Witness
from zelect.core.timing import MAX_NODE_ID, MAX_TERM
from zelect.node.storage.data_dir import DataDir
from zelect.system.secure_files import UnsafeFile, open_file, sync_directory

SLOT_BYTES = 4096
VOTE_FILE_BYTES = 2 * SLOT_BYTES

_NAME = "vote"
_MAGIC = b"zelectV\n"
_FORMAT = 1
_HEADER = struct.Struct(">8sHH")
_CHECKSUM_BYTES = 32
_ROOM_BYTES = SLOT_BYTES - _HEADER.size - _CHECKSUM_BYTES
_PAYLOAD_FIELDS = 14
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


class VoteStoreError(Exception):
    """The durable state cannot be used; the node must end. `what`: what is wrong; `fix`: the way
    out. The text begins with the file's name."""

    def __init__(self, what: str, fix: str, file: object = _NAME) -> None:
        super().__init__(f"{file}: {what}; {fix}")
        self.what = what
        self.fix = fix


@dataclass(frozen=True, slots=True)
class Slot:
    """The content of one slot. `sequence` counts the saves from 1."""

    sequence: int
    saved: Saved


def encode_slot(slot: Slot, cluster: str, node: int) -> bytes:
    """The `SLOT_BYTES` bytes of `slot`. Raises `VoteStoreError` when the record has too many members
    to fit (above one thousand), `ValueError` for what `decode` would refuse: a bug of the caller
    must not be found at the next start."""
    saved, record = slot.saved, slot.saved.record
    witness = record.witness and [record.witness.key, record.witness.run_id, record.witness.replid]
    voters = [record.generation, record.config_term, record.version, list(record.members), witness]
    voter = [saved.lost_state, saved.epoch, saved.term, saved.voted_for, saved.incarnation]
    fields = [slot.sequence, cluster, node, *voter, *voters, list(record.epochs)]
    _unpack(fields)
    payload: bytes = msgpack.packb(fields)
    if len(payload) > _ROOM_BYTES:
        raise VoteStoreError(f"the state takes {len(payload)} bytes, {_ROOM_BYTES} fit", "configure fewer members")
    body = (_HEADER.pack(_MAGIC, _FORMAT, len(payload)) + payload).ljust(SLOT_BYTES - _CHECKSUM_BYTES, b"\0")
    return body + hashlib.blake2b(body, digest_size=_CHECKSUM_BYTES).digest()


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
    never ran before (R4)."""

    __slots__ = ("_cluster", "_error", "_fd", "_node", "_path", "_slot", "fresh")

    def __init__(self, path: Path, fd: int, cluster: str, node: int, slot: Slot, fresh: bool) -> None:
        self._path = path
        self._fd = fd
        self._cluster = cluster
        self._node = node
        self._slot = slot
        self._error: str | None = None
        self.fresh = fresh

    @property
    def saved(self) -> Saved:
        return self._slot.saved

    @classmethod
    def open(cls, data_dir: DataDir, cluster: str, node: int, first: Saved) -> VoteStore:
        """Open the vote file in `data_dir`, or make it with `first` in it.

        A missing vote file where the node ran before means lost state: `saved.lost_state`. Raises
        `VoteStoreError` when the file is damaged, of another node, or cannot be read and written.
        """
        path = data_dir.path / _NAME
        try:
            try:
                fd, slot = _open_existing(path, cluster, node)
                fresh = False
            except FileNotFoundError:
                slot = Slot(1, replace(first, lost_state=data_dir.ran_before))
                fd = _create(path, encode_slot(slot, cluster, node) + bytes(SLOT_BYTES))
                fresh = not data_dir.ran_before
        except (VoteStoreError, UnsafeFile) as error:
            raise VoteStoreError(error.what, error.fix, path) from error
        except OSError as error:
            raise VoteStoreError(f"cannot be opened: {_text(error)}", _REPAIR, path) from error
        return cls(path, fd, cluster, node, slot, fresh)

    def save(self, saved: Saved) -> None:
        """Make `saved` durable; on return it is (R1).

        Raises `VoteStoreError` when that fails, and ever after: the node must end.
        """
        if self._error is not None:
            raise VoteStoreError(self._error, _REPAIR, self._path)
        slot = Slot(self._slot.sequence + 1, saved)
        try:
            block = encode_slot(slot, self._cluster, self._node)
            written = os.pwrite(self._fd, block, _offset(slot.sequence))
            if written != SLOT_BYTES:
                raise OSError(f"{written} of {SLOT_BYTES} bytes written")
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
    body, checksum = block[:-_CHECKSUM_BYTES], block[-_CHECKSUM_BYTES:]
    if hashlib.blake2b(body, digest_size=_CHECKSUM_BYTES).digest() != checksum:
        if not any(block):
            return None
        raise _damaged(f"slot {index} fails its checksum")
    magic, version, length = _HEADER.unpack_from(body)
    if magic != _MAGIC:
        raise _damaged(f"slot {index} lacks the vote-file header")
    if version != _FORMAT:
        raise VoteStoreError(
            f"written in format {version}, but this release only knows {_FORMAT}",
            "run the release that wrote it",
        )
    payload, padding = body[_HEADER.size : _HEADER.size + length], body[_HEADER.size + length :]
    if length > _ROOM_BYTES or any(padding):
        raise _damaged(f"slot {index} has the wrong length")
    try:
        owner, slot = _unpack(msgpack.unpackb(payload))
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise _damaged(f"slot {index}: {error}") from error
    if owner != (cluster, node):
        raise VoteStoreError(
            f"belongs to node {owner[1]} of cluster {owner[0]}, not to node {node} of cluster {cluster}", _ELSEWHERE
        )
    if _offset(slot.sequence) != index * SLOT_BYTES:
        raise _damaged(f"slot {index} holds save {slot.sequence}, which belongs in the other slot")
    return slot


def _unpack(value: object) -> tuple[tuple[str, int], Slot]:
    """((cluster, node), slot) of a decoded payload. Raises `ValueError`: a right checksum says who
    wrote it, not that it makes sense."""
    if type(value) is not list or len(value) != _PAYLOAD_FIELDS:
        raise ValueError("the payload does not have the fields of a vote file")
    sequence, cluster, node, lost_state, epoch, term, voted_for, incarnation, *voters = value
    generation, config_term, version, members, identity, epochs = voters
    if type(cluster) is not str or type(lost_state) is not bool or not type(members) is type(epochs) is list:
        raise ValueError("a field of the payload has the wrong type")
    for number, least, most in (
        (sequence, 1, _MAX_NUMBER),
        (node, 1, MAX_NODE_ID),
        (term, 0, MAX_TERM),
        (voted_for, 0, MAX_NODE_ID),
        (incarnation, 0, _MAX_NUMBER),
        (epoch, 0, _MAX_NUMBER),
        (generation, 0, _MAX_NUMBER),
        (config_term, 0, MAX_TERM),
        (version, 0, _MAX_NUMBER),
        *((member, 1, MAX_NODE_ID) for member in members),
        *((each, 0, _MAX_NUMBER) for each in epochs),
    ):
        if type(number) is not int or not least <= number <= most:
            raise ValueError("a number of the payload is out of range")
    if identity is not None and not (type(identity) is list and [type(part) for part in identity] == [str] * 3):
        raise ValueError("the witness of the payload has no identity")
    witness = None if identity is None else Witness(*identity)
    if len(epochs) != len(members):
        raise ValueError("the members and their epochs differ in number")
    record = Record(config_term, version, tuple(members), witness, generation, tuple(epochs))
    return (cluster, node), Slot(sequence, Saved(term, voted_for, incarnation, record, lost_state, epoch))


def _open_existing(path: Path, cluster: str, node: int) -> tuple[int, Slot]:
    """The descriptor and the newest slot of an existing vote file. Raises `OSError`, `UnsafeFile`,
    `VoteStoreError`."""
    fd = open_file(path, os.O_RDWR)
    try:
        return fd, newest_slot(os.pread(fd, VOTE_FILE_BYTES + 1, 0), cluster, node)
    except BaseException:
        os.close(fd)
        raise


def _create(path: Path, content: bytes) -> int:
    """Make the file under another name, then rename it: a vote file is there in full or not at all.
    Returns the descriptor it was written through. Raises `OSError`, `UnsafeFile`."""
    draft = path.with_name(f"{_NAME}.new")
    draft.unlink(missing_ok=True)  # left by a start that was cut short
    fd = open_file(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL)
    try:
        written = os.pwrite(fd, content, 0)
        if written != len(content):
            raise OSError(f"{written} of {len(content)} bytes written")
        os.fsync(fd)
        os.rename(draft, path)
        sync_directory(path.parent)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _offset(sequence: int) -> int:
    return (sequence - 1) % 2 * SLOT_BYTES


def _damaged(what: str) -> VoteStoreError:
    return VoteStoreError(f"damaged: {what}", _REPLACE)


def _text(error: Exception) -> str:
    if isinstance(error, VoteStoreError):
        return error.what
    return str(error.strerror or error) if isinstance(error, OSError) else str(error)
