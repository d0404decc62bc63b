"""How messages grow with the number of nodes: what docs/scaling.md says is what the machine does."""

from __future__ import annotations

import json
from functools import cache

import pytest

from tests.support.paths import ROOT
from tools.scaling import Row, chart, main, measured, table

DOCUMENT = ROOT / "docs" / "scaling.md"


@cache
def row(nodes: int) -> Row:
    return measured(nodes)


@pytest.mark.parametrize("nodes", [3, 5, 7, 21, 51])
def test_an_election_and_a_round_of_heartbeats_grow_with_the_nodes(nodes: int) -> None:
    found = row(nodes)
    others = nodes - 1
    assert found.first == 6 * others, "pre-vote, vote and PING, each asked and answered once"
    assert found.election <= 10 * nodes
    assert (found.heartbeats, found.controller) == (20 * others, 10 * others), "ten a second, each answered"


@pytest.mark.parametrize("nodes", [3, 7, 21])
def test_the_document_has_what_is_measured(nodes: int) -> None:
    assert table([row(nodes)]).splitlines()[-1] in DOCUMENT.read_text().splitlines(), "python tools/scaling.py"


def test_what_followers_say_to_each_other_is_rarer_where_down_after_allows() -> None:
    assert row(51).idle > 5 * measured(51, down_after_ms=12_000).idle > 0


@pytest.mark.timeout(300)
@pytest.mark.long
def test_a_thousand_and_one_nodes_elect_and_replace_a_controller() -> None:
    found = measured(1001, peace_ms=100)
    assert found.first == 6000
    assert found.election <= 10 * 1001
    assert found.heartbeats == 20_000


def test_the_chart_fits_a_terminal_and_grows() -> None:
    rows = [row(3), row(51)]
    lines = chart(rows).splitlines()
    assert len(lines) == 1 + 2 * len(rows)
    assert max(map(len, lines)) <= 80
    assert lines[1].count("=") < lines[3].count("=")
    assert lines[1].endswith(f" {row(3).election}")


def test_it_prints_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--nodes", "3", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["first"] == 12


@pytest.mark.parametrize("sizes", ["", "3,x", "1", "3,0"])
def test_sizes_that_are_none_are_bad_usage(sizes: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--nodes", sizes]) == 2
    assert "name sizes from 2" in capsys.readouterr().err
