"""What must be equal on all members, and what may differ."""

from __future__ import annotations

from dataclasses import replace

import pytest

from zelect.core.settings import Settings
from zelect.core.timing import Timing

ONE = Settings("demo", 1, {3: "tcp://c", 1: "tcp://a", 2: "tcp://b"})


def test_configured_members_come_in_ascending_order() -> None:
    assert (ONE.members, ONE.peers) == ((1, 2, 3), (2, 3))


@pytest.mark.parametrize(
    "other",
    [
        replace(ONE, cluster="other"),
        replace(ONE, quorum="static"),
        replace(ONE, addresses={**ONE.addresses, 2: "tcp://d"}),
        replace(ONE, addresses={**ONE.addresses, 4: "tcp://d"}),
        replace(ONE, timing=Timing(election_timeout_ms=600)),
        replace(ONE, timing=Timing(lease_ms=300)),
        replace(ONE, timing=Timing(drift_ppm=0)),
    ],
)
def test_what_the_lease_and_the_votes_rest_on_changes_the_digest(other: Settings) -> None:
    assert other.digest() != ONE.digest()


def test_what_concerns_one_node_alone_does_not_change_the_digest() -> None:
    own = replace(ONE, node=2, priority=9, guarded=True, timing=Timing(heartbeat_ms=50, stagger_ms=5))
    assert own.digest() == ONE.digest()
