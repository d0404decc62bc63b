"""What an earlier zelect called things, so that `--against` can measure a checkout from before the names changed."""

from __future__ import annotations

from typing import Any

_KEYS = {
    "in_office": "active",
    "electorate": "voters",
    "store": "redis",
    "elected_to_office_ms": "elected_to_active_ms",
    "trigger": "reason",
}
_EVENTS = {"office_entered": "became_active", "office_left": "stopped_being_active"}


def in_todays_names(table: dict[str, Any]) -> dict[str, Any]:
    """A report or a line of a log, with the keys and events that it would have today."""
    renamed = {_KEYS.get(key, key): value for key, value in table.items()}
    if renamed.get("event") in _EVENTS:
        renamed["event"] = _EVENTS[renamed["event"]]
    return renamed
