"""The job through the Python interface, as a user's program would have it: in a thread, or as a coroutine.

The function looks before each step, as docs/embedding.md says; the coroutine never does, and relies on
being cancelled in time.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from types import FrameType

import zelect
from tools.chaos_lab.job import AGAIN_S, EVERY_S, KINDS, Counters
from tools.chaos_lab.worker_setup import NAME, WorkerSetup
from zelect.api.node_thread import NodeThread, RunningNode
from zelect.config.loading import Config
from zelect.system.clock import now_us

INTERFACES = ("threads", "asyncio")


class _Node(zelect.Node):
    """A node whose links go where its setup says."""

    def __init__(self, config: Config, connect_to: Mapping[str, str]) -> None:
        super().__init__(config)
        self._connect_to = connect_to

    def _new_running_node(self) -> RunningNode:
        return NodeThread(self.config, connect_to=self._connect_to)


def run_embedded(config: Config, setup: WorkerSetup) -> int:
    """Until SIGTERM. Raises what a node raises."""
    counters = Counters(NAME, config.node.id, 0, setup.job, Path(setup.history))
    node = _Node(config, setup.dial)
    if setup.interface == "asyncio":
        asyncio.run(_in_loop(node, counters))
    else:
        _in_thread(node, counters)
    return 0


def _in_thread(node: zelect.Node, counters: Counters) -> None:
    def leave(number: int, frame: FrameType | None) -> None:
        node.ask_to_stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, leave)
    with node:
        for leadership in node.campaign():
            leadership.run(_work, leadership, counters)


def _work(leadership: zelect.Leadership, counters: Counters) -> None:
    counters.write(now_us(), leadership.term, "work_began", os.getpid())
    while True:
        if not counters.connect():
            leadership.sleep(AGAIN_S)
            continue
        for kind in KINDS:
            began_us = now_us()
            leadership.check()
            counters.effect(kind, began_us, leadership.term)
        leadership.sleep(EVERY_S)


async def _in_loop(node: zelect.Node, counters: Counters) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, node.ask_to_stop)
    async with node:
        async for leadership in node.campaign():
            await leadership.run(_steps(leadership, counters))


async def _steps(leadership: zelect.Leadership, counters: Counters) -> None:
    counters.write(now_us(), leadership.term, "work_began", os.getpid())
    while True:
        for kind in KINDS if counters.connect() else ():
            began_us = now_us()
            await asyncio.sleep(0)  # the look at the lease lies between the two
            counters.effect(kind, began_us, leadership.term)
        await asyncio.sleep(EVERY_S)
