"""The report of a run: one HTML file without outside resources.

A timeline with a lane for each node, how long nobody was active by kind of fault, the table of rounds,
and what ran. The page in `page/` draws the timeline from the data written into it, and only what
lies in its window, so that a thousand rounds stay readable; everything else is there without scripts.
"""

from __future__ import annotations

import html
import json
import platform
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from string import Template
from typing import Any

from tools.chaos_lab.active_periods import processes
from tools.chaos_lab.charts import spread_chart
from tools.chaos_lab.gaps import Gap, by_kind
from tools.chaos_lab.histories import History, Line, described, read
from tools.chaos_lab.rounds import QUIET, RecordedFault, Round
from tools.chaos_lab.verdict import Verdict

_PAGE = Path(__file__).resolve().parent / "page"
_FROZEN = ("freeze", "stutter", "gil_hog", "cpu")
_CUT = ("cut", "one_way", "bridge", "ring", "flap", "delay", "reset", "refuse", "loss", "reorder")
_REDIS = ("redis", "registry", "sentinel")
_LOGGED = {
    "node_started": "started as process {pid}",
    "node_ended": "ended normally",
    "campaign_began": "campaigns for term {term} ({reason})",
    "campaign_failed": "was not elected",
    "elected": "is elected in term {term} by {votes} votes",
    "election_abandoned": "gives up term {term} before it is active ({why})",
    "became_active": "is active, term {term} ({reason})",
    "stopped_being_active": "stopped being active, term {term} ({why})",
    "leadership_suspended": "lost its quorum: not active",
    "leadership_resumed": "has its quorum again: active",
    "leave_announced": "leaves",
    "peer_died": "has proof that node {peer} is dead ({evidence})",
    "voters_reset": "resets the voters",
    "voting_right_lost": "lost its voting right",
    "voting_right_granted": "has its voting right again",
}


def write_report(directory: Path, verdict: Verdict, path: Path) -> None:
    """Write the report of the run in `directory`, with this verdict, to `path`. Raises `HistoryError` when there
    is no history, and OSError."""
    path.write_text(report_of(read(directory), verdict), encoding="utf-8")


def report_of(history: History, verdict: Verdict) -> str:
    """The page."""
    base_us = history.span_us()[0]
    run = history.run
    page = Template((_PAGE / "page.html").read_text(encoding="utf-8"))
    seed = run.get("seed")
    words = "every guarantee held" if verdict.held else _count(len(verdict.violations), "violation")
    vacancies = {kind: [gap.vacant_ms for gap in gaps] for kind, gaps in by_kind(verdict.gaps).items()}
    for overlap in verdict.overlaps:
        kind = "forged refusals" if overlap.forged else "overlap"
        vacancies.setdefault(kind, []).append(-overlap.ms)
    return page.substitute(
        title=html.escape(f"zelect chaos: seed {seed}, {words}"),
        heading=html.escape(f"{_count(len(verdict.rounds), 'round')} of faults against {len(history.ids)} nodes"),
        verdict=html.escape(words),
        verdict_class="" if verdict.held else "broken",
        facts=_facts(history, verdict),
        violations=_violations(verdict),
        gaps=spread_chart({kind: [gap.ms for gap in gaps] for kind, gaps in by_kind(verdict.gaps).items()}, "gap"),
        vacancies=spread_chart(vacancies, "vacancy", log=False),
        rounds="\n".join(_row(one, verdict.gaps) for one in verdict.rounds),
        about=_about(history, verdict),
        data=json.dumps(_data(history, verdict, base_us), separators=(",", ":")).replace("<", "\\u003c"),
        css=(_PAGE / "page.css").read_text(encoding="utf-8"),
        js=(_PAGE / "page.js").read_text(encoding="utf-8"),
    )


def _count(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


# -- what the page shows without scripts ----------------------------------------------------------------


def _facts(history: History, verdict: Verdict) -> str:
    began_us, ended_us = history.span_us()
    facts = {
        "seed": history.run.get("seed"),
        "faults": sum(verdict.fault_counts().values()),
        "elections": verdict.elections,
        "elections without a fault": len(verdict.false_elections),
        "worst overlap": f"{verdict.worst_overlap_ms:.3f} ms",
        "effects": verdict.effects.get("guarded", 0) + verdict.effects.get("unguarded", 0),
        "duration": f"{(ended_us - began_us) / 1e6:.1f} s",
    }
    if verdict.worst_forged_overlap_ms:
        facts["under forged refusals"] = f"{verdict.worst_forged_overlap_ms:.3f} ms"
    return "\n".join(
        f"<div><dt>{html.escape(name)}</dt><dd>{html.escape(str(value))}</dd></div>" for name, value in facts.items()
    )


def _violations(verdict: Verdict) -> str:
    shown = []
    for one in verdict.violations:
        head, *lines = described(one, width=110)
        slice_ = html.escape("\n".join(lines))
        shown.append(f'<div class="violation"><strong>{html.escape(head)}</strong><pre>{slice_}</pre></div>')
    if not shown:
        return ""
    return '<section aria-label="violations">\n<h2>What is broken</h2>\n' + "\n".join(shown) + "\n</section>"


def _row(one: Round, gaps: Iterable[Gap]) -> str:
    mine = [gap.ms for gap in gaps if gap.round == one.number]
    struck = sorted({node for fault in one.faults for node in fault.nodes})
    cells = (
        f'<td class="n">{one.number}</td>',
        f"<td>{html.escape(one.kind)}</td>",
        f"<td>{', '.join(map(str, struck))}</td>",
        f'<td class="n">{f"{max(mine):.1f}" if mine else ""}</td>',
        f'<td class="n">{_settled_ms(one)}</td>',
        f'<td class="n">{one.controller or ""}</td>',
        f'<td class="n">{one.term or ""}</td>',
        f'<td><button type="button" aria-label="show round {one.number}">show</button></td>',
    )
    words = html.escape(f"{one.number} {one.kind} node {' node '.join(map(str, struck))}".lower())
    return f'<tr id="row-{one.number}" data-round="{one.number}" data-words="{words}">{"".join(cells)}</tr>'


def _settled_ms(one: Round) -> str:
    if one.healed_us is None:
        return ""
    return "never" if one.settled_us is None else f"{(one.settled_us - one.healed_us) / 1000:.0f}"


def _about(history: History, verdict: Verdict) -> str:
    run = history.run
    versions = run.get("versions") if isinstance(run.get("versions"), dict) else {}
    begun = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(int(run.get("unix_ms") or 0) / 1000))
    rows: dict[str, object] = {
        "seed": run.get("seed"),
        "nodes": ", ".join(map(str, history.ids)),
        "quorum": run.get("quorum", ""),
        "begun": begun,
        **{str(name): value for name, value in (versions or {}).items()},
        "timing": ", ".join(f"{name} {value}" for name, value in history.timing.items()),
        "faults done": ", ".join(f"{name} {count}" for name, count in verdict.fault_counts().items()),
        "effects": ", ".join(f"{name} {count}" for name, count in verdict.effects.items()),
        "report made with": f"Python {platform.python_version()}",
    }
    rows |= {f"skipped: {fault}": reason for fault, reason in verdict.skipped.items()}
    rows |= {f"unreadable in {name}": _count(count, "line") for name, count in verdict.bad_lines.items()}
    return "\n".join(
        f"<tr><td>{html.escape(name)}</td><td>{html.escape(str(value))}</td></tr>"
        for name, value in rows.items()
        if value
    )


# -- what the timeline draws ----------------------------------------------------------------------------


def _data(history: History, verdict: Verdict, base_us: int) -> Mapping[str, object]:
    def ms(us: int) -> float:
        return round((us - base_us) / 1000, 3)

    def span(from_us: int, to_us: int, **rest: object) -> dict[str, object]:
        return {"from": ms(from_us), "to": ms(max(from_us, to_us)), **rest}

    faults = [fault for one in verdict.rounds for fault in one.faults]
    alive = sorted(processes(history).items(), key=lambda item: item[1][0])
    wrong = sorted(verdict.violations, key=lambda one: one.us)
    elected = history.facts("elected")
    reason = {(line.node, line.term): line.get("reason", "") for line in history.facts("became_active")}
    return {
        "span": ms(history.span_us()[1]),
        "nodes": history.ids,
        "lives": [span(began_us, ended_us, node=node) for (node, _), (began_us, ended_us, _) in alive],
        "leaderships": [
            span(one.active_since_us, one.until_us, node=one.node, term=one.term, why=one.why)
            for one in verdict.leaderships
        ],
        "struck": sorted(
            (
                span(one.began_us, one.ended_us, fault=one.fault, nodes=one.nodes, look=_look(one), detail=_detail(one))
                for one in faults
            ),
            key=_from,
        ),
        "elections": [
            span(line.us, line.us, node=line.node, term=line.term, reason=reason.get((line.node, line.term), ""))
            for line in elected
        ],
        "rounds": _spans_of_rounds(verdict, base_us, history.span_us()[1]),
        "wrong": [span(one.us, one.us, text=f"{one.rule}: {one.text}") for one in wrong],
        "log": sorted(_log(history, verdict, base_us), key=_from),
    }


def _from(table: Mapping[str, Any]) -> float:
    return float(table["from"])


def _look(fault: RecordedFault) -> str:
    if fault.fault.startswith(_REDIS):
        return "redis"
    if fault.fault.startswith(_FROZEN):
        return "frozen"
    return "cut" if fault.fault.startswith(_CUT) or "pairs" in fault.detail else "down"


def _detail(fault: RecordedFault) -> str:
    return ", ".join(f"{name} {_plain(value)}" for name, value in fault.detail.items())[:200]


def _plain(value: object) -> str:
    if isinstance(value, list) and value and all(isinstance(one, list) and len(one) == 2 for one in value):
        return " ".join(f"{a}\N{RIGHTWARDS ARROW}{b}" for a, b in value)
    return str(value)


def _spans_of_rounds(verdict: Verdict, base_us: int, end_us: int) -> list[dict[str, object]]:
    rounds = verdict.rounds
    nexts = [*(one.began_us for one in rounds), end_us][1:]
    found: list[dict[str, object]] = []
    for one, next_us in zip(rounds, nexts, strict=True):
        times = {
            "from": one.began_us,
            "to": max(one.began_us, next_us),
            "healed": one.healed_us,
            "settled": one.settled_us,
        }
        spans = {name: None if us is None else round((us - base_us) / 1000, 3) for name, us in times.items()}
        found.append({**spans, "number": one.number, "words": _trace(one, verdict.gaps)})
    return found


def _trace(one: Round, gaps: Iterable[Gap]) -> str:
    """The round in one sentence."""
    faults = [f"{fault.fault}{_whom(fault)}" for fault in one.faults]
    parts = [f"round {one.number}: {' + '.join(faults) or QUIET}"]
    mine = [gap for gap in gaps if gap.round == one.number]
    parts += [f"node {gap.after.node} active after {gap.ms:.1f} ms (term {gap.after.term})" for gap in mine[:3]]
    if len(mine) > 3:
        parts.append(f"and {len(mine) - 3} more gaps")
    if not mine and one.faults:
        parts.append("somebody was active all the time")
    if one.healed_us is not None:
        took = _settled_ms(one)
        parts.append("never settled" if took == "never" else f"settled {took} ms after the healing")
    return "; ".join(parts)


def _whom(fault: RecordedFault) -> str:
    if not fault.nodes:
        return ""
    return f" of node {fault.nodes[0]}" if len(fault.nodes) == 1 else f" of nodes {', '.join(map(str, fault.nodes))}"


def _log(history: History, verdict: Verdict, base_us: int) -> Iterable[dict[str, object]]:
    def entry(us: int, who: str, what: str, wrong: bool = False) -> dict[str, object]:
        at = round((us - base_us) / 1000, 3)
        return {"from": at, "to": at, "who": who, "what": what, **({"wrong": True} if wrong else {})}

    for line in history.nodes:
        if line.event in _LOGGED:
            yield entry(line.us, f"node {line.node}", _logged(line))
    for line in history.chaos:
        if line.event in ("healed", "settled", "not_settled", "leftover"):
            rest = f": node {line.get('controller')}, term {line.term}" if line.event == "settled" else ""
            yield entry(line.us, "chaos", line.event.replace("_", " ") + rest)
        elif line.event == "published":
            who = f"node {line.get('id')}" if line.get("id") else "nobody"
            yield entry(line.us, "Redis", f"{who} is controller, term {line.term}")
        elif line.event == "refused_to_start":
            yield entry(line.us, "chaos", f"node {line.node or '?'} refused to start")
    for one in verdict.rounds:
        for fault in one.faults:
            detail = _detail(fault)
            yield entry(fault.began_us, "chaos", f"{fault.fault}{_whom(fault)}" + (f" ({detail})" if detail else ""))
            yield entry(fault.ended_us, "chaos", f"{fault.fault} is over")
    for leadership in verdict.leaderships:
        if leadership.why == "lapsed":
            yield entry(
                leadership.until_us, f"node {leadership.node}", f"its lease has run out, term {leadership.term}"
            )
    for violation in verdict.violations:
        yield entry(violation.us, "check", f"{violation.rule}: {violation.text}", wrong=True)


class _Blank(dict[str, Any]):
    def __missing__(self, key: str) -> str:
        return "?"


def _logged(line: Line) -> str:
    term = line.get("about_term", line.term)
    return _LOGGED[line.event].format_map(_Blank({**line.fields, "term": term}))
