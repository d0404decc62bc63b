"""Real nodes killed between two effects, and started again (R1): no vote is given twice, no term
falls, and the cluster finds a controller."""

from __future__ import annotations

import signal
import socket

import pytest

from tests.support.clusters import Fleet
from tests.support.marks import long_but
from tests.support.waiting import wait_until
from tests.support.watches import VoteWatch
from zelect.devcluster.bundled_server import RedisServer

# The second in line waits so long that a busy machine does not change who is first.
IN_ORDER = {"stagger_ms": 450}


@pytest.mark.parametrize(
    "failpoint",
    long_but(
        [
            "before_save:pre_vote_won",  # its vote for itself is lost with the term
            "after_save:pre_vote_won",  # it voted for itself, and nobody heard of it
            "after_send:pre_vote_won",  # the others vote for one that is dead
            "before_save:elected",  # it won, but its voter record is lost
            "after_save:elected",  # the record is saved on its disk alone
            "after_send:became_active",  # active, but Redis does not know
            "after_publish:became_active",
        ],
        "after_save:elected",
    ),
)
def test_a_successor_that_dies_on_its_way_to_leadership(fleet: Fleet, failpoint: str) -> None:
    cluster = fleet.cluster(timing=IN_ORDER)
    cluster.found()
    votes_seen = VoteWatch(cluster)
    cluster.start(1)
    wait_until(lambda: len(cluster.events(1, "machine_started")) == 2)
    cluster.start(3)
    cluster.settled(1, 3)
    cluster.start(2, failpoint=failpoint)
    head = cluster.settled()
    assert head.id == 1, "the first in line, there first"
    wait_until(lambda: [cluster.ask(node).get("succession") for node in (2, 3)] == [[2, 3]] * 2, what="2 is the next")
    wait_until(lambda: all(peer["linked"] for node in (2, 3) for peer in cluster.ask(node)["peers"]))
    wait_until(lambda: all(cluster.ask(node).get("uptime_ms", 0) > 1000 for node in (2, 3)), what="they may vote (R4)")
    cluster.kill(head.id)
    assert cluster.exit_code(2) == -9, "the successor dies at its point"
    cluster.start(2)
    after = cluster.settled(2, 3, term_above=head.term)
    cluster.start(head.id)
    cluster.settled(term_above=after.term - 1)
    votes_seen.stop()


@pytest.mark.parametrize(
    "failpoint",
    long_but(
        ["before_save:vote_granted", "after_save:vote_granted", "after_send:vote_granted"], "after_save:vote_granted"
    ),
)
def test_a_voter_that_dies_in_the_middle_of_its_vote(fleet: Fleet, failpoint: str) -> None:
    cluster = fleet.cluster(timing=IN_ORDER)
    cluster.found()
    votes_seen = VoteWatch(cluster)
    cluster.start(1, 2)
    cluster.start(3, failpoint=failpoint)
    first = cluster.settled(1, 2)
    wait_until(lambda: 3 not in cluster.running() or cluster.ask(3).get("controller") == first.id)
    wait_until(lambda: 3 not in cluster.running() or cluster.ask(3).get("uptime_ms", 0) > 1000, what="3 may vote (R4)")
    if 3 in cluster.running():  # the others had elected one before it was there
        cluster.settled()
        cluster.kill(first.id)
    assert cluster.exit_code(3) == -9, "the voter dies at its point"
    if first.id not in cluster.running():
        cluster.start(first.id)
    head = cluster.settled(1, 2)
    cluster.start(3)
    cluster.settled(term_above=head.term - 1)
    votes_seen.stop()


@pytest.mark.parametrize("point", ["before_save", "after_save", "after_send"])
@pytest.mark.long
def test_a_controller_that_dies_while_the_voters_changes(fleet: Fleet, point: str, server: RedisServer) -> None:
    cluster = fleet.cluster(redis_url=server.url)
    votes_seen = VoteWatch(cluster)
    cluster.start(1, 2, 3, failpoint=f"{point}:voters_changed")
    head = cluster.settled()
    gone = next(node for node in cluster.ids if node != head.id)
    cluster.kill(gone)
    assert cluster.exit_code(head.id) == -9, "the controller dies at its point"
    other = next(node for node in cluster.ids if node not in (head.id, gone))
    cluster.kill(other)
    cluster.start()
    cluster.settled(term_above=head.term)
    votes_seen.stop()


@pytest.mark.long
def test_a_controller_whose_authenticator_breaks_ends_with_4_and_is_replaced(fleet: Fleet) -> None:
    """The authenticator breaks with a new priority, since that can be brought about at any time."""
    cluster = fleet.cluster(secure=True)
    cluster.start(failpoint="authenticator:priority_changed")
    head = cluster.settled()
    conf = cluster.conf(head.id).read_text()
    cluster.conf(head.id).write_text(conf.replace("[node]", "[node]\npriority = 7"))
    cluster.signal(signal.SIGHUP, head.id)
    assert cluster.exit_code(head.id) == 4, "no new connection can be made"
    last = cluster.log_of(head.id).read_text().splitlines()[-1]
    assert last.startswith(
        "zelect: the authenticator, which checks keys, has failed (its socket is closed): no new connection can be made"
    )
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", cluster.ports[head.id]), timeout=5)
    after = cluster.settled(*set(cluster.ids) - {head.id}, term_above=head.term)
    cluster.start(head.id)
    assert cluster.settled().term == after.term
