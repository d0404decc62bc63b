"""Histories as a healthy cluster under faults would leave them: made up, deterministic by seed."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tools.chaos_lab.histories import History, parse

__all__ = ["FAULTS", "Made", "made"]

MS = 1000
LEASE_US, PROMISE_US, HEARTBEAT_US = 400 * MS, 500 * MS, 100 * MS
FAULTS = ("kill", "leave", "freeze", "cut", "kill_two", "redis_killed", "refuse_alive", "gil_hog")

Table = dict[str, Any]


class Made:
    """A history in the making. `now_us` moves on; the files fill."""

    def __init__(self, seed: int = 1, nodes: int = 3) -> None:
        self.dice = random.Random(seed)
        self.now_us = 50_000_000 + self.dice.randrange(10**9)
        self.ids = tuple(range(1, nodes + 1))
        self.files: dict[str, list[Table | bytes]] = {"chaos.jsonl": []}
        self.term, self.head, self.values = 0, 0, {"guarded": 0, "unguarded": 0}
        self.incarnations: dict[int, int] = {}
        self.epochs: dict[int, int] = {}
        self.saved: dict[int, tuple[int, int]] = {}
        self.cpu_ms = dict.fromkeys(self.ids, 0.0)
        self.active_since_us = self.lapses_us = 0
        self._births = 0
        versions = {"zelect": "0.1.0", "python": "3.11.2", "libzmq": "4.3.5"}
        timing = {"heartbeat_ms": 100, "election_timeout_ms": 500, "lease_ms": 400}
        self.chaos("run", seed=seed, nodes=nodes, faults=list(FAULTS), versions=versions, timing=timing,
                   base_us=self.now_us, unix_ms=1_790_000_000_000)  # fmt: skip
        self.chaos("skipped", fault="disk_full", reason="needs root")

    # -- files ------------------------------------------------------------------------------------

    def chaos(self, event: str, **fields: object) -> None:
        self.files["chaos.jsonl"].append({"us": self.now_us, "event": event, **fields})

    def note(self, node: int, event: str, *, term: int | None = None, **fields: object) -> None:
        term = self.term if term is None else term
        line = {"us": self.now_us, "node": node, "incarnation": self.incarnations[node], "term": term}
        self.files.setdefault(f"node{node}.jsonl", []).append({**line, "event": event, **fields})

    def contents(self) -> dict[str, bytes]:
        return {
            name: b"".join(one if isinstance(one, bytes) else json.dumps(one).encode() + b"\n" for one in lines)
            for name, lines in self.files.items()
        }

    def history(self) -> History:
        return parse(self.contents())

    def write(self, directory: Path) -> Path:
        directory.mkdir(parents=True, exist_ok=True)
        for name, content in self.contents().items():
            (directory / name).write_bytes(content)
        return directory

    # -- processes --------------------------------------------------------------------------------

    def wait(self, us: int) -> None:
        self.now_us += us

    def start(self, *nodes: int) -> None:
        for node in nodes:
            self._births += 1
            self.incarnations[node] = 1_790_000_000_000 + self._births
            self.epochs.setdefault(node, self.incarnations[node])
            self.cpu_ms[node] = 0.0
            self.wait(self.dice.randrange(500, 3000))
            self.note(node, "node_started", pid=1000 + self._births)
            self.save(node, 0)
            self.note(node, "status_changed", status="voting")
            if self.head:
                self.note(node, "controller_followed", controller=self.head)
                self.note(node, "status_changed", status="running")

    def save(self, node: int, vote: int) -> None:
        record = [0, self.term, self.term + 1]
        term, given = self.saved.get(node, (-1, 0))
        vote = given or vote if term == self.term else vote
        self.saved[node] = (self.term, vote)
        self.note(node, "saved", voted_for=vote, record=record, epoch=self.epochs[node])

    def elect(self, node: int, voters: tuple[int, ...], reason: str) -> None:
        """`node` wins the next term by the votes of `voters` and becomes active."""
        self.note(node, "campaign_began", term=self.term + 1, reason=reason, attempt=0)
        self.term += 1
        for voter in (node, *(one for one in voters if one != node)):
            self.wait(self.dice.randrange(100, 400))
            self.save(voter, node)
            self.note(voter, "vote_granted", candidate=node, pre=False)
        self.note(node, "elected", votes=len(voters), took_ms=1.2)
        for voter in voters:
            if voter != node:
                self.note(voter, "controller_followed", controller=node)
        self.wait(self.dice.randrange(200, 900))
        self.head, self.active_since_us = node, self.now_us
        self.lease()
        self.note(node, "became_active", reason=reason)
        self.wait(600)
        self.chaos("published", id=node, term=self.term)

    def lease(self) -> None:
        self.lapses_us = self.now_us + LEASE_US
        self.note(self.head, "lease", lapses_us=self.lapses_us, active_since_us=self.active_since_us)

    def leading(self, for_us: int, *, work: bool = True) -> None:
        """The controller keeps its leadership and does its job."""
        end_us, next_us = self.now_us + for_us, self.now_us
        while self.now_us < end_us:
            if self.now_us >= next_us:
                self.lease()
                next_us = self.now_us + HEARTBEAT_US
            if work:
                self.work("guarded")
                self.work("unguarded")
            self.wait(50 * MS)

    def work(self, kind: str, *, node: int = 0, term: int = 0, value: int = 0) -> Table:
        began_us = self.now_us
        self.wait(self.dice.randrange(60, 300))
        self.values[kind] = value or self.values[kind] + 1
        node = node or self.head
        line = {"us": began_us, "us_after": self.now_us, "node": node, "incarnation": self.incarnations[node],
                "term": term or self.term, "event": kind, "value": self.values[kind]}  # fmt: skip
        self.files.setdefault(f"work{node}.jsonl", []).append(line)
        return line

    def leave(self, why: str) -> None:
        self.note(self.head, "lease_ended")
        self.note(self.head, "stopped_being_active", why=why)

    # -- rounds -----------------------------------------------------------------------------------

    def round(self, number: int, fault: str) -> None:
        self.chaos("round_began", round=number)
        self.wait(self.dice.randrange(20 * MS))
        getattr(self, f"_{fault}", self._harmless)(number, fault)
        self.wait(200)
        self.chaos("fault_ended", round=number, fault=fault)
        self.start(*(node for node in self.ids if node not in self.incarnations))
        self.wait(2000)
        self.chaos("healed", round=number)
        self.leading(200 * MS)
        self.chaos("settled", round=number, controller=self.head, term=self.term, took_ms=200.0)
        for node in self.ids:
            self.cpu_ms[node] += 8 + self.dice.random()
            self.chaos("resources", node=node, pid=1000 + self.incarnations[node] % 100_000, term=0,
                       rss_kb=31_000 + self.dice.randrange(900), fds=38 + self.dice.randrange(3), threads=5,
                       cpu_ms=int(self.cpu_ms[node]))  # fmt: skip
        self.leading(100 * MS)
        self.chaos("round_ended", round=number)

    def strike(self, number: int, fault: str, *nodes: int, **detail: object) -> None:
        self.chaos("fault_began", round=number, fault=fault, nodes=list(nodes), detail=detail)

    def _others(self, *without: int) -> tuple[int, ...]:
        return tuple(node for node in self.ids if node not in without and node in self.incarnations)

    def _kill(self, number: int, fault: str) -> None:
        old = self.head
        self.strike(number, fault, old)
        del self.incarnations[old]
        self.wait(self.dice.randrange(1500, 4000))
        others = self._others(old)
        self.elect(others[0], others, "death")
        self.leading(300 * MS)

    def _leave(self, number: int, fault: str) -> None:
        old = self.head
        self.strike(number, fault, old)
        self.wait(1000)
        self.leave("leaving")
        self.wait(500)
        self.note(old, "node_ended")
        del self.incarnations[old]
        others = self._others(old)
        self.elect(others[0], others, "leave")
        self.leading(200 * MS)

    def _freeze(self, number: int, fault: str) -> None:
        old, term = self.head, self.term
        self.strike(number, fault, old, hold_ms=1500)
        self.wait(PROMISE_US + self.dice.randrange(60 * MS))
        others = self._others(old)
        self.elect(others[0], others, "timeout")
        self.leading(500 * MS)
        self.note(old, "lease_ended", term=term)
        self.note(old, "stopped_being_active", term=term, why="lease_lapsed")
        self.note(old, "controller_followed", controller=self.head)

    def _cut(self, number: int, fault: str) -> None:
        old = self.head
        self.strike(number, fault, old, pairs=[[old, other] for other in self._others(old)])
        self.wait(LEASE_US + 5 * MS)
        self.leave("lease_lapsed")
        self.wait(PROMISE_US - LEASE_US + self.dice.randrange(20 * MS))
        others = self._others(old)
        self.elect(others[0], others, "timeout")
        self.leading(400 * MS)
        self.note(old, "controller_followed", controller=self.head)

    def _kill_two(self, number: int, fault: str) -> None:
        others = self._others(self.head)
        self.strike(number, fault, self.head, others[0])
        for node in (self.head, others[0]):
            del self.incarnations[node]
        self.head = 0
        self.wait(300 * MS)
        self.start(*(node for node in self.ids if node not in self.incarnations))
        self.wait(600 * MS)
        self.elect(others[-1], self.ids, "timeout")

    def _harmless(self, number: int, fault: str) -> None:
        nodes = self._others(self.head)[:1] if fault in ("gil_hog", "refuse_alive") else ()
        self.strike(number, fault, *nodes, **({"forged": True} if fault == "refuse_alive" else {}))
        self.leading(250 * MS)

    def finish(self) -> Made:
        """All have ended."""
        for node in self.ids:
            if node == self.head:
                self.note(node, "lease_ended")
            self.note(node, "node_ended")
            self.wait(200)
        return self


def made(
    seed: int = 1,
    rounds: int = 8,
    nodes: int = 3,
    fault: Callable[[Made, int], str] | None = None,
) -> Made:
    """A whole run of `rounds` rounds in which every promise holds; `fault` chooses each round's."""
    run = Made(seed, nodes)
    run.start(*run.ids)
    run.wait(500 * MS)
    run.elect(1, run.ids, "start")
    run.leading(200 * MS)
    run.chaos("settled", round=-1, controller=run.head, term=run.term, took_ms=250.0)
    for number in range(rounds):
        run.round(number, fault(run, number) if fault else run.dice.choice(FAULTS))
    return run.finish()
