"""The start of a process (R1): no incarnation is used twice, whatever the wall clock says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from zelect.core.effects import Saved
from zelect.core.settings import Settings
from zelect.node.startup import open_state
from zelect.node.storage.vote_store import newest_slot
from zelect.system.clock import unix_ms

SETTINGS = Settings("demo", 1, {node: f"tcp://127.0.0.1:{7100 + node}" for node in (1, 2, 3)})
DAY_MS = 86_400_000


def _live(path: Path, incarnation: int = 0) -> Saved:
    """One life in `path`, which ends as if the wall clock had stood at `incarnation` in it; what it
    was born with."""
    data_dir, vote_store = open_state(path, SETTINGS)
    born = vote_store.saved
    assert newest_slot((path / "vote").read_bytes(), "demo", 1).saved == born, "durable before anything is said"
    if incarnation:
        vote_store.save(replace(born, incarnation=incarnation))
        data_dir.announce(incarnation)
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
    _live(tmp_path, ahead)
    (tmp_path / "vote").unlink()
    born = _live(tmp_path)
    assert born.lost_state
    assert born.incarnation == ahead + 1
