"""`zelect check`: what the nodes' reports say of a cluster that loses some of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.integration.test_cli import report, run, write_conf
from zelect.cli.check import foretell
from zelect.core.quorum import Record, Witness
from zelect.core.voters import failures_survived, outlook
from zelect.status.decode import NodeReport, PeerReport


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
        return replace(
            report(node, 4, node == controller),
            members=ids,
            may_vote=may_vote or ids,
            witness=witness,
            witness_votes=witness in ("member", "unrecognized"),
            priority=(priorities or {}).get(node, 0),
            others=tuple(PeerReport(n, (priorities or {}).get(n, 0), True, "") for n in ids if n != node),
        )

    return {node: one(node) for node in ids}


@pytest.mark.parametrize(
    ("down", "survives", "more", "leads", "in_turn"),
    [
        ((), True, 3, 1, 3),
        ((2, 4), True, 1, 1, 1),
        ((1, 2), True, 1, 3, 1),
        ((1, 2, 3), False, -1, None, 0),  # one after the other the voters follows
        ((2, 3, 4, 5), False, -1, None, -1),
        ((1, 2, 3, 4, 5), False, -1, None, -1),
    ],
)
def test_five_nodes_without_redis(
    down: tuple[int, ...], survives: bool, more: int, leads: int | None, in_turn: int
) -> None:
    told = foretell(cluster(witness="unreachable"), down)
    got = (told["survives"], told["more"], told["would_lead"], told["one_after_the_other"]["more"])
    assert got == (survives, more if survives else -1, leads, in_turn), told


def test_with_the_witness_the_last_node_carries_on() -> None:
    told = foretell(cluster(3), (2, 3))
    assert not told["survives"], "two of three at once are a loss of quorum"
    assert told["one_after_the_other"] == {"survives": True, "more": 0}


def test_a_witness_that_votes_already_counts() -> None:
    told = foretell(cluster(2, witness="member"), (1,))
    assert (told["survives"], told["would_lead"], told["more"]) == (True, 2, 0)
    assert not foretell(cluster(2, witness="unrecognized"), (1,))["survives"], "Redis forgot it"


def test_a_static_voters_never_adapts() -> None:
    told = foretell(cluster(5, witness="unused"), (1, 2))
    assert (told["more"], told["one_after_the_other"]["more"]) == (0, 0)


def test_the_first_in_line_would_lead() -> None:
    assert foretell(cluster(priorities={4: 10}), (1,))["would_lead"] == 4
    assert foretell(cluster(priorities={4: 10}), (2,))["would_lead"] == 1, "nobody preempts"
    assert foretell(cluster(priorities={2: -2, 3: -1}), (1,))["would_lead"] == 4, "who is unhealthy or rests goes last"


def test_who_is_away_already_is_counted() -> None:
    told = foretell(cluster(3, may_vote=(1, 2), witness="unused"), (2,))
    assert not told["survives"]
    assert told["left"] == [1]


def test_without_a_controller_the_newest_voters_counts() -> None:
    reports = cluster(3, controller=0, witness="unused")
    reports[2] = replace(reports[2], version=9, members=(1, 2), may_vote=(2,))
    told = foretell(reports, ())
    assert (told["controller"], told["members"], told["survives"]) == (None, [1, 2], False)


def test_an_outlook_on_nothing_is_what_survives_now() -> None:
    for witness in (None, Witness("w", "", "")):
        record = Record(3, 7, (1, 2, 3, 4), witness)
        now = failures_survived(record, (1, 2, 3, 4), True, True)
        assert outlook(record, (1, 2, 3, 4), (), True, True) == (now, now)


def test_wrong_arguments_are_named(tmp_path: Any) -> None:
    conf = write_conf(tmp_path / "n1.toml", {1: 7101, 2: 7102, 3: 7103})
    for down, problem in (("2,x", "'2,x' names no nodes"), ("2,2", "names a node twice"), ("9", "node 9 is not in")):
        done = run("check", "-c", conf, "--down", down)
        assert done.exit_code == 2
        assert problem in done.output
