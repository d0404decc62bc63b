"""The developer's commands: python -m tools.dev COMMAND [ARGUMENTS for its last step]

verify    look and change nothing: linter, format, types, layers, documents
fast      what needs no cluster: the pure code, units, rules, scenarios
test      everything that ends within minutes, two tests at a time
long      only the long tests, which plain `pytest` leaves out
coverage  the fast tests reach every line and branch of the pure code, or it fails and says which they do not
format    repair what the linter and the formatter can repair
docs      write the generated pages and check the links
notes     VERSION: the release notes, which are its section of CHANGELOG.md

`make COMMAND` does the same.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

REPOSITORY = tuple(sorted(f"tests/{path.name}" for path in (ROOT / "tests").glob("test_*.py")))
"""Tests of the repository itself: walls between rooms, words, links in documents."""
PURE = ("tests/unit/core", "tests/unit/test_wire.py", "tests/rules", "tests/scenarios")
FAST = ("tests/unit", "tests/rules", "tests/scenarios")
TWO_WORKERS = ("-n", "2", "--dist", "worksteal")
"""For tests that mostly wait: two run at a time, and who has none left takes half of the other's (pytest-xdist)."""

COMMANDS: dict[str, tuple[tuple[str, ...], ...]] = {
    "verify": (
        ("-m", "ruff", "check", "."),
        ("-m", "ruff", "format", "--check", "."),
        ("-m", "mypy"),
        ("-m", "pytest", "-q", *REPOSITORY),
    ),
    "fast": (("-m", "pytest", "-q", *FAST),),
    "test": (("-m", "pytest", *TWO_WORKERS),),
    "long": (("-m", "pytest", "-m", "long"),),
    "coverage": (
        ("-m", "coverage", "run", "-m", "pytest", "-q", *PURE),
        ("-m", "coverage", "report"),
    ),
    "format": (("-m", "ruff", "check", "--fix", "."), ("-m", "ruff", "format", ".")),
    "docs": (("tools/commands.py", "--write"), ("-m", "pytest", "-q", "tests/test_docs.py")),
}
"""Each command's steps: arguments of this Python, run at the top of the tree until one fails."""


def notes(version: str) -> int:
    """Print the section of `version`; its heading may say more, such as the date."""
    _, *sections = re.split(r"^## ", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    for heading, _, text in (section.partition("\n") for section in sections):
        if heading.split()[0] == version:
            print(text.strip())
            return 0
    print(f"CHANGELOG.md has no section {version}", file=sys.stderr)
    return 1


def main(arguments: list[str]) -> int:
    if len(arguments) == 2 and arguments[0] == "notes":
        return notes(arguments[1])
    if not arguments or arguments[0] not in COMMANDS:
        print(__doc__)
        return 0 if arguments in (["-h"], ["--help"]) else 2
    name, *further = arguments
    *before, last = COMMANDS[name]
    for step in (*before, (*last, *further)):
        print("+ python", *step, flush=True)
        began = time.monotonic()
        code = subprocess.run([sys.executable, *step], cwd=ROOT).returncode
        print(f"  {time.monotonic() - began:.0f} s", flush=True)
        if code:
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
