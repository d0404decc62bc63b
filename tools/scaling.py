"""How many messages an election costs, and an idle second, by the number of nodes.

    python tools/scaling.py                       the table and the chart of docs/scaling.md
    python tools/scaling.py --nodes 3,5,7 --json
    python tools/scaling.py --nodes 101 --down-after-ms 30000

The machine that ships runs under virtual time without faults, watched as in `tools/sim.py`. The
nodes have met before the count begins: that every pair introduces itself once, at the start of a
cluster, is 4 messages a pair and no part of an election. Then the first controller is elected,
all is left in peace for a while, and the controller is killed.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tools.simulator.simulated_world import SimWorld
from zelect.core.messages import Envelope, Ping, Pong, Voting, VotResp
from zelect.core.state import Peer
from zelect.core.timing import Timing

SIZES = (3, 5, 7, 21, 51, 101, 1001)
_WITHIN_MS = 20_000
_BARS = 48


class Meeting(SimWorld):
    """A world whose nodes are connected and have introduced themselves when it begins. `sent_by`
    counts what was sent, by sender and type."""

    def __init__(self, nodes: int, timing: Timing) -> None:
        still = dict.fromkeys(range(1, nodes + 1), 0)
        super().__init__(nodes, seed=nodes, skews_us=still, ppm=still, timing=timing)
        self.sent_by: Counter[tuple[int, str]] = Counter()
        self.start()
        met_us = self.now_us
        peers = {
            n: Peer(
                process.incarnation, met_us, linked=True, linked_us=met_us - 1, epoch=process.machine.state.saved.epoch
            )
            for n, process in self.processes.items()
        }
        for n, process in self.processes.items():
            others = {m: peer for m, peer in peers.items() if m != n}
            process.machine.state.peers = others
            process.linked = set(others)

    def _connect(self, a: int, b: int) -> None:
        """They are connected already."""

    def _deliver(self, n: int, to: int, envelope: Envelope) -> None:
        self.sent_by[n, _kind(envelope)] += 1
        super()._deliver(n, to, envelope)

    def take(self) -> Counter[tuple[int, str]]:
        """What was sent since the last call."""
        taken, self.sent_by = self.sent_by, Counter()
        return taken


def _kind(envelope: Envelope) -> str:
    message = envelope.message
    if isinstance(message, Ping | Pong):
        return "rounds" if message.number else "idle"
    return "votes" if isinstance(message, Voting | VotResp) else "other"


@dataclass(frozen=True)
class Row:
    """One cluster; messages are counted when they are sent. `first`: the first election, until
    everybody follows. `votes`, `rounds`: the election after a kill, until everybody has the voters
    without the dead one: questions for votes with their answers, and all else, which is PINGs with
    theirs. `heartbeats`, `idle`: an idle second, the controller's PINGs with their answers, and
    those among followers. `controller`, `follower`: what one such node sends in that second. `events`
    of the simulator took `took_s` seconds of this machine's time."""

    nodes: int
    first: int
    votes: int
    rounds: int
    heartbeats: float
    idle: float
    controller: float
    follower: float
    events: int
    took_s: float

    @property
    def election(self) -> int:
        """All messages of the election after a kill."""
        return self.votes + self.rounds

    @property
    def second(self) -> float:
        """All messages of an idle second."""
        return self.heartbeats + self.idle


def measured(nodes: int, *, peace_ms: int = 0, down_after_ms: int = Timing().down_after_ms) -> Row:
    """Measure one cluster with the default timings, but for `down_after_ms`. `peace_ms` 0: as long
    as `down_after_ms`, in which each pair of followers speaks twice at least.

    Raises `tools.common.violation.Violation` when a property is broken.
    """
    peace_ms = peace_ms or down_after_ms
    began = time.perf_counter()
    world = Meeting(nodes, Timing(down_after_ms=down_after_ms))
    world.run_until(lambda: _all_follow(world), _WITHIN_MS)
    first = world.take().total()
    # Whole rounds of PINGs, so that what is counted is what a second costs.
    heartbeat_ms = world.settings[1].timing.heartbeat_ms
    world.run(3 * heartbeat_ms)
    world.take()
    world.run(peace_ms)
    peace, head = world.take(), world.controller()
    assert head is not None
    world.kill(head)
    world.run_until(lambda: world.controller() not in (None, head), _WITHIN_MS)
    world.run_until(lambda: _settled(world, head), _WITHIN_MS)
    after = _by_kind(world.take())
    second = {kind: count * 1000 / peace_ms for kind, count in _by_kind(peace).items()}
    senders = Counter[int]()
    for (n, _), count in peace.items():
        senders[n] += count
    followers = [senders[n] for n in world.settings if n != head]
    return Row(
        nodes=nodes,
        first=first,
        votes=after["votes"],
        rounds=after.total() - after["votes"],
        heartbeats=second.get("rounds", 0.0),
        idle=second.get("idle", 0.0),
        controller=senders[head] * 1000 / peace_ms,
        follower=sum(followers) * 1000 / peace_ms / len(followers),
        events=world.events,
        took_s=time.perf_counter() - began,
    )


def _by_kind(sent: Counter[tuple[int, str]]) -> Counter[str]:
    kinds = Counter[str]()
    for (_, kind), count in sent.items():
        kinds[kind] += count
    return kinds


def _all_follow(world: Meeting) -> bool:
    """Whether one is active, all others follow it, and have saved its voters."""
    head = world.controller()
    if head is None:
        return False
    states = [process.machine.state for process in world.processes.values()]
    record = world.state(head).record
    return all(state.record == record and (state.node == head or state.controller is not None) for state in states)


def _settled(world: Meeting, dead: int) -> bool:
    """Whether the voters have followed the death, and everybody knows."""
    head = world.controller()
    return head is not None and dead not in world.state(head).members and _all_follow(world)


def table(rows: Iterable[Row]) -> str:
    """The rows as Markdown."""
    heads = (
        "nodes",
        "first election",
        "after a kill",
        "votes",
        "PINGs",
        "an idle second",
        "heartbeats",
        "among followers",
        "controller",
        "a follower",
    )
    lines = ["| " + " | ".join(heads) + " |", "|" + "---:|" * len(heads)]
    for row in rows:
        counts = [row.first, row.election, row.votes, row.rounds, row.second, row.heartbeats, row.idle]
        cells = [row.nodes, *counts, row.controller, row.follower]
        lines.append("| " + " | ".join(f"{cell:,.0f}" for cell in cells) + " |")
    return "\n".join(lines)


def chart(rows: Iterable[Row]) -> str:
    """Messages by nodes as bars, each ten times as long again for the square of as many."""
    found = list(rows)
    most = max(max(row.election, row.second) for row in found)
    step = _BARS / math.log10(most)
    lines = []
    for row in found:
        for name, sign, count in (("an election", "=", float(row.election)), ("a second", "-", row.second)):
            bar = sign * max(1, round(step * math.log10(max(count, 1.0))))
            lines.append(f"{row.nodes if sign == '=' else '':>5}  {name:<12} {bar:<{_BARS}} {count:>11,.0f}")
    scale = "".join(f"{10**k:<{round(step * (k + 1)) - round(step * k)},}" for k in range(int(math.log10(most)) + 1))
    return "\n".join([f"{'nodes':>5}  {'messages':<12} {scale.rstrip()}", *lines])


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Count the messages of an election and of an idle second.")
    sizes = ",".join(map(str, SIZES))
    parser.add_argument("--nodes", default=sizes, metavar="N,N,...", help="which sizes (default: %(default)s)")
    parser.add_argument("--peace-ms", type=int, default=0, help="virtual time counted (default: --down-after-ms)")
    parser.add_argument("--down-after-ms", type=int, default=Timing().down_after_ms)
    parser.add_argument("--json", action="store_true")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Exit code 2 for sizes that are none."""
    options = _arguments(argv)
    try:
        sizes = [int(size) for size in options.nodes.split(",")]
    except ValueError:
        sizes = []
    if not sizes or min(sizes) < 2:
        print(f"--nodes {options.nodes}: name sizes from 2, as in --nodes 3,5,7", file=sys.stderr)
        return 2
    rows = []
    for size in sizes:
        row = measured(size, peace_ms=options.peace_ms, down_after_ms=options.down_after_ms)
        rows.append(row)
        print(f"{size} nodes: {row.events:,} events in {row.took_s:.1f} s", file=sys.stderr, flush=True)
    print(json.dumps([asdict(row) for row in rows], indent=2) if options.json else f"{table(rows)}\n\n{chart(rows)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
