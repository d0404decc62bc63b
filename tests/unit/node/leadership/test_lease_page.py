"""The page: what one process shows the other reads, and a damaged page says nothing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from zelect.core.lease import Lease
from zelect.core.messages import Reason
from zelect.node.leadership.handle import Controller, NodeHandle
from zelect.node.leadership.lease_page import LeasePage, LeaseRecord


@pytest.fixture
def page() -> Iterator[LeasePage]:
    made = LeasePage.create()
    yield made
    made.close()


def test_a_new_page_shows_no_lease(page: LeasePage) -> None:
    assert page.read() == LeaseRecord(0, 0, 0, 0, 0, 0, False, False, "")


@pytest.mark.parametrize("reason", [reason.value for reason in Reason])
def test_what_is_shown_is_read(page: LeasePage, reason: str) -> None:
    handle = NodeHandle()
    handle.on_change = page.show
    handle.update(Lease(2**53 - 1, 5, 2**60), Controller(65_535, 7, 2, reason))
    handle.ask_to_leave()
    handle.withdraw()
    assert page.read() == LeaseRecord(0, 0, 0, 65_535, 7, 2, True, False, reason)
    handle.update(Lease(2**53 - 1, 5, 2**60), Controller(65_535, 7, 2, reason))
    assert page.read() == LeaseRecord(2**53 - 1, 5, 2**60, 65_535, 7, 2, True, False, reason)
    handle.close()
    assert page.read() == LeaseRecord(0, 0, 0, 65_535, 7, 2, True, True, reason)


def test_a_damaged_page_says_nothing(page: LeasePage) -> None:
    for at in (0, 20, 50, 66):
        before = page._memory[at]
        page._memory[at] = before ^ 1
        assert page.read() is None
        page._memory[at] = before
    assert page.read() is not None
