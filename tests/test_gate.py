"""What a peer gets wrong is refused and counted; it never ends the node that hears it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tools.world import letter, office_of
from zelect.core.events import Heard
from zelect.core.messages import CommonResp, Message, NodeOnlineResp, Ping, Result, Type
from zelect.core.quorum import Record
from zelect.core.timing import MAX_TERM, MAX_TERM_HEARD

STRANGER = 77
ELECTORATE = Record(1, 1, (1, 2, 3))


@pytest.mark.parametrize(
    ("sender", "message"),
    [
        pytest.param(1, Ping(5, True, ELECTORATE, (STRANGER,)), id="succession names a stranger"),
        pytest.param(3, NodeOnlineResp(1, 1, Record(1, 9, (1, 2, STRANGER))), id="record names a stranger"),
        pytest.param(3, NodeOnlineResp(1, 1, Record(1, 9, ())), id="record without members"),
        pytest.param(3, NodeOnlineResp(1, 1, Record(10**6, 9, (1, 2, 3))), id="record of a term to come"),
    ],
)
def test_a_wrong_electorate_from_a_peer_stops_nobody(sender: int, message: Message) -> None:
    world = office_of(1)
    world.feed(2, letter(world, sender, message))
    world.run(50)
    world.kill(1)
    world.run_until(lambda: world.controller() is not None)
    assert world.controller() == 2, "node 2 still takes its turn"


@pytest.mark.parametrize("term", [0, MAX_TERM_HEARD + 1, MAX_TERM])
@pytest.mark.parametrize("incarnations_on", [0, 1])
def test_a_complaint_is_not_answered_and_raises_no_term(term: int, incarnations_on: int) -> None:
    """Two nodes that refuse each other would otherwise talk without end."""
    world = office_of(1)
    heard = letter(world, 3, CommonResp(int(Type.PING), Result.TERM_JUMP, ""), term)
    envelope = replace(heard.envelope, incarnation=heard.envelope.incarnation + incarnations_on)
    before = world.state(2).saved
    effects = world.lives[2].machine.step(Heard(envelope), world.now_us)
    assert effects.send == ()
    assert effects.save is None
    assert world.state(2).saved == before
