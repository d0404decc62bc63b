"""What the job did: two counters in Redis, one guarded by the term and one by the lease check alone.

`us` was taken before the last look at the lease, `us_after` when Redis had answered; the look and the
effect lie between. So an effect is proven wrong when every moment between them was wrong for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from tools.chaos_lab.active_periods import ActivePeriod, Process
from tools.chaos_lab.histories import History, Line
from tools.common.violation import Violation

_GUARDED, _UNGUARDED = "guarded", "unguarded"


def intrusions(history: History, leaderships: Sequence[ActivePeriod]) -> Iterator[tuple[Line, ActivePeriod, int]]:
    """Unguarded effects that a lease check allowed although another node was active, with its
    leadership and for how long at least, in microseconds. It is proven when the look came after a leadership of
    a newer term had begun (then the older one must be over, whoever renewed it), or when look and effect
    both lie within the leadership of another node."""
    waiting, running = list(reversed(leaderships)), list[ActivePeriod]()
    newest: list[ActivePeriod] = []  # of two processes at most, by term: one of them is not the line's own
    for line in history.work:
        if line.event != _UNGUARDED:
            continue
        while waiting and waiting[-1].active_since_us <= line.us:
            leadership = waiting.pop()
            running.append(leadership)
            others = [one for one in newest if _process(one) != _process(leadership) or one.term > leadership.term]
            newest = sorted([leadership, *others], key=lambda one: -one.term)
            newest = [one for at, one in enumerate(newest) if _process(one) not in map(_process, newest[:at])][:2]
        running = [leadership for leadership in running if leadership.until_us > line.us]
        if any(leadership.term > line.term and _process(leadership) != _process(line) for leadership in newest):
            first = next(one for one in leaderships if one.term > line.term and _process(one) != _process(line))
            yield line, first, line.us - first.active_since_us
            continue
        for leadership in running:
            within = line.get("us_after") < leadership.until_us and leadership.term != line.term
            if within and _process(leadership) != _process(line):
                yield line, leadership, leadership.until_us - line.us
                break


def _process(of: ActivePeriod | Line) -> Process:
    return of.node, of.incarnation


def check_guarded(history: History) -> Iterator[Violation]:
    """S3: the terms that the guarded resource accepted never fall, in the order in which it did."""
    accepted = history.accepted.get(_GUARDED, ())
    last = (0, 0)
    for position, (term, node) in enumerate(accepted, 1):
        if term < last[0]:
            shown = [
                line
                for line in history.work
                if line.event == _GUARDED and line.get("value") in (position - 1, position)
            ]
            text = f"the guarded counter accepted term {term} of node {node} after term {last[0]} of node {last[1]}"
            yield Violation("S3", text, shown[0].us if shown else 0, tuple(shown))
        last = max(last, (term, node))
    for epoch in _epochs(history, _GUARDED):
        before: Line | None = None
        for line in sorted(epoch, key=lambda one: int(one.get("value"))):
            if before is not None and line.term < before.term and not accepted:
                text = (
                    f"the guarded counter accepted term {line.term} (value {line.get('value')}) after "
                    f"term {before.term} (value {before.get('value')})"
                )
                yield Violation("S3", text, line.us, (before, line))
            if before is None or line.term >= before.term:
                before = line


def stale_effects(history: History) -> int:
    """Unguarded effects that reached the resource after one of a newer term, in its own order: what a
    look at the lease cannot prevent when the process is paused between the look and the effect."""
    newest = stale = 0
    for term, _ in history.accepted.get(_UNGUARDED, ()):
        stale += term < newest
        newest = max(newest, term)
    return stale


def check_counters(history: History, deaths: Iterable[Process]) -> Iterator[Violation]:
    """Each value was given once, and none is missing but those whose writer died, or failed, between
    Redis' answer and its own disk: at most one for each. A writer is a node's process, or a command
    that began in its leadership."""
    allowed: dict[int, int] = {}
    for node, _ in deaths:
        allowed[node] = allowed.get(node, 0) + 1
    for kind in (_GUARDED, _UNGUARDED):
        accepted = history.accepted.get(kind, ())
        failed = [line for line in history.work if line.event in ("work_failed", "work_began")]
        for epoch in _epochs(history, kind):
            yield from _twice(kind, epoch)
            values = {int(line.get("value")): line for line in epoch}
            if accepted:
                yield from _otherwise(kind, values, accepted)
            missing = max(values, default=0) - min(values, default=1) + 1 - len(values)
            most = sum(allowed.values()) + len(failed)
            if missing > most:
                gaps = [value for value in range(min(values), max(values)) if value not in values]
                around = [values[value] for value in (gaps[0] - 1, gaps[-1] + 1) if value in values]
                text = f"{missing} values of the {kind} counter are missing, at most {most} writers died or failed"
                yield Violation("counter", text, around[0].us, tuple(around))


def _twice(kind: str, epoch: Sequence[Line]) -> Iterator[Violation]:
    seen: dict[int, Line] = {}
    for line in epoch:
        other = seen.setdefault(int(line.get("value")), line)
        if other is not line:
            text = f"value {line.get('value')} of the {kind} counter was given to nodes {other.node} and {line.node}"
            yield Violation("counter", text, line.us, (other, line))


def _otherwise(kind: str, values: dict[int, Line], accepted: Sequence[tuple[int, int]]) -> Iterator[Violation]:
    """What a process says it did must be what the resource says."""
    for value, line in values.items():
        known = accepted[value - 1] if 0 < value <= len(accepted) else None
        if known != (line.term, line.node):
            said = "was never accepted" if known is None else f"came from node {known[1]} in term {known[0]}"
            text = f"node {line.node} raised the {kind} counter to {value} in term {line.term}, but that {said}"
            yield Violation("counter", text, line.us, (line,))


def _epochs(history: History, kind: str) -> list[list[Line]]:
    """Effects between two losses of the counter: where a fault made Redis forget, and values fall."""
    resets = sorted(
        line.us
        for line in history.of("fault_began")
        if any(word in str(line.get("fault")) for word in ("flush", "dump", "failover", "failed_over", "restore"))
    )
    epochs: list[list[Line]] = [[]]
    for line in history.work:
        if line.event != kind:
            continue
        while resets and resets[0] <= line.us:
            reset_us = resets.pop(0)
            after = [one.get("value") for one in history.work if one.event == kind and one.us >= reset_us]
            if epochs[-1] and after and min(after) <= max(int(one.get("value")) for one in epochs[-1]):
                epochs.append([])
        epochs[-1].append(line)
    return [epoch for epoch in epochs if epoch]
