"""What a node reports of itself: what belongs to leadership only while it is active."""

from __future__ import annotations

from tests.support.positions import elected_of, pong
from zelect.core.actors.query import status_of


def test_an_active_node_reports_its_lease_and_how_it_came_to_it() -> None:
    world = elected_of(3)
    machine = world.processes[1].machine
    before = status_of(machine.settings, machine.state, world.now_us)
    assert (before.active, before.role, before.lease_left_us, before.trace, before.reason) == (
        *(False, "follower", 0, None, ""),
    )
    world.feed(1, pong(world, 2))
    status = status_of(machine.settings, machine.state, world.now_us)
    assert (status.active, status.role, status.controller, status.previous) == (True, "controller", 1, 0)
    assert status.lease_left_us == machine.settings.timing.lease_us
    assert status.trace is not None
    assert [peer.id for peer in status.peers] == [2, 3]


def test_the_addresses_are_those_of_the_record() -> None:
    world = elected_of(3)
    status = status_of(world.settings[1], world.state(1), world.now_us)
    assert status.voters.places == world.state(1).record.addresses


def test_a_lease_that_lapsed_is_not_reported() -> None:
    world = elected_of(3)
    world.feed(1, pong(world, 2))
    machine = world.processes[1].machine
    late_us = world.now_us + machine.settings.timing.lease_us
    status = status_of(machine.settings, machine.state, late_us)
    assert (status.active, status.role, status.lease_left_us, status.active_for_us) == (False, "follower", 0, 0)
