"""What a program imports from zelect: everything that it can meet, under one base class, and with types."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import zelect
from tests.support.paths import ROOT

INSIDE = {"StartAgain", "WatchdogFailed"}  # of `zelect node` and `zelect run` alone


def test_each_exception_for_users_is_exported_under_one_base() -> None:
    found: dict[str, type[BaseException]] = {}
    for module in pkgutil.walk_packages(zelect.__path__, "zelect."):
        if not module.name.endswith("__main__"):
            for name, one in vars(importlib.import_module(module.name)).items():
                if isinstance(one, type) and issubclass(one, zelect.ZelectError):
                    found[name] = one
    assert found.keys() - INSIDE <= set(zelect.__all__)
    raised = {name for name in zelect.__all__ if isinstance(getattr(zelect, name), type(Exception))}
    exceptions = {name for name in raised if issubclass(getattr(zelect, name), Exception)}
    assert exceptions == found.keys() - INSIDE


PROGRAM = """
import asyncio
import signal
from pathlib import Path

import redis
import redis.asyncio

import zelect


def work(leadership: zelect.Leadership, pause_s: float) -> int:
    leadership.check()
    leadership.sleep(pause_s)
    return leadership.term


async def work_too(leadership: zelect.Leadership) -> str:
    await asyncio.sleep(leadership.remaining_ms / 1000)
    return leadership.reason


def begin(leadership: zelect.Leadership) -> None:
    if leadership.previous == 0:
        leadership.resign()


def heard(controller: zelect.Controller) -> None:
    print(controller.id, controller.term, controller.previous, controller.reason)


def threads(path: Path) -> int | None:
    done: int | None = None
    with zelect.Node(path, process=True, on_elected=begin, on_controller=heard, health=lambda: True) as node:
        signal.signal(signal.SIGTERM, lambda number, frame: node.ask_to_stop())
        leaderships: zelect.LeadershipIterator = node.campaign()
        for leadership in leaderships:
            done = leadership.run(work, leadership, 1.0)
            fenced = zelect.FencedRedis(redis.Redis(), "orders", leadership)
            fenced.set("latest", done or 0)
        node.resign(5.0)
    return done


async def coroutines(path: str) -> None:
    async with zelect.Node(path) as node:
        async for leadership in node.campaign():
            said: str | None = await leadership.run(work_too(leadership))
            again: str | None = await leadership.run(work_too, leadership)
            fenced = zelect.AsyncFencedRedis(redis.asyncio.Redis(), "orders", leadership)
            print(said, again, fenced, await asyncio.to_thread(work, leadership, 0.1))


def outside(path: str) -> zelect.Seen | None:
    with zelect.Observer(path) as observer:
        for seen in observer.changes():
            if seen is not None:
                return seen
        return observer.controller()


def errors(node: zelect.Node) -> str:
    try:
        node.start()
    except zelect.CannotBind as error:
        return error.address
    except zelect.DataDirInUse as error:
        return str(error.pid)
    except (zelect.DataDirError, zelect.VoteStoreError, zelect.ConfigError, zelect.ChildFailed) as error:
        return str(error)
    except (zelect.NodeFailed, zelect.LeadershipLost, zelect.FencedOut, zelect.ZelectError) as error:
        return str(error.__cause__)
    config: zelect.Config = node.config
    return config.cluster.name
"""


@pytest.mark.long
def test_a_users_program_passes_mypy(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    command = [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", "program.py"]
    done = subprocess.run(
        command, cwd=tmp_path, env={"PATH": "/usr/bin", "MYPYPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
