"""What a peer gets wrong is refused and counted; it never ends the node that hears it."""

from __future__ import annotations

import pytest

from tests.world import letter, office_of
from zelect.core.messages import Message, NodeOnlineResp, Ping
from zelect.core.quorum import Record

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
