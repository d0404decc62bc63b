"""A failpoint kills at its own point, in the step with its own fact, and nowhere else (R1)."""

from __future__ import annotations

import pytest

from zelect.core.effects import Effects, Fact
from zelect.node.failpoints import FAILPOINTS, Failpoint


def test_only_the_named_point_and_fact_kill() -> None:
    assert Failpoint.from_environment() is None, "no point where none is named"
    harmless = Effects(facts=(Fact("elected", ()),))
    for point in FAILPOINTS:
        Failpoint("authenticator:elected")(point, harmless)
        Failpoint(f"{point}:became_active")(point, harmless)
        for other in set(FAILPOINTS) - {point}:
            Failpoint(f"{other}:elected")(point, harmless)
        assert not Failpoint(f"{point}:elected").breaks_authenticator(harmless)
    assert not Failpoint("authenticator:became_active").breaks_authenticator(harmless)
    assert Failpoint("authenticator:elected").breaks_authenticator(harmless)


@pytest.mark.parametrize("text", ["sometimes:elected", "after_save", ":elected", ""])
def test_a_point_that_does_not_exist_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="before_save, after_save, after_send, after_publish"):
        Failpoint(text)
