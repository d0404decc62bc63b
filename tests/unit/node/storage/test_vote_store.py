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

from tests.support.waiting import wait_until
from zelect.core.effects import Saved
from zelect.core.quorum import Record
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
FIRST = Saved(0, 0, 1, Record(0, 1, (1, 2, 3)))
EMPTY = bytes(SLOT_BYTES)

numbers = st.integers(0, 2**53 - 1)
states = st.builds(
    Saved,
    st.integers(0, MAX_TERM),
    st.integers(0, MAX_NODE_ID),
    numbers,
    st.builds(
        Record,
        st.integers(0, MAX_TERM),
        numbers,
        st.sets(st.integers(1, MAX_NODE_ID), max_size=9).map(lambda ids: tuple(sorted(ids))),
    ),
)


def slot(sequence: int, lost_state: bool = False, cluster: str = CLUSTER, node: int = NODE) -> bytes:
    return encode_slot(Slot(sequence, replace(state(sequence), lost_state=lost_state)), cluster, node)


def state(number: int) -> Saved:
    return Saved(number, number % 4, number, Record(number // 2, number, (1, 2, 3)))


def sealed(payload: object, version: int = 1, magic: bytes = b"zelectV\n") -> bytes:
    """A slot with a right checksum around anything, packed by hand."""
    packed: bytes = msgpack.packb(payload)
    body = magic + version.to_bytes(2, "big") + len(packed).to_bytes(2, "big") + packed
    body = body.ljust(SLOT_BYTES - 32, b"\0")
    return body + hashlib.blake2b(body, digest_size=32).digest()


@pytest.fixture
def data_dir(tmp_path: Path) -> Iterator[DataDir]:
    held = DataDir.open(tmp_path / "n1", CLUSTER, NODE)
    yield held
    held.close()


def reopen(data_dir: DataDir) -> VoteStore:
    return VoteStore.open(data_dir, CLUSTER, NODE, FIRST)


# --- bytes -------------------------------------------------------------------------------------


@given(states, states, st.booleans())
def test_what_was_encoded_is_decoded(older: Saved, newer: Saved, lost_state: bool) -> None:
    newer = replace(newer, lost_state=lost_state)
    file = encode_slot(Slot(8, newer), CLUSTER, NODE)
    file = encode_slot(Slot(7, older), CLUSTER, NODE) + file
    assert decode(file, CLUSTER, NODE) == newer
    assert newest_slot(file, CLUSTER, NODE) == Slot(8, newer)


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
def test_any_flipped_bit_is_noticed(file: bytes) -> None:
    damaged = bytearray(file)
    for bit in range(8 * VOTE_FILE_BYTES):
        damaged[bit // 8] ^= 1 << bit % 8
        assert refused(damaged), f"bit {bit}"
        damaged[bit // 8] ^= 1 << bit % 8
    assert decode(bytes(damaged), CLUSTER, NODE) == decode(file, CLUSTER, NODE)


@given(st.binary(max_size=3 * SLOT_BYTES))
def test_random_bytes_are_no_vote_file(noise: bytes) -> None:
    for file in (noise, noise[:SLOT_BYTES].ljust(SLOT_BYTES, b"\0") + slot(2)):
        with pytest.raises(VoteStoreError):
            decode(file, CLUSTER, NODE)


@pytest.mark.parametrize("at", [14, 511, 512, 2048, SLOT_BYTES - 1])
def test_a_torn_slot_is_damage(at: int) -> None:
    older, newer = slot(1), slot(3)
    torn = newer[:at] + older[at:]
    with pytest.raises(VoteStoreError, match="damaged: slot 0 fails its checksum"):
        decode(torn + slot(2), CLUSTER, NODE)


@pytest.mark.parametrize(
    ("file", "what"),
    [
        (b"", "truncated: 0 bytes"),
        (slot(1), "truncated: 4096 bytes"),
        ((slot(1) + slot(2))[:-1], "truncated: 8191 bytes"),
        (slot(1) + slot(2) + b"\0", "too long"),
        (EMPTY + EMPTY, "damaged: slot 0 is empty"),
        (EMPTY + slot(2), "damaged: slot 0 is empty"),
        (slot(3) + EMPTY, "damaged: slot 1 is empty after 3 saves"),
        (slot(1) + slot(4), "damaged: .* 1 and 4, which are not consecutive"),
        (slot(5) + slot(2), "damaged: .* 5 and 2, which are not consecutive"),
        (slot(2) + slot(1), "damaged: slot 0 holds save 2"),
        (slot(1) + slot(1), "damaged: slot 1 holds save 1"),
        (slot(1) + b"\1" + EMPTY[1:], "damaged: slot 1 fails its checksum"),
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


def test_another_format_is_refused() -> None:
    with pytest.raises(VoteStoreError, match="written in format 2, but this release only knows 1"):
        decode(sealed([], version=2) + EMPTY, CLUSTER, NODE)


GOOD: list[object] = [1, CLUSTER, NODE, False, 7, 4, 2, 1, 0, 3, 1, [1, 2, 3], None, [5, 0, 6]]
SAVED = Saved(4, 2, 1, Record(3, 1, (1, 2, 3), epochs=(5, 0, 6)), epoch=7)
BAD: list[list[object]] = [
    [0, True, "1", -1, 2**53],
    [b"demo", None],
    [True, 0, MAX_NODE_ID + 1],
    [0, 1, None],
    [-1, 2**53, None],
    [-1, MAX_TERM + 1, 1.0],
    [-1, None, MAX_NODE_ID + 1],
    [-1, "1"],
    [-1, None],
    [-1, False],
    [-1, 1.5],
    [None, {}, [2, 1], [1, 1], [0], [True], ["1"]],
    [0, [], ["a", "b"], ["a", "b", 1], "abc"],
    [None, [], [1, 2], [1, 2, -1], [1, 2, True], 5],
]


def test_the_layout_is_pinned() -> None:
    assert decode(sealed(GOOD) + EMPTY, CLUSTER, NODE) == SAVED
    assert sealed(GOOD) == encode_slot(Slot(1, SAVED), CLUSTER, NODE)


@pytest.mark.parametrize(
    "payload",
    [{}, GOOD[:-1], [*GOOD, 0], *([*GOOD[:at], bad, *GOOD[at + 1 :]] for at, bads in enumerate(BAD) for bad in bads)],
)
def test_a_right_checksum_around_nonsense_is_damage(payload: object) -> None:
    with pytest.raises(VoteStoreError, match="damaged"):
        decode(sealed(payload) + EMPTY, CLUSTER, NODE)


def test_a_length_or_magic_that_cannot_be_is_damage() -> None:
    with pytest.raises(VoteStoreError, match="lacks the vote-file header"):
        decode(sealed(GOOD, magic=b"zelectW\n") + EMPTY, CLUSTER, NODE)
    body = bytearray(sealed(GOOD)[:-32])
    for length in (0, 5, 4053, 65535):
        body[10:12] = length.to_bytes(2, "big")
        with pytest.raises(VoteStoreError, match="damaged"):
            decode(bytes(body) + hashlib.blake2b(body, digest_size=32).digest() + EMPTY, CLUSTER, NODE)


def test_what_cannot_be_read_again_is_not_written() -> None:
    with pytest.raises(ValueError, match="out of range"):
        encode_slot(Slot(1, Saved(-1, 0, 1, FIRST.record)), CLUSTER, NODE)
    with pytest.raises(VoteStoreError, match="fewer members"):
        encode_slot(Slot(1, Saved(1, 0, 1, Record(0, 1, tuple(range(60_000, 62_000))))), CLUSTER, NODE)


# --- the file ----------------------------------------------------------------------------------


def test_a_first_start_makes_a_private_file(data_dir: DataDir) -> None:
    vote_store = reopen(data_dir)
    assert (vote_store.fresh, vote_store.saved.lost_state, vote_store.saved) == (True, False, FIRST)
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
    assert (again.saved, again.fresh, again.saved.lost_state) == (state(8), False, False)
    again.save(state(9))
    assert again.saved == state(9)
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


def test_a_missing_vote_file_is_lost_state_for_ever(data_dir: DataDir) -> None:
    vote_store = reopen(data_dir)
    vote_store.save(state(5))
    data_dir.announce(5)
    vote_store.close()
    os.unlink(data_dir.path / "vote")
    data_dir.close()

    for number, restart in enumerate(range(3), 2):
        held = DataDir.open(data_dir.path, CLUSTER, NODE)
        vote_store = reopen(held)
        assert (vote_store.saved.lost_state, vote_store.fresh) == (True, False), f"restart {restart}"
        vote_store.save(replace(state(number), lost_state=True))
        assert vote_store.saved.lost_state
        vote_store.close()
        held.close()


def test_a_start_that_never_sent_anything_lost_no_state(data_dir: DataDir) -> None:
    data_dir.close()  # held, but never announced: nothing was ever sent
    held = DataDir.open(data_dir.path, CLUSTER, NODE)
    vote_store = reopen(held)
    assert (vote_store.saved.lost_state, vote_store.fresh) == (False, True)
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
    vote_store = VoteStore(path, fd, CLUSTER, NODE, Slot(1, FIRST), fresh=False)
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


@pytest.mark.parametrize("limit", [4096, 4196])
def test_a_save_that_is_cut_short_fails(tmp_path: Path, limit: int) -> None:
    output = run(LIMITED, tmp_path / "n1", limit, "later")
    assert "a save failed" in output
    assert "100 of 4096 bytes" in output or limit == 4096


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
        assert not vote_store.saved.lost_state
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
