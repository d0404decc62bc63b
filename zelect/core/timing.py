"""Durations and the inequalities between them (R3, R5, R8), checked in this one place.

The whole safety argument of the lease is one inequality. A controller is active until
`lease_ms` after it *sent* a PING that a quorum answered; each of those voters keeps its promise
for `election_timeout_ms` after it *received* that PING, which is later. With clocks that run at
most `drift_ppm` fast or slow, the controller stops being active before the first promise ends as long as

    lease * (1 + drift)  <  election_timeout * (1 - drift)

and the difference is the time that a controller has between its last look at the clock and the effect
of what it then does, even if it is paused in between. (Ongaro's thesis, section 6.4.1; its lease is a
read lease, the argument is the same.)
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

MAX_TERM = 2**53 - 1
"""Largest term: Redis scripts hold numbers as doubles (R14)."""
MAX_TERM_JUMP = 2**20
"""A term further ahead than this can't be genuine, and is refused (R14)."""
MAX_TERM_HEARD = MAX_TERM - MAX_TERM_JUMP
"""A higher term is refused, whatever its source: there would be no room left for elections."""
MAX_NODE_ID = 65_535
LIVES_PERCENT = 75
"""A controller that the witness acknowledged more recently than this part of the controller's election timeout is alive
to it (R12). Below 100, so that after the end of its promise a candidate need not wait again for one that is gone."""


def jumps(own_term: int, claimed: int) -> bool:
    """Whether a claimed term is too far ahead of this node's to be true, whatever its source: a peer or Redis (R14).
    A node that never had a term may join a cluster of any age."""
    return claimed > MAX_TERM_HEARD or 0 < own_term < claimed - MAX_TERM_JUMP


class Proof(StrEnum):
    """Which evidence proves a process dead (R9)."""

    REFUSED = "refused"
    PROCESS = "process"
    NONE = "none"


@dataclass(frozen=True)
class Timing:
    """Durations of the election in milliseconds. The core reads them in microseconds, dozens of times
    a heartbeat, so each is computed once.

    `heartbeat_ms`: a controller sends a PING this often. `election_timeout_ms`: how long an
    answered PING binds the voter. `lease_ms`: how long a PING that a quorum answered keeps the
    controller active. `stagger_ms`: successor r waits r times this. `down_after_ms`: a member
    not heard for so long counts as gone. `drift_ppm`: how far a clock's rate may be off, in
    millionths. `proof`: which evidence of death is accepted.
    """

    heartbeat_ms: int = 100
    election_timeout_ms: int = 500
    lease_ms: int = 400
    stagger_ms: int = 20
    down_after_ms: int = 2000
    drift_ppm: int = 1000
    proof: Proof = Proof.REFUSED

    @cached_property
    def heartbeat_us(self) -> int:
        return self.heartbeat_ms * 1000

    @cached_property
    def promise_us(self) -> int:
        """How long an answered PING binds the voter: one election timeout."""
        return self.election_timeout_ms * 1000

    @cached_property
    def lease_us(self) -> int:
        return self.lease_ms * 1000

    @cached_property
    def stagger_us(self) -> int:
        return self.stagger_ms * 1000

    @cached_property
    def down_after_us(self) -> int:
        return self.down_after_ms * 1000

    @cached_property
    def vote_wait_us(self) -> int:
        """How long one round of vote requests waits for its answers: a heartbeat, which must be longer
        than the network's round-trip anyway."""
        return self.heartbeat_us

    @cached_property
    def idle_ping_us(self) -> int:
        """Interval of the PINGs among followers."""
        return max(1_000_000, 5 * self.heartbeat_us)

    @cached_property
    def refresh_us(self) -> int:
        """Interval at which the controller's record and each node's entry are refreshed in Redis: half the
        shortest time to live there, and short enough for the record to be right within two seconds
        after Redis is back."""
        return 1_000_000

    def problems(self) -> list[tuple[str, str]]:
        """Every broken inequality as (key, explanation with the fix); empty when all hold."""
        found: list[tuple[str, str]] = []
        for key, least, most in (
            ("heartbeat_ms", 5, 60_000),
            ("election_timeout_ms", 20, 600_000),
            ("lease_ms", 10, 600_000),
            ("stagger_ms", 1, 60_000),
            ("down_after_ms", 20, 3_600_000),
            ("drift_ppm", 0, 100_000),
        ):
            value = getattr(self, key)
            if not least <= value <= most:
                found.append((key, f"is {value}, but must lie between {least} and {most}"))
        if found:
            return found
        drift = self.drift_ppm
        longest_lease = self.lease_ms * (1_000_000 + drift)
        shortest_promise = self.election_timeout_ms * (1_000_000 - drift)
        margin_ms = (shortest_promise - longest_lease) / 1_000_000
        needed_ms = self.election_timeout_ms / 20
        if margin_ms < needed_ms:
            limit = int((shortest_promise - needed_ms * 1_000_000) // (1_000_000 + drift))
            found.append(
                (
                    "lease_ms",
                    f"is {self.lease_ms}, but a lease must end before the voters' promises do: with "
                    f"election_timeout_ms = {self.election_timeout_ms} and drift_ppm = {drift} the "
                    f"most is {limit}; lower lease_ms or raise election_timeout_ms",
                )
            )
        if self.lease_ms < 2 * self.heartbeat_ms:
            found.append(
                (
                    "heartbeat_ms",
                    f"is {self.heartbeat_ms}, but a lease of {self.lease_ms} ms must survive one "
                    f"lost heartbeat: at most lease_ms / 2 = {self.lease_ms // 2}",
                )
            )
        if self.stagger_ms >= self.election_timeout_ms:
            found.append(
                (
                    "stagger_ms",
                    f"is {self.stagger_ms}, but must be below election_timeout_ms = "
                    f"{self.election_timeout_ms}: the second successor would wait longer than a "
                    "whole election",
                )
            )
        if self.down_after_ms < self.election_timeout_ms:
            found.append(
                (
                    "down_after_ms",
                    f"is {self.down_after_ms}, but must be at least election_timeout_ms = "
                    f"{self.election_timeout_ms}: a member must not count as gone while its "
                    "promise still runs",
                )
            )
        return found
