"""`zelect check`: its arguments."""

from __future__ import annotations

from typing import Any

from tests.integration.test_cli import run, write_conf


def test_wrong_arguments_are_named(tmp_path: Any) -> None:
    conf = write_conf(tmp_path / "n1.toml", {1: 7101, 2: 7102, 3: 7103})
    for down, problem in (("2,x", "'2,x' names no nodes"), ("2,2", "names a node twice"), ("9", "node 9 is not in")):
        done = run("check", "-c", conf, "--down", down)
        assert done.exit_code == 2
        assert problem in done.output
