"""One idea, one word: words of an earlier language stand nowhere in the tree. docs/glossary.md has those of today."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from tools.commands import page

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
    assert found == {}, "docs/glossary.md has the words of today"


# -- what a user reads ------------------------------------------------------------------------------

NOT_SAID = {
    "nobody|somebody": "no node, a node",
    "leads": "is active",
    "whom|whoever": "which node, who",
    "guests?|strange": "unknown client, over limit, never valid",
    "silent|silence": "unresponsive; grace period",
    "voices?": "voting right",
    "resting": "cooling down",
    "stor(?:y|ies)|telling": "election trace",
    "notice boards?": "registry",
    "picture|window": "status snapshot",
    "spread": "histogram, percentiles",
    "births?|reborn": "startup, new node, bootstrap",
    "tethers?|keepers?|guard(?:s|ed|ian)?": "watchdog, lock holder",
    "self_dials?": "self_connects",
    "store_(?:up|down)": "redis_connected, redis_disconnected",
    "triggers?": "reason",
    "wish(?:es)?|of late": "plain English",
}
"""Words that do their work in code and prose, but not where a user reads: for what, write instead."""

TOLD = re.compile(rf"(?<![a-z])(?:{'|'.join(NOT_SAID)})(?![a-z])", re.IGNORECASE)

HONEST = {
    ("zelect/api/node.py", "nobody"),  # "which nobody would await": a person, or a program
    ("zelect/system/secure_files.py", "nobody"),  # "make sure that nobody has": a person
    ("zelect/core/settings.py", "guarded"),  # a setting, never shown
    ("zelect/fencing/core.py", "guard"),  # a guarded write (docs/fencing.md)
    ("zelect/redis/witness_scripts.py", "nobody"),  # a local name in Lua
}
"""Where such a word means what it says."""


def told(path: Path) -> Iterator[tuple[int, str]]:
    """Texts, names of facts, JSON keys and metrics in a file: its strings but for docstrings and names that
    Python itself looks up, and the fields of its dataclasses in `zelect/status` and `core/status.py`."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    aside: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            aside.add(id(node.value))
        if isinstance(node, ast.Assign) and any(ast.unparse(target) == "__all__" for target in node.targets):
            aside |= {id(inner) for inner in ast.walk(node.value)}
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and "status" in str(path):
            yield node.lineno, node.target.id
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in aside:
            yield node.lineno, node.value


@pytest.mark.parametrize("path", sorted((ROOT / "zelect").rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_what_a_user_reads_has_the_words_of_today(path: Path) -> None:
    here = str(path.relative_to(ROOT))
    found = [
        (line, word) for line, text in told(path) for word in TOLD.findall(text) if (here, word.lower()) not in HONEST
    ]
    assert found == [], "docs/glossary.md has the words of today"


def test_the_help_of_all_commands_has_the_words_of_today() -> None:
    assert TOLD.findall(page()) == []
    assert WORD.findall(page()) == []


READ = ("docs/http.md", "docs/commands.md", "docs/grafana.json")
"""Documents that keep to it too."""


@pytest.mark.parametrize("name", READ)
def test_documents_have_the_words_of_today(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    assert TOLD.findall(text) == []
