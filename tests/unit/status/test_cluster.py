"""The state of a cluster, by what its nodes said of themselves."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.reports import report
from zelect.status.cluster import disconnected, saved_without
from zelect.status.report import NodeReport

BEFORE: dict[str, Any] = {"members": (1, 2, 3)}
AFTER: dict[str, Any] = {"members": (1, 2), "version": 10}


def all_of(*reports: NodeReport) -> dict[int, NodeReport]:
    return {one.id: one for one in reports}


@pytest.mark.parametrize(
    ("reports", "saved"),
    [
        ((report(1, active=True, **AFTER), report(2, **AFTER)), True),
        ((report(1, active=True, **AFTER), report(2, **BEFORE)), False),  # it took the change, but was cut off
        ((report(1, active=True, **AFTER),), False),
        ((report(1, **AFTER), report(2, **AFTER)), False),  # nobody is active
        ((report(1, active=True, **BEFORE), report(2, **BEFORE)), False),
        # Another one was elected with the record before.
        ((report(1, active=True, **AFTER), report(2, active=True, term=5, **BEFORE), report(3, **BEFORE)), False),
    ],
)
def test_a_removal_is_done_when_a_quorum_has_saved_it(reports: tuple[NodeReport, ...], saved: bool) -> None:
    assert saved_without(all_of(*reports), 3) is saved


@pytest.mark.parametrize(("witness", "saved"), [("member", True), ("unreachable", False)])
def test_the_witness_is_one_of_the_quorum(witness: str, saved: bool) -> None:
    head = report(1, active=True, witness=witness, witness_votes=True, **AFTER)
    assert saved_without(all_of(head), 3) is saved


def test_nodes_that_give_no_answer_are_not_disconnected() -> None:
    assert disconnected(all_of(report(1)), (1, 2, 3)) == ()
