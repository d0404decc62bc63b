"""Each event has one function, and each function takes what it is given."""

from __future__ import annotations

from typing import get_args

from zelect.core.events import Event
from zelect.core.machine import ACTORS, EVENTS
from zelect.core.messages import MESSAGES


def test_every_event_has_a_function() -> None:
    assert set(EVENTS) == set(get_args(Event))


def test_every_message_type_has_an_actor() -> None:
    assert set(ACTORS) == set(MESSAGES)
