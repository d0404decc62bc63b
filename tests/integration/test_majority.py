"""Real nodes: without a majority nobody is active, with one somebody is, and what was saved stays so."""

from __future__ import annotations

import pytest

from tests.support.clusters import Cluster, Fleet, holds_for
from tests.support.waiting import wait_until
from tests.support.watches import Registry, TermWatch, VoteWatch
from zelect.devcluster.bundled_server import RedisServer

ELECTION_TIMEOUT_S = 0.5
"""The default, which the clusters without timings of their own use."""


def nobody_becomes_active(cluster: Cluster, seconds: float) -> None:
    holds_for(lambda: cluster.active(0.05) is None, seconds, "nobody active")


# -- a majority lost ----------------------------------------------------------------------------


@pytest.mark.long
def test_one_of_three_elects_nobody(fleet: Fleet, server: RedisServer) -> None:
    """Two are killed at once; the one that is left was a follower."""
    cluster = fleet.cluster(redis_url=server.url)
    registry = Registry(server.url, cluster.name)
    cluster.start()
    head = cluster.settled()
    registry.published(head)
    left, other = sorted(set(cluster.ids) - {head.id})
    cluster.kill(head.id, other)
    nobody_becomes_active(cluster, 5 * ELECTION_TIMEOUT_S)
    assert cluster.running() == {left}
    assert cluster.ask(left)["quorate"] is False
    wait_until(lambda: not registry.record(), 20, what="the record expired")
    cluster.start(other)
    new = cluster.settled(left, other, term_above=head.term)
    registry.published(new)


def test_a_controller_without_a_majority_leaves_its_leadership(fleet: Fleet, server: RedisServer) -> None:
    """Two are killed at once; the one that is left was the controller."""
    cluster = fleet.cluster(redis_url=server.url)
    registry = Registry(server.url, cluster.name)
    cluster.start()
    head = cluster.settled()
    registry.published(head)
    one, other = sorted(set(cluster.ids) - {head.id})
    cluster.kill(one, other)
    wait_until(lambda: cluster.active(0.1) is None, 20, what="not active")
    wait_until(lambda: not registry.record(), 20, what="no record")
    nobody_becomes_active(cluster, 5 * ELECTION_TIMEOUT_S)
    assert not registry.record()
    assert cluster.running() == {head.id}
    cluster.start(one)
    new = cluster.settled(head.id, one, term_above=head.term)
    registry.published(new)


@pytest.mark.long
def test_two_of_five_killed_at_once(fleet: Fleet) -> None:
    # The members votes: a set of voters that follows the living would survive a third death.
    cluster = fleet.cluster(range(1, 6), quorum="static")
    cluster.start()
    first = cluster.settled()
    followers = sorted(set(cluster.ids) - {first.id})
    cluster.kill(first.id, followers[0])
    second = cluster.settled(*followers[1:], term_above=first.term)
    cluster.kill(second.id)
    nobody_becomes_active(cluster, 4 * ELECTION_TIMEOUT_S)
    cluster.start(first.id)
    cluster.settled(first.id, *set(followers[1:]) - {second.id}, term_above=second.term)


# -- restarts -----------------------------------------------------------------------------------


@pytest.mark.long
def test_restarts_of_all_with_their_saved_state(fleet: Fleet, server: RedisServer) -> None:
    cluster = fleet.cluster(redis_url=server.url)
    registry = Registry(server.url, cluster.name)
    watch, votes_seen = TermWatch(registry), VoteWatch(cluster)
    term = 0
    for round_number in range(3):
        cluster.start()
        head = cluster.settled(term_above=term)
        term = head.term
        registry.published(head)
        incarnations = {node: cluster.saved(node).incarnation for node in cluster.ids}
        cluster.kill(*cluster.ids)
        saved = {node: cluster.saved(node) for node in cluster.ids}
        assert all(one.term >= term for node, one in saved.items() if node == head.id), "what was spoken is saved"
        assert {node: one.incarnation for node, one in saved.items()} == incarnations
        assert sum(one.record.config_term >= term for one in saved.values()) >= 2, f"round {round_number} (R7)"
    watch.stop()
    votes_seen.stop()
    began = cluster.events(1, "machine_started")
    assert len({fact["incarnation"] for fact in began}) == 3
    assert [fact["term"] for fact in began] == sorted(fact["term"] for fact in began)
