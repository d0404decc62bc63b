"""The repository keeps its own shape: arrows point down, the pure part stays pure, files stay small."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.paths import ROOT

SOURCES = sorted((ROOT / "zelect").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))

PURE_STDLIB = {"__future__", "collections.abc", "dataclasses", "enum", "functools", "typing", "zlib"}
"""What the pure part may import besides itself: values and arithmetic."""

MAY_IMPORT = {
    "core": {"core"},
    "actors": {"core", "actors"},
    "machine": {"core", "actors", "machine"},
    "wire": {"core", "wire"},
    "redis_config": {"redis_config"},
    "values": {"values"},
    "http_config": {"http_config", "values"},
    "config": {"core", "values", "config", "redis_config", "http_config"},
    "log": {"core", "shell", "log"},
    "shell": {"core", "actors", "machine", "wire", "shell", "config", "http_config", "log"},
    "elections": {"elections"},
    "reports": {"core", "shell", "elections", "reports"},
    "asking": {"core", "wire", "shell", "reports", "asking"},
    "cluster": {"core", "wire", "shell", "config", "log", "elections", "asking", "cluster"},
    "api": {"core", "shell", "config", "log", "asking", "api"},
    "running": {"core", "shell", "config", "log", "api", "running"},
    "cli": {
        "api",
        "running",
        "core",
        "elections",
        "reports",
        "wire",
        "shell",
        "config",
        "log",
        "asking",
        "cluster",
        "cli",
    },
    "fencing": {"core", "fencing", "fencing_guard"},
    "fencing_async": {"fencing", "fencing_guard"},
    "fencing_guard": set(),
    "__init__": {"core", "config", "api", "fencing", "fencing_async"},
    "__main__": {"cli"},
}
"""Each layer of `zelect`, and the layers that it may know."""

PURE = ("core", "actors", "machine")

MAY_SLEEP = {
    "waiting.py": "the one place where tests wait",
    "clusters.py": "holds_for: a condition must hold for a while, so there is nothing to wait for",
    "test_store.py": "a server that answers drop by drop",
    "test_witness.py": "a server that answers drop by drop",
}
"""Who may call time.sleep once, and why."""

MOST_LINES = 400
MOST_FUNCTION_LINES = 60


def layer(path: Path) -> str:
    """The part of `zelect` that a file belongs to: its package, or the module itself."""
    inside = path.relative_to(ROOT / "zelect").parts
    return inside[0].removesuffix(".py")


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """Each module that a file imports, wherever in it, with the line."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, item.name) for item in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively: layers are read off full names"
            assert node.module is not None
            if node.module in ("zelect", "zelect.core.actors", "zelect.core", "zelect.shell"):
                yield from ((node.lineno, f"{node.module}.{item.name}") for item in node.names)
            else:
                yield node.lineno, node.module


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def calls(path: Path) -> Iterator[tuple[int, str]]:
    """Each call in a file as written, such as ``time.sleep``, with the line."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            yield node.lineno, ast.unparse(node.func)


def test_every_file_belongs_to_a_layer() -> None:
    assert SOURCES
    assert {layer(path) for path in SOURCES} == set(MAY_IMPORT)


@pytest.mark.parametrize("path", [p for p in SOURCES if layer(p) in PURE], ids=named)
def test_the_pure_part_imports_only_itself_and_pure_values(path: Path) -> None:
    foreign = [
        f"line {line}: {module}"
        for line, module in imported(path)
        if module not in PURE_STDLIB and module.split(".")[1:2] not in [[name] for name in PURE]
    ]
    assert not foreign


@pytest.mark.parametrize("path", [p for p in SOURCES if layer(p) in PURE], ids=named)
def test_the_pure_part_opens_and_prints_nothing(path: Path) -> None:
    forbidden = {"open", "print", "input", "eval", "exec", "__import__"}
    found = [f"line {line}: {name}" for line, name in calls(path) if name in forbidden]
    assert not found


@pytest.mark.parametrize("path", SOURCES, ids=named)
def test_arrows_point_down(path: Path) -> None:
    mine = layer(path)
    for line, module in imported(path):
        parts = module.split(".")
        assert parts[0] not in ("tools", "tests"), f"line {line}: the product knows nothing of its tools and tests"
        if parts[0] != "zelect":
            continue
        if module == "zelect.__version__" and mine not in PURE:
            continue
        assert parts[1] in MAY_IMPORT[mine], f"line {line}: {mine} may not know {module}"


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


@pytest.mark.parametrize("path", SOURCES, ids=named)
def test_files_stay_small(path: Path) -> None:
    lines = len(path.read_text().splitlines())
    assert lines <= MOST_LINES, f"{lines} lines, at most {MOST_LINES}"


@pytest.mark.parametrize("path", SOURCES, ids=named)
def test_functions_stay_small(path: Path) -> None:
    long = [
        f"{node.name} has {node.end_lineno - node.lineno + 1} lines"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno + 1 > MOST_FUNCTION_LINES
    ]
    assert not long
