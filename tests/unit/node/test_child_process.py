"""The two ends of a node in a child process, without the process: what each knows of the other (R6)."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.support.waiting import wait_until
from zelect.api.node_process import _ProgramHandle
from zelect.core.lease import Lease
from zelect.node.child_process import _ChildHandle
from zelect.node.leadership.handle import Controller
from zelect.node.leadership.lease_page import LeasePage
from zelect.system.channel import Channel
from zelect.system.clock import now_us


@dataclass
class Ends:
    """Both handles, on one page and one channel. Messages move when the test says so."""

    node: _ChildHandle
    program: _ProgramHandle
    to_node: Channel
    to_program: Channel

    def elect(self, term: int) -> None:
        at_us = now_us()
        self.node.update(Lease(term, at_us, at_us + 60_000_000), Controller(1, term, 0, "start"))

    def deliver(self) -> list[dict[str, object]]:
        """Hand over what was said so far; returns what the program heard."""
        heard = self.to_node.receive()
        for message in heard:
            self.program.refresh()
            if "lost" in message:
                self.program.lost(message["lost"])
        for message in self.to_program.receive(0.01):
            self.node.receive(message)
        return heard


@pytest.fixture
def ends() -> Iterator[Ends]:
    page = LeasePage.create()
    one, other = map(Channel, socket.socketpair())
    made = Ends(_ChildHandle(other, page), _ProgramHandle(page, one), one, other)
    yield made
    made.program.stop_sending()
    one.close()
    other.close()
    page.close()


def test_the_program_reads_lease_and_controller_off_the_page(ends: Ends) -> None:
    assert ends.program.active_lease() is None
    ends.elect(3)
    assert {"news": True} in ends.to_node.receive()
    assert ends.program.active_lease() == ends.node.lease
    assert ends.program.controller == Controller(1, 3, 0, "start")
    ends.node.withdraw()
    assert ends.program.active_lease() is None
    ends.node.ask_to_leave()
    ends.program.refresh()
    assert ends.program.asked_to_leave
    ends.node.close()
    ends.program.refresh()
    assert ends.program.ended
    assert not ends.program.register_job(3)


def test_a_leadership_may_have_jobs_until_the_program_knows_of_its_end(ends: Ends) -> None:
    ends.elect(3)
    ends.deliver()
    assert ends.program.register_job(3)
    ends.node.withdraw()
    assert ends.node.has_jobs_in(3), "the program does not know yet"
    assert {"lost": 3} in ends.deliver()
    assert ends.node.has_jobs_in(3), "it knows, and its job acts"
    ends.program.unregister_job(3)
    wait_until(lambda: ends.deliver() == [] and not ends.node.has_jobs_in(3))


def test_a_leadership_without_jobs_is_left_as_soon_as_the_program_knows(ends: Ends) -> None:
    ends.elect(3)
    ends.node.withdraw()
    assert ends.node.has_jobs_in(3)
    ends.deliver()
    assert not ends.node.has_jobs_in(3)
    assert not ends.program.register_job(3)


def test_requests_of_the_program_reach_the_node(ends: Ends) -> None:
    ends.program.set_healthy(False)
    wait_until(lambda: ends.deliver() == [] and not ends.node.healthy)
    for number in (1, 2):
        ends.program.reload()
        wait_until(lambda number=number: ends.deliver() == [] and ends.node.reload_requests == number)  # type: ignore[misc]
    assert ends.node.has_jobs, "the program has not said yet that it knows that the node leaves"
    ends.program.ask_to_leave()
    wait_until(lambda: ends.deliver() == [] and ends.node.asked_to_leave)
    assert not ends.node.has_jobs


def test_jobs_die_with_their_program(ends: Ends) -> None:
    ends.elect(3)
    assert ends.program.register_job(3)
    ends.deliver()
    assert ends.node.has_jobs_in(3)
    ends.node.program_died()
    assert not ends.node.has_jobs_in(3)
    assert not ends.node.has_jobs
    assert ends.node.asked_to_leave


def test_a_node_that_reads_nothing_keeps_nobody_waiting(ends: Ends) -> None:
    ends.elect(3)
    for _ in range(20_000):  # more than a socket takes
        assert ends.program.register_job(3)
        ends.program.unregister_job(3)
    assert ends.program.register_job(3)
    wait_until(lambda: ends.deliver() == [] and ends.node.jobs == {3})
