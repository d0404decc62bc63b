"""The contract of the vote file (R1), with real files and real processes."""

from __future__ import annotations

import hashlib
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.records import made_record
from tests.support.samples import records
from tests.support.waiting import wait_until
from zelect.core.effects import Saved
from zelect.core.quorum import NO_RECORD, Record
from zelect.core.timing import MAX_NODE_ID, MAX_TERM
from zelect.node.storage.data_dir import DataDir
from zelect.node.storage.vote_store import (
    SLOT_BYTES,
    VOTE_FILE_BYTES,
    Slot,
    VoteStore,
    VoteStoreError,
    decode,
    encode_slot,
    newest_slot,
)

CLUSTER, NODE = "demo", 1
INODE = 77
FIRST = Saved(0, 0, 1, made_record(0, 1, (1, 2, 3)))
BLOCK_BYTES = 4096
EMPTY = bytes(SLOT_BYTES)

numbers = st.integers(0, 2**53 - 1)
nodes = st.integers(0, MAX_NODE_ID)
pairs = st.dictionaries(st.integers(1, MAX_NODE_ID), numbers, max_size=9).map(
    lambda epochs: tuple(sorted(epochs.items()))
)
states = st.builds(Saved, st.integers(0, MAX_TERM), nodes, numbers, records, numbers, numbers, pairs, numbers)


def blocks(sequence: int, cluster: str = CLUSTER, node: int = NODE, saved: Saved | None = None) -> bytes:
    """What a save writes."""
    return encode_slot(Slot(sequence, INODE, saved or state(sequence)), cluster, node)


def slot(sequence: int, cluster: str = CLUSTER, node: int = NODE, saved: Saved | None = None) -> bytes:
    """A whole slot of a vote file."""
    return blocks(sequence, cluster, node, saved).ljust(SLOT_BYTES, b"\0")


def state(number: int) -> Saved:
    return Saved(number, number % 4, number, made_record(number // 2, number, (1, 2, 3)), epoch=7, voted_epoch=number)


def large(number: int, members: int = 1000) -> Saved:
    """A state with so many members, in several blocks."""
    record = made_record(number // 2, number, tuple(range(1, members + 1)), epochs=(2**41,) * members)
    return replace(state(number), record=record)


def sealed(payload: object, version: int = 2, magic: bytes = b"zelectV\n") -> bytes:
    """A slot of one block with a right checksum around anything, packed by hand."""
    packed: bytes = msgpack.packb(payload)
    body = magic + version.to_bytes(2, "big") + len(packed).to_bytes(2, "big") + packed
    body = body.ljust(BLOCK_BYTES - 32, b"\0")
    return (body + hashlib.blake2b(body, digest_size=32).digest()).ljust(SLOT_BYTES, b"\0")


@pytest.fixture
def data_dir(tmp_path: Path) -> Iterator[DataDir]:
    held = DataDir.open(tmp_path / "n1", CLUSTER, NODE)
    yield held
    held.close()


def reopen(data_dir: DataDir) -> VoteStore:
    return VoteStore.open(data_dir, CLUSTER, NODE, FIRST)


# --- bytes -------------------------------------------------------------------------------------


@given(states, states, numbers)
def test_what_was_encoded_is_decoded(older: Saved, newer: Saved, inode: int) -> None:
    file = encode_slot(Slot(8, inode, newer), CLUSTER, NODE)
    file = encode_slot(Slot(7, inode, older), CLUSTER, NODE).ljust(SLOT_BYTES, b"\0") + file.ljust(SLOT_BYTES, b"\0")
    assert decode(file, CLUSTER, NODE) == newer
    assert newest_slot(file, CLUSTER, NODE) == Slot(8, inode, newer)


def test_a_new_node_has_no_record_yet() -> None:
    first = Saved(0, 0, 5, NO_RECORD, epoch=5, promise_ms=700)
    assert decode(slot(1, saved=first) + EMPTY, CLUSTER, NODE) == first


def test_the_newer_slot_counts_wherever_it_stands() -> None:
    assert decode(slot(1) + EMPTY, CLUSTER, NODE) == state(1)
    assert decode(slot(1) + slot(2), CLUSTER, NODE) == state(2)
    assert decode(slot(3) + slot(2), CLUSTER, NODE) == state(3)


def refused(file: bytearray) -> bool:
    try:
        decode(bytes(file), CLUSTER, NODE)
    except VoteStoreError:
        return True
    return False


@pytest.mark.parametrize("file", [slot(1) + EMPTY, slot(3) + slot(2)], ids=["one save", "three saves"])
def test_any_flipped_bit_of_what_a_save_wrote_is_noticed(file: bytes) -> None:
    damaged = bytearray(file)
    for byte in (*range(BLOCK_BYTES), *range(SLOT_BYTES, SLOT_BYTES + BLOCK_BYTES)):
        for bit in range(8):
            damaged[byte] ^= 1 << bit
            assert refused(damaged), f"byte {byte}, bit {bit}"
            damaged[byte] ^= 1 << bit
    assert decode(bytes(damaged), CLUSTER, NODE) == decode(file, CLUSTER, NODE)


def test_any_byte_in_the_second_slot_before_its_first_save_is_noticed() -> None:
    damaged = bytearray(slot(1) + EMPTY)
    for byte in range(SLOT_BYTES, VOTE_FILE_BYTES, 101):
        damaged[byte] ^= 1
        with pytest.raises(VoteStoreError):
            decode(bytes(damaged), CLUSTER, NODE)
        damaged[byte] ^= 1


def test_a_thousand_members_fit() -> None:
    saved = replace(large(2), founding=tuple((node, 2**41) for node in range(1, 1001)))
    written = blocks(2, saved=saved)
    assert len(written) % BLOCK_BYTES == 0
    assert BLOCK_BYTES < len(written) <= SLOT_BYTES
    assert decode(slot(1) + written.ljust(SLOT_BYTES, b"\0"), CLUSTER, NODE) == saved


def test_a_block_more_is_written_only_when_the_state_needs_it() -> None:
    sizes = {len(blocks(1, saved=large(1, members))) for members in range(20, 260)}
    assert sizes == {BLOCK_BYTES, 2 * BLOCK_BYTES, 3 * BLOCK_BYTES}


@pytest.mark.parametrize("at", range(BLOCK_BYTES, len(blocks(3, saved=large(3))), BLOCK_BYTES))
def test_a_torn_later_block_is_damage(at: int) -> None:
    older, newer = slot(1, saved=large(1)), slot(3, saved=large(3))
    whole = newer + slot(2)
    assert decode(whole, CLUSTER, NODE) == large(3)
    for torn in (newer[:at] + older[at:], newer[:at] + bytes(SLOT_BYTES - at), older[:at] + newer[at:]):
        with pytest.raises(VoteStoreError, match="damaged: slot 0 fails its checksum"):
            decode(torn + slot(2), CLUSTER, NODE)


def test_what_an_earlier_and_larger_state_left_behind_does_not_matter() -> None:
    older, newer = slot(1, saved=large(1)), blocks(3)
    assert len(newer) == BLOCK_BYTES
    assert decode(newer + older[BLOCK_BYTES:] + slot(2), CLUSTER, NODE) == state(3)


@given(st.binary(max_size=3 * SLOT_BYTES))
def test_random_bytes_are_no_vote_file(noise: bytes) -> None:
    for file in (noise, noise[:SLOT_BYTES].ljust(SLOT_BYTES, b"\0") + slot(2)):
        with pytest.raises(VoteStoreError):
            decode(file, CLUSTER, NODE)


@pytest.mark.parametrize("at", [14, 511, 512, 2048, BLOCK_BYTES - 1])
def test_a_torn_slot_is_damage(at: int) -> None:
    older, newer = slot(1), slot(3)
    torn = newer[:at] + older[at:]
    with pytest.raises(VoteStoreError, match="damaged: slot 0 fails its checksum"):
        decode(torn + slot(2), CLUSTER, NODE)


@pytest.mark.parametrize(
    ("file", "what"),
    [
        (b"", "truncated: 0 bytes"),
        (slot(1), "truncated: 65536 bytes"),
        ((slot(1) + slot(2))[:-1], "truncated: 131071 bytes"),
        (slot(1) + slot(2) + b"\0", "too long"),
        (EMPTY + EMPTY, "damaged: slot 0 is empty"),
        (EMPTY + slot(2), "damaged: slot 0 is empty"),
        (slot(3) + EMPTY, "damaged: slot 1 is empty after 3 saves"),
        (slot(1) + slot(4), "damaged: .* 1 and 4, which are not consecutive"),
        (slot(5) + slot(2), "damaged: .* 5 and 2, which are not consecutive"),
        (slot(2) + slot(1), "damaged: slot 0 holds save 2"),
        (slot(1) + slot(1), "damaged: slot 1 holds save 1"),
        (slot(1) + b"\1" + EMPTY[1:], "damaged: slot 1 lacks the vote-file header"),
        (slot(1) + EMPTY[:-1] + b"\1", "damaged: slot 1 lacks the vote-file header"),
    ],
)
def test_what_is_wrong_is_said(file: bytes, what: str) -> None:
    with pytest.raises(VoteStoreError, match=what) as caught:
        decode(file, CLUSTER, NODE)
    assert "do not restore a backup" in str(caught.value)
    assert "move this file away" in str(caught.value)


@pytest.mark.parametrize(("cluster", "node"), [("demo", 2), ("other", 1), ("Demo", 1)])
def test_a_vote_file_of_another_node_is_refused(cluster: str, node: int) -> None:
    with pytest.raises(
        VoteStoreError, match=f"belongs to node {node} of cluster {cluster}, not to node 1 of cluster demo"
    ):
        decode(slot(1, cluster=cluster, node=node) + EMPTY, CLUSTER, NODE)


@pytest.mark.parametrize("version", [1, 3])
def test_another_format_is_refused(version: int) -> None:
    with pytest.raises(VoteStoreError, match=f"written in format {version}, but this release only knows 2"):
        decode(sealed([], version=version) + EMPTY, CLUSTER, NODE)


PLACES = [[1, "tcp://a:1"], [2, "tcp://b:1"], [3, "tcp://c:1"], [4, "tcp://d:1"]]
RECORD: list[object] = [70, 1, 3, 8, [1, 2, 3], None, [5, 0, 6], PLACES]
GOOD: list[object] = [1, CLUSTER, NODE, INODE, 7, 4, 2, 9, 11, 700, [[1, 5], [2, 0]], RECORD]
SAVED = Saved(
    term=4,
    voted_for=2,
    incarnation=11,
    record=Record(
        3,
        8,
        (1, 2, 3),
        None,
        1,
        (5, 0, 6),
        70,
        ((1, "tcp://a:1"), (2, "tcp://b:1"), (3, "tcp://c:1"), (4, "tcp://d:1")),
    ),
    epoch=7,
    voted_epoch=9,
    founding=((1, 5), (2, 0)),
    promise_ms=700,
)
NO_NUMBER: list[object] = [-1, 2**53, None, True, "1", 1.0]
BAD_FIELDS: list[list[object]] = [
    [0, *NO_NUMBER],
    [b"demo", None],
    [True, 0, MAX_NODE_ID + 1],
    [-1, 2**64 - 1 + 0.5, None, False],
    NO_NUMBER,
    [-1, MAX_TERM + 1, 1.0],
    [-1, None, MAX_NODE_ID + 1],
    NO_NUMBER,
    NO_NUMBER,
    NO_NUMBER,
    [None, {}, [1], [[1]], [[1, 2, 3]], [[0, 1]], [[1, -1]], [[1, True]], [["1", 1]]],
    [None, [], RECORD[:-1], [*RECORD, 0]],
]
BAD_RECORD: list[list[object]] = [
    NO_NUMBER,
    NO_NUMBER,
    [-1, MAX_TERM + 1, None],
    NO_NUMBER,
    [None, {}, [2, 1, 3], [1, 1, 3], [0, 1, 2], [1, 2, True], [1, 2, "3"], [1, 2], [1, 2, 5]],
    [0, [], ["a", "b"], ["a", "b", 1], ["a", "b", None], "abc"],
    [None, [], [1, 2], [1, 2, -1], [1, 2, True], 5],
    [
        None,
        [],
        PLACES[1:],
        [*PLACES, [4, "tcp://e:1"]],
        PLACES[::-1],
        [*PLACES, [5, 5]],
        [*PLACES, [5]],
        [*PLACES, ["5", "a"]],
    ],
]
BAD = [
    *([*GOOD[:at], bad, *GOOD[at + 1 :]] for at, bads in enumerate(BAD_FIELDS) for bad in bads),
    *([*GOOD[:-1], [*RECORD[:at], bad, *RECORD[at + 1 :]]] for at, bads in enumerate(BAD_RECORD) for bad in bads),
]


def test_the_layout_is_pinned() -> None:
    assert decode(sealed(GOOD) + EMPTY, CLUSTER, NODE) == SAVED
    assert sealed(GOOD) == slot(1, saved=SAVED)
    assert newest_slot(sealed(GOOD) + EMPTY, CLUSTER, NODE) == Slot(1, INODE, SAVED)


@pytest.mark.parametrize("payload", [{}, GOOD[:-1], [*GOOD, 0], *BAD])
def test_a_right_checksum_around_nonsense_is_damage(payload: object) -> None:
    with pytest.raises(VoteStoreError, match="damaged"):
        decode(sealed(payload) + EMPTY, CLUSTER, NODE)


def test_a_length_or_magic_that_cannot_be_is_damage() -> None:
    with pytest.raises(VoteStoreError, match="lacks the vote-file header"):
        decode(sealed(GOOD, magic=b"zelectW\n") + EMPTY, CLUSTER, NODE)
    body = bytearray(sealed(GOOD)[: BLOCK_BYTES - 32])
    for length in (0, 5, BLOCK_BYTES - 12 - 32 + 1, SLOT_BYTES - 12 - 32, SLOT_BYTES - 12 - 32 + 1, 65535):
        body[10:12] = length.to_bytes(2, "big")
        whole = bytes(body) + hashlib.blake2b(body, digest_size=32).digest()
        with pytest.raises(VoteStoreError, match="damaged"):
            decode(whole.ljust(SLOT_BYTES, b"\0") + EMPTY, CLUSTER, NODE)


def test_what_cannot_be_read_again_is_not_written() -> None:
    with pytest.raises(ValueError, match="out of range"):
        blocks(1, saved=Saved(-1, 0, 1, FIRST.record))
    with pytest.raises(VoteStoreError, match="fewer members"):
        blocks(1, saved=large(1, 2000))


# --- the file ----------------------------------------------------------------------------------


def test_a_first_start_makes_a_private_file(data_dir: DataDir) -> None:
    vote_store = reopen(data_dir)
    assert (vote_store.fresh, vote_store.lost, vote_store.saved, vote_store.saves) == (True, "", FIRST, 1)
    status = os.stat(data_dir.path / "vote")
    assert (stat.S_IMODE(status.st_mode), status.st_size) == (0o600, VOTE_FILE_BYTES)
    assert sorted(os.listdir(data_dir.path)) == ["lock", "vote"]
    vote_store.close()


def test_saves_alternate_and_survive_reopening(data_dir: DataDir) -> None:
    vote_store = reopen(data_dir)
    inode = os.stat(data_dir.path / "vote").st_ino
    for number in range(2, 9):
        before = (data_dir.path / "vote").read_bytes()
        vote_store.save(state(number))
        after = (data_dir.path / "vote").read_bytes()
        kept = (number % 2) * SLOT_BYTES  # the slot of the save before
        assert before[kept : kept + SLOT_BYTES] == after[kept : kept + SLOT_BYTES]
        assert vote_store.saved == decode(after, CLUSTER, NODE) == state(number)
    vote_store.close()
    again = reopen(data_dir)
    assert (again.saved, again.fresh, again.lost, again.saves) == (state(8), False, "", 8)
    again.save(state(9))
    assert (again.saved, again.saves) == (state(9), 9)
    assert os.stat(data_dir.path / "vote").st_ino == inode
    again.close()


def test_the_file_stays_open_and_is_not_inherited(data_dir: DataDir) -> None:
    vote_store = reopen(data_dir)
    path = data_dir.path / "vote"
    os.rename(path, path.with_name("moved"))
    vote_store.save(state(2))
    assert decode(path.with_name("moved").read_bytes(), CLUSTER, NODE) == state(2)
    listing = "import os; print([os.path.realpath(f'/proc/self/fd/{fd}') for fd in os.listdir('/proc/self/fd')])"
    child = subprocess.run([sys.executable, "-c", listing], capture_output=True, text=True, close_fds=False, check=True)
    assert str(data_dir.path) not in child.stdout
    vote_store.close()


def test_a_state_that_shrinks_leaves_the_rest_of_its_slot_as_it_was(data_dir: DataDir) -> None:
    path = data_dir.path / "vote"
    vote_store = reopen(data_dir)
    for number, saved in ((2, state(2)), (3, large(3)), (4, state(4)), (5, state(5))):
        vote_store.save(saved)
        assert decode(path.read_bytes(), CLUSTER, NODE) == saved, f"save {number}"
    assert any(path.read_bytes()[BLOCK_BYTES:SLOT_BYTES]), "nothing is written that is not needed"
    vote_store.close()
    again = reopen(data_dir)
    assert (again.saved, again.lost) == (state(5), "")
    again.close()


def test_a_missing_vote_file_is_said_and_begins_a_new_epoch(data_dir: DataDir) -> None:
    path = data_dir.path / "vote"
    vote_store = reopen(data_dir)
    vote_store.save(state(5))
    data_dir.announce(5)
    vote_store.close()
    os.unlink(path)
    data_dir.close()

    held = DataDir.open(data_dir.path, CLUSTER, NODE)
    new = replace(FIRST, incarnation=9, epoch=9)
    vote_store = VoteStore.open(held, CLUSTER, NODE, new)
    assert (vote_store.lost, vote_store.fresh) == (f"{path} is missing", False)
    assert (vote_store.saved, vote_store.saves) == (new, 1)
    vote_store.close()
    again = reopen(held)
    assert (again.lost, again.saved) == ("", new), "the epoch remembers the loss, the file need not"
    again.close()
    held.close()


def copied(data_dir: DataDir, to: Path) -> Path:
    """A copy of a stopped node's directory, with all modes and times, as ``cp -a`` makes it."""
    subprocess.run(["cp", "-a", str(data_dir.path), str(to)], check=True)
    return to


def test_a_copy_is_not_read_as_the_state_of_this_node(data_dir: DataDir, tmp_path: Path) -> None:
    vote_store = reopen(data_dir)
    vote_store.save(replace(state(5), epoch=20, incarnation=30))
    data_dir.announce(30)
    vote_store.close()
    data_dir.close()
    held = DataDir.open(copied(data_dir, tmp_path / "copy"), CLUSTER, NODE)
    vote_store = VoteStore.open(held, CLUSTER, NODE, replace(FIRST, incarnation=3, epoch=3))
    path = held.path / "vote"
    assert (vote_store.lost, vote_store.fresh) == (f"{path} is a copy of another file", False)
    assert vote_store.saved == replace(FIRST, incarnation=31, epoch=31), "what the copy used is not used again"
    assert newest_slot(path.read_bytes(), CLUSTER, NODE).inode == os.stat(path).st_ino
    vote_store.save(state(40))
    vote_store.close()
    again = reopen(held)
    assert (again.lost, again.saved) == ("", state(40)), "it is this node's own file from then on"
    again.close()
    held.close()


def test_a_backup_that_is_put_back_is_a_copy(data_dir: DataDir) -> None:
    path = data_dir.path / "vote"
    reopen(data_dir).close()
    kept = path.read_bytes()
    vote_store = reopen(data_dir)
    vote_store.save(state(2))
    vote_store.close()
    path.with_name("restored").write_bytes(kept)  # beside the old one, so that it has another inode
    path.with_name("restored").chmod(0o600)
    os.rename(path.with_name("restored"), path)
    again = reopen(data_dir)
    assert again.lost == f"{path} is a copy of another file"
    again.close()


def test_a_renamed_directory_is_no_copy(data_dir: DataDir, tmp_path: Path) -> None:
    vote_store = reopen(data_dir)
    vote_store.save(state(2))
    vote_store.close()
    data_dir.announce(2)
    data_dir.close()
    os.rename(data_dir.path, tmp_path / "renamed")
    held = DataDir.open(tmp_path / "renamed", CLUSTER, NODE)
    vote_store = reopen(held)
    assert (vote_store.lost, vote_store.fresh, vote_store.saved) == ("", False, state(2))
    vote_store.close()
    held.close()


def test_a_start_that_never_sent_anything_lost_no_state(data_dir: DataDir) -> None:
    data_dir.close()  # held, but never announced: nothing was ever sent
    held = DataDir.open(data_dir.path, CLUSTER, NODE)
    vote_store = reopen(held)
    assert (vote_store.lost, vote_store.fresh) == ("", True)
    vote_store.close()
    held.close()


def test_the_remains_of_a_crash_at_the_first_start_do_not_matter(data_dir: DataDir) -> None:
    (data_dir.path / "vote.new").write_bytes(b"half")
    vote_store = reopen(data_dir)
    assert vote_store.fresh
    assert sorted(os.listdir(data_dir.path)) == ["lock", "vote"]
    vote_store.close()


@pytest.mark.parametrize("content", [b"", b"noise", slot(1), slot(1) + slot(4), slot(1, node=2) + EMPTY])
def test_a_bad_file_is_named_and_left_alone(data_dir: DataDir, content: bytes) -> None:
    path = data_dir.path / "vote"
    path.write_bytes(content)
    with pytest.raises(VoteStoreError) as caught:
        reopen(data_dir)
    assert str(caught.value).startswith(f"{path}: ")
    assert path.read_bytes() == content


def test_odd_files_are_refused(data_dir: DataDir, tmp_path: Path) -> None:
    path = data_dir.path / "vote"
    path.mkdir()
    with pytest.raises(VoteStoreError, match="cannot be opened"):
        reopen(data_dir)
    path.rmdir()
    (tmp_path / "elsewhere").write_bytes(slot(1) + EMPTY)
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(VoteStoreError, match="is a symbolic link"):
        reopen(data_dir)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(VoteStoreError, match="is not a regular file"):
        reopen(data_dir)


# --- failures ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "flags", "reason"),
    [
        ("/dev/full", os.O_RDWR, "No space left"),
        ("/dev/null", os.O_RDWR, "Invalid argument"),  # takes the write, refuses the sync
        ("vote", os.O_RDONLY, "Bad file descriptor"),
    ],
    ids=["write fails", "sync fails", "read-only"],
)
def test_a_failed_save_is_never_tried_again(data_dir: DataDir, target: str, flags: int, reason: str) -> None:
    reopen(data_dir).close()
    path = data_dir.path / target
    fd = os.open(path, flags)
    vote_store = VoteStore(path, fd, CLUSTER, NODE, Slot(1, INODE, FIRST), fresh=False, lost="")
    with pytest.raises(VoteStoreError, match=reason) as caught:
        vote_store.save(state(2))
    assert str(caught.value).startswith(f"{path}: a save failed")
    good = os.open(data_dir.path / "vote", os.O_RDWR)
    os.dup2(good, fd)  # even though a save would work now
    os.close(good)
    with pytest.raises(VoteStoreError, match="will not be retried"):
        vote_store.save(state(3))
    assert vote_store.saved == FIRST
    assert decode((data_dir.path / "vote").read_bytes(), CLUSTER, NODE) == FIRST
    vote_store.close()


def test_a_closed_vote_store_saves_nothing(data_dir: DataDir) -> None:
    vote_store = reopen(data_dir)
    vote_store.close()
    vote_store.close()
    with pytest.raises(VoteStoreError, match="closed"):
        vote_store.save(state(2))


LIMITED = """
import resource, sys
from pathlib import Path
from tests.unit.node.storage.test_vote_store import CLUSTER, FIRST, NODE, state
from zelect.node.storage.vote_store import VoteStore, VoteStoreError
from zelect.node.storage.data_dir import DataDir

data_dir = DataDir.open(Path(sys.argv[1]), CLUSTER, NODE)
vote_store = VoteStore.open(data_dir, CLUSTER, NODE, FIRST) if sys.argv[3] == "later" else None
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
try:
    (vote_store or VoteStore.open(data_dir, CLUSTER, NODE, FIRST)).save(state(2))
except VoteStoreError as error:
    print(error)
"""


@pytest.mark.parametrize("limit", [SLOT_BYTES, SLOT_BYTES + 100])
def test_a_save_that_is_cut_short_fails(tmp_path: Path, limit: int) -> None:
    output = run(LIMITED, tmp_path / "n1", limit, "later")
    assert "a save failed" in output
    assert "100 of 4096 bytes" in output or limit == SLOT_BYTES


def test_a_vote_file_that_cannot_be_made_is_not_there(tmp_path: Path) -> None:
    assert "cannot be opened" in run(LIMITED, tmp_path / "n1", 5000, "now")
    assert not (tmp_path / "n1" / "vote").exists()


UNPRIVILEGED = """
import os, sys
from pathlib import Path
from tests.unit.node.storage.test_vote_store import CLUSTER, FIRST, NODE
from zelect.node.storage.vote_store import VoteStore, VoteStoreError
from zelect.node.storage.data_dir import DataDir

data_dir = DataDir.open(Path(sys.argv[1]), CLUSTER, NODE)
os.chdir(data_dir.path)
if os.geteuid() == 0:
    os.seteuid(65534)
data_dir.path = Path(".")
try:
    VoteStore.open(data_dir, CLUSTER, NODE, FIRST)
except VoteStoreError as error:
    print(error)
"""


def test_a_directory_or_file_that_may_not_be_written_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "n1"
    path.mkdir()
    (path / "lock").touch()
    path.chmod(0o555)
    try:
        assert "Permission denied" in run(UNPRIVILEGED, path)
    finally:
        path.chmod(0o755)
    (path / "vote").write_bytes(slot(1) + EMPTY)
    (path / "vote").chmod(0o444)
    assert "Permission denied" in run(UNPRIVILEGED, path)


def run(code: str, *arguments: object) -> str:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


# --- crashes -----------------------------------------------------------------------------------

SAVER = """
import os, sys
from pathlib import Path
from tests.unit.node.storage.test_vote_store import CLUSTER, FIRST, NODE, state
from zelect.node.storage.vote_store import VoteStore
from zelect.node.storage.data_dir import DataDir

data_dir = DataDir.open(Path(sys.argv[1]), CLUSTER, NODE)
vote_store = VoteStore.open(data_dir, CLUSTER, NODE, FIRST)
data_dir.announce(1)
number = vote_store.saved.term
while True:
    number += 1
    vote_store.save(state(number))
    os.write(1, number.to_bytes(8, "big"))
"""


def test_killed_while_saving_nothing_reported_is_lost(tmp_path: Path) -> None:
    path, report = tmp_path / "n1", tmp_path / "report"
    for least in (1, 2, 3, 50, 51, 200):
        save_until_killed(path, report, least)
        reported = int.from_bytes(report.read_bytes()[-8:], "big")
        held = DataDir.open(path, CLUSTER, NODE)
        vote_store = reopen(held)
        assert vote_store.saved in (state(reported), state(reported + 1))
        assert not vote_store.lost
        vote_store.close()
        held.close()


def save_until_killed(path: Path, report: Path, least: int) -> None:
    """Run the saver until it has reported `least` saves, then kill it."""
    with report.open("wb") as out:
        saver = subprocess.Popen([sys.executable, "-c", SAVER, str(path)], stdout=out)
    try:
        wait_until(lambda: report.stat().st_size >= 8 * least)
    finally:
        saver.send_signal(signal.SIGKILL)
        saver.wait()
