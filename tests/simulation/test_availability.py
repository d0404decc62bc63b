"""Where `quorum = "dynamic"` is as available as "static", and where it is less so: the price table of
docs/protocol.md (L1, R11, R12)."""

from __future__ import annotations

import pytest

from tools.price_table import documented
from tools.simulator.availability import ROWS, Row, as_markdown, courses


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.what[:50])
def test_l1_each_row_of_the_price_table_is_so(row: Row) -> None:
    assert (row.run("static"), row.run("dynamic")) == row.active


def test_the_documents_show_the_price_table() -> None:
    assert documented() == list(as_markdown()), "write it with: python tools/price_table.py --document"


@pytest.mark.long
@pytest.mark.parametrize("ends", ["die one after the other", "die at once", "leave"])
def test_l1_dynamic_is_nowhere_less_available_than_a_row_says(ends: str) -> None:
    """All histories in which nodes of three end, Redis fails, and two of three are up in the end."""
    chosen = [course for course in courses() if course.ends == ends]
    assert len(chosen) == 67
    for course in chosen:
        assert course.worse() is (course.told is not None), course
