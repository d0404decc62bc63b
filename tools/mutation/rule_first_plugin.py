"""A plugin of pytest that puts the tests of one rule first: those whose names begin with it, such as
``test_r5_``. Which rule, says `RULE` in the environment."""

from __future__ import annotations

import os

import pytest

RULE = "ZELECT_MUTANT_RULE"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the order otherwise."""
    begins = f"test_{os.environ[RULE].lower()}_"
    items.sort(key=lambda item: not item.name.startswith(begins))
