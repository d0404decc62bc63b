"""What tools/trace_path.py prints; tests/integration/test_tour.py records with it."""

from __future__ import annotations

from tools.trace_path import as_json, as_text
from tools.tracing.trial import Course

LOOP, WIRE, VOTE = "zelect/node/loop.py", "zelect/wire.py", "zelect/core/actors/vote.py"
COURSE = Course.of([[(LOOP, "run"), (WIRE, "decode"), (WIRE, "encode")], [(LOOP, "run"), (VOTE, "voting")]])


def test_a_course_has_each_file_once_in_the_order_of_its_first_call() -> None:
    assert COURSE.files == (LOOP, WIRE, VOTE)
    assert COURSE.always == {LOOP}
    assert COURSE.counts == ((2, 3), (2, 2))


def test_the_text_marks_what_only_some_trials_ran_through() -> None:
    assert as_text("vote", COURSE, functions=True).splitlines()[1:] == [
        "2 files, 2.5 functions (median of 2 trials)",
        "",
        "    zelect/node/loop.py",
        "        run",
        "  ~ zelect/wire.py",
        "        decode",
        "        encode",
        "  ~ zelect/core/actors/vote.py",
        "        voting",
    ]


def test_json_has_the_functions_of_each_file() -> None:
    shown = as_json(COURSE)
    assert shown["trials"] == [{"files": 2, "functions": 3}, {"files": 2, "functions": 2}]
    assert shown["files"][1] == {"file": WIRE, "always": False, "functions": ["decode", "encode"]}
