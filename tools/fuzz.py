"""Hostile input, two ways.

    python tools/fuzz.py messages --count 10000000 --seed 1 --jobs 2
    python tools/fuzz.py messages --seed 1 --block 26                one block again, with its frames when it fails
    python tools/fuzz.py live --port 7101 --cluster demo --connections 100000

`messages`: mutated messages through wire and machine, without a network. Everything follows from the seed.
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

from tools.fuzzing.machine import BLOCK, Finding, blocks

__all__ = ["main"]

_SAY_EVERY_S = 10.0


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tools.fuzz", description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--json", default="", metavar="FILE", help="write the figures there")
    kinds = parser.add_subparsers(dest="kind", required=True)
    messages = kinds.add_parser("messages", help="mutated messages through wire and machine")
    messages.add_argument("--count", type=int, default=200_000)
    messages.add_argument("--seed", type=int, default=None)
    messages.add_argument("--block", type=int, default=None, help="only this block of the seed")
    messages.add_argument("--jobs", type=int, default=1)
    messages.add_argument("--most", type=int, default=5, help="stop after so many findings")
    return parser.parse_args(argv)


def _messages(options: argparse.Namespace) -> tuple[bool, dict[str, object]]:
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}", flush=True)
    first = 0 if options.block is None else options.block
    numbers = range(first, first + (1 if options.block is not None else -(-options.count // BLOCK)))
    began, said, outcomes, findings = time.monotonic(), time.monotonic(), Counter[str](), list[Finding]()
    done, by_stand = 0, Counter[str]()
    for block in blocks(seed, numbers, options.jobs):
        done += block.messages
        outcomes.update(block.outcomes)
        by_stand[block.stand] += block.messages
        if block.finding is not None:
            findings.append(block.finding)
            _tell(seed, block.finding, options.block is not None)
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
    print("stands: " + ", ".join(f"{name} {count}" for name, count in by_stand.items()))
    return bool(findings), {
        "seed": seed,
        "messages": done,
        "seconds": took_s,
        "outcomes": dict(outcomes),
        "stands": dict(by_stand),
        "findings": [f"block {one.block}, {one.stand}: {one.text}" for one in findings],
    }


def _tell(seed: int, finding: Finding, whole: bool) -> None:
    print(f"block {finding.block}, {finding.stand}: {finding.text}", flush=True)
    if not whole:
        print(f"  again: python tools/fuzz.py messages --seed {seed} --block {finding.block}", flush=True)
        return
    for frame in finding.frames:
        print(f"  {frame}", flush=True)


def main(argv: list[str] | None = None) -> int:
    """Exit code 1 when something was found."""
    options = _arguments(argv)
    found, figures = _messages(options)
    if options.json:
        Path(options.json).write_text(json.dumps(figures, indent=2) + "\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
