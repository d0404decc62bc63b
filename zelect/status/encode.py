"""The answer to a QUERY: what the machine says of itself, and what only the shell knows."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zelect.core.status import NodeStatus
from zelect.status.trace import plain_rounds, plain_trace
from zelect.system.clock import now_us, unix_ms
from zelect.version import __version__

if TYPE_CHECKING:
    from zelect.node.loop import NodeLoop

__all__ = ["report_of"]


def report_of(node: NodeLoop, view: NodeStatus) -> str:
    """The JSON text of what `node` says of itself."""
    counters = dict(node.counters)
    counters |= {f"refused_{reason}": count for reason, count in view.refused_by_gate.items()}
    counters |= {f"link_{name}": count for name, count in node.transport.counters.items()}
    counters |= {f"registry_{name}": count for name, count in node.registry.counters.items()}
    counters |= {f"witness_{name}": count for name, count in node.witness.counters.items()}
    counters["log_dropped"] = node.log.dropped
    shell = {
        "cluster": node.settings.cluster,
        "pid": os.getpid(),
        "version": __version__,
        "address": node.settings.addresses[node.settings.node],
        "redis": node.redis_status.report(),
        "counters": counters,
        "reload_problem": node.reload_problem,
        "uptime_ms": (now_us() - node.began_us) // 1000,
        "rss_kb": _resident_kb(),
    }
    return _render(view, shell, unix_ms())


def _render(view: NodeStatus, shell: Mapping[str, Any], unix_ms: int) -> str:
    """The JSON text of a report. `shell` adds cluster, address, pid, version, store, counters and
    the like; `unix_ms` is the wall clock now, from which `since_ms` is counted back."""
    table: dict[str, Any] = {
        "id": view.id,
        "incarnation": view.incarnation,
        "term": view.term,
        "role": view.role,
        "status": view.status,
        "active": view.active,
        "lease_left_ms": _ms(view.lease_left_us),
        "since_ms": unix_ms - view.active_for_us // 1000 if view.active else None,
        "controller": view.controller or None,
        "controller_heard_ms": _ms_or_none(view.controller_heard_ago_us),
        "quorate": view.quorate,
        "lost_state": view.lost_state,
        "voters": {
            "generation": view.record.generation,
            "config_term": view.record.config_term,
            "version": view.record.version,
            "members": list(view.record.members),
            "witness": view.witness,
            "survives": view.survives,
            "may_vote": list(view.may_vote),
            "witness_votes": view.record.witness is not None,
        },
        "succession": list(view.succession),
        "priority": view.priority,
        "pause": {"left_ms": _ms(view.pause_left_us), "asked": view.pause_asked} if view.pause_left_us else None,
        "cooling_left_ms": _ms(view.cooling_left_us),
        "election": None
        if view.trace is None
        else {
            "previous": view.previous,
            "reason": view.reason,
            "at_ms": unix_ms - view.active_for_us // 1000,
            "trace": plain_trace(view.trace),
        },
        "rounds": plain_rounds(view.rounds, view.now_us),
        "peers": [
            {
                "id": peer.id,
                "linked": peer.linked,
                "dead": peer.dead,
                "offline": peer.offline,
                "heard_ms": _ms_or_none(peer.heard_ago_us),
                # In large clusters a report must stay within one message.
                **({"priority": peer.priority} if peer.priority else {}),
                **({"ineligible": peer.ineligible} if peer.ineligible else {}),
            }
            for peer in view.peers
        ],
    }
    return json.dumps(table | dict(shell), separators=(",", ":"))


def _resident_kb() -> int:
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
