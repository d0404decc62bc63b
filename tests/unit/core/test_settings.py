"""What must be equal on all members, and what may differ."""

from __future__ import annotations

from dataclasses import replace

import pytest

from zelect.core.settings import Settings
from zelect.core.timing import Timing

ONE = Settings("demo", 1, {3: "tcp://c", 1: "tcp://a", 2: "tcp://b"})


def test_a_node_is_reached_at_its_own_address() -> None:
    assert [replace(ONE, node=node).address for node in (1, 2, 3)] == ["tcp://a", "tcp://b", "tcp://c"]


@pytest.mark.parametrize(
    "other",
    [
        replace(ONE, cluster="other"),
        replace(ONE, quorum="static"),
        replace(ONE, timing=Timing(election_timeout_ms=600)),
        replace(ONE, timing=Timing(lease_ms=300)),
        replace(ONE, timing=Timing(drift_ppm=0)),
    ],
)
def test_what_the_lease_and_the_votes_rest_on_changes_the_digest(other: Settings) -> None:
    assert other.digest() != ONE.digest()


def test_what_is_shared_is_named_by_its_key() -> None:
    """So that a difference can be told to people as key and value."""
    assert replace(ONE, quorum="static", timing=Timing(600, 2000, 1500, drift_ppm=7)).shared() == {
        "quorum": "static",
        "election_timeout_ms": "2000",
        "lease_ms": "1500",
        "drift_ppm": "7",
    }


def test_addresses_may_differ_because_the_record_decides_them() -> None:
    """The configuration of a member may lag behind the voter record (R10)."""
    for addresses in ({**ONE.addresses, 2: "tcp://d"}, {**ONE.addresses, 4: "tcp://d"}, {1: "tcp://a"}):
        assert replace(ONE, addresses=addresses).digest() == ONE.digest()


def test_what_concerns_one_node_alone_does_not_change_the_digest() -> None:
    own = replace(ONE, node=2, priority=9, guarded=True, timing=Timing(heartbeat_ms=50, stagger_ms=5))
    assert own.digest() == ONE.digest()
