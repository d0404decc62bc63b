"""How an election went, for people who ask why: every round with every answer, and when things
happened. The candidate keeps it; no decision depends on it.
"""

from __future__ import annotations

from dataclasses import dataclass

MOST_ROUNDS = 20
"""A candidate keeps only its newest rounds: one that fails to be elected for a day has thousands."""


@dataclass(frozen=True, slots=True)
class Vote:
    """One voter's answer: `reason` is empty when granted. Voter 0 is the witness."""

    voter: int
    granted: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Round:
    """One round of vote requests, from `began_us` to `ended_us`. `outcome`: won, failed (refused, or
    too few answers in time) or overtaken (by a controller or a higher term)."""

    term: int
    pre: bool
    began_us: int
    ended_us: int
    outcome: str
    votes: tuple[Vote, ...]


@dataclass(frozen=True, slots=True)
class ElectionTrace:
    """From the last message of the previous controller until this node was active. `heard_us`: when that
    controller was heard last, `lost_us`: when this node noticed that it was gone (both -1: none was known);
    `elected_us`: when the vote was won; `active_since_us`: when this node became active. `asked`: who asked
    the previous controller to hand over, and why; empty where nobody did."""

    heard_us: int
    lost_us: int
    elected_us: int
    active_since_us: int
    rounds: tuple[Round, ...]
    asked: str = ""
