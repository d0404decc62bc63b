"""The start of a process: what it remembers, and a new incarnation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from zelect.core.settings import Settings
from zelect.machine import founding
from zelect.shell.ballot import Ballot, BallotError
from zelect.shell.clock import unix_ms
from zelect.shell.datadir import DataDir

__all__ = ["be_born"]


def be_born(path: Path, settings: Settings) -> tuple[DataDir, Ballot]:
    """Open in `path` what must never be forgotten, and take a new incarnation, which is durable
    before anything is said in its name (R1). Raises `BallotError` and `DataDirError`."""
    data_dir = DataDir.open(path, settings.cluster, settings.node)
    first = founding(settings, incarnation=unix_ms())
    ballot = Ballot.open(data_dir, settings.cluster, settings.node, first)
    _check_roster(ballot, settings)
    saved = ballot.saved
    if not ballot.fresh:
        # The wall clock may have been set back; no number may be used again.
        last = max(saved.incarnation, data_dir.last_incarnation)
        saved = replace(saved, incarnation=max(last + 1, unix_ms()))
        ballot.save(saved)
    data_dir.announce(saved.incarnation)
    return data_dir, ballot


def _check_roster(ballot: Ballot, settings: Settings) -> None:
    missing = sorted(set(ballot.saved.record.members) - set(settings.roster))
    if missing:
        raise BallotError(
            f"node {missing[0]} votes in the saved electorate, but [[peers]] does not list it",
            "list it, stop it and wait until the electorate is without it ('zelect electorate'), then remove it",
        )
