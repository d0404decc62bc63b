"""The start of a process (R1): no incarnation is used twice, whatever the wall clock says."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from zelect.core.effects import Saved
from zelect.core.quorum import NO_RECORD
from zelect.core.settings import Settings
from zelect.core.timing import Timing
from zelect.node.startup import log_old_peers, open_state
from zelect.node.storage.vote_store import newest_slot
from zelect.system.clock import unix_ms
from zelect.system.log import Log

SETTINGS = Settings("demo", 1, {node: f"tcp://127.0.0.1:{7100 + node}" for node in (1, 2, 3)})
DAY_MS = 86_400_000


def _live(path: Path, incarnation: int = 0, settings: Settings = SETTINGS, epoch: int = 0) -> Saved:
    """One life in `path`, which ends as if the wall clock had stood at `incarnation` in it, or as if it
    had begun `epoch` in it; what it was born with."""
    data_dir, vote_store = open_state(path, settings)
    born = vote_store.saved
    assert newest_slot((path / "vote").read_bytes(), "demo", 1).saved == born, "durable before anything is said"
    if incarnation:
        vote_store.save(replace(born, incarnation=incarnation))
        data_dir.announce(incarnation)
    if epoch:
        vote_store.save(replace(born, epoch=epoch))
    vote_store.close()
    data_dir.close()
    return born


def test_r1_the_first_incarnation_is_the_beginning_of_the_memory(tmp_path: Path) -> None:
    before_ms = unix_ms()
    born = _live(tmp_path)
    assert before_ms <= born.incarnation <= unix_ms()
    assert born.epoch == born.incarnation


def test_r1_each_start_is_a_new_incarnation_of_the_same_epoch(tmp_path: Path) -> None:
    first, second, third = (_live(tmp_path) for _ in range(3))
    assert first.incarnation < second.incarnation < third.incarnation
    assert first.epoch == second.epoch == third.epoch


def test_r1_a_wall_clock_that_was_set_back_repeats_no_incarnation(tmp_path: Path) -> None:
    ahead = unix_ms() + DAY_MS
    _live(tmp_path, ahead)
    assert _live(tmp_path).incarnation == ahead + 1


def test_r1_nor_does_it_after_a_loss_of_the_vote_store(tmp_path: Path) -> None:
    ahead = unix_ms() + DAY_MS
    before = _live(tmp_path, ahead)
    (tmp_path / "vote").unlink()
    born = _live(tmp_path)
    assert born.incarnation == born.epoch == ahead + 1
    assert born.epoch > before.epoch
    assert born.record == NO_RECORD


def test_r16_a_copy_repeats_neither_the_incarnation_nor_the_epoch_of_the_original(tmp_path: Path) -> None:
    original, copy = tmp_path / "n1", tmp_path / "copy"
    ahead = unix_ms() + DAY_MS
    first = _live(original, ahead)
    second = _live(original)
    subprocess.run(["cp", "-a", str(original), str(copy)], check=True)
    born = _live(copy)
    assert born.incarnation > second.incarnation == ahead + 1
    assert born.epoch > max(first.epoch, second.incarnation)
    assert born.record == NO_RECORD
    assert _live(original).epoch == first.epoch, "the original goes on"


def test_r16_after_its_epoch_was_raised_while_it_ran_a_node_never_begins_an_older_one(tmp_path: Path) -> None:
    """A peer that remembered a higher epoch made the node begin one beyond its incarnation; then it loses its data, and
    its clock is behind."""
    ahead = unix_ms() + DAY_MS
    _live(tmp_path, epoch=ahead)
    again = _live(tmp_path)
    assert again.incarnation > again.epoch == ahead
    (tmp_path / "vote").unlink()
    assert _live(tmp_path).epoch > ahead


def test_r4_the_longer_promise_stays_when_the_election_timeout_becomes_shorter(tmp_path: Path) -> None:
    def timed(election_timeout_ms: int) -> Settings:
        return replace(SETTINGS, timing=replace(Timing(), election_timeout_ms=election_timeout_ms))

    usual = Timing().election_timeout_ms
    for now, kept in ((usual, usual), (usual + 400, usual + 400), (usual, usual + 400)):
        assert _live(tmp_path, settings=timed(now)).promise_ms == kept


def test_how_often_an_epoch_was_saved_goes_on_over_restarts_and_begins_again_after_a_loss(tmp_path: Path) -> None:
    counts = []
    for restart in range(3):
        if restart == 2:
            (tmp_path / "vote").unlink()
        data_dir, vote_store = open_state(tmp_path, SETTINGS)
        counts.append(vote_store.saves)
        vote_store.close()
        data_dir.close()
    assert counts == [1, 2, 1]


@pytest.mark.parametrize(
    ("recorded", "nodes"),
    [
        ({1: "tcp://a:1", 2: "tcp://b:1"}, ""),
        ({}, ""),  # a new node: its configuration decides
        ({1: "tcp://a:1", 2: "tcp://c:1"}, "2"),
        ({1: "tcp://a:1", 3: "tcp://d:1"}, "2,3"),
    ],
)
def test_a_configuration_that_lags_behind_the_record_is_a_warning(
    tmp_path: Path, recorded: dict[int, str], nodes: str
) -> None:
    path = tmp_path / "log"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    log_old_peers(Log(fd, "info", "text", 1, "demo"), {1: "tcp://a:1", 2: "tcp://b:1"}, recorded)
    os.close(fd)
    text = path.read_text()
    assert ("configured_peers_differ" in text, f"nodes={nodes} " in text) == (bool(nodes), bool(nodes))
