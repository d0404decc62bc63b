"""Rounds of votes follow the disk (R8): nodes whose saves take long elect all the same."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.clusters import Fleet, fleet_of
from tools.common.slow_saves import missing, slowed_saves

pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.skipif(bool(missing()), reason=missing()),
]


@pytest.fixture
def fleet(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Fleet]:
    with fleet_of(request, tmp_path) as made:
        yield made


@pytest.mark.parametrize("by_ms", [50, pytest.param(120, marks=pytest.mark.long), 500])
@pytest.mark.parametrize("quorum", ["static", "dynamic"])
def test_a_slow_disk_elects_within_seconds(fleet: Fleet, quorum: str, by_ms: int) -> None:
    """With a fixed round of 100 ms no save of 50 ms or more ever led to an election."""
    cluster = fleet.cluster(quorum=quorum)
    cluster.start()
    head = cluster.settled()
    survivors = [node for node in cluster.ids if node != head.id]
    with slowed_saves((cluster.processes[node].pid for node in survivors), by_ms):
        cluster.kill(head.id)
        assert cluster.controller(term_above=head.term, within_s=30.0).id in survivors
