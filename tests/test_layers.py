"""The repository keeps its own shape: rooms with walls, arrows that point down, no circle, one name for one class.

`ROOMS` is the plan of the house: each sub-package of `zelect` and the rooms that it may know. A file
knows its own room and those named there; a room does not stand for the rooms inside it.
"""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path
from typing import TypeGuard

import pytest

from tests.support.paths import ROOT
from zelect.core.effects import FACTS

SOURCES = sorted((ROOT / "zelect").rglob("*.py"))
TOOLS = sorted((ROOT / "tools").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))

PURE_STDLIB = {"__future__", "collections.abc", "dataclasses", "enum", "functools", "typing", "zlib"}
"""What the pure part may import besides itself: values and arithmetic."""

_NODE = {"node/transport", "node/storage", "node/leadership", "node/http"}

ROOMS: dict[str, set[str]] = {
    # pure: nothing here touches the world
    "core": {"core/actors"},
    "core/actors": {"core"},
    "wire": {"core"},
    # small things that know nobody above them
    "version": set(),
    "errors": set(),
    "system": {"core", "errors"},
    "config": {"core", "errors"},
    "status": {"core", "system", "version"},
    "security": {"core", "errors", "config", "system"},
    "redis": {"core", "wire", "config", "system", "status"},
    # the node
    "node/transport": {"core", "config", "system", "security"},
    "node/storage": {"core", "errors", "wire", "system"},
    "node/leadership": {"core", "config", "system"},
    "node/http": {"core", "config", "system", "status", "node/leadership"},
    "node": {"core", "wire", "version", "system", "config", "status", "security", "redis", *_NODE},
    # who asks a node, and programs around one
    "client": {"core", "errors", "wire", "config", "system", "security", "redis", "status"},
    "api": {"core", "errors", "config", "system", "client", "node", "node/leadership", "node/storage"},
    "jobs": {"core", "errors", "config", "system", "client", "api", "node", "node/leadership", "node/storage"},
    "fencing": {"core", "errors"},
    "devcluster": {"core", "config", "system", "security", "redis", "status", "client"},
    "deployment": {"config"},
    "doctor": {"core", "config", "security", "redis", "status", "client", "system"},
    "cli/support": {"core", "config", "system", "status", "security", "client", "devcluster"},
    "cli": {
        *("core", "errors", "version", "system", "config", "status", "security", "redis", "client", "api", "jobs"),
        *("cli/support", "deployment", "devcluster", "doctor", "node", "node/storage", "node/leadership"),
    },
    # what users import
    "": {"version", "errors", "api", "config", "fencing", "node/leadership", "node/storage", "security", "system"},
    "__main__": {"cli"},
}

PURE = ("core", "core/actors")

MAY_SLEEP = {
    "waiting.py": "the one place where tests wait",
    "clusters.py": "holds_for: a condition must hold for a while, so there is nothing to wait for",
    "no_redis.py": "a server that answers drop by drop",
}
"""Who may call time.sleep once, and why."""


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def room(path: Path) -> str:
    """The room of `zelect` that a file belongs to: its package, or at the top the module itself."""
    inside = path.relative_to(ROOT / "zelect").with_suffix("").parts
    if len(inside) == 1:
        return "" if inside[0] == "__init__" else inside[0]
    return "/".join(inside[:-1])


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in (*SOURCES, *TOOLS)}


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@cache
def imported(path: Path) -> tuple[tuple[int, str], ...]:
    """Each module that a file imports, wherever in it, with the line."""
    found: list[tuple[int, str]] = []
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            found += [(node.lineno, item.name) for item in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively: rooms are read off full names"
            assert node.module is not None
            for item in node.names:
                inner = f"{node.module}.{item.name}"
                found.append((node.lineno, inner if inner in MODULES else node.module))
    return tuple(found)


@cache
def calls(path: Path) -> tuple[tuple[int, str], ...]:
    """Each call in a file as written, such as ``time.sleep``, with the line."""
    found = [node for node in ast.walk(parsed(path)) if isinstance(node, ast.Call)]
    return tuple((node.lineno, ast.unparse(node.func)) for node in found)


def test_every_file_belongs_to_a_room() -> None:
    assert SOURCES
    assert {room(path) for path in SOURCES} <= set(ROOMS)


@pytest.mark.parametrize("path", [p for p in SOURCES if room(p) in PURE], ids=named)
def test_the_pure_part_imports_only_itself_and_pure_values(path: Path) -> None:
    outside = [
        f"line {line}: {module}"
        for line, module in imported(path)
        if module not in PURE_STDLIB and not module.startswith("zelect.core")
    ]
    assert not outside


@pytest.mark.parametrize("path", [p for p in SOURCES if room(p) in PURE], ids=named)
def test_the_pure_part_opens_and_prints_nothing(path: Path) -> None:
    forbidden = {"open", "print", "input", "eval", "exec", "__import__"}
    found = [f"line {line}: {name}" for line, name in calls(path) if name in forbidden]
    assert not found


@pytest.mark.parametrize("path", SOURCES, ids=named)
def test_imports_keep_to_the_plan(path: Path) -> None:
    mine = room(path)
    for line, module in imported(path):
        assert module.split(".")[0] not in ("tools", "tests"), f"line {line}: the product knows nothing of its tools"
        if module in MODULES and module.startswith("zelect"):
            theirs = room(MODULES[module])
            known = theirs == mine or theirs in ROOMS[mine]
            assert known, f"line {line}: {mine or 'zelect'} may not know {module}"


WRITTEN_IN_TRANSITIONS = {"role", "controller", "leader_state", "active_since_us"}
"""What only `zelect/core/transitions.py` assigns; the term is saved there alone too."""


@pytest.mark.parametrize("path", [p for p in SOURCES if room(p) in PURE], ids=named)
def test_only_transitions_change_role_term_controller_and_leader_state(path: Path) -> None:
    if path.name == "transitions.py":
        return
    found = []
    for node in ast.walk(parsed(path)):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target] if _assigns(node) else []
        for target in [part for whole in targets for part in ast.walk(whole)]:
            if isinstance(target, ast.Attribute) and isinstance(target.ctx, ast.Store):
                found += [f"line {target.lineno}: {target.attr}"] if target.attr in WRITTEN_IN_TRANSITIONS else []
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "save":
            found += [f"line {node.lineno}: the term" for keyword in node.keywords if keyword.arg == "term"]
    assert found == []


def _assigns(node: ast.AST) -> TypeGuard[ast.AugAssign | ast.AnnAssign]:
    return isinstance(node, ast.AugAssign | ast.AnnAssign)


def test_every_fact_is_noted_as_it_is_declared() -> None:
    """The names and the fields of all facts that the core notes, read off the source."""
    noted: dict[str, set[str]] = {}
    for path in [path for path in SOURCES if room(path) in PURE]:
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "note":
                names = [node.args[0].body, node.args[0].orelse] if isinstance(node.args[0], ast.IfExp) else node.args
                for name in names:
                    assert isinstance(name, ast.Constant), f"{path}:{node.lineno}"
                    noted.setdefault(str(name.value), set()).update(k.arg for k in node.keywords if k.arg)
    optional = {"became_active": {"asked"}, "error_received": {"generation"}}
    assert noted == {name: set(fields) - optional.get(name, set()) for name, fields in FACTS.items()}


def circles(package: str) -> list[list[str]]:
    """Groups of modules of `package` that import each other, directly or by way of others."""
    arrows = {
        name: {found for _, found in imported(path) if found in MODULES and found != name}
        for name, path in MODULES.items()
        if name.split(".")[0] == package
    }
    while True:  # whoever imports nobody, or is imported by nobody, is in no circle
        used = set().union(*arrows.values()) if arrows else set()
        idle = {name for name, out in arrows.items() if name not in used or not out & arrows.keys()}
        if not idle:
            return [sorted(arrows)] if arrows else []
        arrows = {name: out for name, out in arrows.items() if name not in idle}


@pytest.mark.parametrize(
    "package",
    [
        "zelect",
        "tools",
    ],
)
def test_no_module_imports_itself_by_way_of_others(package: str) -> None:
    assert circles(package) == []


def test_each_class_name_is_used_once() -> None:
    homes: dict[str, list[str]] = {}
    for path in SOURCES:
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes.setdefault(node.name, []).append(named(path))
    assert {name: paths for name, paths in homes.items() if len(paths) > 1} == {}


def test_helpers_take_values_and_not_the_whole_node() -> None:
    """In the rooms that a node is made of, nobody is handed the loop."""
    found = [
        f"{named(path)}:{node.lineno} {node.name}"
        for path in SOURCES
        if room(path).startswith(("node", "status", "redis", "security"))
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.FunctionDef)
        for argument in (*node.args.args, *node.args.kwonlyargs)
        if argument.annotation is not None and ast.unparse(argument.annotation).strip("'\"") == "NodeLoop"
    ]
    assert found == []


@pytest.mark.parametrize("path", TESTS, ids=named)
def test_tests_wait_for_conditions(path: Path) -> None:
    sleeps = [line for line, name in calls(path) if name in ("time.sleep", "sleep")]
    assert len(sleeps) <= (1 if path.name in MAY_SLEEP else 0), f"lines {sleeps}: use tests/support/waiting.py"


@pytest.mark.parametrize("path", TESTS, ids=named)
def test_tests_patch_nothing(path: Path) -> None:
    """A test that must patch shows a missing seam."""
    modules = [module for _, module in imported(path)]
    assert not [module for module in modules if module.split(".")[:2] in (["unittest", "mock"], ["mock"])]
    patching = ("monkeypatch.", "mock.", "patch.")
    found = [f"line {line}: {name}" for line, name in calls(path) if name.startswith(patching) or name == "patch"]
    assert not found
