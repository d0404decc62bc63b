"""What other threads of a node's process may know of its leadership."""

from __future__ import annotations

from tests.support.positions import elected_of, pong
from zelect.core.events import LinkDown
from zelect.core.lease import Lease
from zelect.node.leadership.shared import SharedLeadership
from zelect.system.clock import now_us


def test_leadership_ends_by_the_clock_although_nobody_takes_it_away() -> None:
    leadership = SharedLeadership()
    assert leadership.held() is None
    leadership.lease = Lease(term=3, active_since_us=1, lapses_us=now_us() + 60_000_000)
    assert leadership.held() == leadership.lease
    leadership.lease = Lease(term=3, active_since_us=1, lapses_us=now_us() - 1)
    assert leadership.held() is None


def test_the_lease_says_what_the_machine_says() -> None:
    world = elected_of(3)
    machine = world.processes[1].machine
    assert machine.lease is None, "elected is not active"
    world.feed(1, pong(world, 2))
    lease = machine.lease
    assert lease is not None
    assert (lease.term, lease.active_since_us) == (machine.state.term, world.now_us)
    assert machine.active(lease.lapses_us - 1)
    assert not machine.active(lease.lapses_us)
    for peer in (2, 3):
        world.feed(1, LinkDown(peer))
    assert machine.lease is None, "connections to a majority are lost"


def test_a_wish_to_go_that_interrupts_itself_is_told_once() -> None:
    """As a signal's handler does, in the middle of what it interrupts."""
    leadership, rung = SharedLeadership(), list[str]()

    def interrupted() -> None:
        rung.append("rung")
        leadership.go()

    leadership.subscribe(interrupted)
    leadership.go()
    assert rung == ["rung"]
    assert leadership.asked_to_go
