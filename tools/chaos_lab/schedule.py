"""What is done when: a function of the seed, the number of nodes and the kinds of faults."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tools.chaos_lab.fault import Fault, PlannedFault

_COMBINED = 0.2


@dataclass(frozen=True, slots=True)
class PlannedRound:
    """One round: its faults overlap, in their order; afterwards all is healed, and `quiet_ms` pass."""

    number: int
    faults: tuple[PlannedFault, ...]
    quiet_ms: int


def rounds(seed: int, nodes: int, faults: Sequence[Fault]) -> Iterator[PlannedRound]:
    """The rounds, without end. Kinds are dealt like cards: each comes once before any comes again.
    Every fifth round or so combines two."""
    rng = random.Random(f"{seed}/{nodes}/{','.join(fault.name for fault in faults)}")
    hand: list[Fault] = []
    number = 0
    while True:
        planned = []
        first = draw(rng, hand, faults)
        planned.append(first.plan(rng, nodes))
        if rng.random() < _COMBINED:
            fit = [fault for fault in faults if _fits(first, fault)]
            if fit:
                planned.append(rng.choice(fit).plan(rng, nodes))
        yield PlannedRound(number, tuple(planned), rng.randint(20, 250))
        number += 1


def draw(rng: random.Random, hand: list[Fault], faults: Sequence[Fault]) -> Fault:
    """The next kind of `hand`, which is dealt again from `faults` when it is empty."""
    if not hand:
        hand.extend(faults)
        rng.shuffle(hand)
    return hand.pop()


def _fits(one: Fault, other: Fault) -> bool:
    """Whether two kinds may meet: not twice the same, not two of Redis, where one would keep the other
    from being done, and not two losses of memory, which together can lose the voters for good,
    as they may."""
    if one.name == other.name or one.alone or other.alone:
        return False
    return not (one.registry and other.registry) and not (one.forgets and other.forgets)
