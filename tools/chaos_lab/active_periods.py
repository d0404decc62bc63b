"""Who was active when, and when each process ended: no more than the history proves.

A leadership reaches from `active_since_us` to the earliest of its last `lapses_us`, the moment it was given up
(`lease_ended`, written before the step's effects) and the death of its process. One that was suspended and
resumed is two stretches of one leadership. Ends are never later than they were: a
stretch that overlaps another did so in fact.
"""

from __future__ import annotations

from dataclasses import dataclass

from tools.chaos_lab.histories import History, Line

Process = tuple[int, int]
"""A node and its incarnation."""

_KILLS = ("kill", "restart_storm", "supervisor", "data_lost", "vote_file_damaged")
_DYING_US = 100_000
"""Between the note of a kill and the kill itself the process goes on writing, but not for so long."""


@dataclass(frozen=True, slots=True)
class ActivePeriod:
    """A stretch of leadership, [`active_since_us`, `until_us`). `lapses_us`: by its last lease; `why`: how it ended
    (lapsed, left, died, or runs when the history ends). `lines`: what shows it."""

    node: int
    incarnation: int
    term: int
    active_since_us: int
    until_us: int
    lapses_us: int
    why: str
    lines: tuple[Line, ...]

    @property
    def holder(self) -> tuple[int, int, int]:
        """Node, incarnation and term: whose leadership it is a stretch of."""
        return (self.node, self.incarnation, self.term)


def processes(history: History) -> dict[Process, tuple[int, int, str]]:
    """For each process its first and last moment, and how it ended: "ended" in good order, "died", or
    "" when it lived to the end of the history.

    One that died was last alive when it last wrote anything, or when it was killed, which the tool
    notes right before it does so.
    """
    seen: dict[Process, list[Line]] = {}
    for line in (*history.nodes, *history.work):
        if line.node and line.incarnation:
            seen.setdefault((line.node, line.incarnation), []).append(line)
    newest: dict[int, int] = {}
    for node, incarnation in seen:
        newest[node] = max(newest.get(node, 0), incarnation)
    began_us = {process: min(line.us for line in lines) for process, lines in seen.items()}
    killed = [
        (line.us, frozenset(line.get("nodes") or ()))
        for line in history.of("fault_began")
        if str(line.get("fault")).startswith(_KILLS) or (line.get("detail") or {}).get("kill")
    ]
    end_us = history.span_us()[1]
    found: dict[Process, tuple[int, int, str]] = {}
    for (node, incarnation), lines in seen.items():
        last_us = max(line.get("us_after", line.us) for line in lines)
        ended = [line.us for line in lines if line.event == "node_ended"]
        later = [us for (other, number), us in began_us.items() if other == node and number > incarnation]
        next_us = min(later, default=end_us + 1)
        kills = [us for us, nodes in killed if node in nodes and last_us - _DYING_US <= us < next_us]
        if ended:
            found[node, incarnation] = (began_us[node, incarnation], ended[0], "ended")
        elif kills:
            found[node, incarnation] = (began_us[node, incarnation], max(last_us, min(kills)), "died")
        elif incarnation != newest[node]:
            found[node, incarnation] = (began_us[node, incarnation], last_us, "died")
        else:
            found[node, incarnation] = (began_us[node, incarnation], end_us, "")
    return found


def leaderships(history: History) -> list[ActivePeriod]:
    """Every stretch of leadership, in the order in which they began."""
    ends = processes(history)
    found: list[ActivePeriod] = []
    open_: dict[Process, list[Line]] = {}
    resumed: dict[Process, int] = {}
    for line in history.nodes:
        process = (line.node, line.incarnation)
        lines = open_.get(process)
        if line.event == "lease":
            if lines and lines[0].term != line.term:
                found.append(_active_period(lines, None, ends[process], resumed.get(process)))
                lines = None
            if lines is None:
                again = any(one.holder == (*process, line.term) for one in found)
                resumed[process] = line.us if again else 0
                open_[process] = [line]
            else:
                lines.append(line)
        elif line.event in ("lease_ended", "node_ended") and lines:
            found.append(_active_period(lines, line, ends[process], resumed.get(process)))
            del open_[process]
    for process, lines in open_.items():
        found.append(_active_period(lines, None, ends[process], resumed.get(process)))
    return sorted(found, key=lambda leadership: (leadership.active_since_us, leadership.node))


def _active_period(
    lines: list[Line], ended: Line | None, process: tuple[int, int, str], resumed_us: int | None
) -> ActivePeriod:
    first, last = lines[0], lines[-1]
    active_since_us = int(resumed_us or first.get("active_since_us"))
    lapses_us = max(int(line.get("lapses_us")) for line in lines)
    until = [(lapses_us, "lapsed")]
    if ended is not None:
        until.append((ended.us, "left"))
    _, died_us, how = process
    if how == "died":
        until.append((died_us, "died"))
    elif not how and ended is None:
        until.append((died_us, "runs"))
    until_us, why = min(until)
    shown = [first] if first is last else [first, last]
    if ended is not None:
        shown.append(ended)
    return ActivePeriod(
        first.node,
        first.incarnation,
        first.term,
        active_since_us,
        max(active_since_us, until_us),
        lapses_us,
        why,
        tuple(shown),
    )
