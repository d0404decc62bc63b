"""Hostile input, three ways.

    python tools/fuzz.py messages --count 10000000 --seed 1 --jobs 2
    python tools/fuzz.py messages --seed 1 --block 26                one block again, with its frames when it fails
    python tools/fuzz.py reader json --count 1000000 --seed 1        or redis, or shown
    python tools/fuzz.py live --address tcp://127.0.0.1:7101 --cluster demo --connections 100000
    python tools/fuzz.py live -c keys/n1.toml --connections 100000   a node by its configuration, with its keys

`messages`: mutated messages through wire and machine, without a network. Everything follows from the seed.
`reader`: what others wrote, mutated, for one of the readers: JSON, Redis' answers, text that is shown.
`live`: hostile connections against a node that runs, which is asked for its status all the while. On
loopback only, at a bounded rate, for a bounded time. The seed is printed first. Exit code 1 when
something was found, 2 when it could not run.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tools.fuzzer.honest import honest_answers, honest_texts
from tools.fuzzer.live import LiveError, attack_node
from tools.fuzzer.machine import BLOCK, Finding, blocks
from tools.fuzzer.readers import fuzz_json, fuzz_redis, fuzz_shown
from zelect.config.loading import ConfigError, load
from zelect.security.keys import ClientKeys, keyring_to_ask

_SAY_EVERY_S = 10.0


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Send hostile input to the machine, or to a running node.")
    parser.add_argument("--json", default="", metavar="FILE", help="write the figures there")
    kinds = parser.add_subparsers(dest="kind", required=True)
    messages = kinds.add_parser("messages", help="mutated messages through wire and machine")
    messages.add_argument("--count", type=int, default=200_000)
    messages.add_argument("--seed", type=int, default=None)
    messages.add_argument("--block", type=int, default=None, help="only this block of the seed")
    messages.add_argument("--jobs", type=int, default=1)
    messages.add_argument("--most", type=int, default=5, help="stop after so many findings")
    reader = kinds.add_parser("reader", help="mutated texts and answers for one of the readers of what others wrote")
    reader.add_argument("reader", choices=("json", "redis", "shown"))
    reader.add_argument("--count", type=int, default=100_000)
    reader.add_argument("--seed", type=int, default=None)
    live = kinds.add_parser("live", help="hostile connections against a node that runs, on loopback")
    live.add_argument("--address", help="tcp://HOST:PORT of the node, which speaks plain text")
    live.add_argument("--cluster", help="the cluster's name")
    live.add_argument("-c", "--config", metavar="FILE", help="instead: the node's configuration, with keys or without")
    live.add_argument("--connections", type=int, default=2000)
    live.add_argument("--rate", type=int, default=1000, help="connections begun in a second, at most (%(default)s)")
    live.add_argument("--most-s", type=float, default=600.0, help="give up after so many seconds (%(default)s)")
    live.add_argument("--seed", type=int, default=None)
    return parser.parse_args(argv)


def _seed(options: argparse.Namespace) -> int:
    seed: int = options.seed if options.seed is not None else random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}", flush=True)
    return seed


def _messages(options: argparse.Namespace) -> tuple[bool, dict[str, object]]:
    seed = _seed(options)
    first = 0 if options.block is None else options.block
    numbers = range(first, first + (1 if options.block is not None else -(-options.count // BLOCK)))
    began, said, outcomes, findings = time.monotonic(), time.monotonic(), Counter[str](), list[Finding]()
    done, by_position = 0, Counter[str]()
    for block in blocks(seed, numbers, options.jobs):
        done += block.messages
        outcomes.update(block.outcomes)
        by_position[block.position] += block.messages
        if block.finding is not None:
            findings.append(block.finding)
            _show(seed, block.finding, options.block is not None)
            if len(findings) >= options.most:
                break
        if time.monotonic() - said >= _SAY_EVERY_S:
            said = time.monotonic()
            print(f"{done} messages, {done / (said - began):.0f} a second", flush=True)
    took_s = time.monotonic() - began
    refused = sum(n for name, n in outcomes.items() if name.startswith("malformed_"))
    gated = sum(n for name, n in outcomes.items() if name[0].islower()) - refused
    print(f"{done} messages in {took_s:.1f} s, {done / took_s:.0f} a second; {len(findings)} findings")
    print(f"{refused} malformed, {gated} refused at the gate, {done - refused - gated} handled")
    print("outcomes: " + ", ".join(f"{name} {count}" for name, count in outcomes.most_common()))
    print("positions: " + ", ".join(f"{name} {count}" for name, count in by_position.items()))
    return bool(findings), {
        "seed": seed,
        "messages": done,
        "seconds": took_s,
        "outcomes": dict(outcomes),
        "positions": dict(by_position),
        "findings": [f"block {one.block}, {one.position}: {one.text}" for one in findings],
    }


def _show(seed: int, finding: Finding, whole: bool) -> None:
    print(f"block {finding.block}, {finding.position}: {finding.text}", flush=True)
    if not whole:
        print(f"  again: python tools/fuzz.py messages --seed {seed} --block {finding.block}", flush=True)
        return
    for frame in finding.frames:
        print(f"  {frame}", flush=True)


def _reader(options: argparse.Namespace) -> tuple[bool, dict[str, object]]:
    seed = _seed(options)
    rng, began = random.Random(seed), time.monotonic()
    if options.reader == "json":
        done = fuzz_json(rng, options.count, honest_texts())
    elif options.reader == "redis":
        done = fuzz_redis(rng, options.count, honest_answers())
    else:
        done = fuzz_shown(rng, options.count)
    took_s = time.monotonic() - began
    rate = options.count / took_s
    print(f"{options.count} inputs in {took_s:.1f} s, {rate:.0f} a second; {len(done.findings)} findings")
    print("outcomes: " + ", ".join(f"{name} {count}" for name, count in done.outcomes.most_common()))
    for finding in done.findings[:20]:
        print(finding)
    figures = {"seed": seed, "inputs": options.count, "seconds": took_s, "outcomes": dict(done.outcomes)}
    return bool(done.findings), {**figures, "findings": done.findings[:20]}


def _target(options: argparse.Namespace) -> tuple[str, str, ClientKeys | None]:
    """The address, the cluster, and how to speak there. Raises `LiveError`."""
    if options.config is None:
        if not options.address or not options.cluster:
            raise LiveError("name the node: -c FILE, or --address and --cluster")
        return options.address, options.cluster, None
    config = load(Path(options.config))
    node, keyring = config.node.id, keyring_to_ask(config)
    lock = None if keyring is None else keyring.to(node)
    return config.settings().addresses[node], config.cluster.name, lock


def _live(options: argparse.Namespace) -> tuple[bool, dict[str, object]]:
    address, cluster, lock = _target(options)
    seed = _seed(options)
    outcome = attack_node(
        *(address, cluster, seed, options.connections, options.rate, options.most_s),
        say=lambda text: print(text, flush=True),
        lock=lock,
    )
    done, problems = outcome.done, outcome.problems
    made = sum(done.made.values())
    how = "in plain text" if lock is None else "to a node that speaks CURVE"
    print(f"{made} connections {how} in {done.seconds:.1f} s, {made / done.seconds:.0f} a second")
    print("  " + ", ".join(f"{kind} {count}" for kind, count in sorted(done.made.items())))
    print("hung up: " + ", ".join(f"{kind} {count}" for kind, count in sorted((+done.hung_up).items())))
    if done.unanswered:
        print("not answered: " + ", ".join(f"{kind} {count}" for kind, count in done.unanswered.items()))
    if done.failed:
        print("not made: " + ", ".join(f"{reason} {count}" for reason, count in done.failed.items()))
    print(
        f"{outcome.answers} answers meanwhile; the slowest after {1000 * outcome.slowest_s:.0f} ms, "
        f"the longest silence {1000 * outcome.silent_s:.0f} ms"
    )
    failed = {name: count for name, count in outcome.grown.items() if name.startswith("link_handshakes_")}
    print(f"handshakes that failed: {sum(failed.values())} ({failed})")
    print("counted: " + ", ".join(f"{name} {count}" for name, count in sorted(outcome.grown.items())))
    print(f"memory of the node: {outcome.memory_kb[0]} KiB before, {outcome.memory_kb[1]} KiB after")
    for problem in problems:
        print(problem)
    return bool(problems), {
        "seed": seed,
        "mechanism": "NULL" if lock is None else "CURVE",
        "connections": dict(done.made),
        "hung_up": dict(done.hung_up),
        "seconds": done.seconds,
        "answers": outcome.answers,
        "slowest_ms": 1000 * outcome.slowest_s,
        "silent_ms": 1000 * outcome.silent_s,
        "counted": dict(outcome.grown),
        "due": dict(done.due),
        "unanswered": dict(done.unanswered),
        "problems": problems,
    }


def main(argv: list[str] | None = None) -> int:
    """Exit code 1 when something was found."""
    options = _arguments(argv)
    try:
        found, figures = {"messages": _messages, "reader": _reader, "live": _live}[options.kind](options)
    except (LiveError, ConfigError, ValueError) as error:
        print(f"fuzz: {error}", file=sys.stderr)
        return 2
    if options.json:
        Path(options.json).write_text(json.dumps(figures, indent=2) + "\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
