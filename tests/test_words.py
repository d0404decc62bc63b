"""One idea, one word: words of an earlier language stand nowhere in the tree. docs/glossary.md has those of today."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.paths import ROOT

RETIRED = {
    "office": "leadership, active",
    "tenure": "lease",
    "reign": "leadership",
    "electorate": "voters",
    "stranger": "unknown client; of a witness: unrecognized",
    "amnesia": "lost its state",
    "forgetful": "lost its state",
    "goodbye": "leave",
    "steer": "admin command",
    "roster": "configured members",
    "ballot": "vote file",
    "foundation": "generation",
    "founds": "resets the voters",
    "founded": "reset",
    "unwell": "unhealthy",
    "unfit": "ineligible",
    "mend": "fix",
    "mailbox": "outbox",
    "door": "authenticator",
    "anew": "again",
    "besets": "attacks",
    "dawdles": "is slow",
    "heeds": "obeys",
}
"""Each with what to write instead."""

WORD = re.compile(rf"(?<![a-z])(?:{'|'.join(RETIRED)})(?:s|ed|ing)?(?![a-z])", re.IGNORECASE)
"""Also as a part of a name such as `_office` or `in_office`."""

STILL_TO_GO: set[str] = {
    "zelect/cli/members.py",
    "zelect/cli/who.py",
    "zelect/devcluster/live_view.py",
    "zelect/node/http/server.py",
    "zelect/redis/witness_scripts.py",
    "tools/chaos_lab/process_faults.py",
    "tests/integration/test_admin.py",
    "tests/integration/test_cli.py",
    "tests/integration/test_fencing.py",
    "tests/integration/test_redis_security.py",
    "tests/integration/test_reset.py",
    "tests/test_docs.py",
    "tests/unit/redis/test_witness.py",
    "docs/commands.md",
    "docs/http.md",
    "docs/security.md",
    "docs/testing.md",
}
"""Files that have some yet; nothing may be added here."""

_KINDS = {".py", ".md", ".toml", ".txt", ".html", ".js", ".css", ".json", ".yml", ".sh"}
_HERE = Path(__file__).resolve()
_RENAMED = ROOT / "tools" / "benchmarks" / "earlier_names.py"


def files() -> list[Path]:
    """Everything that somebody reads, except this file and the table of what was renamed."""
    folders = ("zelect", "tools", "tests", "docs", "conf", "examples", ".github")
    inside = [path for folder in folders for path in sorted((ROOT / folder).rglob("*")) if path.suffix in _KINDS]
    above = [
        ROOT / name
        for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "setup.py", "pyproject.toml", "Makefile")
    ]
    return [path for path in (*above, *inside) if path not in (_HERE, _RENAMED)]


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_word_of_the_earlier_language_is_left(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    found = {number: words for number, line in enumerate(lines, 1) if (words := WORD.findall(line))}
    if str(path.relative_to(ROOT)) not in STILL_TO_GO:
        assert found == {}, "docs/glossary.md has the words of today"
