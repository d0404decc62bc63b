"""The rules of the election, one sentence a test; each fails when its rule is broken on purpose."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.world import MS, World, letter, office_of
from zelect.core.effects import Saved
from zelect.core.events import Heard, LinkUp
from zelect.core.messages import Envelope, Ping, Pong, Trigger, Voting
from zelect.core.quorum import Record
from zelect.core.timing import MAX_TERM


def _second_reign() -> tuple[World, list[Envelope]]:
    """Node 1 is in office for the second time (term 3), node 2 cut off; and the numbered PINGs of
    its first reign (term 1) to node 3, which a network may deliver again or late."""
    world = World(3)
    world.start()
    world.run_until(lambda: world.controller() == 1)
    world.run(2500)
    early = [e for a, b, e in world.sent if (a, b) == (1, 3) and isinstance(e.message, Ping) and e.message.number]
    world.cut(1, 2)
    world.cut(1, 3)
    world.run_until(lambda: world.controller() == 2)
    world.heal()
    world.run(300)
    world.cut(2, 1)
    world.cut(2, 3)
    world.run_until(lambda: world.controller() == 1)
    world.run(200)
    assert world.state(1).term == world.state(3).term == 3
    return world, early


def _same_number(world: World, early: list[Envelope]) -> Envelope:
    """The PING of the first reign that has the number of the newest one of this reign."""
    number = world.state(1).reign.number
    return next(e for e in early if isinstance(e.message, Ping) and e.message.number == number)


def test_r5_the_answer_to_a_ping_of_an_earlier_reign_renews_nothing() -> None:
    world, early = _second_reign()
    world.cut(1, 3, one_way=True)  # from here on node 3 hears nothing new, so it promises nothing new
    world.run(150)
    reign = world.state(1).reign
    lapses_us, promise = reign.lapses_us, world.state(3).promise
    world.feed(3, Heard(_same_number(world, early)))
    world.run(2)
    assert world.state(3).promise == promise, "a PING of an old term binds nobody"
    assert reign.lapses_us == lapses_us, "a lease grew by an answer that carried no promise"


def test_r5_replayed_pings_of_an_earlier_reign_do_not_put_two_in_office() -> None:
    world, early = _second_reign()
    world.cut(1, 3, one_way=True)
    for _ in range(35):
        if world.state(1).reign is not None:
            world.feed(3, Heard(_same_number(world, early)))
        world.run(20)
    world.cut(1, 3)
    world.cuts -= {(2, 3), (3, 2)}
    world.run(1000)  # the world asserts S2 after every event
    assert world.controller() in (2, 3)


@pytest.mark.parametrize("pre", [True, False])
def test_r3_a_controller_that_is_asked_for_a_vote_because_of_its_own_death_refuses(pre: bool) -> None:
    world = office_of(1)
    question = Voting(pre, 1, world.state(1).term + 1, world.state(2).saved.record.id, Trigger.DEATH, 1, 1)
    world.feed(1, letter(world, 2, question))
    assert world.happened("vote_refused", 1)[-1].details["reason"] == "promised"
    assert world.controller() == 1


@pytest.mark.parametrize("seed", [92])
def test_r8_a_restarted_controller_survives_the_campaign_about_its_former_death(seed: int) -> None:
    """Node 3 is down, node 1 dies and comes back while node 2 still campaigns because of that death;
    node 1 wins, and node 2's next question crosses the news of it."""
    world = World(3, seed=seed)
    world.start()
    world.run_until(lambda: world.controller() == 1)
    world.run(700)
    world.kill(3)
    world.run(50 + seed)
    world.kill(1)
    world.run(30 + seed % 97)
    world.start(1)
    world.run(1500)
    assert world.controller() is not None


def test_r6_a_lapsed_controller_sends_no_numbered_ping_whatever_happens_first() -> None:
    world = office_of(1)
    machine = world.lives[1].machine
    late_us = world.state(1).reign.lapses_us + 1
    assert not machine.in_office(late_us)
    effects = machine.step(LinkUp(2), late_us)  # before the Tick that would notice the lapse
    pings = [e.message for _, e in effects.send if isinstance(e.message, Ping) and e.message.number]
    assert pings == [], "its heartbeat binds the voters for another election timeout"


@pytest.mark.parametrize("term", [MAX_TERM, MAX_TERM + 1, 2**60])
def test_r14_a_term_at_the_end_of_its_range_in_redis_ends_no_node(term: int) -> None:
    world = World(3)
    world.board = (0, term)
    world.start()
    world.run(3000)
    assert all(world.state(n).term <= MAX_TERM for n in (1, 2, 3))


def test_r14_a_node_at_the_last_term_does_not_campaign_beyond_it() -> None:
    world = World(3)
    last = Saved(MAX_TERM, 0, 0, Record(1, 1, (1, 2, 3)))
    world.disks = {n: replace(last) for n in (1, 2, 3)}
    world.start()
    world.run(3000)
    assert world.controller() is None


def test_r5_an_answer_counts_from_the_time_the_ping_was_sent() -> None:
    world = office_of(1)
    machine, reign = world.lives[1].machine, world.state(1).reign
    number = max(reign.sent_us)
    sent_us = reign.sent_us[number]
    answer_us = sent_us + 90 * MS
    pong = letter(world, 2, Pong(number, world.state(2).term, world.state(2).saved.record.id, 0))
    machine.step(pong, answer_us)
    assert reign.lapses_us == sent_us + machine.settings.timing.lease_us
