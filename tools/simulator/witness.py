"""The Redis of a simulated cluster: the witness's memory in it, and what may happen to the server."""

from __future__ import annotations

from dataclasses import replace

from tools.common.witness import Memory, Process, WitnessServer
from zelect.core.effects import WitnessIntent, WitnessLook
from zelect.core.events import Event, WitnessSeen


class Redis:
    """One server, which may be down. `memory` may be set: what a dump or a replica had. `tells_time`: an old server
    doesn't, so that its witness can't say that a controller lives."""

    def __init__(self) -> None:
        self.up = self.tells_time = True
        self.server = WitnessServer()

    @property
    def memory(self) -> Memory | None:
        return self.server.memory

    @memory.setter
    def memory(self, memory: Memory | None) -> None:
        self.server = replace(self.server, memory=memory)

    def restart(self, memory: Memory | None = None) -> None:
        """Another run begins, empty or with an old dump."""
        self.server = self.server.restarted(memory)

    def flush(self) -> None:
        self.server = self.server.flushed()

    def fail_over(self, old: Memory | None) -> None:
        """A replica takes over, with what had reached it: another run and another history."""
        self.server = replace(self.server.restarted(old), history=self.server.history + 1)

    def re_replicate(self) -> None:
        """The server was a replica for a moment and is a primary again: another history, same run."""
        self.server = replace(self.server, history=self.server.history + 1)

    def carry_out(
        self, who: Process, intent: WitnessIntent, asked_us: int = 0, promise_ms: int = 0, clock_us: int = 0
    ) -> Event | None:
        """Run the script for `who`, which asked at `asked_us` of its clock, at `clock_us` of the server's. None:
        nothing that the node would hear of."""
        if isinstance(intent, WitnessLook):
            record = self.server.handed_out if self.up else None
            return WitnessSeen(intent.identity, self.up, self.up and self.server.same(intent.identity), record)
        if not self.up:
            return None
        told_us = clock_us if self.tells_time else 0
        self.server, event = self.server.answer(who, intent, asked_us, promise_ms, clock_us=told_us)
        return event
