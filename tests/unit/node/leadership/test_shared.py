"""What other threads of a node's process may know of its office."""

from __future__ import annotations

from tests.support.positions import elected_of, pong
from zelect.core.events import LinkDown
from zelect.core.lease import Tenure
from zelect.node.leadership.shared import Office
from zelect.system.clock import now_us


def test_the_office_ends_by_the_clock_although_nobody_takes_it_away() -> None:
    office = Office()
    assert office.held() is None
    office.tenure = Tenure(term=3, entered_us=1, lapses_us=now_us() + 60_000_000)
    assert office.held() == office.tenure
    office.tenure = Tenure(term=3, entered_us=1, lapses_us=now_us() - 1)
    assert office.held() is None


def test_the_tenure_says_what_the_machine_says() -> None:
    world = elected_of(3)
    machine = world.lives[1].machine
    assert machine.tenure is None, "elected is not in office"
    world.feed(1, pong(world, 2))
    tenure = machine.tenure
    assert tenure is not None
    assert (tenure.term, tenure.entered_us) == (machine.state.term, world.now_us)
    assert machine.in_office(tenure.lapses_us - 1)
    assert not machine.in_office(tenure.lapses_us)
    for peer in (2, 3):
        world.feed(1, LinkDown(peer))
    assert machine.tenure is None, "connections to a majority are lost"


def test_a_wish_to_go_that_interrupts_itself_is_told_once() -> None:
    """As a signal's handler does, in the middle of what it interrupts."""
    office, rung = Office(), list[str]()

    def interrupted() -> None:
        rung.append("rung")
        office.go()

    office.subscribe(interrupted)
    office.go()
    assert rung == ["rung"]
    assert office.asked_to_go
