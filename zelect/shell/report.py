"""The answer to a QUERY: what the machine says of itself, and what only the shell knows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zelect.core.view import View

__all__ = ["render_report"]


def render_report(view: View, shell: Mapping[str, Any], unix_ms: int) -> str:
    """The JSON text of a report. `shell` adds cluster, address, pid, version, store, counters and
    the like; `unix_ms` is the wall clock now, from which `since_ms` is counted back."""
    table: dict[str, Any] = {
        "id": view.id,
        "incarnation": view.incarnation,
        "term": view.term,
        "role": view.role,
        "status": view.status,
        "in_office": view.in_office,
        "lease_left_ms": _ms(view.lease_left_us),
        "since_ms": unix_ms - view.office_us // 1000 if view.in_office else None,
        "controller": view.controller or None,
        "controller_heard_ms": _ms_or_none(view.controller_heard_ago_us),
        "quorate": view.quorate,
        "amnesia": view.amnesia,
        "electorate": {
            "foundation": view.record.foundation,
            "config_term": view.record.config_term,
            "version": view.record.version,
            "members": list(view.record.members),
            "witness": view.witness,
            "survives": view.survives,
        },
        "succession": list(view.succession),
        "peers": [
            {
                "id": peer.id,
                "linked": peer.linked,
                "dead": peer.dead,
                "offline": peer.offline,
                "heard_ms": _ms_or_none(peer.heard_ago_us),
            }
            for peer in view.peers
        ],
    }
    return json.dumps(table | dict(shell), separators=(",", ":"))


def resident_kb() -> int:
    """Resident memory of this process in KiB; 0 where the system doesn't tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return 0
    return pages * 4


def _ms(us: int) -> float:
    return round(us / 1000, 3)


def _ms_or_none(us: int) -> float | None:
    return None if us < 0 else _ms(us)
