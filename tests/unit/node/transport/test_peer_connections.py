"""Whose connections stand: the first that speaks and the last that closes are reported (R9)."""

from __future__ import annotations

from zelect.node.transport.peer_connections import InboundChange, PeerConnections

FIRST, SECOND, NEXT = (2, 7), (3, 7), (2, 8)


def test_the_first_connection_that_speaks_and_the_last_that_closes_are_reported() -> None:
    peers = PeerConnections()
    peers.spoke(FIRST, 20, b"a")
    assert peers.take_changes() == [InboundChange(2, 7, up=True)]
    peers.spoke(FIRST, 21, b"b")
    peers.spoke(FIRST, 20, b"a")
    peers.closed(20)
    assert peers.take_changes() == [], "another one stands: with new keys there are two for a moment"
    peers.closed(21)
    assert peers.take_changes() == [InboundChange(2, 7, up=False)]
    assert peers.take_changes() == []


def test_a_connection_that_nobody_spoke_over_is_nobodys() -> None:
    peers = PeerConnections()
    peers.closed(20)
    assert peers.take_changes() == []


def test_a_connection_is_that_of_each_process_that_spoke_over_it() -> None:
    """Whoever sends in another's name can put off a proof of its death, and can't bring one about."""
    peers = PeerConnections()
    for process in (FIRST, SECOND, FIRST, NEXT):
        peers.spoke(process, 20, b"a")
    assert [change.up for change in peers.take_changes()] == [True] * 3
    peers.closed(20)
    changes = {(change.peer, change.incarnation) for change in peers.take_changes() if not change.up}
    assert changes == {FIRST, SECOND, NEXT}


def test_the_last_words_of_a_closed_connection_are_not_those_of_the_one_that_has_its_descriptor() -> None:
    peers = PeerConnections()
    peers.spoke(FIRST, 20, b"a")
    peers.closed(20)
    peers.take_changes()
    peers.spoke(FIRST, 20, b"a")
    assert peers.take_changes() == []
    peers.spoke(FIRST, 20, b"b")
    assert peers.take_changes() == [InboundChange(2, 7, up=True)]


def test_only_so_many_closed_connections_are_remembered() -> None:
    peers = PeerConnections()
    for number in range(3000):
        peers.spoke(FIRST, 20, str(number).encode())
        peers.closed(20)
    assert len(peers._closed) == 1024
