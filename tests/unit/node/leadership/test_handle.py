"""What the threads around a node hold of it."""

from __future__ import annotations

from tests.support.positions import elected_of, pong
from zelect.core.events import LinkDown
from zelect.core.lease import Lease
from zelect.node.leadership.handle import NodeHandle
from zelect.system.clock import now_us


def test_a_lease_ends_by_the_clock_although_nobody_withdraws_it() -> None:
    handle = NodeHandle()
    assert handle.active_lease() is None
    handle.lease = Lease(term=3, active_since_us=1, lapses_us=now_us() + 60_000_000)
    assert handle.active_lease() == handle.lease
    handle.lease = Lease(term=3, active_since_us=1, lapses_us=now_us() - 1)
    assert handle.active_lease() is None


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


def test_a_request_to_leave_that_interrupts_itself_is_passed_on_once() -> None:
    """As a signal handler does, in the middle of what it interrupts."""
    handle, called = NodeHandle(), list[str]()

    def interrupted() -> None:
        called.append("called")
        handle.ask_to_leave()

    handle.subscribe(interrupted)
    handle.ask_to_leave()
    assert called == ["called"]
    assert handle.asked_to_leave
