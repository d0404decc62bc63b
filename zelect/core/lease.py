"""The lease (R5): how long a controller may act on the answers that it has.

It ends `lease_ms` after the *send* time of the newest numbered PING that a quorum answered. The send
time, because each voter's promise begins when it receives the PING, which can't be earlier. Counted
from the arrival of the answer, a slow answer would stretch the lease past the promise (Ongaro's
thesis, section 6.4.1, has the same rule for leases of reads).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from zelect.core.quorum import quorum_size

NEVER_US = 2**62
"""A deadline that never comes."""


@dataclass(frozen=True, slots=True)
class Lease:
    """How far a leadership reaches now: its holder may act in `term` while the clock is before
    `lapses_us`, and must look at the clock each time (R5). A value, so that it can be passed to
    another thread as a whole."""

    term: int
    active_since_us: int
    lapses_us: int


def renewed_us(voters: Collection[int], answered_us: Mapping[int, int]) -> int | None:
    """Send time of the newest PING that a quorum of `voters` answered.

    `answered_us` maps a voter to the send time of the newest PING that it answered (the
    controller itself answers its own). None when no PING has been answered by a quorum.
    """
    times = [answered_us[m] for m in voters if m in answered_us]
    needed = quorum_size(voters)
    if len(times) < needed:
        return None
    times.sort()
    return times[-needed]
