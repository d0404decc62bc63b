"""Measures zelect as it runs: a real cluster on this host, with real faults.

    python tools/bench.py failover [--fault kill|freeze|term] [--trials N] [--nodes 3] [--redis-kill]
    python tools/bench.py flood [--trials N] [--secure] [--connections N] [--frames N]
    python tools/bench.py lone [--trials N]
    python tools/bench.py majority [--trials N] [--quorum static|dynamic|both]
    python tools/bench.py recover [--trials N]
    python tools/bench.py idle [--seconds S] [--nodes N]
    python tools/bench.py start [--trials N] [--nodes N]
    python tools/bench.py disk [--trials N] [--sync 0,20,50,100,500]

`failover --against DIR` and `idle --against DIR` measure another checkout of zelect in the same
run; with `--secure` they compare encrypted links with plain text. What each of them does is in docs/testing.md.

Nodes are child processes on their own configurations, Redis is the bundled server, ports are free
ones below the ephemeral range. What is waited for is what a user of zelect would wait for: the
change of controller on Redis' channel, read from a plain socket. With `--redis-kill` Redis dies
just before the controller, and the successor's log line `became_active` is waited for instead.
After SIGTERM the time without anybody active counts from the change to nobody; with
`--redis-kill` from the signal.

A figure alone says little on a shared machine, so floors are taken between the trials of the same
run: how soon a bare process's death can be seen, what a ZeroMQ round trip, a synced write and a
script cost. Times are in milliseconds. All processes end with this one, Ctrl-C or not.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tools.benchmarks import failover, flood, idle, last_survivor, majority, recover, slow_disks, start
from tools.benchmarks.figures import show_header, show_seed
from tools.common.checkout import JsonDict, ToolError, positive
from zelect.devcluster.bundled_server import NoServer, ServerFailed


@dataclass(frozen=True, slots=True)
class _Bench:
    """One subcommand. `trials`: by default, 0 for none; `needs`: why it needs three nodes."""

    text: str
    add_options: Callable[[argparse.ArgumentParser], None]
    measure: Callable[[argparse.Namespace], JsonDict]
    show: Callable[[JsonDict], None]
    trials: int
    needs: str = ""


_BENCHES = {
    "failover": _Bench(
        "how soon a successor is active",
        failover.add_options,
        failover.measure,
        failover.show,
        30,
        "a failover needs at least --nodes 3: with fewer, nobody can be elected after a fault",
    ),
    "flood": _Bench(
        "an election among hostile connections",
        flood.add_options,
        flood.measure,
        flood.show,
        20,
        "a failover needs at least --nodes 3: with fewer, nobody can be elected after a fault",
    ),
    "lone": _Bench(
        "how soon the last of three nodes is active, with the witness",
        last_survivor.add_options,
        last_survivor.measure,
        last_survivor.show,
        20,
        "needs at least --nodes 3: the voters shrink to two and the witness",
    ),
    "majority": _Bench(
        "what happens when a majority dies at once",
        majority.add_options,
        majority.measure,
        majority.show,
        10,
        "a majority that dies needs at least --nodes 3",
    ),
    "recover": _Bench(
        "how soon Redis' record is right again",
        recover.add_options,
        recover.measure,
        recover.show,
        10,
        "an election without Redis needs at least --nodes 3",
    ),
    "idle": _Bench("processor time and memory of an idle cluster", idle.add_options, idle.measure, idle.show, 0),
    "disk": _Bench(
        "how soon a controller is active where disks are slow",
        slow_disks.add_options,
        slow_disks.measure,
        slow_disks.show,
        5,
        "a failover needs at least --nodes 3: with fewer, nobody can be elected after a fault",
    ),
    "start": _Bench("how long a start takes", start.add_options, start.measure, start.show, 5),
}


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure a real cluster on this host.")
    benches = parser.add_subparsers(dest="bench", required=True)
    for name, bench in _BENCHES.items():
        one = benches.add_parser(name, help=bench.text, description=bench.text)
        one.add_argument("--nodes", type=positive, default=3, help="default: 3")
        one.add_argument("--json", action="store_true", help="all samples, as JSON")
        one.add_argument("--seed", type=int, default=random.randrange(2**32), help="default: a new one")
        if bench.trials:
            one.add_argument("--trials", type=positive, default=bench.trials, help="default: %(default)s")
        bench.add_options(one)
    options = parser.parse_args(arguments)
    needs = _BENCHES[options.bench].needs
    if needs and options.nodes < 3:
        parser.error(needs)
    if options.bench == "majority" and (wrong := majority.check(options)):
        parser.error(wrong)
    return options


def _stop(number: int, frame: FrameType | None) -> None:
    for other in (signal.SIGINT, signal.SIGTERM):
        signal.signal(other, signal.SIG_IGN)  # the end of the processes must not be interrupted
    sys.exit(128 + number)


def main(arguments: Sequence[str]) -> int:
    options = _options(arguments)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    bench = _BENCHES[options.bench]
    if not options.json:
        show_seed(options)
    try:
        result = bench.measure(options)
    except (ToolError, NoServer, ServerFailed) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    if options.json:
        print(json.dumps(result, indent=1))
        return 0
    show_header(result)
    bench.show(result)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
