"""What a mutant is, and how it is made: on a copy of the tree, never on the tree itself."""

from __future__ import annotations

import importlib.util
import shutil
import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
_PARTS = ("zelect", "tests", "tools", "conf", "docs", "pyproject.toml", "README.md", "CHANGELOG.md", "setup.py")


class NotOnce(Exception):
    """The text that a mutant replaces does not stand in its file exactly once: the code has moved
    on, and the mutant must follow."""


@dataclass(frozen=True)
class Mutant:
    """One rule broken in one way: in `file`, `old` becomes `new`. `about`: what the node then does
    wrong."""

    rule: str
    name: str
    about: str
    file: str
    old: str
    new: str

    @property
    def path(self) -> str:
        """The changed file, from the root of the tree."""
        return f"zelect/{self.file}.py"


def _read() -> tuple[Mutant, ...]:
    text = (Path(__file__).parent / "mutants.toml").read_text(encoding="utf-8")
    return tuple(Mutant(**fields) for fields in tomllib.loads(text)["mutant"])


MUTANTS = _read()


def mutated(mutant: Mutant, root: Path = ROOT) -> str:
    """The text of the file that `mutant` changes, changed. Raises `NotOnce`."""
    text = (root / mutant.path).read_text(encoding="utf-8")
    found = text.count(mutant.old)
    if found != 1:
        raise NotOnce(f"{mutant.name}: this stands {found} times in {mutant.path}, not once:\n{mutant.old}")
    return text.replace(mutant.old, mutant.new)


def copy_tree(source: Path, target: Path, mutant: Mutant | None = None) -> Path:
    """Copy what tests need from `source` to `target`, with `mutant` in it. Raises `NotOnce`."""
    target.mkdir(parents=True)
    for part in _PARTS:
        if (source / part).is_dir():
            shutil.copytree(source / part, target / part)
        elif (source / part).exists():
            shutil.copy2(source / part, target / part)
    if mutant is not None:
        file = target / mutant.path
        file.write_text(mutated(mutant, source), encoding="utf-8")
        # What was compiled of the file before could pass for it: same second, same length.
        Path(importlib.util.cache_from_source(str(file))).unlink(missing_ok=True)
    return target
