"""Marks for cases of a parametrized test."""

from __future__ import annotations

from collections.abc import Iterable

import pytest


def long_but(values: Iterable[object], *kept: object) -> list[object]:
    """The same cases, all marked long but those in `kept`. A tuple is a case of several arguments."""
    return [
        value
        if value in kept
        else pytest.param(*(value if isinstance(value, tuple) else (value,)), marks=pytest.mark.long)
        for value in values
    ]
