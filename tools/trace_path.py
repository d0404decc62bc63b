"""Which files and functions of zelect one vote runs through, recorded on real nodes.

    python tools/trace_path.py                        both ways, through this checkout
    python tools/trace_path.py vote --functions       one way, with its functions
    python tools/trace_path.py --tree ../other        another checkout, whatever its modules are called
    python tools/trace_path.py --json

Three nodes with a real Redis elect a controller; it is killed, and the nodes record what happens:

- `vote`: a voter answers a vote request, from the ROUTER's receive to the sent VOT_RESP;
- `takeover`: the next controller, from the link going down to the script that publishes it in Redis.

A file that only some of the trials ran through is marked with a tilde (~).
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tools.benchmarks.against import checkout
from tools.common.checkout import THIS, ToolError, positive
from tools.tracing.trial import KINDS, Course, record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", nargs="?", choices=tuple(KINDS), help="which way (default: both)")
    parser.add_argument(
        "--tree",
        type=checkout,
        default=THIS.root,
        metavar="DIR",
        help="default: this checkout",
    )
    parser.add_argument("--trials", type=positive, default=3, metavar="N", help="controllers to kill (default: 3)")
    parser.add_argument("--functions", action="store_true", help="list the functions of each file too")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="zelect-trace-") as name:
        try:
            courses = record(Path(name), options.tree, options.trials)
        except ToolError as error:
            sys.exit(str(error))
    wanted = {kind: courses[kind] for kind in ([options.kind] if options.kind else KINDS)}
    if options.json:
        print(json.dumps({kind: as_json(course) for kind, course in wanted.items()}, indent=2))
    else:
        print("\n\n".join(as_text(kind, course, options.functions) for kind, course in wanted.items()))


def as_json(course: Course) -> dict[str, Any]:
    """What --json prints of one way."""
    return {
        "trials": [{"files": files, "functions": functions} for files, functions in course.counts],
        "files": [
            {
                "file": file,
                "always": file in course.always,
                "functions": [function for home, function in course.functions if home == file],
            }
            for file in course.files
        ],
    }


def as_text(kind: str, course: Course, functions: bool) -> str:
    """What is printed of one way."""
    files, calls = (statistics.median(numbers) for numbers in zip(*course.counts, strict=True))
    lines = [f"{kind}: {KINDS[kind]}", f"{files:g} files, {calls:g} functions (median of {course.trials} trials)", ""]
    for file in course.files:
        lines.append(f"  {' ' if file in course.always else '~'} {file}")
        if functions:
            lines += [f"        {function}" for home, function in course.functions if home == file]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
