"""Why a member is not handed the leadership."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.support.positions import elected_of, pong
from tests.support.records import made_record
from zelect.core.eligibility import Ineligible, ineligible
from zelect.core.messages import COOLING_DOWN, UNHEALTHY
from zelect.core.quorum import Record


def judged(changes: dict[str, Any], record: Record | None = None) -> Ineligible | None:
    """What an active node 1 says of node 2, after these changes of what it knows of it."""
    world = elected_of(3)
    for _ in range(2):  # the second answer is about the record with all epochs
        world.feed(1, pong(world, 2))
    machine = world.processes[1].machine
    state = machine.state
    state.peers[2] = replace(state.peers[2], **changes)
    if record is not None:
        state.saved = replace(state.saved, record=record)
    return ineligible(state, machine.settings.timing, world.now_us, 2)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({}, None),
        ({"dead": True, "offline": True}, Ineligible.DEAD),
        ({"offline": True}, Ineligible.OFFLINE),
        ({"unresponsive": True}, Ineligible.UNRESPONSIVE),
        ({"linked": False}, Ineligible.NOT_CONNECTED),
        ({"heard_us": -(10**9)}, Ineligible.NOT_HEARD),
        ({"epoch": 99}, Ineligible.LOST_STATE),
        ({"priority": UNHEALTHY}, Ineligible.UNHEALTHY),
        ({"priority": COOLING_DOWN}, Ineligible.COOLING_DOWN),
    ],
)
def test_what_stands_against_a_member(changes: dict[str, Any], why: Ineligible | None) -> None:
    assert judged(changes) is why


def test_a_member_must_be_a_voter_and_have_saved_the_present_record() -> None:
    assert judged({}, made_record(9, 1, (1, 3))) is Ineligible.NOT_MEMBER
    assert judged({}, made_record(0, 9, (1, 2, 3))) is Ineligible.BEHIND


@pytest.mark.parametrize("why", list(Ineligible))
def test_each_reason_has_words(why: Ineligible) -> None:
    assert why.words
