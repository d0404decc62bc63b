"""What `quorum = "dynamic"` and `"static"` cost: the tables of docs/protocol.md, from simulated histories.

    python tools/price_table.py             run each row under both, and print the tables
    python tools/price_table.py --document  write them into docs/protocol.md
    python tools/price_table.py --search    run all histories of three nodes that end, and of Redis that fails; list
                                            those in which dynamic is less available, with the row that tells so

Exit code 1: a row isn't as it says, or a history in which dynamic is worse has no row.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tools.simulator.availability import ROWS, as_markdown, courses  # noqa: E402

PAGE = ROOT / "docs" / "protocol.md"
_MARKED = re.compile(r"(?<=-->\n)\| what happens.*?(?=\n<!-- -->)", re.DOTALL)


def documented() -> list[str]:
    """The two tables as they stand in the page."""
    return _MARKED.findall(PAGE.read_text())


def _write() -> None:
    tables = iter(as_markdown())
    PAGE.write_text(_MARKED.sub(lambda _: next(tables), PAGE.read_text()))


def _rows() -> bool:
    wrong = [row for row in ROWS if (row.run("static"), row.run("dynamic")) != row.active]
    for row in wrong:
        print(f"not as the table says: {row.what}")
    return not wrong


def _search() -> bool:
    count, told, untold = 0, 0, 0
    for course in courses():
        worse = course.worse()
        count += 1
        print(f"\r{count} histories", end="", file=sys.stderr, flush=True)
        told += worse and course.told is not None
        untold += worse is not (course.told is not None)
        if worse or course.told:
            told_by = f"row {ROWS.index(course.told) + 1}" if course.told else "NO ROW"
            print(f"\r{course}: {told_by}{'' if worse else ', NOT WORSE'}")
    print(f"\r{count} histories; dynamic is less available in {told}, each told by a row; {untold} told wrongly")
    return not untold


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--document", action="store_true", help="write the tables into docs/protocol.md")
    parser.add_argument("--search", action="store_true", help="look for histories that have no row")
    chosen = parser.parse_args()
    if chosen.search:
        return 0 if _search() else 1
    right = _rows()
    if chosen.document:
        _write()
    else:
        print("\n\n".join(as_markdown()))
    return 0 if right else 1


if __name__ == "__main__":
    raise SystemExit(main())
