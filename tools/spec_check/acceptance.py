"""Whether TLC accepts recorded histories: many of them in one run."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.spec_check import tlc
from tools.spec_check.traces import Line, Trace, configuration, module_of

BATCH = 60
"""So many histories in one run of TLC: it reads all of them before it begins."""

_ACCEPTED = re.compile(r'<<"accepted", (\d+)>>')
_REACHED = re.compile(r'<<"reached", (\d+), (\d+)>>')


@dataclass(frozen=True, slots=True)
class Verdict:
    """About one history. A rejected one was followed up to its step `step` (counted from 1), which comes from `line`
    and is no action of the specification."""

    accepted: bool
    steps: int
    lines: int
    step: int = 0
    text: str = ""
    line: Line | None = None


def check(traces: Sequence[Trace], *, seconds: float = 900) -> list[Verdict]:
    """Judge every history; `seconds` for each `BATCH` of them. Raises `NoTlc` and `TlcFailed`."""
    verdicts = list[Verdict]()
    for begin in range(0, len(traces), BATCH):
        batch = traces[begin : begin + BATCH]
        output = _run(batch, seconds)
        accepted, reached = {int(number) for number in _ACCEPTED.findall(output)}, dict[int, int]()
        for number, step in _REACHED.findall(output):
            reached[int(number)] = max(int(step), reached.get(int(number), 0))
        for number, trace in enumerate(batch, 1):
            if number in accepted:
                verdicts.append(Verdict(True, len(trace.steps), trace.lines))
            else:
                step = trace.steps[reached[number] - 1]
                verdicts.append(Verdict(False, len(trace.steps), trace.lines, reached[number], step.text, step.line))
    return verdicts


def _run(traces: Sequence[Trace], seconds: float) -> str:
    with tempfile.TemporaryDirectory(prefix="zelect-spec-") as place:
        output = tlc.run(
            "Histories",
            configuration(traces),
            Path(place),
            files={"Histories.tla": module_of(traces)},
            seconds=seconds,
            workers=1,
            short=True,
        )
    if not tlc.judge(output).complete:
        raise tlc.TlcFailed(f"not finished within {seconds:.0f} s:\n{output[-2000:]}")
    return output
