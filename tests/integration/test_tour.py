"""docs/tour.md names the files that a vote runs through: a real vote is recorded and compared."""

from __future__ import annotations

import re
from pathlib import Path

from tests.support.paths import ROOT
from tools.tracing.trial import record

NAMED = re.compile(r"`(zelect/[\w/]+\.py)\b")
"""A file of the package as docs/tour.md writes it: in backticks, with its whole path."""

AT_THE_END = {f"zelect/redis/{name}.py" for name in ("registry_scripts", "scripts", "errors", "clients")}
AT_THE_END.add("zelect/system/sockets.py")  # an address is looked up only when a connection changes meanwhile
"""What runs when Redis has answered, which may be after the recording has ended, or only in some recordings."""


def test_the_tour_names_the_files_that_a_vote_runs_through_and_no_others(tmp_path: Path) -> None:
    named = set(NAMED.findall((ROOT / "docs" / "tour.md").read_text(encoding="utf-8")))
    courses = record(tmp_path)
    always = courses["vote"].always | courses["takeover"].always
    sometimes = {file for course in courses.values() for file in course.files}
    assert sorted(always - named) == [], "docs/tour.md leaves these out (python tools/trace_path.py)"
    assert sorted(named - sometimes - AT_THE_END) == [], "no vote runs through these"
