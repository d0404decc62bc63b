"""What the threads around a node hold of it."""

from __future__ import annotations

from tests.support.positions import elected_of, pong
from tests.unit.system.test_forks import in_fork
from zelect.core.events import LinkDown
from zelect.core.lease import Lease
from zelect.node.leadership.handle import Controller, NodeHandle
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


def test_a_forked_child_has_nothing_of_the_node() -> None:
    handle = NodeHandle()
    at_us = now_us()
    handle.update(Lease(3, at_us, at_us + 60_000_000), Controller(1, 3, 0, "start"))
    assert handle.register_job(3)
    with handle._lock:  # as another thread may at the moment of the fork

        def nothing_here() -> bool:
            handle.unregister_job(3)
            handle.ask_to_leave()
            gone = handle.forked and handle.ended and not handle.has_jobs
            return gone and handle.active_lease() is None and not handle.register_job(3)

        assert in_fork(nothing_here)
    assert handle.has_jobs_in(3)
    assert handle.active_lease() is not None
    assert not handle.forked
