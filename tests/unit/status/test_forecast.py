"""What the nodes' reports say of a cluster that loses some of them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.support.records import made_record
from tests.support.reports import report
from zelect.core.quorum import Witness
from zelect.core.status import PeerStatus
from zelect.core.voters import failures_survived, outlook
from zelect.status.cluster import ClusterStatus
from zelect.status.cluster_text import cluster_text
from zelect.status.forecast import Forecast, Outlook
from zelect.status.forecast import forecast as forecast_of
from zelect.status.report import NodeReport


def cluster(
    nodes: int = 5,
    controller: int = 1,
    witness: str = "ready",
    may_vote: tuple[int, ...] = (),
    priorities: dict[int, int] | None = None,
) -> dict[int, NodeReport]:
    """Reports of a cluster of `nodes` in which `controller` is active (0: nobody is)."""
    ids = tuple(range(1, nodes + 1))

    def one(node: int) -> NodeReport:
        return report(
            node,
            4,
            node == controller,
            members=ids,
            may_vote=may_vote or ids,
            witness=witness,
            witness_votes=witness in ("member", "unrecognized"),
            priority=(priorities or {}).get(node, 0),
            peers=tuple(PeerStatus(n, True, False, False, 0, (priorities or {}).get(n, 0)) for n in ids if n != node),
        )

    return {node: one(node) for node in ids}


def forecast(reports: dict[int, NodeReport], down: tuple[int, ...]) -> Forecast:
    return forecast_of(ClusterStatus("demo", {}, reports), down)


@pytest.mark.parametrize(
    ("down", "survives", "more", "leads", "in_turn"),
    [
        ((), True, 3, 1, 3),
        ((2, 4), True, 1, 1, 1),
        ((1, 2), True, 1, 3, 1),
        ((1, 2, 3), False, -1, None, 0),  # one after the other the voters follow
        ((2, 3, 4, 5), False, -1, None, -1),
        ((1, 2, 3, 4, 5), False, -1, None, -1),
    ],
)
def test_five_nodes_without_redis(
    down: tuple[int, ...], survives: bool, more: int, leads: int | None, in_turn: int
) -> None:
    found = forecast(cluster(witness="unreachable"), down)
    got = (found.survives, found.more, found.would_lead, found.one_after_the_other.more)
    assert got == (survives, more if survives else -1, leads, in_turn), found


def test_with_the_witness_the_last_node_carries_on() -> None:
    found = forecast(cluster(3), (2, 3))
    assert not found.survives, "two of three at once are a loss of quorum"
    assert found.one_after_the_other == Outlook(True, 0)


def test_a_witness_that_votes_already_counts() -> None:
    found = forecast(cluster(2, witness="member"), (1,))
    assert (found.survives, found.would_lead, found.more) == (True, 2, 0)
    assert not forecast(cluster(2, witness="unrecognized"), (1,)).survives, "Redis forgot it"


def test_static_voters_never_adapt() -> None:
    found = forecast(cluster(5, witness="unused"), (1, 2))
    assert (found.more, found.one_after_the_other.more) == (0, 0)


def test_the_first_in_line_would_lead() -> None:
    assert forecast(cluster(priorities={4: 10}), (1,)).would_lead == 4
    assert forecast(cluster(priorities={4: 10}), (2,)).would_lead == 1, "nobody preempts"
    assert forecast(cluster(priorities={2: -2, 3: -1}), (1,)).would_lead == 4, "who is unhealthy or rests goes last"


def test_who_is_away_already_is_counted() -> None:
    found = forecast(cluster(3, may_vote=(1, 2), witness="unused"), (2,))
    assert not found.survives
    assert found.left == (1,)


def test_without_a_controller_the_newest_voters_count() -> None:
    reports = cluster(3, controller=0, witness="unused")
    reports[2] = report(2, version=10, members=(1, 2), may_vote=(2,), witness="unused")
    found = forecast(reports, ())
    assert (found.controller, found.members, found.survives) == (None, (1, 2), False)


LOST = "; the witness in Redis lost its data, so it has no vote now"


@pytest.mark.parametrize(
    ("members", "may_vote", "witness", "needs"),
    [
        ((1, 2, 3), (1, 2), "unused", None),
        ((1, 2, 3), (2,), "unused", (1, (1, 3), False, "no quorum: node 1 or node 3 must return")),
        ((1, 2, 3), (), "unused", (2, (1, 2, 3), False, "no quorum: 2 of node 1, node 2, node 3 must return")),
        ((2, 3), (2,), "member", None),
        ((2, 3), (2,), "unrecognized", (1, (3,), False, f"no quorum: node 3 must return{LOST}")),
        (
            (2, 3),
            (2,),
            "unreachable",
            (1, (3,), True, "no quorum: node 3 or Redis with the witness's data must return"),
        ),
        ((2, 3), (), "unrecognized", (2, (2, 3), False, f"no quorum: node 2 and node 3 must return{LOST}")),
        ((), (), "unused", None),  # no cluster yet
    ],
)
def test_who_must_return_is_named(
    members: tuple[int, ...],
    may_vote: tuple[int, ...],
    witness: str,
    needs: tuple[int, tuple[int, ...], bool, str] | None,
) -> None:
    votes = len(members) == 2
    said = report(1, members=members, may_vote=may_vote, witness=witness, witness_votes=votes)
    state = ClusterStatus("demo", {1: "tcp://127.0.0.1:7101"}, {1: said})
    found = state.shortage
    assert (None if found is None else (found.count, found.nodes, found.witness, found.text)) == needs
    assert (state.as_json()["needs"] is None) is (needs is None)
    assert (needs is None or needs[-1] in cluster_text(state).replace("\n", " ")) is True
    active = ClusterStatus("demo", {}, {1: replace(said, active=True)})
    assert active.shortage is None, "somebody is active"
    if needs is not None:
        assert forecast({1: said}, ()).needs == found


def apart(node: int, *linked: int, may_vote: tuple[int, ...], members: tuple[int, ...] = (1, 2, 3)) -> NodeReport:
    """Node `node`, which is connected to `linked`."""
    peers = tuple(PeerStatus(peer, peer in linked, False, False, 3000) for peer in members if peer != node)
    return report(node, members=members, may_vote=may_vote, witness="unused", peers=peers)


FIVE = (1, 2, 3, 4, 5)


@pytest.mark.parametrize(
    ("reports", "text"),
    [
        (
            [apart(2, may_vote=(2,)), apart(3, may_vote=(3,))],
            "no quorum: nodes 2 and 3 answer, but are not connected to each other",
        ),
        (
            [apart(2, 3, may_vote=(2,)), apart(3, may_vote=(3,))],
            "no quorum: nodes 2 and 3 answer, but are not connected to each other",
        ),
        ([apart(2, 3, may_vote=(2,)), apart(3, 2, may_vote=(2,))], "no quorum: node 1 or node 3 must return"),
        (
            [apart(1, may_vote=(1,)), apart(2, may_vote=(2,)), apart(3, may_vote=(3,))],
            "no quorum: nodes 1, 2 and 3 answer, but are not connected to each other",
        ),
        (
            [apart(4, may_vote=(4,), members=FIVE), apart(5, may_vote=(5,), members=FIVE)],
            "no quorum: nodes 4 and 5 answer, but are not connected to each other; node 1 or node 2 or node 3 must "
            "return",
        ),
    ],
)
def test_who_is_here_but_cut_off_from_the_others_need_not_return(reports: list[NodeReport], text: str) -> None:
    state = ClusterStatus("demo", {}, {one.id: one for one in reports})
    assert state.shortage is not None
    assert state.shortage.text == text
    assert text in " ".join(cluster_text(state).split())
    assert forecast_of(state, ()).needs == state.shortage


def test_who_must_return_after_the_loss_of_some_is_named() -> None:
    found = forecast(cluster(3, witness="unused"), (1, 3))
    assert found.needs is not None
    assert found.needs.text == "no quorum: node 1 or node 3 must return"
    assert forecast(cluster(3, witness="unused"), (1,)).needs is None


def test_an_outlook_on_nothing_is_what_survives_now() -> None:
    for witness in (None, Witness("w", "", "")):
        record = made_record(3, 7, (1, 2, 3, 4), witness)
        now = failures_survived(record, (1, 2, 3, 4), True, True)
        assert outlook(record, (1, 2, 3, 4), (), True, True) == (now, now)
